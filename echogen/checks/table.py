"""The columns of a store against its own settings: what can be judged without a pixel."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from echogen.checks.finding import Finding, Severity, error, note, warning
from echogen.config import TransformConfig
from echogen.errors import StoreError
from echogen.geometry.transforms import IDENTITY, MOVES
from echogen.planning.plan import sample_seed
from echogen.store import Status, StoreReader, broken_seal, unreadable_columns
from echogen.store.schema import MAKE_AGAIN
from echogen.support.settings import explain
from echogen.support.words import counted

RANGED = ("depth", "tilt_deg", "width")  # moves with a range of their own
SLACK = 1e-5  # columns are float32
WANTED = ("version", "created", "plan_digest", "config", "seed", "checkpoint", "labels", "sampler")

Columns = Mapping[str, npt.NDArray[Any]]


def check_table(store: StoreReader) -> list[Finding]:
    """Attributes, tables and planned columns.

    Returns:
        What is wrong; where columns cannot be read, nothing else is looked at.
    """
    found = [
        error(
            "column",
            name,
            f"{reason}. It was planned, and cannot be repaired. {MAKE_AGAIN}",
        )
        for name, reason in unreadable_columns(store).items()
    ]
    found += _attributes(store)
    found += _seal(store)
    if any(finding.check == "column" for finding in found):
        return found
    try:
        columns = {name: store.columns[name] for name in store.columns}
    except StoreError:
        return found  # of outcomes: the rows are reported
    found += _rows(store, columns)
    found += _outcomes(store, columns)
    if store.kind == "expanded":
        found += _moves(store, columns)
        found += _moved_alike(columns)
    return found


def _attributes(store: StoreReader) -> Iterator[Finding]:
    missing = [name for name in WANTED if name not in store.record.model_fields_set]
    if missing:
        yield error(
            "attributes",
            "",
            f"the attribute `echogen` lacks {', '.join(missing)}; provenance is incomplete.",
        )


def _seal(store: StoreReader) -> Iterator[Finding]:
    try:
        broken = broken_seal(store)
    except StoreError:
        return  # of a planned column, which is reported
    if broken:
        yield error("seal", "", f"{broken}. {MAKE_AGAIN}")


def _rows(store: StoreReader, columns: Columns) -> Iterator[Finding]:
    ids = columns["sample_id"].tolist()
    names, counts = np.unique(columns["sample_id"], return_counts=True)
    for name in names[counts > 1].tolist():
        yield error("rows", name, "the sample id occurs more than once.")
    order = list(zip(columns["frame_id"].tolist(), columns["copy"].tolist(), strict=True))
    if order != sorted(order):
        yield error("rows", "", "rows are not in the order of (frame id, copy).")
    cases = {case["id"] for case in store.cases}
    for case in sorted(set(columns["case_id"].tolist()) - cases):
        yield error("rows", str(case), "the case is not in the table of cases.")
    root = store.record.seed
    if root is not None:
        clips = _clips(store, columns)
        for row, seed in enumerate(columns["seed"].tolist()):
            wanted = sample_seed(root, clips[row], int(columns["copy"][row]))
            if seed != wanted:
                yield error("seed", ids[row], f"its seed is {seed}, the plan's is {wanted}.")


def _clips(store: StoreReader, columns: Columns) -> list[str]:
    """What seeds are made of: each row's frame, or the sequence that it moves with."""
    frames = [str(name) for name in columns["frame_id"]]
    if store.kind != "expanded" or store.record.config.dataset.frames == "key":
        return frames
    recordings = zip(columns["case_id"], columns["view"], strict=True)
    sequences = [f"{case}_{view}" for case, view in recordings]
    return [
        sequence if re.fullmatch(re.escape(sequence) + r"_f\d{3,}", frame) else frame
        for frame, sequence in zip(frames, sequences, strict=True)
    ]


def _moved_alike(columns: Columns) -> Iterator[Finding]:
    """Frames of a sequence: all rows of one seed have one move and one outcome of the plan."""
    names = (*MOVES, "tries")
    first: dict[int, int] = {}
    for row, seed in enumerate(columns["seed"].tolist()):
        leader = first.setdefault(seed, row)
        if any(columns[name][row] != columns[name][leader] for name in names):
            there = columns["sample_id"][leader]
            message = f"its move is not that of {there}, with which it shares its seed."
            yield error("moves", str(columns["sample_id"][row]), message)


def _outcomes(store: StoreReader, columns: Columns) -> Iterator[Finding]:
    status, ids = columns["status"], columns["sample_id"]
    pending = int((status == Status.PENDING).sum())
    if pending and store.complete:
        yield error(
            "complete", "", f"it is marked complete, but {counted(pending, 'row')} pending."
        )
    elif not store.complete:
        nothing = not (status == Status.DONE).any()
        yield Finding(
            Severity.ERROR if nothing else Severity.WARNING,
            "complete",
            "",
            f"the run is unfinished, {pending} of {len(store)} rows are pending: run the same "
            "`echogen` command again.",
        )
    elif not (status == Status.DONE).any():
        yield error(
            "complete",
            "",
            f"no sample was made: all {len(store)} were rejected or failed, as `reason` says; "
            "change the settings, and make the store again with --overwrite.",
        )
    for row in np.flatnonzero((status == Status.FAILED) & ~store.condemned).tolist():
        reason = columns["reason"][row]
        yield warning("failed", str(ids[row]), f"{reason} (--repair tries it again.)")
    for row in np.flatnonzero(store.condemned).tolist():
        yield note("failed", str(ids[row]), f"{columns['reason'][row]}: nothing is to be mended.")
    pixels = columns["sha256"] != ""
    for row in np.flatnonzero(pixels != (status == Status.DONE)).tolist():
        if status[row] != Status.PENDING:
            name = Status(int(status[row])).name.lower()
            yield error(
                "status", str(ids[row]), f"its status is {name}, its SHA-256 says otherwise."
            )


def _moves(store: StoreReader, columns: Columns) -> Iterator[Finding]:
    try:
        transforms = TransformConfig(**store.record.config.transforms.recorded)
    except ValidationError as invalid:
        what = explain(invalid, TransformConfig)
        yield error("moves", "", f"the recorded transforms are none of this version's: {what}")
        return
    ids, copy = columns["sample_id"], columns["copy"]
    last = store.record.config.copies
    for row in np.flatnonzero(copy > last).tolist():
        yield error("copies", str(ids[row]), f"copy {copy[row]}, where {last} were asked for.")
    shift = np.hypot(columns["shift_x"].astype(float), columns["shift_y"].astype(float))
    drawn = {
        **{name: (columns[name], getattr(transforms, name), getattr(IDENTITY, name))
           for name in RANGED},
        "its shift": (shift, transforms.shift, 0.0),
    }  # fmt: skip
    for name, (values, (low, high), still) in drawn.items():
        slack = SLACK * max(1.0, abs(low), abs(high))
        inside = (values >= low - slack) & (values <= high + slack) & (copy > 0)
        for row in np.flatnonzero(~(inside | (values == still))).tolist():
            message = f"{name} is {values[row]:g}, outside of [{low:g}, {high:g}]."
            yield error("moves", str(ids[row]), message)
    for row in np.flatnonzero(columns["tries"] > transforms.max_tries).tolist():
        yield error("moves", str(ids[row]), f"{columns['tries'][row]} tries, more than allowed.")
