"""The typed record of a store's root attribute: lenient where versions differ, strict on types."""

from pathlib import Path

import pytest

from echogen.errors import StoreError
from echogen.planning.record import check_same_run
from echogen.store.record import StoreRecord, read_record

STORE = Path("s.zarr")


def test_what_an_older_version_did_not_write_has_a_default() -> None:
    record = read_record(STORE, {"format": 1, "complete": True, "sampler": None})
    assert (record.complete, record.kind, record.plan_digest) == (True, "expanded", "")
    assert (record.labels, record.seed, record.painting, record.grid) == ({}, None, None, None)
    assert record.config.dataset.frames == "key"
    assert record.sampler.settings == {}
    assert record.model_fields_set == {"complete", "format"}


def test_what_is_recorded_comes_back_without_defaults_and_unknown_keys_stay() -> None:
    config = {"copies": 2, "transforms": {"depth": [1.0, 1.5], "labels_on_paint": "clip"}, "new": 1}
    sampler = {"name": "langevin", "levels": 3, "precision": "fp32", "nfe": 9, "noise": "x"}
    attrs = {"labels": {"1": "LV cavity"}, "config": config, "sampler": sampler, "later": [1]}
    record = read_record(STORE, attrs)
    assert record.labels == {1: "LV cavity"}
    assert record.config.recorded == config
    assert record.config.transforms.labels_on_paint == "clip"
    assert record.sampler.settings == {"name": "langevin", "levels": 3}
    assert record.model_extra == {"later": [1]}


def test_a_part_of_a_store_names_its_source() -> None:
    part = StoreRecord.model_validate({"exported": {"from": "a.zarr", "rows": 2, "of": 4}}).exported
    assert part is not None
    assert (part.source, part.rows, part.of) == ("a.zarr", 2, 4)


def test_a_value_of_another_type_is_damage() -> None:
    with pytest.raises(StoreError, match=r"damaged metadata: 'dataset\.licence': .* got 7"):
        read_record(STORE, {"dataset": {"licence": 7}})


def test_a_damaged_record_is_no_other_runs() -> None:
    damaged = {"config": {"transforms": {"outside": 0.6}}}
    with pytest.raises(StoreError, match=r"s\.zarr: damaged metadata: 'config\.transforms"):
        check_same_run(damaged, {}, "s.zarr")
