"""What a command gives: JSON of one shape, and an exit code."""

from dataclasses import asdict, dataclass
from typing import Any

from echogen.errors import EXIT_DONE

REPORT_FORMAT = 1  # of what `--json` prints


@dataclass(frozen=True)
class CommandReport:
    """Base of all reports: frozen dataclasses whose fields are the JSON's."""

    @property
    def exit_code(self) -> int:
        """0: what cannot be done at all is an error."""
        return EXIT_DONE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with a format number of its own."""
        return {"format": REPORT_FORMAT, "exit_code": self.exit_code, **asdict(self)}
