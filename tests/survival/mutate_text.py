"""Changes of text, JSON, tables and settings; see `mutate`."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

from tests.survival.mutate_bytes import Mutator, edit

DIGITS, DEPTH, LONG = 5_000, 100_000, 1_000_000
RAW = "@@raw%d@@"
RAWS = ("NaN", "Infinity", "-Infinity", "1e308", "1e999", "9" * DIGITS, "-" + "9" * DIGITS,
        "0." + "3" * DIGITS, "[" * DEPTH + "]" * DEPTH, '{"a":' * DEPTH + "1" + "}" * DEPTH,
        '"\\ud800"', '"\\u0000"', "1e-999", "-0.0", "9223372036854775808")  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 0.5, -0.5, 1e-320, 1e308, 255, 256, 65536, 2**31 - 1, 2**31,
    2**32, 2**63, 2**64, 10**9, 10**30, -(2**63), "", " ", "x", "\0", "é", "a\nb", "1", "nan", "-1",
    "x" * LONG, "..", "../../x", "/etc/passwd", "/dev/zero", "C:\\x", "a/b", ".", "~", "%s", "{0}",
    "\x1b[31m", [], {}, [[]], [None], [0], [-1], [1, 2], ["x"], {"a": 1}, {"": None},
    [0] * 100_000, *(RAW % number for number in range(len(RAWS))),
)  # fmt: skip
CELLS = (
    "", " ", "0", "-1", "1", "nan", "inf", "-inf", "1e308", "1e999", "-1e308", str(2**31),
    str(2**63), str(10**30), "9" * DIGITS, "0.5", "1,5", "1.2.3", "abc", "TRUE", "é", "\0",
    "\ud800", '"', '""', '"a', "a\rb", "x" * LONG, "../..", "/etc/passwd", "=1+1", "\t", ";", ",",
    "\ufeff", "١٢", "1_000", "0x10", "-0", "1e-320", "\x1b[2J",
)  # fmt: skip
# Text


def _swap_part(path: Path, rng: Random, pattern: bytes, new: bytes) -> str | None:
    content = path.read_bytes()
    found = list(re.finditer(pattern, content))
    if not found:
        return None
    one = rng.choice(found)
    path.write_bytes(content[: one.start()] + new + content[one.end() :])
    return f"{one.group()[:30]!r} at {one.start()} to {new[:30]!r} ({len(new)} bytes)"


def number(path: Path, rng: Random) -> str | None:
    new = rng.choice(
        (*(cell for cell in CELLS if cell.isascii()), "5" * DIGITS, "-" + "5" * DIGITS)
    )
    return _swap_part(path, rng, rb"-?\d+(\.\d+)?", new.encode())


def word(path: Path, rng: Random) -> str | None:
    new = rng.choice(CELLS).encode("utf-8", "surrogatepass")
    return _swap_part(path, rng, rb"[A-Za-z_]{2,}", new)


def not_text(path: Path, rng: Random) -> str | None:
    odd = (b"\xff", b"\x80\x81", b"\0", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc3", b"\x1b[2J",
    b"\r",
           b"\xe2\x80\xa8", b"\x85", b"\x0c")  # fmt: skip
    return edit(path, rng, lambda _: rng.choice(odd), cut=False)


def encoding(path: Path, rng: Random) -> str | None:
    name = rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-be", "cp037"))
    text = path.read_bytes().decode("utf-8", "replace")
    path.write_bytes(text.encode(name, "replace"))
    return name


def line_ends(path: Path, rng: Random) -> str | None:
    end = rng.choice((b"\r\n", b"\r", b"", b"\n\n", b"\n\0"))
    path.write_bytes(path.read_bytes().replace(b"\n", end))
    return repr(end)


def lines(path: Path, rng: Random) -> str | None:
    content = path.read_bytes().splitlines(keepends=True)
    if not content:
        return None
    at, to = rng.randrange(len(content)), rng.randrange(len(content))
    what = rng.choice(("double", "delete", "swap", "no head", "only head", "long", "many", "blank"))
    if what == "double":
        content.insert(to, content[at])
    elif what == "delete":
        del content[at]
    elif what == "swap":
        content[at], content[to] = content[to], content[at]
    elif what == "no head":
        del content[0]
    elif what == "only head":
        del content[1:]
    elif what == "long":
        content[at] = content[at].rstrip() + b"x" * LONG + b"\n"
    elif what == "many":
        content[at:at] = [content[at]] * 20_000
    else:
        content.insert(at, b"\n")
    path.write_bytes(b"".join(content))
    return f"{what} {at} {to}"


def nested(path: Path, rng: Random) -> str | None:
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ("(", ")"), ("a.", ""), ('"', "")))
    depth = rng.choice((100, DEPTH))
    path.write_text(f"{opening * depth}1{closing * depth}")
    return f"{opening} {depth}"


def whole(path: Path, rng: Random) -> str | None:
    text = rng.choice(("", "\n", "{}", "[]", "null", "0", '""', "x", ",", "=", "[a]\n", "[]x",
        "[[]]",
                       "\ufeff", "x" * LONG, "9" * DIGITS, "nan", "a=1\na=2\n",
                       "," * 10_000))  # fmt: skip
    path.write_text(text)
    return repr(text[:20])


TEXT: tuple[Mutator, ...] = (
    number, number, number, word, word, not_text, encoding, line_ends, lines, lines, nested, whole,
)  # fmt: skip

# JSON


def _nodes(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _nodes(inner, (*at, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value[:50]):
            found += _nodes(inner, (*at, key))
    return found


def changed(value: Any, rng: Random) -> tuple[Any, str]:
    """A JSON value with one node of it changed, and what was."""
    places = _nodes(value)
    at = rng.choice(places[1:] or places)
    if not at:
        return rng.choice(ODD), "all of it"
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    key, old = at[-1], holder[at[-1]]
    ways = ["odd"] * 5 + ["delete", "near", "near", "other"]
    ways += ["rename", "more"] if isinstance(holder, dict) else ["double", "reverse"]
    what = rng.choice(ways)
    new: Any = ""
    if what == "odd":
        new = holder[key] = rng.choice(ODD)
    elif what == "near":
        new = holder[key] = _near(old, rng)
    elif what == "other":
        place = rng.choice(places)
        new = value
        for step in place:
            new = new[step]
        holder[key] = json.loads(json.dumps(new))
    elif what == "delete":
        del holder[key]
    elif what == "rename":
        new = rng.choice(
            (key + "x", key.upper(), "", "\ud800", "../" + key, "\0", "x" * 10_000, "é")
        )
        holder[new] = holder.pop(key)
    elif what == "more":
        new = "more"
        holder[new] = old
    elif what == "double":
        holder.insert(key, old)
    else:
        holder.reverse()
    return value, f"{what} {'.'.join(map(str, at))} = {str(new)[:40]!r}"


def _near(old: Any, rng: Random) -> Any:
    if isinstance(old, bool) or old is None:
        return rng.choice((not old, str(old), int(bool(old))))
    if isinstance(old, int | float):
        return rng.choice((old + 1, old - 1, -old, old * 2, old * 10**6, float(old), str(old),
        [old],
                           old / 3, bool(old)))  # fmt: skip
    if isinstance(old, str):
        return rng.choice((old + "x", old[1:], old.upper(), [old], old * 1000, old[:-1] + "0",
                           "../" + old, old + "/", f" {old}", "/" + old, {old: old}))  # fmt: skip
    if isinstance(old, list):
        return rng.choice((old * 2, old[1:], old[:-1], [old], old[::-1], {}, {"0": old},
        old * 10_000
                           if len(old) < 50 else []))  # fmt: skip
    return rng.choice(([old], list(old), [], {**old, "x": old}))


def dumped(value: Any) -> bytes:
    """JSON, with what Python's own writer cannot say put in."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    for number_, raw in enumerate(RAWS):
        text = text.replace(json.dumps(RAW % number_), raw)
    return text.encode("utf-8", "surrogatepass")


