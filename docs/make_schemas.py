"""Writes docs/schemas: the shape of each command's `--json`, as JSON Schema (draft 2020-12).

    python docs/make_schemas.py

They are generated from the records that the commands print; a test compares them.
"""

import importlib
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from echogen.report import REPORT_FORMAT

FOLDER = Path(__file__).parent / "schemas"
REPORTS = {
    "expand": "echogen.commands.expand:ExpandReport",
    "expand --dry-run": "echogen.commands.expand:DryRunReport",
    "sample": "echogen.commands.sample:SampleReport",
    "validate": "echogen.commands.validate:ValidationReport",
    "stats": "echogen.measures.report:StatsReport",
    "preview": "echogen.commands.preview:PreviewReport",
    "export": "echogen.commands.export:ExportReport",
    "train": "echogen.commands.train:TrainReport",
    "bench": "echogen.commands.bench:BenchReport",
    "phantom": "echogen.phantom:PhantomReport",
    "checkpoint list": "echogen.models.listing:ModelList",
    "checkpoint info": "echogen.models.describe:CheckpointDescription",
    "checkpoint info (a judge)": "echogen.judging.describe:JudgeDescription",
    "checkpoint info (not here)": "echogen.models.listing:ListedModel",
    "checkpoint download": "echogen.models.download:DownloadReport",
    "checkpoint import": "echogen.models.guided.importing:ImportReport",
    "checkpoint verify": "echogen.models.verify:Verification",
}
ADDED = {
    "checkpoint info": {"here": {"const": True, "description": "It is here."}},
    "checkpoint info (a judge)": {
        "kind": {"const": "judge", "description": "Tells it from a model that paints."},
        "here": {"const": True, "description": "It is here."},
    },
    "checkpoint verify": {"ok": {"type": "boolean", "description": "Whether every check holds."}},
}
EXIT_CODES = (
    "As the command's own: 0 done, 1 done with failures, 3 dataset, 4 checkpoint, 5 store, "
    "130 or 143 interrupted. After any other end nothing is printed on stdout."
)


def file_of(command: str) -> Path:
    """Where the schema of a command lies."""
    return FOLDER / f"{re.sub(r'[^a-z]+', '-', command).strip('-')}.json"


def schema_of(command: str) -> dict[str, Any]:
    """The JSON Schema of what a command prints."""
    module, _, name = REPORTS[command].partition(":")
    record = getattr(importlib.import_module(module), name)
    found = TypeAdapter(record).json_schema(mode="serialization")
    definitions = {
        key: _described(part, part.get("description", ""))
        for key, part in found.pop("$defs", {}).items()
    }
    properties = {
        "format": {"const": REPORT_FORMAT, "description": "Of this shape; fields may be added."},
        "exit_code": {"type": "integer", "description": EXIT_CODES},
        **ADDED.get(command, {}),
        **_described(found, *_docstrings(record))["properties"],
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"echogen {command} --json",
        "description": (record.__doc__ or "").strip().split("\n")[0],
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }
    return {**schema, "$defs": definitions} if definitions else schema


def _docstrings(record: type) -> list[str]:
    """A record's own and those of the records that it extends."""
    return [kind.__doc__ or "" for kind in record.__mro__ if "__dataclass_fields__" in vars(kind)]


def _described(part: dict[str, Any], docstring: str, *inherited: str) -> dict[str, Any]:
    """A record's schema with the words of its docstrings, and without what only pydantic needs."""
    words = {k: v for text in (*inherited, docstring) for k, v in _attributes(text).items()}
    properties = {
        name: {
            **{k: v for k, v in value.items() if k not in ("title", "default")},
            **({"description": words[name]} if name in words else {}),
        }
        for name, value in part.get("properties", {}).items()
    }
    first = textwrap.dedent(docstring).strip().split("\n")[0]
    return {
        **{k: v for k, v in part.items() if k not in ("title", "properties")},
        **({"description": first} if first else {}),
        **({"properties": properties, "required": list(properties)} if properties else {}),
    }


def _attributes(docstring: str) -> dict[str, str]:
    """{name: words} of a docstring's section `Attributes`; `a, b: words` names both."""
    _, _, section = docstring.partition("Attributes:\n")
    section = textwrap.dedent(section.split("\n\n")[0])
    entries = re.findall(r"^(\w[\w, ]*):\s(.*(?:\n[ \t]+.*)*)", section, re.M)
    return {
        name.strip(): " ".join(words.split())
        for names, words in entries
        for name in names.split(",")
    }


def text_of(command: str) -> str:
    """The file's content."""
    return json.dumps(schema_of(command), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for command in REPORTS:
        file_of(command).write_text(text_of(command), encoding="utf-8")
