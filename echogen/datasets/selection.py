"""Which frames of a dataset a run takes."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from echogen.config import DatasetConfig
from echogen.errors import UsageError
from echogen.support.words import counted, one_line
from echogen.types import FrameKey


def present(keys: Iterable[FrameKey], name: str) -> tuple[str, ...]:
    """The distinct values of one field of the keys, sorted, without the empty one."""
    return tuple(sorted({getattr(key, name) for key in keys} - {""}))


def select(keys: Sequence[FrameKey], config: DatasetConfig) -> tuple[FrameKey, ...]:
    """The frames that `config` asks for, sorted by frame id.

    `views`, `phases` and `split` compare without regard to case, `cases` are shell patterns; a
    frame must satisfy all that are given. `limit` then keeps the first frames.

    Raises:
        UsageError: a view, phase, split or pattern that no frame has, or nothing is left.
    """
    _require_known("--views", config.views, present(keys, "view"))
    _require_known("--phases", config.phases, present(keys, "phase"))
    if config.split:
        _require_known("--split", (config.split,), present(keys, "split"))
    case_ids = present(keys, "case_id")
    for pattern in config.cases:
        if not any(fnmatchcase(case_id, pattern) for case_id in case_ids):
            raise UsageError(
                f"--cases {pattern}: matches none of the {counted(len(case_ids), 'case')}"
                + (f", such as {case_ids[0]}." if case_ids else ".")
            )
    chosen = sorted((key for key in keys if fits(key, config)), key=lambda key: key.frame_id)
    if not chosen:
        raise UsageError(
            f"selection: none of the {counted(len(keys), 'frame')} matches --views, --phases, "
            "--split and --cases together; use fewer of them."
        )
    return tuple(chosen[: config.limit])


def fits(key: FrameKey, config: DatasetConfig) -> bool:
    """Whether a frame has a view, phase, split and case that `config` asks for; see `select`."""
    return (
        (not config.views or key.view.lower() in {view.lower() for view in config.views})
        and (not config.phases or key.phase.lower() in {p.lower() for p in config.phases})
        and (not config.split or key.split.lower() == config.split.lower())
        and (not config.cases or any(fnmatchcase(key.case_id, case) for case in config.cases))
    )


def _require_known(flag: str, wanted: Iterable[str], known: Sequence[str]) -> None:
    folded = {value.lower() for value in known}
    for value in wanted:
        if value.lower() not in folded:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"{flag} {one_line(value, 80)}: not in this dataset; {there}.")
