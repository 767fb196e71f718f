"""A run's log: JSON lines, one event each, readable during the run.

A line is about a step, and each step is in the log once: a run that continues from an older state
drops the lines after it. TensorBoard gets the same scalars, and the pictures.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import CheckpointError, UsageError
from echogen.support.files import to_disk, write_whole
from echogen.support.reading import parse_json, read_bytes, reason

_MOST_BYTES = 2**30
_NEVER = 2**63
"""The step of a line that is none of ours: it is dropped."""


class RunLog:
    """Where a run's events go; made with `file` None, it drops them (processes but the first)."""

    def __init__(self, file: Path | None, step: int, board: Path | None = None) -> None:
        """Continues after `step`: later lines, and a half one that a kill left, are dropped.

        Args:
            file: of JSON lines.
            step: of the state that the run continues from; 0 for a new run.
            board: folder for TensorBoard, or None.

        Raises:
            UsageError: TensorBoard is not installed.
            CheckpointError: the file cannot be read.
        """
        self._file = file
        self._board: Any = None
        writer = _writer() if board is not None and file is not None else None
        if file is not None:  # before the board: the log marks the folder as a run's
            kept = [line for line in _lines(file) if _step(line) <= step] if step else []
            write_whole(file, "".join(kept))
        if writer is not None:
            self._board = writer(str(board), purge_step=step + 1)

    def write(self, event: str, step: int, **values: Any) -> None:
        """One line."""
        if self._file is None:
            return
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        if self._board is not None and event != "start":
            for name, value in _scalars(values):
                self._board.add_scalar(f"{event}/{name}", value, step)

    def force(self) -> None:
        """The disk has all lines when this returns; call it before the state that follows them.

        Raises:
            OSError: the disk refuses.
        """
        if self._file is not None:
            to_disk(self._file)

    def picture(self, name: str, step: int, image: npt.NDArray[np.uint8]) -> None:
        """A (H, W) picture, for TensorBoard; files are written elsewhere."""
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HW")

    def close(self) -> None:
        """Ends TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    try:
        text = read_bytes(file, _MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise CheckpointError(
            f"{file}: cannot be read ({reason(error)}); delete it to continue without what it says."
        ) from error
    return [line for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def _step(line: str) -> int:
    try:
        event = parse_json(line, CheckpointError, "a line")
    except CheckpointError:
        return _NEVER
    step = event.get("step") if isinstance(event, dict) else None
    return step if isinstance(step, int) else _NEVER


def _scalars(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The numbers among an event's values, those of a table one level down by name/key."""
    scalars = []
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            scalars.append((name, float(value)))
        elif isinstance(value, Mapping):
            scalars += [(f"{name}/{k}", float(v)) for k, v in value.items() if type(v) is float]
    return scalars


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            f"--tensorboard: TensorBoard is not installed ({error}); "
            "install it: pip install 'echogen[tensorboard]'"
        ) from error
    return SummaryWriter
