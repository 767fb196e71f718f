"""Small stores of any content, made in milliseconds."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from echogen.store import (
    EXPANDED,
    GENERATED,
    Status,
    convert_to_h5,
    create_store,
    sample_sha256,
    working_store_path,
)

_made: dict[str, Path] = {}
LABELS = {0: "background", 1: "LV cavity", 2: "myocardium", 3: "left atrium"}
DONE = int(Status.DONE)


@dataclass(frozen=True)
class Sample:
    """One row to be."""

    sample_id: str
    frame_id: str
    case_id: str
    view: str = "4CH"
    phase: str = "ED"
    split: str = ""
    copy: int = 0
    status: int = DONE
    spacing_mm: tuple[float, float] = (0.5, 0.7)


@dataclass(frozen=True)
class Made:
    """A store to be; `put` writes it."""

    samples: tuple[Sample, ...]
    kind: str = "expanded"
    shape: tuple[int, int] = (12, 9)
    labels: dict[int, str] = field(default_factory=lambda: dict(LABELS))
    classes: tuple[int, ...] = (0, 1, 2, 3)
    attrs: dict[str, Any] = field(default_factory=dict)
    complete: bool = True
    shard_size: int = 4

    def put(self, path: Path) -> Path:
        """The store at `path`; of one content and kind, it is made once a process and copied."""
        key = f"{self!r}{path.suffix}"
        if key not in _made:
            folder = Path(tempfile.mkdtemp(prefix="echogen-stores-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            _made[key] = self._make(folder / f"store{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if path.suffix == ".zarr" else shutil.copyfile
        copy(_made[key], path)
        return path

    def _make(self, path: Path) -> Path:
        n = len(self.samples)
        rng = np.random.default_rng(n)
        text = {
            name: np.array([getattr(s, name) for s in self.samples], dtype=object)
            for name in ("sample_id", "frame_id", "case_id", "view", "phase", "split")
        }
        planned = (EXPANDED if self.kind == "expanded" else GENERATED).planned
        columns = {c.name: rng.random(c.shape(n)).astype("f4") for c in planned if "f" in c.dtype}
        whole = {
            c.name: np.arange(np.prod(c.shape(n))).reshape(c.shape(n)) % 200
            for c in planned
            if "int" in c.dtype
        }
        others = {c.name: np.full(n, "") for c in planned if c.dtype == "str"}
        columns = {**columns, **whole, **others, **text}
        columns["copy"] = np.array([s.copy for s in self.samples])
        columns["spacing_mm"] = np.array([s.spacing_mm for s in self.samples], dtype="f4")
        cases = list(dict.fromkeys(s.case_id for s in self.samples))
        working = working_store_path(path)
        writer = create_store(
            working,
            attrs={
                "kind": self.kind,
                "version": "0",
                "plan_digest": "5" * 64,
                "labels": self.labels,
                "config": {"store": {"shard_size": self.shard_size}},
                "checkpoint": {"name": "camus-256-small", "sha256": "1", "licence": "CC BY-NC"},
                "dataset": {"format": "camus", "root_name": "hearts", "licence": "Own terms"},
                **self.attrs,
            },
            columns=columns,
            cases=[{"id": c, "ef": 40.0 + i, "note": ""} for i, c in enumerate(cases)],
            problems=[("lost_4CH_ED", "lost_4CH_ED.nii.gz: truncated")],
            image_shape=self.shape,
            shard_size=self.shard_size,
        )
        for shard in writer.pending_shards()[: None if self.complete else 1]:
            rows = writer.shard_rows(shard)
            status = np.array([self.samples[row].status for row in rows])
            done = (status == DONE)[:, None, None]
            shape = (len(rows), *self.shape)
            pixels = {"images": rng.integers(0, 256, shape, dtype=np.uint8) * done}
            if self.kind == "expanded":
                pixels["masks"] = rng.choice(np.array(self.classes, np.uint8), shape) * done
                pixels["keep"] = rng.random(shape) < 0.7
            masks = pixels.get("masks", [None] * len(rows))
            hashes = [
                sample_sha256(image, mask) if state == DONE else ""
                for image, mask, state in zip(pixels["images"], masks, status, strict=True)
            ]
            reason = np.where(status == DONE, "", "no valid draw")
            writer.write_shard(
                shard, pixels, {"status": status, "sha256": hashes, "reason": reason}
            )
        if self.complete:
            writer.set_complete()
            if working != path:
                convert_to_h5(working, path)
        return path


def cohort(
    cases: int = 3,
    copies: int = 1,
    splits: Sequence[str] = ("",),
    views: Sequence[str] = ("4CH",),
    **changes: Any,
) -> Made:
    """`cases` cases with `views` and both phases, each with its original and copies."""
    samples = []
    for number in range(1, cases + 1):
        case, split = f"patient{number:04d}", splits[(number - 1) % len(splits)]
        for view in views:
            for phase in ("ED", "ES"):
                frame = f"{case}_{view}_{phase}"
                samples += [
                    Sample(
                        f"{frame}_copy{copy}", frame, case, view, phase, split, copy,
                        spacing_mm=(0.5 + copy / 8, 0.7),
                    )
                    for copy in range(copies + 1)
                ]  # fmt: skip
    return Made(tuple(samples), **changes)


def with_status(made: Made, **statuses: int) -> Made:
    """Some rows, by sample id, with another status."""
    return replace(
        made,
        samples=tuple(replace(s, status=statuses.get(s.sample_id, s.status)) for s in made.samples),
    )
