"""Stores for training: a PyTorch dataset, and MONAI's list of dictionaries.

A sample is read when it is asked for, by whatever worker process asks, and compared with its
SHA-256; nothing here holds pixels.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from echogen.errors import StoreError, UsageError
from echogen.store import Status, StoreReader, open_store, sample_sha256, shared_store

Item = dict[str, Any]

FACTS = ("sample_id", "frame_id", "case_id", "view", "phase", "split", "copy", "sha256")
LARGEST_GREY = 255


class EchoDataset(Dataset[Any]):
    """A map-style PyTorch dataset over a store.

    `dataset[i]` is a dictionary, on the store's grid of h x w pixels:

    - `image`: (1, h, w) float32 in [0, 1].
    - `label`: (1, h, w) int64 class ids; 255 where a pixel is to be ignored.
    - `keep`: (1, h, w) bool, False where the pixel is generated; only with `with_keep`.
    - `spacing_mm`: (2,) float32, of a row and of a column; NaN where unknown.
    - `sample_id`, `frame_id`, `case_id`, `view`, `phase`, `split`, `sha256`: text.
    - `copy`: int, 0 for an original.

    Only samples that are done are listed. Objects can be pickled and survive a fork: each process
    opens the store for itself.

    Args:
        store: a .zarr folder or .h5 file that `echogen expand` made.
        transform: called with each item; what it returns is the item.
        split: take samples of this split of the dataset's own lists.
        cases: take samples of these cases (`case_id`), as for a split by patient.
        originals, copies: take them.
        with_keep: items hold `keep`, too.
        unfinished: take what is done of a store whose run has not ended.

    Attributes:
        path: the store.
        labels: {class id: name}.
        rows: (n,) int64, the store's row of each item.

    Raises:
        StoreError: not a store, damaged, unfinished, or generated images, which have no labels.
        UsageError: no sample fits the selection.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        transform: Callable[[Item], Any] | None = None,
        split: str | None = None,
        cases: Collection[str] | None = None,
        originals: bool = True,
        copies: bool = True,
        with_keep: bool = False,
        unfinished: bool = False,
    ) -> None:
        self.path, self.transform, self._with_keep = Path(store).absolute(), transform, with_keep
        with open_store(self.path) as opened:
            _check_usable(opened, unfinished)
            columns = opened.columns
            wanted = columns["status"] == Status.DONE
            wanted &= np.where(columns["copy"] == 0, originals, copies)
            if split is not None:
                wanted &= columns["split"] == split
            if cases is not None:
                wanted &= np.isin(columns["case_id"], list(cases))
            if not wanted.any():
                raise UsageError(_nothing_left(self.path, columns, split, cases))
            self.rows: npt.NDArray[np.int64] = np.flatnonzero(wanted)
            self._facts = {name: columns[name][wanted] for name in FACTS}
            self._spacing = columns["spacing_mm"][wanted].astype(np.float32)
            self.labels: dict[int, str] = opened.record.labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        """Item `index`, in [-n, n).

        Raises:
            IndexError: no such item.
            StoreError: its pixels are damaged, or the store is gone.
        """
        facts = self._facts_of(index)
        names = ("images", "masks", "keep") if self._with_keep else ("images", "masks")
        item = {
            **_read(self.path, int(self.rows[index]), facts["sha256"], names),
            "spacing_mm": torch.from_numpy(self._spacing[index].copy()),
            **facts,
        }
        return item if self.transform is None else self.transform(item)

    @property
    def cases(self) -> list[str]:
        """The cases of the items, sorted, each once: split by these to keep patients apart."""
        return sorted(set(self._facts["case_id"].tolist()))

    def weights(self, copies: float = 0.5) -> Tensor:
        """Weights by which a share `copies` of the draws are copies; (n,) float64, sum 1.

        For `torch.utils.data.WeightedRandomSampler`. Every original weighs the same, and so does
        every frame that has copies, however many of them were made. Without originals all draws are
        copies, and the other way round.

        Raises:
            ValueError: `copies` is not in [0, 1].
        """
        if not 0 <= copies <= 1:
            raise ValueError(f"copies must be a share of the draws in [0, 1], got {copies}")
        is_copy = self._facts["copy"] > 0
        if is_copy.all() or not is_copy.any():
            copies = float(is_copy.all())
        weights = np.zeros(len(self))
        for members, share in ((~is_copy, 1 - copies), (is_copy, copies)):
            _, frame, count = np.unique(
                self._facts["frame_id"][members], return_inverse=True, return_counts=True
            )
            weights[members] = share / (max(1, len(count)) * count[frame])
        return torch.from_numpy(weights)

    def dicts(self) -> list[Item]:
        """MONAI's list of dictionaries: one small dictionary an item, which `LoadSample` fills.

        Each holds `store` and `row` beside the facts of the items; its SHA-256 makes MONAI's caches
        notice a store that was made again.
        """
        return [
            {"store": str(self.path), "row": int(row), **self._facts_of(index)}
            for index, row in enumerate(self.rows)
        ]

    def _facts_of(self, index: int) -> Item:
        return {name: values[index].item() for name, values in self._facts.items()}


class LoadSample:
    """The first transform for `EchoDataset.dicts()`: adds `image` and `label` to a dictionary.

    They are as in `EchoDataset`'s items: (1, h, w) float32 in [0, 1], and (1, h, w) int64.

    Raises:
        StoreError: when called: the pixels are damaged, or the store was made again or is gone.
    """

    def __call__(self, item: Mapping[str, Any]) -> Item:
        """A copy of `item` with its pixels."""
        path, names = Path(item["store"]), ("images", "masks")
        return {**item, **_read(path, int(item["row"]), str(item["sha256"]), names)}


def _read(path: Path, row: int, sha256: str, names: tuple[str, ...]) -> dict[str, Tensor]:
    reader = shared_store(path)
    pixels = {name: reader.pixels(name)[row] for name in names}
    if sample_sha256(pixels["images"], pixels["masks"]) != sha256:
        raise StoreError(
            f"{path}: row {row} does not match its recorded SHA-256: it is damaged, or the store "
            f"was rebuilt since it was opened. `echogen validate {path}` says which."
        )
    item = {
        "image": torch.from_numpy(pixels["images"]).to(torch.float32)[None] / LARGEST_GREY,
        "label": torch.from_numpy(pixels["masks"]).to(torch.int64)[None],
    }
    if "keep" in pixels:
        item["keep"] = torch.from_numpy(pixels["keep"])[None]
    return item


def _check_usable(store: StoreReader, unfinished: bool) -> None:
    store.pixels("masks")
    if not (store.complete or unfinished):
        raise StoreError(
            f"{store.path} is unfinished: its run was interrupted or is still going. Run the same "
            "`echogen expand` command again, or pass unfinished=True to use the samples that are "
            "done."
        )


def _nothing_left(
    path: Path,
    columns: Mapping[str, npt.NDArray[Any]],
    split: str | None,
    cases: Collection[str] | None,
) -> str:
    there = ", ".join(sorted(set(columns["split"].tolist()))) or "none"
    return (
        f"{path}: no finished sample matches split={split!r} and "
        f"cases={None if cases is None else sorted(cases)[:5]!r}: the store has "
        f"{len(columns['copy'])} rows, {(columns['status'] == Status.DONE).sum()} of them done, in "
        f"the splits {there} and cases such as {columns['case_id'][0]!r}."
    )
