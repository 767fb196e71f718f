import numpy as np

from echogen.pictures.choice import along, amount, at_random


def test_one_seed_is_one_choice_and_order_stays() -> None:
    items = list(range(100))
    chosen = at_random(items, 7, 3)
    assert chosen == at_random(items, 7, 3) == sorted(chosen)
    assert chosen != at_random(items, 7, 4)
    assert at_random([1, 2], 7, 0) == [1, 2]
    assert along(["b", "c", "a"], [2, 3, 1], 3) == ["a", "b", "c"]
    assert along(items, [-i for i in items], 3) == [99, 49, 0]


def test_amounts_are_of_moves_that_were_made() -> None:
    moves = np.array([[1.5, 0, 1, 0.3, 0.4], [1.0, -10, 0.7, 0, 0]])
    np.testing.assert_array_equal(amount("depth", moves), [1.5, np.nan])
    np.testing.assert_array_equal(amount("tilt", moves), [np.nan, -10])
    np.testing.assert_array_equal(amount("width", moves), [np.nan, 0.7])
    np.testing.assert_allclose(amount("shift", moves), [0.5, np.nan])
