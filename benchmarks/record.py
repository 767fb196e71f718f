"""A record of measurements that grows stage by stage, so that what is interrupted is not lost.

While stages are missing, the record lies beside its place as `NAME.part.json`; the same command
goes on with it, on the same machine with the same settings. A stage that fails leaves its reason.
"""

import json
import os
import platform
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from echogen.diffusion.cost import processor_name


def machine() -> dict[str, Any]:
    """What was measured on: names, counts and versions, no host's name and no path."""
    found = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["cuda"] = torch.version.cuda
    return found


class Record:
    """JSON with what was measured on what, and one entry a stage."""

    def __init__(self, path: Path, command: str, settings: dict[str, Any]) -> None:
        """Begins a record, or goes on with an unfinished one that begins in the same way.

        Args:
            path: where the finished record is to lie.
            command: that makes it.
            settings: what stages depend on; JSON-able.
        """
        self.path, self.part = path, path.with_suffix(".part.json")
        head = {"command": command, "machine": machine(), "settings": settings}
        self.content: dict[str, Any] = {**json.loads(json.dumps(head)), "stages": {}}
        if self.part.exists():
            before = json.loads(self.part.read_text())
            if all(before.get(key) == self.content[key] for key in ("machine", "settings")):
                self.content["stages"] = before["stages"]

    def stage(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` gives, or gave before; None where it fails, with the reason kept."""
        stages = self.content["stages"]
        if name in stages and "failed" not in stages[name]:
            return stages[name]["result"]
        began = time.monotonic()
        try:
            result = json.loads(json.dumps(measure()))
            stages[name] = {"seconds": round(time.monotonic() - began, 1), "result": result}
        except Exception as error:
            traceback.print_exc()
            result, reason = None, (str(error).splitlines() or [""])[0][:300]
            stages[name] = {"failed": f"{type(error).__name__}: {reason}"}
        print(f"{name}: {json.dumps(stages[name])[:400]}", flush=True)
        self._write(self.part)
        return result

    def leave_out(self, name: str, reason: str) -> None:
        """Says of a stage why it was not measured."""
        self.content["stages"].setdefault(name, {"failed": f"left out: {reason}"})

    def finish(self, summary: dict[str, Any]) -> None:
        """Puts the record in its place, with figures that follow from the stages."""
        self.content = {
            **{key: value for key, value in self.content.items() if key != "stages"},
            "summary": summary,
            "stages": self.content["stages"],
        }
        self._write(self.part)
        self.part.replace(self.path)
        print(json.dumps(summary, indent=1))

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.content, indent=1) + "\n")
        new.replace(path)
