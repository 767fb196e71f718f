"""What is shown of a sample: its pictures and the facts below them, and both as tiles.

Frames of a dataset, planned copies and a store's samples give the same record, so that a contact
sheet and a report draw them alike.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from echogen.datasets import Dataset
from echogen.datasets.fans import HOW, FoundFan
from echogen.datasets.recordings import read_recording
from echogen.errors import DatasetError, StoreError
from echogen.geometry.field import field_of, seen_on
from echogen.geometry.sector import fan_mask
from echogen.geometry.transforms import IDENTITY, MOVES, TransformParams, sector_on_grid
from echogen.measures.realism import original_rows
from echogen.pictures.colours import FANS, MISSING, OTHER, Colour, colours_of
from echogen.pictures.tiles import (
    Bools,
    Levels,
    contoured,
    displayed_size,
    hatched,
    outlined,
    tile,
)
from echogen.planning.dataset import PlannedDataset
from echogen.planning.plan import Row
from echogen.report import Problem
from echogen.store import StoreReader
from echogen.types import BACKGROUND, IGNORE, Frame, FrameKey, Sample

LEAST_SHIFT = 0.005  # of the height; what rounds to nothing is left out
ORIGINAL, MOVED, PAINTED, LABELS = "original", "moved (hatched: empty)", "painted", "labels"
FAN = "fan"


@dataclass(frozen=True)
class Picture:
    """An image with its label.

    Attributes:
        image: (h, w) grey levels.
        label: (h, w) class ids; None without labels.
        aspect: displayed width of a pixel over its height.
    """

    image: Levels
    label: Levels | None
    aspect: float

    def tile(self, height: int) -> Image.Image:
        """The image alone, `height` pixels high."""
        rows, cols = self.image.shape
        return tile(self.image, displayed_size((rows, cols), self.aspect, height))


@dataclass(frozen=True)
class Entry:
    """A sample as it is shown.

    Attributes:
        name: its id.
        facts: in one line: its move, how much was painted, its score.
        original: the source frame, or None.
        sample: the moved frame, painted or not, or a generated image; None for a plain frame.
        missing: (h, w) bool on the grid of `sample`: what the move left empty; None without a move.
        painted: whether `sample` is painted.
        colours: {class id: colour}, those of its dataset or store.
        fan: where fans are shown: that of `original`, which is drawn on it.
    """

    name: str
    facts: str
    original: Picture | None
    sample: Picture | None = None
    missing: Bools | None = None
    painted: bool = False
    colours: Mapping[int, Colour] = field(default_factory=dict)
    fan: FoundFan | None = None

    @property
    def labelled(self) -> Picture | None:
        """The picture whose labels are shown, if it has any."""
        picture = self.sample or self.original
        return picture if picture is not None and picture.label is not None else None

    def panels(self, headings: Sequence[str], height: int) -> tuple[Image.Image | None, ...]:
        """The tiles under these headings; None where the entry has none."""
        tiles: dict[str, Image.Image] = {}
        if self.original is not None:
            tiles[ORIGINAL] = self.original.tile(height)
            if self.fan is not None:
                tiles[FAN] = outlined(tiles[ORIGINAL], self.fan)
        if self.sample is not None and self.missing is not None:
            tiles[MOVED] = hatched(self.sample.tile(height), self.missing)
        if self.sample is not None and self.painted:
            tiles[PAINTED] = self.sample.tile(height)
        labelled = self.labelled
        if labelled is not None and labelled.label is not None:
            tiles[LABELS] = contoured(labelled.tile(height), labelled.label, self.colours)
        return tuple(tiles.get(heading) for heading in headings)


def headings(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Of the tiles that at least one of the entries has."""
    present = {
        FAN: any(entry.fan is not None for entry in entries),
        ORIGINAL: any(entry.original is not None and entry.fan is None for entry in entries),
        MOVED: any(entry.missing is not None for entry in entries),
        PAINTED: any(entry.painted for entry in entries),
        LABELS: any(entry.labelled is not None for entry in entries),
    }
    return tuple(heading for heading, shown in present.items() if shown)


