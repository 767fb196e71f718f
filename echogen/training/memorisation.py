"""Does a model repeat its training images? Their nearest neighbours, as figures and as a plot.

A sample that is a copy lies much nearer to a training frame than frames of other patients do, so
the distances of samples are set beside those of held-out frames, which cannot be copies. Two are
taken, since a copy may be brighter or fainter than its frame: of grey levels, and of patterns, for
which only correlation counts. Both at 64 x 64, blocks of training frames at a time, so that 100,000
of them are no matter.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.training.frames import Rows
from echogen.training.pictures import Images

SIDE = 64
COMPARED = 512
_BLOCK = 1024
_COPY = 0.5
_NEAR = 0.05

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """Each image's nearest of a set, by two measures; see `nearest_neighbours`.

    Attributes:
        rms: (N,) least root mean square difference in grey levels of 0..255, at 64 x 64.
        correlation: (N,) greatest correlation within the fans, at 64 x 64.
        nearest: (N,) index of the one with the least difference.
        alike: (N,) index of the one with the greatest correlation.
    """

    rms: npt.NDArray[np.float64]
    correlation: npt.NDArray[np.float64]
    nearest: Rows
    alike: Rows

    @property
    def pattern(self) -> npt.NDArray[np.float64]:
        """(N,) distance in [0, 2] of the patterns, scaled to length 1: sqrt(2 - 2 correlation)."""
        distance: npt.NDArray[np.float64] = np.sqrt(2 - 2 * np.minimum(self.correlation, 1.0))
        return distance


@dataclass(frozen=True)
class Memorisation:
    """Nearest training frames of samples, beside those of frames that cannot be copies.

    Attributes:
        samples: of generated images.
        held_out: of frames of cases that were not trained on; None without such.
        training: of training frames, each left out itself; None where there is only one.
        verdict: what that means, in a sentence or two.
    """

    samples: Neighbours
    held_out: Neighbours | None
    training: Neighbours | None
    verdict: str

    @property
    def fit_to_show(self) -> npt.NDArray[np.bool_]:
        """(N,) the samples that lie no nearer to a training frame than any held-out frame does."""
        fit = np.ones(len(self.samples.rms), np.bool_)
        if self.held_out is not None:
            fit &= self.samples.rms >= self.held_out.rms.min()
            fit &= self.samples.pattern >= self.held_out.pattern.min()
        return fit

    def as_dict(self) -> dict[str, Any]:
        """Figures for the training record, JSON-able.

        `nearer_than_held_out` counts the samples that are not `fit_to_show`; None where no frame
        was held out.
        """
        sets = {"samples": self.samples, "held_out": self.held_out, "training": self.training}
        return {
            "at": f"{SIDE} x {SIDE}",
            **{
                name: summary(neighbours)
                for name, neighbours in sets.items()
                if neighbours is not None
            },
            "nearer_than_held_out": None
            if self.held_out is None
            else int((~self.fit_to_show).sum()),
            "verdict": self.verdict,
        }


def memorisation_of(samples: Images, frames: Images, trained: Rows, held_out: Rows) -> Memorisation:
    """The nearest training frame of each sample, of held-out and of training frames.

    Args:
        samples: (N, S, S) generated images.
        frames: (M, S, S) all frames, possibly a memory map.
        trained, held_out: rows of `frames`. At most 512 of either are compared.
    """
    looked_up = held_out[:: -(-len(held_out) // COMPARED) or 1]
    known = trained[:: -(-len(trained) // COMPARED)]
    near = nearest_neighbours(samples, frames, trained)
    beside = nearest_neighbours(frames[looked_up], frames, trained) if len(looked_up) else None
    others = (
        nearest_neighbours(frames[known], frames, trained, leave_out=known)
        if len(trained) > 1
        else None
    )
    return Memorisation(near, beside, others, verdict(near, beside))


def distances_plot(memorisation: Memorisation) -> bytes:
    """A PNG of 900 x 1080: the share of images with a training frame no farther than x.

    In grey levels above, in pattern below; no picture of a patient is in it.
    """
    from matplotlib.figure import Figure

    curves = [
        ("generated samples", memorisation.samples, "#c82828"),
        ("held-out frames, of unseen cases", memorisation.held_out, "#1e5ab4"),
        ("training frames, each without itself", memorisation.training, "#828282"),
    ]
    figure = Figure(figsize=(9, 10.8), dpi=100, layout="constrained")
    levels, patterns = figure.subplots(2)
    for name, neighbours, colour in curves:
        if neighbours is not None:
            label = f"{name} ({len(neighbours.rms)})"
            levels.ecdf(neighbours.rms, color=colour, label=label)
            patterns.ecdf(neighbours.pattern, color=colour, label=label)
    levels.set_title("How near is the nearest training frame?")
    levels.set_xlabel("difference in grey levels of 0..255 (root mean square at 64 x 64)")
    patterns.set_title("How near is its pattern, regardless of brightness?")
    patterns.set_xlabel("difference in pattern, sqrt(2 - 2 correlation), at 64 x 64")
    for axes in (levels, patterns):
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.grid(alpha=0.4)
        axes.legend(loc="upper left")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def verdict(samples: Neighbours, held_out: Neighbours | None) -> str:
    """What the distances say, and what they cannot say."""
    count = len(samples.rms)
    no_proof = f"{count} samples do not prove that no other sample is a copy."
    if held_out is None:
        return (
            "No case was held out, so there is nothing to compare with; look at the nearest pairs "
            f"yourself. {no_proof}"
        )
    pairs = ((samples.rms, held_out.rms), (samples.pattern, held_out.pattern))
    copies = int(np.any([own < _COPY * beside.min() for own, beside in pairs], axis=0).sum())
    within = [int((own < np.quantile(beside, _NEAR)).sum()) for own, beside in pairs]
    if copies:
        verb = "lies" if copies == 1 else "lie"
        return (
            f"{copies} of {count} samples {verb} less than half as far from a training frame, in "
            "grey levels or in pattern, as any held-out frame does, which suggests copies. Look at "
            "the nearest pairs before you share this model."
        )
    if max(within) > 2 * _NEAR * count + 2:  # by chance alone it is about half of that
        return (
            f"{within[0]} of {count} samples in grey levels, {within[1]} in pattern, lie as near "
            f"to a training frame as the nearest {_NEAR:.0%} of held-out frames do: nearer than "
            "frames of unseen patients are, though none less than half as far. Look at the nearest "
            f"pairs. {no_proof}"
        )
    return f"Samples lie no nearer to training frames than frames of unseen patients do. {no_proof}"


def summary(neighbours: Neighbours) -> dict[str, Any]:
    """Count and quantiles of the nearest distances and correlations."""
    shares = {"least": 0, "p05": 0.05, "median": 0.5, "p95": 0.95, "greatest": 1}
    return {
        "count": len(neighbours.rms),
        **{
            name: {k: round(float(np.quantile(values, q)), 3) for k, q in shares.items()}
            for name, values in (("rms", neighbours.rms), ("correlation", neighbours.correlation))
        },
    }


def nearest_neighbours(
    images: Images, frames: Images, rows: Rows | None = None, leave_out: Rows | None = None
) -> Neighbours:
    """The nearest among some rows of `frames` to each of `images`.

    Correlation is taken over the pixels that lie in most fans. There each image is brought to mean
    0 and deviation 1, and a pixel's mean over all of these frames is subtracted, so that neither
    brightness and contrast count nor the shape and shading that all share.

    Args:
        images: (N, S, S).
        frames: (M, S, S), possibly a memory map.
        rows: of `frames`; None takes all.
        leave_out: (N,) a row of `frames` for each image that does not count, or None.
    """
    rows = np.arange(len(frames)) if rows is None else rows
    small = shrink(images).reshape(len(images), -1)
    mean = np.zeros(small.shape[1])
    for _, known in _blocks(frames, rows):
        mean += known.sum(axis=0, dtype=np.float64) / len(rows)
    centre, inside = mean.astype(np.float32), mean > 1
    shared = np.zeros(int(inside.sum()))
    for _, known in _blocks(frames, rows):
        shared += _standard(known[:, inside]).sum(axis=0, dtype=np.float64) / len(rows)
    pattern = shared.astype(np.float32)
    a = small - centre
    a_unit = _unit(_standard(small[:, inside]) - pattern)
    rms = np.full(len(images), np.inf)
    correlation = np.full(len(images), -1.0)
    nearest, alike = (np.zeros(len(images), np.int64) for _ in range(2))
    for block, known in _blocks(frames, rows):
        b = known - centre
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        similar = a_unit @ _unit(_standard(known[:, inside]) - pattern).T
        if leave_out is not None:
            own = leave_out[:, None] == block[None]
            squares[own], similar[own] = np.inf, -1
        at = squares.argmin(axis=1)
        distance = np.sqrt(((a - b[at]) ** 2).mean(axis=1))  # exact where the squares cancel
        distance[np.isinf(squares[np.arange(len(a)), at])] = np.inf
        closer = distance < rms
        rms[closer], nearest[closer] = distance[closer], block[at[closer]]
        best = similar.argmax(axis=1)
        greatest = similar.max(axis=1)
        higher = greatest > correlation
        correlation[higher], alike[higher] = greatest[higher], block[best[higher]]
    return Neighbours(rms, correlation, nearest, alike)


def shrink(images: Images) -> Vectors:
    """(N, 64, 64) means over blocks; smaller images, and odd sides, are cut into what fits."""
    count, side, _ = images.shape
    block = max(side // SIDE, 1)
    kept = side // block * block
    blocks = images[:, :kept, :kept].reshape(count, kept // block, block, kept // block, block)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float32))


def _blocks(frames: Images, rows: Rows) -> Iterator[tuple[Rows, Vectors]]:
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        yield block, shrink(frames[block]).reshape(len(block), -1)


def _standard(vectors: Vectors) -> Vectors:
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    standard: Vectors = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-6)
    return standard


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit
