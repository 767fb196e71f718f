"""What a model's training record says of a plan's cases: which it was trained on, which not.

A case of a plan is a case of the record where one of its frames has the pixels of one of the
record's frames, at native resolution. Ids are not compared: two datasets may use the same ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from echogen.planning.plan import PlannedFrame
from echogen.support.words import counted

TRAINING_SPLITS = frozenset({"", "train", "training"})
"""Splits that a network may be trained on; results are reported on all others."""
NAMED = 3


def leakage_notes(
    model: str, training: Mapping[str, Any], frames: Sequence[PlannedFrame]
) -> tuple[str, ...]:
    """One line for each way in which results could come out better than they are.

    Args:
        model: the checkpoint's name.
        training: its training record; `cases` has {"trained": {case id: [digest, ...]}, "held_out":
            the same}. A record without digests gives no lines.
        frames: the frames to be painted.
    """
    of_record = training.get("cases")
    if not isinstance(of_record, Mapping):
        return ()
    of_plan: dict[str, list[PlannedFrame]] = defaultdict(list)
    for frame in frames:
        of_plan[frame.case_id].append(frame)
    held_out = _shared(of_plan, of_record.get("held_out"))
    trained = _shared(of_plan, of_record.get("trained"))
    notes = []
    if held_out:
        frame_count = sum(len(of_plan[case]) for case in held_out)
        they, them = ("it was", "it") if len(held_out) == 1 else ("they were", "them")
        notes.append(
            f"{model} was not trained on {_cases(held_out)}, {counted(frame_count, 'frame')} here: "
            f"{they} held out to measure it on. Whoever trains on copies of {them} can no longer "
            f"use {them} for that: leave {them} out of this run, or measure on other cases."
        )
    by_split: dict[str, list[str]] = defaultdict(list)
    for case in trained:
        for split in {frame.split for frame in of_plan[case]}:
            if split.lower() not in TRAINING_SPLITS:
                by_split[split].append(case)
    for split, cases in sorted(by_split.items()):
        them = "it" if len(cases) == 1 else "them"
        notes.append(
            f"{model} was trained on {_cases(cases)} of the {split} split, and paints what it has "
            f"learnt from {them}: results on that split come out too good. Leave {them} out, or "
            f"use a model that was not trained on {them}."
        )
    return tuple(notes)


def _shared(of_plan: Mapping[str, Iterable[PlannedFrame]], of_record: Any) -> list[str]:
    """The plan's cases that show a frame of the record's, sorted."""
    if not isinstance(of_record, Mapping):
        return []
    lists = [digests for digests in of_record.values() if isinstance(digests, list)]
    known = {digest for digests in lists for digest in digests if isinstance(digest, str)}
    return sorted(
        case
        for case, frames in of_plan.items()
        if any(frame.digest and frame.digest in known for frame in frames)
    )


def _cases(cases: Sequence[str]) -> str:
    """`patient0004`, or `12 cases (patient0004, patient0005, patient0013, ...)`."""
    if len(cases) == 1:
        return cases[0]
    return f"{len(cases)} cases ({', '.join(cases[:NAMED])}{', ...' * (len(cases) > NAMED)})"
