"""Numbers in messages agree with their nouns."""

from echogen.support.words import both, counted, some


def test_one_is_one_and_the_rest_are_many() -> None:
    assert [counted(n, "frame") for n in (0, 1, 2, 1598)] == [
        "0 frames", "1 frame", "2 frames", "1,598 frames",
    ]  # fmt: skip
    assert counted(1, "copy", "copies") == "1 copy"
    assert both(1, 4) == "1 original, 4 copies"


def test_the_first_of_many_are_listed() -> None:
    assert some([1, 2], 2) == "1, 2"
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"
    assert some([], 2) == ""
