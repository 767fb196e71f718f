"""Structured damage to what a JSON file holds: each key deleted, and each value made absurd."""

import copy
import json
from collections.abc import Iterator
from typing import Any

DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]
DIGITS = "a number of 5000 digits"
ABSURD: dict[str, Any] = {
    "minus one": -1,
    "zero": 0,
    "a half": 0.5,
    "million": 10**6,
    "billion": 10**9,
    "30 digits": 10**30,
    "1e308": 1e308,
    "-1e308": -1e308,
    "1e-320": 1e-320,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "digits": DIGITS,
    "empty text": "",
    "path": "../../../../etc/passwd",
    "NUL": "a\0b",
    "surrogate": "a\ud800b",
    "long": "x" * 100_000,
    "null": None,
    "true": True,
    "list": [],
    "object": {},
    "deep": DEEP,
    "lists": [[1, 2], ["a"], None],
    "many": [1] * 100_000,
    "keys": {f"key{i}": i for i in range(1000)},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in an object, of a list's values those of the last one alone."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[-1], (*path, len(value) - 1))


def mutations(whole: Any) -> Iterator[tuple[str, str]]:
    """(what was done, the JSON text) of each mutation."""
    for path in places(whole):
        name = ".".join(map(str, path))
        for how, value in ABSURD.items():
            yield f"{name}: {how}", changed(whole, path, value)
        yield f"{name}: deleted", changed(whole, path)
        inner = _at(whole, path)
        if isinstance(inner, dict):
            yield f"{name}: another key", changed(whole, (*path, "another\n key"), 1)
        if isinstance(inner, list) and inner:
            yield f"{name}: doubled", changed(whole, path, [*inner, inner[-1]])
            yield f"{name}: turned", changed(whole, path, inner[::-1])
            yield f"{name}: shorter", changed(whole, path, inner[:-1])
            yield f"{name}: mixed", changed(whole, path, [*inner[:-1], ABSURD])
    for how, value in ABSURD.items():
        yield f"all of it: {how}", dumps(value)
    text = json.dumps(whole)
    yield "cut off", text[: len(text) // 2]
    yield "empty", ""


def changed(whole: Any, path: tuple[Any, ...], *value: Any) -> str:
    """JSON with another value at a path, or with none."""
    other = copy.deepcopy(whole)
    inner = _at(other, path[:-1])
    if value:
        inner[path[-1]] = value[0]
    else:
        del inner[path[-1]]
    return dumps(other)


def dumps(value: Any) -> str:
    """JSON, with numbers that `json` does not write."""
    return json.dumps(value).replace(json.dumps(DIGITS), "9" * 5000)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value
