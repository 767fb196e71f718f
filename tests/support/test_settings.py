import pytest
from pydantic import ValidationError

from echogen.config import ExpandConfig, SampleConfig
from echogen.errors import UsageError
from echogen.support.settings import explain, load_config, shown

DEEP: list[object] = []
for _ in range(10**5):
    DEEP = [DEEP]
ODD = {
    "digits": 10**5000,
    "deep": DEEP,
    "surrogate": "a\ud800",
    "long": "x" * 10**7,
    "many": list(range(10**5)),
    "table": {f"key{i}": i for i in range(10**5)},
    "lines": "a\nb",
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_any_value_is_shown_on_one_short_line(value: object) -> None:
    text = shown(value)
    assert 0 < len(text) <= 100
    assert "\n" not in text
    text.encode()


@pytest.mark.parametrize("key", ["n", "sampler", "store", "sampler.steps", "colour", "output"])
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_setting_with_an_odd_value_is_refused_in_one_line(key: str, value: object) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(SampleConfig, {"output": "x.zarr", key: value})
    assert len(str(caught.value)) < 1200
    assert "\n" not in str(caught.value)


def test_a_key_of_any_length_is_unknown() -> None:
    for key in ("x" * 10**6, "a." * 10**5 + "b", "sampler." + "a." * 50):
        with pytest.raises(UsageError, match="unknown key") as caught:
            load_config(ExpandConfig, {"input": "x", "output": "x.zarr", key: 1})
        assert len(str(caught.value)) < 1200


def test_the_place_within_a_list_of_tables_has_no_hint_of_its_own() -> None:
    from pydantic import BaseModel

    from echogen.support.settings import Settings

    class Inner(Settings):
        a: int = 1

    class Outer(Settings):
        several: tuple[Inner, ...] = ()

    assert issubclass(Outer, BaseModel)
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"several": [{"b": 1}]})
    assert "unknown key 'several.0.b'" in explain(caught.value, Outer)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"seed = " + b"9" * 5000, "a number of thousands of digits"),
        (b"a = " + b"[" * 10**5, "nested deeper than"),
        (b"a." * 10**5 + b"b = 1", "nested deeper than"),
        (b"name = '\xff'", "is not UTF-8"),
        (b"# " + b"x" * 2**21, "bytes, expected at most"),
    ],
)
def test_a_file_of_settings_is_refused_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, words: str
) -> None:
    file = tmp_path_factory.mktemp("settings") / "x.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        load_config(SampleConfig, {}, file=file)
    assert f"--config {file}" in str(caught.value)


@pytest.mark.parametrize(
    "key", ["copies", "limit", "sampler.levels", "seed", "transforms.max_hole"]
)
@pytest.mark.parametrize("value", [True, False, [True, True]])
def test_true_is_no_number(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"{key.split('.')[-1]}: .*\(got "):
        load_config(ExpandConfig, {"input": "x", "output": "x.zarr", key: value})


def test_true_is_no_number_within_a_pair() -> None:
    with pytest.raises(UsageError, match=r"spacing_mm.0: .*got 'true'"):
        load_config(ExpandConfig, {"input": "x", "output": "x.zarr", "spacing_mm": [True, 0.3]})


def test_numbers_as_text_and_switches_stay_legal() -> None:
    config = load_config(
        ExpandConfig, {"input": "x", "output": "x.zarr", "copies": "4", "originals": "false"}
    )
    assert (config.copies, config.originals) == (4, False)
    assert load_config(ExpandConfig, {**config.model_dump(), "originals": True}).originals


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"transforms": 3}, "transforms: expected a table (got 3)"),
        ({"copies": "many"}, "copies: expected a whole number (got 'many')"),
        ({"copies": 2.5}, "copies: expected a whole number (got 2.5)"),
        ({"transforms": {"max_hole": "x"}}, "transforms.max_hole: expected a number (got 'x')"),
        ({"transforms": {"max_hole": float("nan")}}, "max_hole: expected a finite number"),
        ({"transforms": {"tilt_deg": 3}}, "tilt_deg: expected a list (got 3)"),
        ({"transforms": {"tilt_deg": [1, 2, 3]}}, "tilt_deg: expected at most 2 values"),
        ({"checkpoint": 3}, "checkpoint: expected text (got 3)"),
        ({"frames": 3}, "dataset.frames: "),
    ],
)
def test_what_was_expected_is_said_in_plain_words(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(ExpandConfig, {"input": "a", "output": "b.zarr", **given})
    assert words in str(caught.value)
    assert "valid" not in str(caught.value)
