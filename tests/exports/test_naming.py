import re
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from echogen.commands.export import export
from echogen.exports.naming import sample_names, unique_names
from tests.support.export_stores import Made, Sample

HOSTILE = [
    "../../etc/passwd", "/etc/passwd", "..", ".", "", ".hidden", "a/b", "a\\b", "a\0b", "CON",
    "nul", "x" * 4000, "Ångström", "心臓", "A", "a", "a", "x_gt", "x", "-rf", "line\nbreak",
    "a_0000", "$HOME",
]  # fmt: skip
ids = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))
stored = st.one_of(
    st.sampled_from([text for text in HOSTILE if "\0" not in text]),
    st.text(st.characters(exclude_categories=("C",)), max_size=12),
)


@given(st.lists(ids, max_size=30))
def test_names_are_safe_and_differ_even_without_regard_to_case(texts: list[str]) -> None:
    names = unique_names(texts)
    assert len({name.casefold() for name in names}) == len(texts)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,110}", name)
        assert not re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", name)
        assert not name.lower().endswith("_gt")  # it would be another image's label


def test_a_safe_name_is_kept_and_names_are_stable() -> None:
    assert unique_names(["patient0001_4CH_ED", "b"]) == ["patient0001_4CH_ED", "b"]
    changed = unique_names(["päti/ent"])
    assert re.fullmatch(r"pati-ent-[0-9a-f]{8}", changed[0])
    assert unique_names(["other", "päti/ent"])[1] == changed[0]
    assert [name[:2] for name in unique_names(["A", "a"])] == ["A-", "a-"]


def test_a_copy_is_a_case_of_its_own_in_its_name() -> None:
    columns = {
        "sample_id": ["s0", "s2", "strange"],
        "frame_id": ["p1_4CH_ED", "p1_4CH_ED", "film-12"],
        "case_id": ["p1", "p1", "film"],
        "view": ["4CH", "4CH", "A4C"],
        "phase": ["ED", "ED", ""],
        "copy": [0, 2, 1],
    }
    arrays = {name: np.array(values) for name, values in columns.items()}
    assert sample_names(arrays) == ["p1_4CH_ED", "p1c02_4CH_ED", "strange"]


def test_recordings_of_one_case_and_view_keep_their_own_names() -> None:
    columns = {
        "sample_id": ["a", "b", "c"],
        "frame_id": ["p1-v1-01_4CH_ED", "p1-v1-02_4CH_ED", "p1-v1-02_4CH_ED"],
        "case_id": ["p1", "p1", "p1"],
        "view": ["4CH", "4CH", "4CH"],
        "phase": ["ED", "ED", "ED"],
        "copy": [0, 0, 2],
    }
    names = sample_names({name: np.array(values) for name, values in columns.items()})
    assert names == ["p1-v1-01_4CH_ED", "p1-v1-02_4CH_ED", "p1-v1-02c02_4CH_ED"]


def test_a_case_named_like_a_copy_is_told_from_it() -> None:
    columns = {
        "sample_id": ["a", "b"],
        "frame_id": ["p1_4CH_ED", "p1c02_4CH_ED"],
        "case_id": ["p1", "p1c02"],
        "view": ["4CH", "4CH"],
        "phase": ["ED", "ED"],
        "copy": [2, 0],
    }
    first, second = sample_names({name: np.array(values) for name, values in columns.items()})
    assert first != second


@settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes of disk
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    fields=st.lists(st.tuples(stored, stored, stored, stored, stored), min_size=1, max_size=5),
    to=st.sampled_from(["folder", "nifti", "nnunet"]),
)
@example(fields=[("../x", "", "", "", "")], to="nifti")
@example(fields=[("/x", "..", "..", "4CH", "../y")], to="nifti")
@example(fields=[("x\ny", "a", "/etc", "4CH", "training")], to="nnunet")
@example(fields=[("x", "a", "gray", "x" * 4000, "training")], to="nifti")
def test_no_file_leaves_the_folder_whatever_the_store_says(
    tmp_path: Path, fields: list[tuple[str, ...]], to: str
) -> None:
    samples = [
        Sample(sample, frame, case, view, split=split)
        for sample, frame, case, view, split in fields
    ]
    # one frame as CAMUS has it, made of such words too
    samples += [Sample(s, f"{c}_{v}_ED", c, v, split="training") for s, _, c, v, _ in fields]
    here = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    here.mkdir()
    store = Made(tuple(samples), shape=(3, 3)).put(here / "store.zarr")
    before = {path for path in here.rglob("*") if not path.is_relative_to(store)}
    report = export(store, to=to, output=here / "out" / "inner")
    after = {path for path in here.rglob("*") if not path.is_relative_to(store)} - before
    assert all(path.is_relative_to(here / "out") for path in after)
    images = [path for path in after if path.suffix in (".png", ".gz")]
    assert len(images) == 2 * report.samples
    assert not report.failed
