"""Stores as training data: items, worker processes, weights, and the documented scripts."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader, WeightedRandomSampler

import echogen
from echogen.commands.expand import expand
from echogen.errors import StoreError, UsageError
from echogen.loading import EchoDataset, LoadSample
from echogen.store import Status, open_store, sample_sha256
from tests.support.hearts import make_config

PAGE = Path(__file__).parents[1] / "docs" / "training-on-a-store.md"


@pytest.fixture(scope="module")
def stores(
    dataset: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """4 frames of 2 cases with 2 copies each, as .zarr and as .h5. Do not change."""
    folder = tmp_path_factory.mktemp("stores")
    made = {}
    for suffix in ("zarr", "h5"):
        made[suffix] = folder / f"camus_aug.{suffix}"
        config = make_config(
            {
                "input": str(dataset),
                "output": str(made[suffix]),
                "copies": 2,
                "checkpoint": str(checkpoint),
                "sampler": {"name": "repaint", "steps": 2, "jump_length": 1, "resamplings": 1},
                "engine": {"device": "cpu", "precision": "fp32", "batch_size": 4, "workers": 1},
                "store": {"shard_size": 5},
            }
        )
        expand(config)
    return made


def test_an_item_is_the_stores_row(stores: dict[str, Path]) -> None:
    items = EchoDataset(stores["zarr"], with_keep=True)
    with open_store(stores["zarr"]) as store:
        assert len(items) == (store.columns["status"] == Status.DONE).sum() == 12
        assert items.labels == {int(k): name for k, name in store.attrs["labels"].items()}
        for index, row in enumerate(items.rows):
            item = items[index]
            assert np.array_equal(item["image"][0].numpy(), store.images[row] / np.float32(255))
            assert np.array_equal(item["label"][0].numpy(), store.masks[row])
            assert np.array_equal(item["keep"][0].numpy(), store.keep[row])
            assert item["sample_id"] == store.columns["sample_id"][row]
            assert item["copy"] == store.columns["copy"][row]
            assert np.array_equal(item["spacing_mm"], store.columns["spacing_mm"][row])
    assert item["image"].shape == item["label"].shape == (1, 32, 32)
    assert item["image"].dtype == torch.float32
    assert item["label"].dtype == torch.int64
    assert items[-1]["sample_id"] == items[len(items) - 1]["sample_id"]
    with pytest.raises(IndexError):
        items[len(items)]


@pytest.mark.parametrize("kind", ["zarr", "h5"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_read_what_one_process_reads(
    stores: dict[str, Path], kind: str, start: str
) -> None:
    items = EchoDataset(stores[kind])
    alone = [items[index]["image"] for index in range(len(items))]  # the file is open here, too
    loader = DataLoader(items, batch_size=3, num_workers=2, multiprocessing_context=start)
    together = torch.cat([batch["image"] for batch in loader])
    assert torch.equal(torch.stack(alone), together)
    assert torch.equal(items[0]["image"], alone[0])


def test_a_pickled_dataset_reads_on(stores: dict[str, Path]) -> None:
    items = EchoDataset(stores["h5"], transform=LoadOnlyImage())
    first = items[0]
    again = pickle.loads(pickle.dumps(items))
    assert torch.equal(again[0], first)


class LoadOnlyImage:
    def __call__(self, item: dict[str, torch.Tensor]) -> torch.Tensor:
        return item["image"]


def test_selection_by_case_and_copy(stores: dict[str, Path]) -> None:
    everything = EchoDataset(stores["zarr"])
    assert everything.cases == ["patient0001", "patient0002"]
    one = EchoDataset(stores["zarr"], cases=["patient0002"])
    assert {one[i]["case_id"] for i in range(len(one))} == {"patient0002"}
    originals = EchoDataset(stores["zarr"], copies=False)
    assert {originals[i]["copy"] for i in range(len(originals))} == {0}
    copies = EchoDataset(stores["zarr"], originals=False)
    assert {copies[i]["copy"] for i in range(len(copies))} == {1, 2}
    assert len(originals) + len(copies) == len(everything)
    with pytest.raises(UsageError, match=r"split='moon'.*12 rows, 12 of them done"):
        EchoDataset(stores["zarr"], split="moon")


def test_weights_give_copies_their_share(stores: dict[str, Path]) -> None:
    items = EchoDataset(stores["zarr"])
    is_copy = torch.tensor([items[i]["copy"] > 0 for i in range(len(items))])
    for share in (0.0, 0.25, 0.5, 1.0):
        weights = items.weights(copies=share)
        assert weights.sum().item() == pytest.approx(1)
        assert weights[is_copy].sum().item() == pytest.approx(share)
    assert EchoDataset(stores["zarr"], copies=False).weights(0.5).tolist() == [0.25] * 4
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        items.weights(copies=1.5)


def test_frames_weigh_the_same_however_many_copies_they_have(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    path = shutil.copytree(stores["zarr"], tmp_path / "uneven.zarr")
    with open_store(path) as store:
        frames, copies = store.columns["frame_id"], store.columns["copy"]
    copies[frames == "patient0001_4CH_ED"] = 1  # three copies, and no original
    zarr.open_group(path, mode="r+")["samples/copy"][:] = copies  # type: ignore[index]
    items = EchoDataset(path)
    weights = items.weights(copies=0.5)
    by_frame: dict[str, float] = {}
    for index, weight in enumerate(weights.tolist()):
        if items[index]["copy"] > 0:
            frame = items[index]["frame_id"]
            by_frame[frame] = by_frame.get(frame, 0) + weight
    assert list(by_frame.values()) == pytest.approx([0.5 / 4] * 4)
    drawn = list(WeightedRandomSampler(weights, 50))
    assert max(drawn) < len(items)


def test_dicts_fill_themselves_and_are_plain(stores: dict[str, Path]) -> None:
    items = EchoDataset(stores["zarr"])
    dicts = pickle.loads(pickle.dumps(items.dicts()))
    assert len(dicts) == len(items)
    for index, item in enumerate(dicts):
        assert all(type(value) in (str, int) for value in item.values())
        loaded = LoadSample()(item)
        assert torch.equal(loaded["image"], items[index]["image"])
        assert torch.equal(loaded["label"], items[index]["label"])
        assert "image" not in item


def test_changed_pixels_are_refused(stores: dict[str, Path]) -> None:
    item = EchoDataset(stores["zarr"]).dicts()[3]
    other = EchoDataset(stores["zarr"]).dicts()[4]
    with pytest.raises(StoreError, match=r"row 3 does not match its recorded SHA-256.*validate"):
        LoadSample()({**item, "sha256": other["sha256"]})


def test_an_unfinished_store_is_refused_unless_it_is_asked_for(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "x.zarr"
    shutil.copytree(stores["zarr"], copy)
    root = copy / "zarr.json"
    text = json.loads(root.read_text())
    text["attributes"]["echogen"]["complete"] = False
    root.write_text(json.dumps(text))
    with pytest.raises(StoreError, match=r"unfinished.*same .* command"):
        EchoDataset(copy)
    assert len(EchoDataset(copy, unfinished=True)) == 12


def test_a_store_that_was_made_again_is_read_anew(stores: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    shutil.copy(stores["h5"], path)
    EchoDataset(path)[0]
    path.unlink()
    shutil.copy(stores["h5"], path)
    with h5py.File(path, "r+") as store:
        store["images"][0] = 7
        store["samples/sha256"][0] = sample_sha256(store["images"][0], store["masks"][0])
    assert (EchoDataset(path)[0]["image"] == 7 / 255).all()


def test_the_package_offers_both_without_loading_torch() -> None:
    code = (
        "import sys, echogen; assert 'torch' not in sys.modules; "
        "assert echogen.EchoDataset and echogen.LoadSample and 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Echo'"):
        echogen.Echo  # noqa: B018


@pytest.mark.parametrize("library", ["PyTorch", "MONAI"])
def test_the_documented_scripts_train_an_epoch(
    stores: dict[str, Path], tmp_path: Path, library: str
) -> None:
    section = PAGE.read_text().split(f"## {library}\n")[1]
    found = re.search(r"```python\n(.*?)```", section, re.S)
    assert found
    script = tmp_path / "train.py"
    script.write_text(found[1])
    (tmp_path / "camus_aug.zarr").symlink_to(stores["zarr"])
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"one epoch of 6 samples, last loss \d+\.\d+", done.stdout)
