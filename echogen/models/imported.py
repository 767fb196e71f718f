"""What `echogen checkpoint import` ended with, for people's scripts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echogen.errors import EXIT_DONE, CheckpointError
from echogen.report import CommandReport

if TYPE_CHECKING:
    from echogen.diffusion.checkpoint import CheckpointInfo
    from echogen.models.guided.probe import Probe


@dataclass(frozen=True)
class Imported(CommandReport):
    """A model that was brought in, or what was measured where that did not decide.

    Attributes:
        checkpoint: the folder that was made; null where none was.
        name: of the model.
        sha256: of the checkpoint.
        options: with which the file was converted: what its shapes do not tell.
        probe: what was measured to find them; null where they were given.
    """

    checkpoint: str | None
    name: str | None
    sha256: str | None
    options: Mapping[str, Any] | None
    probe: Mapping[str, Any] | None

    @property
    def exit_code(self) -> int:
        """0, or that of a model that cannot be used as it is."""
        return EXIT_DONE if self.checkpoint else CheckpointError.exit_code


def imported(out: Path, info: "CheckpointInfo | None", probed: "Probe | None") -> Imported:
    """The record of an import into `out`; `info` is None where no checkpoint was made."""
    return Imported(
        checkpoint=None if info is None else str(out),
        name=None if info is None else info.name,
        sha256=None if info is None else info.sha256,
        options=None if info is None else info.training["imported"]["options"],
        probe=None if probed is None else probed.to_dict(),
    )
