"""The simulator: same bytes again, true sectors, labels and volumes, speckle of the right kind."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from echogen.errors import StoreError, UsageError
from echogen.phantom import (
    PHASES,
    VIEWS,
    PhantomCase,
    dataset,
    make_case,
    make_frame,
    write_dataset,
)
from echogen.phantom.anatomy import Heart, biplane_volume
from echogen.phantom.beam import ANGLE_STEP, Pulse, envelope_db
from echogen.phantom.case import METAIMAGE_SPACING_MM
from echogen.phantom.dataset import metaimage_header
from echogen.phantom.tissue import Look
from echogen.types import LEFT_ATRIUM, LV_CAVITY, MYOCARDIUM
from tests.support.faults import contents, every_kill

SAMPLE = Path(__file__).parents[2] / "sample_data" / "camus"


@pytest.fixture(scope="module")
def case() -> PhantomCase:
    return make_case(2)


def same_content(committed: bytes, fresh: bytes, name: str) -> bool:
    """Equal bytes; where another deflate than zlib packs, equal once unpacked."""
    if name.endswith(".gz") and "ng" in zlib.ZLIB_RUNTIME_VERSION:
        return zlib.decompress(committed, 31) == zlib.decompress(fresh, 31)
    return committed == fresh


def differing(fresh: Path) -> list[str]:
    """Files under `fresh` that are not the same in the committed sample."""
    names = sorted(p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file())
    return [
        name
        for name in names
        if not same_content((SAMPLE / name).read_bytes(), (fresh / name).read_bytes(), name)
    ]


def test_the_first_case_reproduces_the_committed_bytes(tmp_path: Path) -> None:
    written = write_dataset(tmp_path / "new", cases=1)
    assert written == [f"patient0001_{v}_{p}" for v in VIEWS for p in PHASES]
    assert len(list((tmp_path / "new/database_nifti/patient0001").iterdir())) == 10
    assert [n for n in differing(tmp_path / "new") if not n.startswith("database_split/")] == []
    lists = tmp_path / "new/database_split"
    assert (lists / "subgroup_training.txt").read_text() == "patient0001\n"


def test_a_metaimage_frame_reproduces_the_committed_bytes() -> None:
    frame = make_frame(7, "2CH", "ES", spacing_mm=METAIMAGE_SPACING_MM)
    for suffix, pixels in (("", frame.image), ("_gt", frame.label)):
        stem = f"patient0007_2CH_ES{suffix}"
        folder = SAMPLE / "training" / "patient0007"
        assert (folder / f"{stem}.raw").read_bytes() == pixels.tobytes()
        shape = (pixels.shape[0], pixels.shape[1])
        header = metaimage_header(shape, frame.spacing_mm, f"{stem}.raw")
        assert (folder / f"{stem}.mhd").read_bytes() == header.encode()


@pytest.mark.slow
def test_the_whole_sample_reproduces_byte_for_byte(tmp_path: Path) -> None:
    write_dataset(tmp_path / "camus", cases=7, seed=0)
    fresh = [p for p in (tmp_path / "camus").rglob("*") if p.is_file()]
    assert len(fresh) == len([p for p in SAMPLE.rglob("*") if p.is_file()])
    assert differing(tmp_path / "camus") == []


def test_the_committed_sample_is_complete_and_small() -> None:
    images = list(SAMPLE.glob("database_nifti/*/*.nii.gz"))
    assert len(images) == 6 * 2 * 2 * 2
    assert len(list(SAMPLE.glob("training/patient0007/*.mhd"))) == 8
    assert len(list(SAMPLE.rglob("Info_?CH.cfg"))) == 14
    listed = [
        line
        for part in ("training", "validation", "testing")
        for line in (SAMPLE / "database_split" / f"subgroup_{part}.txt").read_text().split()
    ]
    assert sorted(listed) == [f"patient{index:04d}" for index in range(1, 8)]
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) < 4_000_000


def test_a_frame_alone_equals_that_frame_in_its_case(case: PhantomCase) -> None:
    alone = make_frame(2, "2CH", "ES")
    np.testing.assert_array_equal(alone.image, case.frames["2CH", "ES"].image)
    np.testing.assert_array_equal(alone.label, case.frames["2CH", "ES"].label)


def test_seed_and_index_change_the_frame(case: PhantomCase) -> None:
    image = case.frames["4CH", "ED"].image
    for other in (make_frame(2, "4CH", "ED", seed=1), make_frame(3, "4CH", "ED")):
        assert other.image.shape != image.shape or bool((other.image != image).any())


def test_outside_the_sector_is_black_and_inside_hardly_ever(case: PhantomCase) -> None:
    for frame in case.frames.values():
        inside = frame.sector.mask((frame.image.shape[0], frame.image.shape[1]), frame.spacing_mm)
        assert frame.image[~inside].max() == 0
        assert (frame.image[inside] == 0).mean() < 0.02


@pytest.mark.parametrize("index", [1, 4, 7])
def test_every_image_shows_its_whole_fan_and_little_beside_it(index: int) -> None:
    for frame in make_case(index).frames.values():
        for size, step, (low, high) in zip(
            frame.image.shape, frame.spacing_mm, frame.sector.bounds, strict=True
        ):
            assert -step < low <= 3.0
            assert -step < size * step - high <= 3.0 + step


def test_both_phases_of_a_view_share_a_sector_and_views_do_not(case: PhantomCase) -> None:
    assert case.frames["4CH", "ED"].sector == case.frames["4CH", "ES"].sector
    assert case.frames["4CH", "ED"].sector != case.frames["2CH", "ED"].sector


def test_every_frame_has_the_three_structures_in_order_from_the_probe(case: PhantomCase) -> None:
    for frame in case.frames.values():
        assert frame.image.dtype == frame.label.dtype == np.uint8
        assert set(np.unique(frame.label)) == {0, LV_CAVITY, MYOCARDIUM, LEFT_ATRIUM}
        rows = [np.nonzero(frame.label == k)[0] for k in (MYOCARDIUM, LV_CAVITY, LEFT_ATRIUM)]
        assert rows[0].min() < rows[1].min() < rows[2].min()
        assert rows[1].mean() < rows[2].mean()


def test_blood_is_darker_than_the_wall_and_the_wall_than_white(case: PhantomCase) -> None:
    for frame in case.frames.values():
        inside = frame.sector.mask((frame.image.shape[0], frame.image.shape[1]), frame.spacing_mm)
        blood = np.median(frame.image[inside & (frame.label == LV_CAVITY)])
        wall = np.median(frame.image[inside & (frame.label == MYOCARDIUM)])
        assert 25 < blood < wall - 10
        assert wall < 180


def test_speckle_widens_with_depth_and_keeps_its_length() -> None:
    radii, angles = np.arange(5.0, 145.0, 0.25), np.arange(-0.6, 0.6, ANGLE_STEP)
    silent = Look(0.0, 0.0, 0.0, -200.0, 1.0, -200.0, -200.0, 0.0, 0.0, 0.0)
    db = envelope_db(
        np.full((radii.size, angles.size), -30.0),
        radii,
        Pulse(axial_mm=0.45, lateral=0.01, aperture_mm=0.3, side=0.0),
        silent,
        np.random.default_rng(1),
        np.random.default_rng(2),
    )

    def correlation(near_mm: float, axis: int, lag_mm: float) -> float:
        rows = (radii >= near_mm) & (radii < near_mm + 30)
        part = db[rows] - db[rows].mean(axis=axis, keepdims=True)
        step = 0.25 if axis == 0 else ANGLE_STEP * (near_mm + 15)
        lag = max(1, round(lag_mm / step))
        first, second = (part[:-lag], part[lag:]) if axis == 0 else (part[:, :-lag], part[:, lag:])
        return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])

    assert correlation(110, axis=1, lag_mm=1.2) > correlation(35, axis=1, lag_mm=1.2) + 0.3
    assert correlation(110, axis=0, lag_mm=0.5) == pytest.approx(
        correlation(35, axis=0, lag_mm=0.5), abs=0.06
    )


def test_ejection_fraction_agrees_with_the_labels(case: PhantomCase) -> None:
    volumes = {}
    for phase in PHASES:
        areas, lengths = [], []
        for view in VIEWS:
            frame = case.frames[view, phase]
            cavity = frame.label == LV_CAVITY
            areas.append(cavity.sum() * frame.spacing_mm[0] * frame.spacing_mm[1])
            rows, cols = np.nonzero(cavity)
            points = np.stack([rows * frame.spacing_mm[0], cols * frame.spacing_mm[1]])
            lengths.append(np.sqrt(np.linalg.eigvalsh(np.cov(points))[-1]) * 4)
        volumes[phase] = 8 / (3 * np.pi) * areas[0] * areas[1] / max(lengths) / 1000
    from_labels = 100 * (volumes["ED"] - volumes["ES"]) / volumes["ED"]
    assert from_labels == pytest.approx(case.ef, abs=3.0)


def test_a_round_cavity_has_the_volume_of_its_solid_of_revolution() -> None:
    heart = Heart(80.0, 22.0, 9.0, 0.0, (0.0, 0.0, 0.0, 0.0), 40.0, 19.0, 0.5, 0.0)
    along = (np.arange(20000) + 0.5) * (80.0 / 20000)
    radius = 22.0 * (1.0 - np.abs((along - 48.0) / 48.0) ** 2.25) ** (1 / 2.25)
    expected = float((np.pi * radius**2).sum() * (80.0 / 20000) / 1000)
    assert biplane_volume(heart, heart) == pytest.approx(expected, rel=5e-3)


def test_a_finer_grid_shows_the_same_heart(case: PhantomCase) -> None:
    coarse = case.frames["4CH", "ED"]
    fine = make_frame(2, "4CH", "ED", spacing_mm=(0.2, 0.25))
    assert fine.sector == coarse.sector
    for k in (LV_CAVITY, MYOCARDIUM, LEFT_ATRIUM):
        areas = [(f.label == k).sum() * f.spacing_mm[0] * f.spacing_mm[1] for f in (coarse, fine)]
        assert areas[0] == pytest.approx(areas[1], rel=0.01)


def test_files_read_back_with_simpleitk_as_written() -> None:
    frame = make_frame(3, "4CH", "ED")
    path = SAMPLE / "database_nifti" / "patient0003" / "patient0003_4CH_ED.nii.gz"
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), frame.image)
    assert image.GetSpacing()[::-1] == pytest.approx(frame.spacing_mm, rel=1e-6)
    assert image.GetDirection() == (1.0, 0.0, 0.0, 1.0)
    assert image.GetOrigin() == (0.0, 0.0)
    older = sitk.ReadImage(str(SAMPLE / "training" / "patient0007" / "patient0007_4CH_ED_gt.mhd"))
    assert older.GetSpacing()[:2] == METAIMAGE_SPACING_MM[::-1]
    assert older.GetSize()[2] == 1


def test_info_files_tell_the_true_ejection_fraction_and_volumes(case: PhantomCase) -> None:
    def info(path: str) -> dict[str, str]:
        return dict(line.split(": ") for line in (SAMPLE / path).read_text().splitlines())

    newer = info("database_nifti/patient0002/Info_4CH.cfg")
    assert " ".join(newer) == "ED ES NbFrame Sex Age ImageQuality EF FrameRate"
    assert float(newer["EF"]) == pytest.approx(case.ef, abs=0.5)
    older = info("training/patient0007/Info_2CH.cfg")
    assert " ".join(older) == "ED ES NbFrame Sex Age ImageQuality LVedv LVesv LVef"
    edv, esv = float(older["LVedv"]), float(older["LVesv"])
    assert float(older["LVef"]) == pytest.approx(100 * (edv - esv) / edv, abs=0.2)


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="must be an empty folder"):
        write_dataset(tmp_path, cases=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match="but is a file"):
        write_dataset(tmp_path / "mine.txt", cases=1)


@pytest.mark.slow
def test_a_killed_call_is_continued_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: PhantomCase
) -> None:
    monkeypatch.setattr(dataset, "make_case", lambda *_: case)
    write_dataset(tmp_path / "fresh", cases=1)
    fresh, out = contents(tmp_path / "fresh"), tmp_path / "there" / "out"

    def check(where: str) -> None:
        assert contents(out.parent) == {"out": None, **{f"out/{k}": v for k, v in fresh.items()}}

    def write() -> None:
        write_dataset(out, cases=1)

    def prepare() -> None:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()

    assert every_kill(out.parent, prepare, write, check) > 40


def test_only_files_of_the_same_phantoms_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: PhantomCase
) -> None:
    monkeypatch.setattr(dataset, "make_case", lambda *_: case)
    write_dataset(tmp_path, cases=1)
    done = contents(tmp_path)
    write_dataset(tmp_path, cases=1)  # it is what would be written
    image = "database_nifti/patient0001/patient0001_2CH_ED.nii.gz"
    (tmp_path / "database_split" / "subgroup_testing.txt").unlink()
    (tmp_path / image).write_bytes(b"a heart")
    with pytest.raises(UsageError, match=f"contains other files, such as {image}"):
        write_dataset(tmp_path, cases=1)
    assert contents(tmp_path).keys() == done.keys() - {"database_split/subgroup_testing.txt"}
    (tmp_path / image).unlink()
    (tmp_path / image).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=f"contains other files, such as {image}"):
        write_dataset(tmp_path, cases=1)
    (tmp_path / image).unlink()
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="contains other files, such as mine"):
        write_dataset(tmp_path, cases=1)


def test_phantoms_take_any_empty_folder_and_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: PhantomCase
) -> None:
    monkeypatch.chdir(tmp_path)

    def meanwhile(*_: object) -> PhantomCase:
        with pytest.raises(StoreError, match="in use by another process"):
            write_dataset(Path(), cases=1)
        return case

    monkeypatch.setattr(dataset, "make_case", meanwhile)
    write_dataset(Path(), cases=1)
    assert sorted(contents(tmp_path))[:1] == ["database_nifti"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_frame(0, "4CH", "ED"), "index"),
        (lambda: make_frame(1, "4CH", "ED", seed=-1), "seed"),
        (lambda: make_frame(1, "3CH", "ED"), "view"),  # type: ignore[arg-type]
        (lambda: make_frame(1, "4CH", "MD"), "phase"),  # type: ignore[arg-type]
        (lambda: write_dataset(Path("never"), cases=0), "cases"),
    ],
)
def test_bad_arguments_are_named(call: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()  # type: ignore[operator]