def json_node(path: Path, rng: Random) -> str | None:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return json_line(path, rng)
    told = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value, said = changed(value, rng)
        told.append(said)
        if not isinstance(value, dict | list):
            break
    path.write_bytes(dumped(value))
    return "; ".join(told)


def json_line(path: Path, rng: Random) -> str | None:
    content = path.read_bytes().splitlines()
    for at in rng.sample(range(len(content)), len(content)):
        try:
            value, said = changed(json.loads(content[at]), rng)
        except ValueError:
            continue
        content[at] = dumped(value).replace(b"\n", b"")
        path.write_bytes(b"\n".join(content) + b"\n")
        return f"line {at}: {said}"
    return None


def json_twice(path: Path, rng: Random) -> str | None:
    """A key twice."""
    content = path.read_text(errors="replace")
    found = list(re.finditer(r'"[^"\n]+": ?("[^"\n]*"|-?[\d.]+|true|false|null)', content))
    if not found:
        return None
    one = rng.choice(found)
    key = one.group().split(":")[0]
    new = rng.choice((one.group(), f"{key}: null", f"{key}: 3", f"{key}: []"))
    path.write_text(f"{content[: one.end()]}, {new}{content[one.end() :]}")
    return new


# Tables


def _separator(text: str) -> str:
    return max(",;\t", key=text.splitlines()[0].count) if text.strip() else ","


