"""CAMUS' half sequences: volumes of (x, y, frame) from ED to ES, or back, every frame labelled.

Files are `CASE_VIEW_half_sequence[_gt]`. How many frames one holds is read from its header; which
of them are ED and ES is told by `ED` and `ES` of the view's cfg file, which count from 1.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from echogen.datasets.base import relative
from echogen.datasets.integrity import sizes_of, with_data_files
from echogen.errors import DatasetError
from echogen.support.words import counted
from echogen.types import FrameKey

SEQUENCE_NAME = re.compile(
    r"(?P<case>.+)_(?P<view>[A-Za-z0-9]+)_half_sequence(?P<label>_gt)?", re.DOTALL
)
"""`patient0001_4CH_half_sequence`, and `patient0001_4CH_half_sequence_gt` for its labels."""

RecordingName = tuple[str, str]
"""(case, view)."""
Info = Mapping[str, float | str]


@dataclass
class SequenceListing:
    """What the half sequences of a dataset give.

    Attributes:
        frames: sorted within each recording.
        unusable: a key for each sequence that cannot be listed, with one line of reason.
        misnumbered: recordings whose cfg file gives frame numbers outside of the sequence.
        unphased: recordings without ED and ES in a cfg file.
    """

    frames: list[FrameKey] = field(default_factory=list)
    unusable: list[tuple[FrameKey, str]] = field(default_factory=list)
    misnumbered: list[str] = field(default_factory=list)
    unphased: list[str] = field(default_factory=list)

    @property
    def recordings(self) -> set[RecordingName]:
        """Those whose half sequence can be listed."""
        return {(key.case_id, key.view) for key in self.frames}

    def remarks(self, others: Iterable[RecordingName]) -> list[str]:
        """One line of each kind; `others` are all recordings with files of ED and ES."""
        lacking = sorted("_".join(one) for one in set(others) - self.recordings)
        found = (
            (lacking, "without a usable half sequence", "only ED and ES are read"),
            (self.misnumbered, "whose ED and ES in the cfg file lie outside of the half sequence",
             "none of its frames is called ED or ES"),
            (self.unphased, "without ED and ES in a cfg file",
             "the half sequence's first frame is called ED, its last one ES"),
        )  # fmt: skip
        return [
            f"{counted(len(names), 'recording')} {what}, such as {names[0]}: {so}."
            for names, what, so in found
            if names
        ]


def list_frames(
    root: Path,
    found: Mapping[RecordingName, tuple[Path, Path | None]],
    infos: Mapping[str, Info],
    splits: Mapping[str, str],
) -> SequenceListing:
    """Every frame of every half sequence; reads headers, no pixels.

    Args:
        root: messages name files relative to it.
        found: image and label of each recording; no label where none is read.
        infos: what is known of each case, see `case_info`.
        splits: {case id: split}.
    """
    listed = SequenceListing()
    for (case, view), (image, label) in sorted(found.items()):
        sequence = f"{case}_{view}"
        whole = FrameKey(sequence, case, view, "", splits.get(case, ""),
                         with_data_files(image, label), sequence=sequence)  # fmt: skip
        try:
            count = _count(root, image, label)
        except DatasetError as error:
            listed.unusable.append((whole, str(error)))
            continue
        phases = _phases(listed, sequence, count, _numbers(infos.get(case, {}), view))
        digits = max(3, len(str(count - 1)))
        listed.frames += [
            FrameKey(f"{sequence}_f{index:0{digits}d}", case, view, phases.get(index, ""),
                     whole.split, whole.paths, sequence=sequence, index=index)
            for index in range(count)
        ]  # fmt: skip
    return listed


def _count(root: Path, image: Path, label: Path | None) -> int:
    """How many frames there are, the same in image and label."""
    name = relative(root, image)
    sizes = sizes_of(image, name)
    if label is not None:
        labelled = sizes_of(label, relative(root, label))
        if labelled != sizes:
            raise DatasetError(
                f"{relative(root, label)}: label of {_by(labelled)}, but {image.name} has "
                f"{_by(sizes)} (columns x rows x frames); they must be the same."
            )
    if len(sizes) != 3:
        raise DatasetError(
            f"{name}: holds {_by(sizes)}; expected columns x rows x frames, restore the file."
        )
    return sizes[2]


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _numbers(info: Info, view: str) -> tuple[int, int] | None:
    """ED and ES of a view as the cfg file counts them, where it gives both."""
    ed, es = (info.get(f"{phase}_frame_{view.lower()}") for phase in ("ed", "es"))
    if not (isinstance(ed, float) and isinstance(es, float)) or ed == es:
        return None
    return int(ed), int(es)


def _phases(
    listed: SequenceListing, sequence: str, count: int, numbers: tuple[int, int] | None
) -> dict[int, str]:
    """{index: phase}: the ends where a sequence runs from ED to ES or back, as CAMUS' all do."""
    if numbers is None:
        listed.unphased.append(sequence)
        return {count - 1: "ES", 0: "ED"}
    ed, es = numbers
    if abs(es - ed) + 1 == count:
        return {0: "ED", count - 1: "ES"} if ed < es else {0: "ES", count - 1: "ED"}
    if min(ed, es) >= 1 and max(ed, es) <= count:
        return {ed - 1: "ED", es - 1: "ES"}
    listed.misnumbered.append(sequence)
    return {}
