"""What `--json` prints, held to the documented shape."""

import json
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def printed(schema: str, stdout: str) -> dict[str, Any]:
    """The one JSON object on stdout, which must fit docs/schemas/`schema`.json and hold no more."""
    report = json.loads(stdout, parse_constant=_refuse)
    shape = json.loads((SCHEMAS / f"{schema}.json").read_text())
    Draft202012Validator({**shape, "additionalProperties": False}).validate(report)
    return report


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")