def cells(path: Path, rng: Random) -> str | None:
    text = path.read_text(errors="replace")
    sep = _separator(text)
    rows = [line.split(sep) for line in text.splitlines()]
    if not rows or not rows[0]:
        return None
    row, what = rng.randrange(len(rows)), rng.choice(("cell",) * 8 + (
        "column", "swap", "twice", "ragged", "rename", "separator", "quote", "fill"))  # fmt: skip
    column = rng.randrange(len(rows[row])) if rows[row] else 0
    width = max(map(len, rows))
    other = rng.randrange(width)
    new = rng.choice(CELLS)
    if what == "cell" and rows[row]:
        rows[row][column] = new
    elif what == "column":
        rows = [one[:column] + one[column + 1 :] for one in rows]
    elif what == "swap":
        for one in rows:
            if max(column, other) < len(one):
                one[column], one[other] = one[other], one[column]
    elif what == "twice":
        rows = [[*one, one[column] if column < len(one) else ""] for one in rows]
    elif what == "ragged":
        rows[row] += [new] * rng.choice((1, 3, 10_000))
    elif what == "rename":
        rows[0][min(column, len(rows[0]) - 1)] = new
    elif what == "separator":
        sep = rng.choice((";", "\t", "|", " "))
    elif what == "quote":
        rows[row] = [f'"{one}' for one in rows[row]]
    else:
        rows[1:] = [[new if i == column else c for i, c in enumerate(one)] for one in rows[1:]]
    joined = "\n".join(sep.join(one) for one in rows) + "\n"
    path.write_bytes(joined.encode("utf-8", "surrogatepass"))
    return f"{what} {row}:{column} {new[:20]!r}"


# TOML and text of "key = value", "key: value"

TOML_ODD = (
    "0", "-1", "1", "nan", "inf", "-inf", "true", "1e308", "1e999", str(2**31), str(2**63),
    str(10**30), "9" * DIGITS, '""', '"x"', "[]", "[[]]", "{}", "[0]", '["x"]', "[1, 2]",
    '"../../x"', '"/dev/zero"', "1979-05-27", "07:32:00", "[" * DEPTH + "]" * DEPTH, '"\\u0000"',
    "{a = 1}", '"\\ud800"', "0.5", "-0.5", '"é"', "'" + "x" * LONG + "'", "", "= 1", "1_0", "0x7f",
    "1979-05-27T07:32:00Z", "a" + ".a" * DEPTH, '"' * 3,
)  # fmt: skip


def setting(path: Path, rng: Random) -> str | None:
    content = path.read_text(errors="replace").splitlines()
    places = [i for i, line in enumerate(content) if re.match(r"^[^#\[]*[=:]", line)]
    if not places:
        return None
    at = rng.choice(places)
    key, sign = re.split(r"[=:]", content[at])[0], "=" if "=" in content[at] else ":"
    what = rng.choice(("odd",) * 6 + ("twice", "delete", "key", "table", "unknown", "dotted"))
    new = rng.choice(TOML_ODD)
    if what == "odd":
        content[at] = f"{key}{sign} {new}"
    elif what == "twice":
        content.insert(at, f"{key}{sign} {new}")
    elif what == "delete":
        del content[at]
    elif what == "key":
        content[at] = f"{rng.choice(CELLS)}{sign} {new}"
    elif what == "table":
        content.insert(at, f"[{key.strip()}]")
    elif what == "unknown":
        content.insert(at, f"unknown {sign} {new}")
    else:
        content[at] = f"{key.strip()}.{key.strip()} {sign} {new}"
    path.write_bytes(("\n".join(content) + "\n").encode("utf-8", "surrogatepass"))
    return f"{what} {key.strip()} {sign} {new[:20]}"
