"""Which rows of a store are exported."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.config import DatasetConfig
from echogen.datasets.selection import select
from echogen.errors import StoreError, UsageError
from echogen.planning.record import frame_keys
from echogen.store import Status, StoreReader, StoreRecord
from echogen.support.settings import Names
from echogen.support.words import counted

STATUSES = {"done": Status.DONE, "rejected": Status.REJECTED, "failed": Status.FAILED}


@dataclass(frozen=True)
class Selection:
    """What is asked for; empty means everything.

    Attributes:
        views, phases: compared without regard to case.
        split: of the dataset's own lists.
        cases: shell patterns of case ids.
        copies: `originals`, `copies`, or numbers such as `0,1,2`; 0 is the original.
        statuses: of `done`, `rejected` and `failed`; files are made of `done` rows only.
    """

    views: Names = ()
    phases: Names = ()
    split: str = ""
    cases: Names = ()
    copies: str = ""
    statuses: Names = ()


@dataclass(frozen=True)
class Excerpt:
    """The rows that are exported, and what the store says of them.

    Attributes:
        store: its path.
        record: its root attribute.
        kind: `expanded` or `generated`.
        rows: (n,) rows of the store, rising.
        columns: {name: (n,) or (n, k)} of these rows.
        of: rows of the store.
        pending: rows that fit but are still to be made.
        notes: what a user should know of what was left out.
    """

    store: Path
    record: StoreRecord
    kind: str
    rows: npt.NDArray[np.int64]
    columns: Mapping[str, npt.NDArray[Any]]
    of: int
    pending: int
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: npt.NDArray[np.int64]) -> "Excerpt":
        """Some of the rows, by their places here."""
        columns = {name: values[which] for name, values in self.columns.items()}
        return replace(self, rows=self.rows[which], columns=columns)

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of the rows' ids and pixels as the store records them."""
        digest = hashlib.sha256()
        for name in ("sample_id", "copy", "status", "sha256"):
            digest.update("\n".join(map(repr, self.columns[name].tolist())).encode())
        return digest.hexdigest()


def choose(
    store: StoreReader, selection: Selection, default: tuple[str, ...], allow_unfinished: bool
) -> Excerpt:
    """The rows of `store` that `selection` asks for.

    Args:
        store: opened for reading.
        selection: what is asked for.
        default: the statuses that are taken where `selection` names none.
        allow_unfinished: take what is done of a store whose run has not ended.

    Raises:
        StoreError: the store is unfinished.
        UsageError: a value that no row has, or nothing is left; the message names what is there.
    """
    if not (store.complete or allow_unfinished):
        raise StoreError(
            f"{store.path} is unfinished: its run was interrupted or is still going. Run the same "
            "`echogen expand` command again, or use --allow-unfinished to export what is done."
        )
    columns = store.columns
    fits = _fitting(columns, selection) & _copies(columns["copy"], selection.copies)
    status = columns["status"]
    statuses = selection.statuses or default
    for name in statuses:
        if name not in STATUSES:
            raise UsageError(f"--status {name}: expected {', '.join(STATUSES)}.")
    wanted = fits & np.isin(status, [STATUSES[name] for name in statuses])
    if not wanted.any():
        raise UsageError(
            f"selection: none of the {counted(len(status), 'row')} of {store.path} fits; of those "
            f"that fit but for their status or copy, {_by_status(status[fits])}; copies there: "
            f"{_listed(np.unique(columns['copy']).tolist())}."
        )
    left_out = fits & ~wanted & (status != Status.PENDING)
    pending = int((fits & (status == Status.PENDING)).sum())
    notes = []
    if left_out.any():
        notes.append(f"left out by their status: {_by_status(status[left_out])}.")
    if pending:
        notes.append(f"the store is unfinished: {counted(pending, 'row')} still to be made.")
    elif not store.complete:
        notes.append("the store is not marked complete; give its `echogen` command again.")
    rows = np.flatnonzero(wanted)
    return Excerpt(
        store=store.path,
        record=store.record,
        kind=store.kind,
        rows=rows,
        columns={name: columns[name][rows] for name in columns},
        of=len(store),
        pending=pending,
        notes=tuple(notes),
    )


def _fitting(
    columns: Mapping[str, npt.NDArray[Any]], selection: Selection
) -> npt.NDArray[np.bool_]:
    """Rows whose frames fit: the same flags and messages as for a dataset."""
    keys = frame_keys(columns)
    config = DatasetConfig(
        views=selection.views,
        phases=selection.phases,
        split=selection.split,
        cases=selection.cases,
    )
    fitting = set(select(sorted(set(keys), key=lambda key: key.frame_id), config))
    return np.array([key in fitting for key in keys], dtype=np.bool_)


def _copies(copy: npt.NDArray[Any], wanted: str) -> npt.NDArray[np.bool_]:
    if wanted in ("", "originals", "copies"):
        original = np.asarray(copy == 0)
        return {"": np.ones_like(original), "originals": original, "copies": ~original}[wanted]
    there = set(copy.tolist())
    numbers = []
    for part in wanted.split(","):
        if not part.strip().isdecimal():
            raise UsageError(
                f"--copies {wanted}: expected originals, copies, or numbers such as 0,1,2."
            )
        number = int(part)
        if number not in there:
            raise UsageError(
                f"--copies {number}: not in this store; it has {_listed(sorted(there))}."
            )
        numbers.append(number)
    return np.isin(copy, numbers)


def _by_status(status: npt.NDArray[Any]) -> str:
    counts = [f"{int((status == kind).sum())} {kind.name.lower()}" for kind in Status]
    return ", ".join(text for text in counts if not text.startswith("0 ")) or "none"


def _listed(values: list[int]) -> str:
    shown = ", ".join(str(value) for value in values[:10])
    return shown if len(values) <= 10 else f"{shown}, ... to {values[-1]}"
