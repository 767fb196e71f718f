"""Colours of any set of classes: told apart, and the same wherever the dataset is shown."""

import numpy as np
import pytest

from echogen.pictures.colours import (
    ATRIUM,
    CAVITY,
    IGNORED,
    MISSING,
    MYOCARDIUM,
    colours_of,
    lab,
)
from echogen.types import CAMUS_LABELS, IGNORE

FIVE = {0: "background", 1: "LV", 2: "myocardium", 5: "aorta", 200: "RV", 7: "RA"}


def test_the_left_heart_looks_the_same_in_every_dataset() -> None:
    assert colours_of(CAMUS_LABELS) == {
        1: CAVITY, 2: MYOCARDIUM, 3: ATRIUM, IGNORE: IGNORED
    }  # fmt: skip
    chambers = colours_of({1: "LV", 2: "LA", 3: "RA", 4: "RV"})
    assert (chambers[1], chambers[2]) == (CAVITY, ATRIUM)
    assert colours_of({9: "left ventricle"})[9] == CAVITY


def test_ids_with_gaps_have_a_colour_each() -> None:
    found = colours_of(FIVE)
    assert set(found) == {1, 2, 5, 7, 200, IGNORE}
    assert len(set(found.values())) == len(found)
    assert colours_of(dict(reversed(FIVE.items()))) == found


@pytest.mark.parametrize(("classes", "least"), [(5, 35), (12, 25), (20, 20)])
def test_classes_are_told_apart(classes: int, least: float) -> None:
    names = {1: "LV", 2: "myocardium", 3: "LA"} | {k: f"part {k}" for k in range(4, classes + 1)}
    colours = np.array([*colours_of(names).values(), MISSING])
    apart = np.linalg.norm(lab(colours)[:, None] - lab(colours)[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > least


def test_there_are_colours_for_every_id_there_can_be() -> None:
    names = {label: f"part {label}x" for label in range(1, IGNORE)}
    found = colours_of(names)
    assert len(set(found.values())) == IGNORE


def test_lightness_is_that_of_cielab() -> None:
    np.testing.assert_allclose(lab(np.array([[255, 255, 255]]))[0], [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab(np.array([[255, 0, 0]]))[0], [53.24, 80.09, 67.20], atol=0.05)
