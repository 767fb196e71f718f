"""Any set of classes, from the reader to the store and out of it again: ids with gaps, four
chambers, the left ventricle alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from echogen.commands.expand import expand
from echogen.commands.export import export
from echogen.commands.preview import preview
from echogen.commands.stats import stats
from echogen.commands.validate import validate
from echogen.datasets import open_dataset
from echogen.errors import DatasetError
from echogen.loading import EchoDataset
from echogen.pictures.colours import CAVITY, colours_of
from echogen.store import open_store
from tests.support.chambers import chambers, write_videos
from tests.support.hearts import make_config, write_nifti

GAPS = {1: "left ventricle", 2: "left atrium", 5: "RA", 7: "pulmonary vein", 200: "RV"}
RENAMED = {1: 1, 2: 2, 3: 5, 4: 200}


@dataclass(frozen=True)
class Made:
    """A dataset with its classes, and a store made of it."""

    dataset: Path
    labels: Mapping[int, str]
    store: Path

    @property
    def ids(self) -> set[int]:
        """Of the classes that frames hold; no frame has a vein."""
        return set(self.labels) - {0, 7}


def write_pairs(root: Path, ids: Mapping[int, int]) -> Path:
    """CAMUS' layout, the larger hearts at ED, with the chambers' ids changed; others are left."""
    for case in (1, 2):
        folder = root / f"patient000{case}"
        folder.mkdir(parents=True)
        for phase, squeeze in (("ED", 1.0), ("ES", 0.7)):
            image, label = chambers(case, squeeze, rv_col=39 if case == 1 else 17)
            changed = np.zeros_like(label)
            for here, there in ids.items():
                changed[label == here] = there
            write_nifti(folder / f"{folder.name}_4CH_{phase}.nii.gz", image)
            write_nifti(folder / f"{folder.name}_4CH_{phase}_gt.nii.gz", changed)
    return root


@pytest.fixture(scope="module", params=["chambers", "gaps", "lv"])
def made(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "chambers":
        dataset = write_videos(root / "cardiacUDC_dataset")
    else:
        dataset = write_pairs(root / "pairs", RENAMED if request.param == "gaps" else {1: 1})
        names = GAPS if request.param == "gaps" else {1: "LV endocardium"}
        lines = "".join(f"{label},{name}\n" for label, name in names.items())
        (dataset / "classes.csv").write_text(f"class_id,name\n{lines}")
    store = root / "store.zarr"
    settings = {
        "input": str(dataset), "output": str(store), "copies": 2, "checkpoint": str(checkpoint),
        "sampler": {"name": "repaint", "steps": 4, "jump_length": 2, "resamplings": 2},
        "engine": {"device": "cpu", "precision": "fp32", "batch_size": 4, "workers": 1},
    }  # fmt: skip
    assert expand(make_config(settings)).exit_code == 0
    return Made(dataset, open_dataset(dataset).provenance.labels, store)


def test_ids_and_names_are_those_of_the_dataset_in_the_store(made: Made) -> None:
    with open_store(made.store) as store:
        assert store.record.labels == made.labels
        originals = store.columns["copy"] == 0
        assert set(np.unique(store.masks[:][originals])) == {0, *made.ids}
        assert set(np.unique(store.masks[:])) == {0, *made.ids}
        for bits, text in zip(store.columns["cut"], store.columns["cut_ids"], strict=True):
            cut = {int(label) for label in text.split()}
            assert cut <= made.ids
            assert {k for k in range(8) if bits >> k & 1} == {k for k in cut if k < 8}
        if 200 in made.ids:
            assert "200" in set(" ".join(store.columns["cut_ids"]).split())


def test_stats_list_every_class(made: Made) -> None:
    report = stats(made.store, workers=1)
    assert {one.label: one.name for one in report.classes} == {
        label: name for label, name in made.labels.items() if label
    }
    for one in report.classes:
        there = 4 if one.label in made.ids else 0
        assert one.samples["originals"] == there
        assert ("originals" in one.share) == (there > 0)
    shares = {one.label: one.share["originals"].mean for one in report.classes if one.share}
    assert 0.02 < shares[1] < 0.2
    assert all(shares[1] > share for label, share in shares.items() if label != 1)


def test_stats_measure_the_left_ventricle_by_its_name(made: Made) -> None:
    for path in (made.dataset, made.store):
        report = stats(path, workers=1)
        features = {one.feature: one.groups["originals"].n for one in report.features}
        assert features["cavity_share"] == 4
        assert ("atrium_share" in features) == (2 in made.ids)
        if made.dataset.name == "pairs":
            assert [volume.ef > 20 for volume in report.volumes] == [True, True]


def test_validate_knows_the_classes(made: Made) -> None:
    report = validate(made.dataset, workers=1)
    assert report.dataset is not None
    assert {one.label: one.name for one in report.dataset.areas} == {
        label: made.labels[label] for label in made.ids
    }
    checked = validate(made.store, source=made.dataset, workers=1)
    assert not [found for found in checked.findings if found.severity == "error"]


def test_pictures_show_each_class_in_its_colour(made: Made, tmp_path: Path) -> None:
    for path in (made.dataset, made.store):
        preview(path, out=tmp_path / "sheet.png", n=4, height=160)
        drawn = np.asarray(Image.open(tmp_path / "sheet.png")).reshape(-1, 3)
        shown = {tuple(colour) for colour in np.unique(drawn, axis=0).tolist()}
        colours = colours_of(made.labels)
        assert colours[1] == CAVITY
        assert {colours[label] for label in made.ids} <= shown  # in the legend at least


def test_nnunet_gets_ids_without_gaps_under_the_same_names(made: Made, tmp_path: Path) -> None:
    export(made.store, to="nnunet", output=tmp_path)
    root = next(tmp_path.glob("Dataset501_*"))
    described = json.loads((root / "dataset.json").read_text())["labels"]
    names = [made.labels[label] for label in sorted(made.labels) if label]
    assert described == {"background": 0, **{name: i for i, name in enumerate(names, 1)}}
    back = open_dataset(root)
    assert back.provenance.labels == {i: name for name, i in described.items()}
    expected = {described[made.labels[label]] for label in made.ids}
    assert set(np.unique(back.read(back.keys[0]).label)) == {0, *expected}


@pytest.mark.parametrize("to", ["nifti", "folder"])
def test_exports_keep_ids_and_name_them(made: Made, tmp_path: Path, to: str) -> None:
    report = export(made.store, to=to, output=tmp_path / "out")
    if made.dataset.name != "pairs" and to == "nifti":
        assert any("without CAMUS' view and phase" in note for note in report.notes)
        return
    back = open_dataset(tmp_path / "out")
    assert back.provenance.labels == made.labels
    assert set(np.unique(back.read(back.keys[0]).label)) == {0, *made.ids}
    said = ", ".join(f"{label} {name}" for label, name in made.labels.items())
    assert f"Class ids: {said}." in (tmp_path / "out" / "README.md").read_text()


def test_a_training_reads_the_same_ids_and_names(made: Made) -> None:
    data = EchoDataset(made.store, copies=False)
    assert data.labels == made.labels
    assert set(np.unique(data[0]["label"])) == {0, *made.ids}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one,LV\n", 2),
        ("1,LV\n1,LA\n", 3),
        ("1,\n", 2),
        ("1.5,LV\n", 2),
        ("255,LV\n", 2),
        ("9223372036854775808,LV\n", 2),
        ("-1,LV\n", 2),
    ],
)
def test_a_table_of_classes_that_is_none_is_refused(tmp_path: Path, text: str, line: int) -> None:
    root = write_pairs(tmp_path / "pairs", {1: 1})
    (root / "classes.csv").write_text(f"class_id,name\n{text}")
    with pytest.raises(DatasetError, match=rf"classes.csv line {line}: expected class_id and name"):
        open_dataset(root)
