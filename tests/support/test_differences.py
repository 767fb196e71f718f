from echogen.support.differences import Difference, differences


def test_values_that_differ_are_named_in_order_with_the_tables_that_they_lie_in() -> None:
    there = {"seed": 1, "sampler": {"name": "dpm", "noise": {"eta": 1.0}}, "old": [1]}
    here = {"seed": 1, "sampler": {"noise": {"eta": 0.5}, "name": "dpm"}, "new": {"a": 1}}
    assert list(differences(there, here)) == [
        Difference("new", None, {"a": 1}),
        Difference("old", [1], None),
        Difference("sampler.noise.eta", 1.0, 0.5),
    ]


def test_tables_that_are_equal_have_no_differences() -> None:
    assert not list(differences({"a": {"b": 1}}, {"a": {"b": 1}}))
