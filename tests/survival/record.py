"""What was tried, one JSON object a line, so that an interrupted campaign goes on.

Each line has its part, the key of the try within it, its scene, and its fault: an empty text where
nothing was lost.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any


class Record:
    """The tries in a file, and those that are added to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if path.exists():
            whole = [
                line for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"
            ]
            self.entries = [json.loads(line) for line in whole]
            path.write_text("".join(whole))
        self.shown = Counter[tuple[str, str]]()
        self._known = {(entry["part"], entry["key"]) for entry in self.entries}

    def has(self, part: str, key: str) -> bool:
        """Whether this was tried."""
        return (part, key) in self._known

    def add(self, part: str, key: str, scene: str, fault: str, **facts: Any) -> None:
        """Keep a try; the first faults of a scene are printed.

        Args:
            part: of the campaign.
            key: unique within the part.
            scene: what counts are by.
            fault: what was lost, in words, or an empty text.
            facts: others, JSON-able.
        """
        entry = {"part": part, "key": key, "scene": scene, "fault": fault, **facts}
        self.entries.append(entry)
        self._known.add((part, key))
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if fault and self.shown[part, scene] < 3:
            self.shown[part, scene] += 1
            print(f"{part} {key}: {fault}", flush=True)

    def counts(self) -> dict[str, Any]:
        """{part: {scene: {"tried": n, "faults": n}}}, and of all."""
        tried, faults = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for entry in self.entries:
            where = entry["part"], entry["scene"]
            tried[where] += 1
            faults[where] += bool(entry["fault"])
        parts: dict[str, Any] = {}
        for (part, scene), number in sorted(tried.items()):
            scenes = parts.setdefault(part, {"tried": 0, "faults": 0, "scenes": {}})
            lost = faults[part, scene]
            scenes["scenes"][scene] = {"tried": number, "faults": lost}
            scenes["tried"] += number
            scenes["faults"] += lost
        return parts