def legend(entries: Iterable[Entry], labels: Mapping[int, str]) -> tuple[tuple[str, Colour], ...]:
    """The classes that the entries show, what is missing, and how fans were found, in colours.

    Args:
        entries: that are shown.
        labels: {class id: name}.
    """
    entries = list(entries)
    pictures = [picture for entry in entries for picture in (entry.original, entry.sample)]
    colours = colours_of(labels)
    shown: set[int] = set()
    for picture in pictures:
        if picture is not None and picture.label is not None:
            shown |= set(np.unique(picture.label).tolist())
    names = {**labels, IGNORE: "ignored (255)"}
    classes = [
        (names.get(class_id, f"class {class_id}"), colours.get(class_id, OTHER))
        for class_id in sorted(shown - {BACKGROUND})
    ]
    if any(entry.missing is not None for entry in entries):
        classes.append(("left empty by the move, painted by the model", MISSING))
    found = {entry.fan.outcome for entry in entries if entry.fan is not None}
    return (*classes, *((words, FANS[how]) for how, words in HOW.items() if how in found))


def of_dataset(
    dataset: Dataset, keys: Sequence[FrameKey], *, fields: bool = False
) -> Iterator[Entry | Problem]:
    """Frames at their native resolution, or why one cannot be read.

    Args:
        dataset: opened.
        keys: of its frames.
        fields: cut them to their fields, so that nothing written beside a fan is shown.
    """
    colours = colours_of(dataset.provenance.labels)
    for key in keys:
        try:
            frame = _field(dataset, key) if fields else dataset.read(key)
        except DatasetError as error:
            yield Problem(key.frame_id, str(error))
            continue
        row, col = frame.unit_spacing
        facts = [f"{frame.image.shape[1]} x {frame.image.shape[0]} pixels"]
        if frame.spacing_mm is not None:
            facts.append(f"{row:.3g} x {col:.3g} mm")
        facts += [text for text in (key.view, key.phase, key.split) if text]
        picture = Picture(frame.image, frame.label, col / row)
        yield Entry(key.frame_id, " · ".join(facts), picture, colours=colours)


def _field(dataset: Dataset, key: FrameKey) -> Frame:
    """A frame cut to its fan.

    Raises:
        DatasetError: it cannot be read, or has no fan.
    """
    recording = read_recording(dataset, [key])
    if recording.problems:
        raise DatasetError(recording.problems[0].reason)
    (fitted,) = recording.frames
    if fitted.sector is None:
        raise DatasetError(fitted.reason)
    return field_of(fitted.frame, fitted.sector).frame


def of_fans(
    dataset: Dataset, fans: Sequence[FoundFan], keys: Mapping[str, FrameKey]
) -> Iterator[Entry | Problem]:
    """Fans on their frames, or why one can no longer be read.

    Args:
        dataset: opened.
        fans: of its recordings.
        keys: {frame id: key} of at least their frames.
    """
    for fan in fans:
        try:
            image = dataset.read(keys[fan.frame_id]).image
        except DatasetError as error:
            yield Problem(fan.frame_id, str(error))
            continue
        facts = f"confidence {fan.confidence:.2f} · {HOW[fan.how]}"
        if fan.values is None:
            facts = f"refused: {fan.reason}"
        yield Entry(fan.name, facts, Picture(image, None, fan.aspect), fan=fan)


