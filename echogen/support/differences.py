"""Where two nested tables differ: the settings of a run, and those that are recorded of another."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """A value that two tables do not share.

    Attributes:
        name: of the value, the names of the tables that it lies in before it: `sampler.churn`.
        there: the recorded value; None where there is none.
        here: the present one.
    """

    name: str
    there: Any
    here: Any


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], above: str = ""
) -> Iterator[Difference]:
    """Each value that differs, in the order of names; `above` comes before all of them."""
    for key in sorted({*there, *here}):
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{above}{key}.")
        elif old != new:
            yield Difference(f"{above}{key}", old, new)
