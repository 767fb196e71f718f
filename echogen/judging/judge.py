"""A judge at work: samples in, the size of an unlabelled heart out.

Samples are looked at one by one on the processor, so that a verdict depends on nothing but the
sample; a look takes a few milliseconds.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.labels import KNOWN_NAMES
from echogen.datasets.pairing import folded
from echogen.diffusion.weights import load_weights
from echogen.judging.checkpoint import NO_JUDGE, JudgeInfo, judge_folder, verify_judge
from echogen.types import BACKGROUND, CAMUS_LABELS, IGNORE, BoolGrid, UInt8Grid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """What a judge finds in one sample.

    Attributes:
        info: of the judge.
        parts: {the judge's class id: its part of the largest unlabelled piece, as a share of the
            labelled heart's area}.
    """

    info: JudgeInfo
    parts: Mapping[int, float]

    @property
    def share(self) -> float:
        """The area of the largest unlabelled piece over the labelled heart's."""
        return sum(self.parts.values())

    @property
    def why_not(self) -> str:
        """Why the sample must not be kept, in a few words; empty where it may be."""
        if self.share <= self.info.threshold:
            return ""
        named = (f"{self.info.labels[one]} {part:.0%}" for one, part in self.parts.items() if part)
        return (
            f"{self.info.name} sees a second, unlabelled heart in what was painted: its largest "
            f"piece has {self.share:.0%} of the labelled heart's area ({', '.join(named)}), at "
            f"most {self.info.threshold:.0%} is let pass"
        )


@dataclass(frozen=True)
class Judge:
    """A judge for the labels of one dataset; see `open_judge`.

    Attributes:
        info: of the judge.
        folder: where it lies.
        ids: {the dataset's class id: the judge's}.
    """

    info: JudgeInfo
    folder: Path
    ids: Mapping[int, int]

    def look(
        self,
        image: UInt8Grid,
        label: UInt8Grid,
        keep: BoolGrid,
        case: str,
        cut: Collection[int] = (),
    ) -> Verdict:
        """The largest unlabelled piece of heart.

        Args:
            image: grey levels, painted.
            label: class ids of the dataset.
            keep: True where the pixel comes from the source.
            case: whose it is, so that no network judges a case that it has seen.
            cut: the dataset's ids of the classes that the source's fan cut off.

        Returns:
            Its size; nothing where there is none, or no labelled heart to compare with.
        """
        from echogen.judging.measure import unlabelled

        rows, cols = (_middles(size, self.info.image_size) for size in label.shape)
        theirs = np.zeros(256, np.uint8)
        theirs[IGNORE] = IGNORE
        theirs[[i for i in range(1, IGNORE) if i not in self.ids]] = IGNORE  # labelled otherwise
        for own, other in self.ids.items():
            theirs[own] = other
        small = theirs[label[np.ix_(rows, cols)]]
        classes = tuple(self.info.labels)
        area = int(np.isin(small, classes).sum())
        kept = keep[np.ix_(rows, cols)]
        if not area or (kept | (small != BACKGROUND)).all():
            return Verdict(self.info, dict.fromkeys(classes, 0.0))
        cut_off = frozenset(self.ids[one] for one in cut if one in self.ids)
        seen = self.seen(image, case, small)
        piece = unlabelled(seen, small, kept, classes, cut_off)
        shares = {one: int((piece & (seen == one)).sum()) / area for one in classes}
        return Verdict(self.info, shares)

    def seen(
        self, image: UInt8Grid, case: str, label: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """What the judge sees: its class ids, (image_size, image_size), as `label` has them.

        The label tells where one heart is: what lies beside it is the right ventricle, not another.
        """
        import torch

        from echogen.judging.network import answer

        side = self.info.image_size
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(image))[None, None].float() / 127.5 - 1
            x = torch.nn.functional.adaptive_avg_pool2d(x, (side, side))
            places = np.zeros(256, np.float32)  # 255 and what is no part of a heart: 0
            for number, one in enumerate(self.info.labels, 1):
                places[one] = number / len(self.info.labels)
            x = torch.cat([x, torch.from_numpy(places[label])[None, None]], 1)
            told = [
                answer(self._weights[member.file], x).softmax(1)
                for member in self.info.members_for(case)
            ]
            found = torch.stack(told).mean(0).argmax(1)[0].numpy()
        ids = np.array([BACKGROUND, *self.info.labels], np.uint8)
        return np.asarray(ids[found], np.uint8)

    def heart(self, image: UInt8Grid) -> float:
        """The share of an image's pixels on which the judge sees a heart, without a label."""
        side = self.info.image_size
        return float((self.seen(image, "", np.zeros((side, side), np.uint8)) != BACKGROUND).mean())

    @cached_property
    def _weights(self) -> dict[str, dict[str, "Tensor"]]:
        """{file: weights by name}, float32."""
        return {one.file: load_weights(self.folder / one.file) for one in self.info.networks}

    def __getstate__(self) -> dict[str, object]:
        """For worker processes, which load the weights themselves."""
        return {"info": self.info, "folder": self.folder, "ids": self.ids}


def open_judge(
    path_or_name: str | Path, labels: Mapping[Any, str], tell: Callable[[str], None]
) -> Judge | None:
    """The judge of a dataset with these labels.

    Args:
        path_or_name: a judge's folder, "builtin", or "none".
        labels: {class id: name} of the dataset; ids may be text, as JSON holds them.
        tell: called with one line where the judge does not apply.

    Returns:
        None where there is to be none, or where the dataset does not label every part of the heart
        that the judge knows, so that what it sees would not be missing from a label.

    Raises:
        CheckpointError: no such judge, or it is damaged.
    """
    if str(path_or_name) == NO_JUDGE:
        return None
    info = verify_judge(path_or_name)
    ids = matching(info.labels, labels)
    if ids is not None:
        return Judge(info, judge_folder(path_or_name), ids)
    needed, found = (
        ", ".join(name for number, name in some.items() if int(number)) or "none"
        for some in (info.labels, labels)
    )
    tell(f"no sample is judged: {info.name} needs labels of {needed}; found {found}")
    return None


def matching(judged: Mapping[int, str], labels: Mapping[Any, str]) -> dict[int, int] | None:
    """{a dataset's class id: a judge's}, by names; None unless the dataset labels all of them.

    The ids of `labels` may be text, as JSON holds them.
    """
    by_name = {_meaning(name): int(number) for number, name in labels.items() if int(number)}
    ids = {by_name.get(_meaning(name)): number for number, name in judged.items()}
    return None if None in ids else {own: number for own, number in ids.items() if own is not None}


def _meaning(name: str) -> str:
    """A class's name, or what it is short for."""
    known = KNOWN_NAMES.get(folded(name))
    return folded(name if known is None else CAMUS_LABELS[known])


def _middles(size: int, side: int) -> npt.NDArray[np.intp]:
    """Of `size` pixels, those in the middle of `side` equal parts."""
    return ((np.arange(side) + 0.5) * size / side).astype(np.intp)