def of_plan(source: PlannedDataset, rows: Sequence[Row]) -> Iterator[Entry | Problem]:
    """Planned copies: moved, with nothing painted; each frame is read once."""
    pairs = [row for copy in rows for row in (replace(copy, copy=0), copy)]
    samples = source.render(pairs)
    colours = colours_of(source.dataset.provenance.labels)
    for row, original, moved in zip(rows, samples, samples, strict=True):
        if isinstance(moved, Problem):
            yield moved
            continue
        if moved is None or not isinstance(original, Sample):
            yield Problem(row.sample_id, "rejected: no valid move was found.")
            continue
        planned = source.frames[row.frame_id]
        grid = source.plan.grid_of(planned)
        aspect = grid.spacing_mm[1] / grid.spacing_mm[0]
        fan = fan_mask(
            *sector_on_grid(planned.sector, grid), grid.shape, seen_on(grid, planned.grid)
        )
        yield Entry(
            row.sample_id,
            facts_of(row.params, _share(~moved.keep, fan)),
            Picture(original.image, original.label, aspect),
            Picture(moved.image, moved.label, aspect),
            ~moved.keep,
            colours=colours,
        )


def of_store(
    store: StoreReader, rows: Sequence[int], scores: Mapping[int, float]
) -> Iterator[Entry | Problem]:
    """Samples of a store that are done, or why one cannot be read.

    Args:
        store: opened.
        rows: of it.
        scores: {row: how far its painting is from what is usual}; may be empty.
    """
    originals = original_rows(store) if store.kind == "expanded" else {}
    colours = colours_of(store.record.labels)
    for row in rows:
        name = str(store.columns["sample_id"][row])
        try:
            entry = _of_row(store, row, name, originals, scores.get(row))
            yield replace(entry, colours=colours)
        except StoreError as error:
            yield Problem(name, str(error))


def _of_row(
    store: StoreReader, row: int, name: str, originals: Mapping[str, int], score: float | None
) -> Entry:
    if store.kind != "expanded":
        return Entry(name, "", None, _picture(store, row), painted=True)
    if store.columns["copy"][row] == 0:
        return Entry(name, "an original", _picture(store, row))
    keep = store.keep[row]
    fan = store.fan(row)
    move = TransformParams(**{name: float(store.columns[name][row]) for name in MOVES})
    facts = facts_of(move, _share(~keep, fan))
    original = originals.get(str(store.columns["frame_id"][row]))
    return Entry(
        name,
        facts if score is None else f"score {score:.1f} · {facts}",
        None if original is None else _picture(store, original),
        _picture(store, row),
        ~keep,
        painted=True,
    )


def facts_of(params: TransformParams, painted: float) -> str:
    """A move in words, and how much of the fan it left to paint.

    Args:
        params: the move; what it leaves alone is left out.
        painted: share in [0, 1].
    """
    facts = []
    if not math.isclose(params.depth, IDENTITY.depth, abs_tol=1e-6):
        facts.append(f"depth ×{params.depth:.2f}")
    if not math.isclose(params.tilt_deg, IDENTITY.tilt_deg, abs_tol=1e-6):
        facts.append(f"tilt {params.tilt_deg:+.0f}°")
    if not math.isclose(params.width, IDENTITY.width, abs_tol=1e-6):
        facts.append(f"width ×{params.width:.2f}")
    if (shift := math.hypot(params.shift_x, params.shift_y)) >= LEAST_SHIFT:
        facts.append(f"shift {shift:.0%} {_direction(params)}")
    return " · ".join([*facts, f"{painted:.0%} of the fan empty"])


def _direction(params: TransformParams) -> str:
    """Such as "down right"; what is less than half of the other is left out."""
    down, right = params.shift_y, params.shift_x
    words = []
    if abs(down) >= abs(right) / 2:
        words.append("down" if down > 0 else "up")
    if abs(right) >= abs(down) / 2:
        words.append("right" if right > 0 else "left")
    return " ".join(words)


def _share(missing: Bools, fan: Bools) -> float:
    return float((missing & fan).sum()) / max(1, int(fan.sum()))


def _picture(store: StoreReader, row: int) -> Picture:
    label = store.masks[row] if store.kind == "expanded" else None
    return Picture(store.images[row], label, float(store.columns["aspect"][row]))
