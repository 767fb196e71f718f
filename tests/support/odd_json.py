"""Structured damage to what a JSON file holds: each key deleted, and each value made absurd."""

import copy
from collections.abc import Iterator
from typing import Any

from tests.survival.mutate_text import ODD, dumped

ABSURD = [dumped(value) for value in ODD]
HERE = "@@here@@"
"""Stands where each of them will."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in an object, of a list's values those of the last one alone."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[-1], (*path, len(value) - 1))


def mutations(whole: Any) -> Iterator[tuple[str, bytes]]:
    """(what was done, the JSON) of each mutation."""
    for path in places(whole):
        name = ".".join(map(str, path))
        before, after = changed(whole, path, HERE).split(dumped(HERE))
        for odd in ABSURD:
            yield f"{name}: {odd[:40]!r}", before + odd + after
        yield f"{name}: deleted", changed(whole, path)
        inner = _at(whole, path)
        if isinstance(inner, dict):
            yield f"{name}: another key", changed(whole, (*path, "another\n key"), 1)
        if isinstance(inner, list) and inner:
            yield f"{name}: doubled", changed(whole, path, [*inner, inner[-1]])
            yield f"{name}: turned", changed(whole, path, inner[::-1])
            yield f"{name}: shorter", changed(whole, path, inner[:-1])
            yield f"{name}: mixed", changed(whole, path, [*inner[:-1], {"a": list(ODD)}])
    for odd in ABSURD:
        yield f"all of it: {odd[:40]!r}", odd
    text = dumped(whole)
    yield "cut off", text[: len(text) // 2]
    yield "empty", b""


def changed(whole: Any, path: tuple[Any, ...], *value: Any) -> bytes:
    """JSON with another value at a path, or with none."""
    other = copy.deepcopy(whole)
    inner = _at(other, path[:-1])
    if value:
        inner[path[-1]] = value[0]
    else:
        del inner[path[-1]]
    return dumped(other)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value
