"""Real frames with a part hidden, and that part painted: what the benchmarks on real data share.

Of each frame, the part that a drawn move would leave empty is hidden. With a CAMUS folder, the
frames are those of the patients that the record of `checkpoints/unconditional` holds out.
Painted images are kept in a cache folder of the caller's, one file for each checkpoint, sampler,
run and draw, and while a draw is under way one for every eight frames, so that a long series can be
interrupted. The cache shows patients: keep it to yourself.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import echogen.diffusion
from echogen.config import (
    AugmentationConfig,
    DatasetConfig,
    EngineConfig,
    SamplerConfig,
    TransformConfig,
)
from echogen.datasets import open_dataset, open_frames
from echogen.diffusion.checkpoint import read_info
from echogen.errors import EngineError, UsageError
from echogen.geometry.transforms import footprint, sector_on_grid
from echogen.painting.devices import open_engine
from echogen.painting.engine import Canvas, Engine
from echogen.painting.stream import canvas_of
from echogen.planning.dataset import plan_dataset
from echogen.report import QUIET
from echogen.types import Sample

UNCONDITIONAL = str(Path(__file__).parent / "checkpoints" / "unconditional")
BY_VALUE = ("name", "steps", "jump_length", "resamplings")
GROUP = 8  # frames that are painted, and kept, together


@dataclasses.dataclass(frozen=True)
class Painter:
    """A network and the sampler that paints with it.

    Attributes:
        checkpoint: a folder, or "builtin".
        sampler: settings, as in the configuration.
    """

    checkpoint: str
    sampler: SamplerConfig

    @property
    def settings(self) -> dict[str, Any]:
        """Of the sampler, as JSON has them."""
        return self.sampler.model_dump(mode="json")


@dataclasses.dataclass(frozen=True)
class Hidden:
    """Frames with a hidden part.

    Attributes:
        canvases: what a sampler gets, by the ids of the copies.
        truths: (N, h, w) uint8, the whole frames.
        keep: (N, h, w) bool, False where hidden.
        inside: (N, h, w) bool, the fans.
        sectors: (N, 6) the fans, in pixels, as in the store.
        aspects: (N,) displayed width of a pixel over its height.
        patients: whose frames these are, how many.
        of: and which, in words.
        digests: of the frames' pixels, as training records name them.
    """

    canvases: list[Canvas]
    truths: np.ndarray
    keep: np.ndarray
    inside: np.ndarray
    sectors: np.ndarray
    aspects: np.ndarray
    patients: int
    of: str
    digests: tuple[str, ...]


def hidden_frames(
    data: Path, count: int, seed: int, *, labelled: bool = True, apart_from: int = 0
) -> Hidden:
    """`count` frames of a dataset, each with the hole of its own first copy.

    Args:
        data: its folder.
        count: frames; of those without a valid move there are fewer.
        seed: of the choice and the holes.
        labelled: False takes every image, with or without a label, and any hole.
        apart_from: other frames than so many of the same seed, and of none of their patients.
    """
    info = read_info(UNCONDITIONAL)
    held_out = info.training.get("held_out_cases", [])
    held_out_frames = DatasetConfig(
        cases=tuple(case for case in held_out if list(data.rglob(case)))
    )
    transforms = TransformConfig(max_hole=1.0)  # harder than by default
    if labelled:
        dataset, keys = open_frames(data, held_out_frames)
    else:
        dataset = open_dataset(data, need_labels=False)
        some = np.random.default_rng(seed).permutation(len(dataset.keys))[: 2 * count]
        keys = tuple(dataset.keys[i] for i in sorted(some))
        transforms = TransformConfig(min_label_inside=0, max_hole=1.0)
    config = AugmentationConfig(copies=1, seed=seed, dataset=held_out_frames, transforms=transforms)
    source = plan_dataset(dataset, keys, config, info, QUIET)
    moved_at_all = {row.frame_id for row in source.plan.rows if row.to_paint}
    order = np.random.default_rng(seed).permutation(len(source.plan.frames))
    others = {source.plan.frames[i].case_id for i in order[:apart_from]}
    left = [i for i in order if source.plan.frames[i].case_id not in others]
    frames = [source.plan.frames[i] for i in sorted(left[:count])]
    frames = [planned for planned in frames if planned.frame_id in moved_at_all]
    names = {planned.frame_id for planned in frames}
    rows = [row for row in source.plan.rows if row.frame_id in names]
    samples = [item for item in source.render(rows) if isinstance(item, Sample)]
    wholes, moved = samples[::2], samples[1::2]
    fans = [sector_on_grid(planned.sector, source.plan.grid_of(planned)) for planned in frames]
    shown = [
        footprint(
            planned.sector,
            planned.grid,
            *source.plan.grid_of(planned).centres_mm(),
        )
        for planned in frames
    ]
    known = [
        dataclasses.replace(m, image=np.where(m.keep, w.image, np.uint8(0)), real=m.keep & inside)
        for w, m, inside in zip(wholes, moved, shown, strict=True)
    ]
    return Hidden(
        [canvas_of(m, row.sample_id, row.seed) for m, row in zip(known, rows[1::2], strict=True)],
        np.stack([whole.image for whole in wholes]),
        np.stack([m.keep for m in moved]),
        np.stack(shown),
        np.stack([sector for sector, _ in fans]).astype(np.float64),
        np.array([aspect for _, aspect in fans]),
        len({planned.case_id for planned in frames}),
        "held-out patients" if held_out_frames.cases else "all frames",
        tuple(planned.digest for planned in frames),
    )


def paint(hidden: Hidden, painter: Painter, run: int, draws: int, cache: Path | None) -> np.ndarray:
    """Every frame painted `draws` times: (draws, N, h, w) uint8.

    Args:
        hidden: the frames.
        painter: with what.
        run: another number gives other noise.
        draws: paintings of each frame.
        cache: where finished draws are read from and kept; None keeps nothing.

    Raises:
        EngineError: a frame could not be painted.
        UsageError: the network was trained on one of the frames.
    """
    refuse_trained(hidden, painter.checkpoint)
    folder = None if cache is None else _folder(hidden, painter, run, cache)
    engine: Engine | None = None
    painted = []
    for draw in range(draws):
        file = None if folder is None else folder / f"{draw}.npy"
        if file is not None and file.exists():
            painted.append(np.load(file))
            continue
        if engine is None:
            engine = open_engine(
                painter.checkpoint, painter.sampler, EngineConfig(batch_size=GROUP), QUIET.tell
            )
        groups = []
        for start in range(0, len(hidden.canvases), GROUP):
            canvases = [
                dataclasses.replace(canvas, seed=_seed(canvas.sample_id, run, draw))
                for canvas in hidden.canvases[start : start + GROUP]
            ]
            part = None if folder is None else folder / f"{draw}-{start}.part"
            groups.append(_kept(part, engine, canvases))
        painted.append(np.concatenate(groups))
        if file is not None:
            _save(file, painted[-1])
            for part in file.parent.glob(f"{draw}-*.part"):
                part.unlink()
        name = _name(painter.sampler.model_dump())
        print(f"{name} run {run}: draw {draw + 1} of {draws}", file=sys.stderr)
    return np.stack(painted)


def refuse_trained(hidden: Hidden, checkpoint: str) -> None:
    """Refuses a network that has seen one of the frames.

    Raises:
        UsageError: says how many it was trained on.
    """
    info = read_info(checkpoint)
    cases = info.training.get("cases", {}).get("trained", {})
    seen = {digest for digests in cases.values() for digest in digests}
    if count := sum(digest in seen for digest in hidden.digests):
        raise UsageError(
            f"checkpoint {info.name} was trained on {count} of these {len(hidden.digests)} frames; "
            f"measure one that holds out the patients of {UNCONDITIONAL}."
        )


def _kept(file: Path | None, engine: Engine, canvases: list[Canvas]) -> np.ndarray:
    """Painted canvases (n, h, w), read from the file or painted and kept in it."""
    if file is not None and file.exists():
        with file.open("rb") as there:
            return np.asarray(np.load(there))
    images = [image for image in engine.run(canvases) if image is not None]
    if len(images) < len(canvases):
        raise EngineError(f"{canvases[0].sample_id} and others: values that are not finite")
    painted = np.stack(images)
    if file is not None:
        _save(file, painted)
    return painted


def _save(file: Path, images: np.ndarray) -> None:
    """Whole, or not at all."""
    new = file.with_suffix(".new")
    with new.open("wb") as there:
        np.save(there, images)
    new.rename(file)


def _name(sampler: dict[str, Any]) -> str:
    """The settings in one word, such as `repaint-25-5-3`."""
    return "-".join(
        str(value) if key in BY_VALUE else f"{key}={value}" for key, value in sampler.items()
    )


def _folder(hidden: Hidden, painter: Painter, run: int, cache: Path) -> Path:
    """Where the draws of a run are kept; says so if other code has painted those that are there."""
    sampler = painter.sampler.model_dump()
    frames = hashlib.sha256(hidden.keep.tobytes() + hidden.truths.tobytes()).hexdigest()[:12]
    model = read_info(painter.checkpoint).sha256[:12]
    folder = cache / f"{model}-{frames}" / f"{_name(sampler)}-run{run}"
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(Path(echogen.diffusion.__path__[0]).glob("*.py"))
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
    made = folder / "made.json"
    if not list(folder.glob("*.npy")):
        made.write_text(json.dumps({"sampler": painter.settings, "code": code}) + "\n")
    elif made.exists() and json.loads(made.read_text())["code"] != code:
        print(
            f"{folder}: painted before echogen/diffusion changed; remove it to paint again",
            file=sys.stderr,
        )
    return folder


def _seed(sample_id: str, run: int, draw: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{sample_id}/{run}/{draw}".encode()).digest()[:8], "big")
