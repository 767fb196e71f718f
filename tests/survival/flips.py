"""Every byte of a small store changed, one at a time: `python -m tests.survival.flips ...`.

`validate` must find each, or nothing that is read may differ. Of each way in which it is found, and
of a seeded sample, `validate --repair` and the same `expand` must give the same store; where
`validate` says that it has to be made again, `expand --overwrite` must. The record has a line of
JSON for each block of bytes and each repair; `--only zarr:images/c/0/0/0:17` tries one byte.
"""

import argparse
import hashlib
import json
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.survival.children import command, import_all, in_child
from tests.survival.mutations import Workshop
from tests.survival.source_stores import EXPAND
from tests.survival.sources import SOURCES

STORES = {"zarr": "made.zarr", "h5": "made.h5"}
BLOCK = 128
FAULTS = ("missed", "traceback", "signal", "hang", "memory")
BLOCK_CPU_S, BLOCK_WALL_S = 200, 900
REPAIRS = 300
"""Of a store, beside one of each kind of finding."""


class Bench:
    """Both stores as a run made them, and a copy of each to damage."""

    def __init__(self, root: Path) -> None:
        self.workshop = Workshop(root)
        self.sources = {each.name: each for each in SOURCES if each.name in STORES}
        self.copies: dict[str, Path] = {}
        self.values: dict[str, str] = {}
        for name, source in self.sources.items():
            made = self.workshop.folder(source)
            self.copies[name] = root / f"{name}-copy"
            shutil.copytree(made, self.copies[name])
            ended = in_child(lambda store=made / STORES[name]: print(content(store)), root)
            self.values[name] = ended.out.strip()

    def files(self, name: str) -> list[tuple[str, int]]:
        """(path in the store, bytes) of its files; an HDF5 file is one, of an empty path."""
        store = self.workshop.folder(self.sources[name]) / STORES[name]
        if store.is_file():
            return [("", store.stat().st_size)]
        found = sorted(path for path in store.rglob("*") if path.is_file())
        return [(path.relative_to(store).as_posix(), path.stat().st_size) for path in found]

    def sweep(self, name: str, file: str, start: int, stop: int) -> dict[str, Any]:
        """Each byte of [start, stop) of a file; the line of the record."""
        store = self.copies[name] / STORES[name]
        outcomes, kinds, faults = Counter[str](), dict[str, list[int]](), dict[str, str]()
        at = start
        while at < stop:
            began = at
            ended = in_child(
                lambda began=at: _try_bytes(store, file, range(began, stop), self.values[name]),
                self.copies[name], cpu_s=BLOCK_CPU_S, wall_s=BLOCK_WALL_S,
            )  # fmt: skip
            for line in ended.out.splitlines():
                outcome, _, detail = line.partition(" ")
                outcomes[outcome] += 1
                if outcome in FAULTS:
                    faults[str(at)] = line[:400]
                elif outcome == "found":
                    kinds.setdefault(detail, [at, 0])[1] += 1
                at += 1
            if at < stop:  # it died on this byte
                outcome = "hang" if ended.hung else ended.fault or "signal"
                outcomes[outcome] += 1
                faults[str(at)] = f"{outcome} {ended.code} {ended.err[-300:]}"
                at += 1
            if ended.code or at == began:
                self._restore(name, file)
        return {"store": name, "file": file, "start": start, "stop": stop,
                "outcomes": outcomes, "kinds": kinds, "faults": faults}  # fmt: skip

    def repair(self, name: str, file: str, at: int) -> dict[str, Any]:
        """Damage, repair and the same run again; the line of the record."""
        folder = self.workshop.copy(self.sources[name])
        store = folder / STORES[name]
        _flip(store / file, at)
        told = [self._command(folder, f"validate {STORES[name]} --repair --workers 1 --no-judge")]
        again = EXPAND.replace("{store}", STORES[name])
        how = {0: "harmless", 1: "repaired"}.get(told[0][0], "made again")
        told.append(self._command(folder, again + " --overwrite" * (how == "made again")))
        same = in_child(lambda: print(content(store, remade=True)), folder).out.strip()
        made = self.workshop.folder(self.sources[name]) / STORES[name]
        wanted = in_child(lambda: print(content(made, remade=True)), folder).out.strip()
        outcome = how if told[-1][0] == 0 and same == wanted else "differs"
        files = _tree(store) == _tree(made)
        said = "" if outcome != "differs" else str(told)[-1500:]
        return {"store": name, "repair": [file, at], "outcome": outcome, "same files": files,
                "codes": [code for code, _ in told], "said": said}  # fmt: skip

    def _command(self, folder: Path, text: str) -> tuple[int, str]:
        ended = in_child(command(*self.workshop.words(text)), folder)
        return ended.code, (ended.fault + ended.err + ended.out)[-600:]

    def _restore(self, name: str, file: str) -> None:
        made = self.workshop.folder(self.sources[name]) / STORES[name] / file
        shutil.copyfile(made, self.copies[name] / STORES[name] / file)


def content(store: Path, *, remade: bool = False) -> str:
    """A digest of every value that can be read from a store.

    Args:
        store: of either kind.
        remade: without what tells two runs of one plan apart.
    """
    from echogen.store import open_store

    found = hashlib.sha256()
    with open_store(store) as opened:
        own = ("created", "seal") if remade else ()
        attrs = {key: value for key, value in opened.attrs.items() if key not in own}
        found.update(json.dumps(attrs, sort_keys=True).encode())
        for name in opened.layout.pixels:
            pixels = opened.pixels(name)[:]
            found.update(f"{name} {pixels.shape} {pixels.dtype}".encode() + pixels.tobytes())
        for table in (opened.columns, opened.case_columns):
            for name in sorted(table):
                found.update(f"{name} {table[name].dtype} {table[name].tolist()!r}".encode())
        found.update(repr((opened.problems, opened.complete, sorted(opened.absent))).encode())
    return found.hexdigest()


def _try_bytes(store: Path, file: str, places: Sequence[int], values: str) -> None:
    for at in places:
        _flip(store / file, at)
        try:
            print(_outcome(store, values), flush=True)
        finally:
            _flip(store / file, at)


def _flip(path: Path, at: int) -> None:
    """Change a byte, always alike: done twice, it is as before."""
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ random.Random(f"{path.name}:{at}").randrange(1, 256)]))


def _outcome(store: Path, values: str) -> str:
    from echogen.commands.validate import validate
    from echogen.errors import EchogenError
    from echogen.store import shared

    shared._close_all()
    try:
        report = validate(store, judge="none", workers=1)
    except (EchogenError, OSError) as error:
        return f"found raised {_kind(str(error))}"
    except MemoryError:
        return "memory"
    except Exception as error:  # what the command line would show as a traceback
        return f"traceback {type(error).__name__}: {_kind(str(error))}"
    unfinished = [finding for finding in report.findings if finding.check == "complete"]
    if report.exit_code or unfinished:
        first = (unfinished or report.findings)[0]
        return f"found {first.check} {_kind(first.message)}"
    try:
        same = content(store) == values
    except Exception as error:
        return f"missed {type(error).__name__}: {_kind(str(error))}"
    return "harmless" if same else "missed other values"


def _kind(message: str) -> str:
    """A message without its numbers and names: one line."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|[\w/.-]*\d[\w/.-]*", "..", " ".join(message.split()))[:160]


def _tree(store: Path) -> dict[str, bytes]:
    if store.is_file():
        return {"": store.read_bytes()}
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


def run(
    record: Path,
    budget_s: float,
    *,
    names: Sequence[str] = tuple(STORES),
    seed: int = 1,
    repairs: int = REPAIRS,
    part: int = 1,
    quiet: bool = False,
) -> dict[str, object]:
    """Sweep what the record lacks, then repair, until the time is over; the counts.

    Args:
        record: a file of JSON lines, made or continued.
        budget_s: seconds.
        names: of `STORES`.
        seed: of the order of blocks and of what is repaired.
        repairs: a store, beside one of each kind of finding; below 0 none at all.
        part: one block in so many.
        quiet: print no progress.
    """
    import_all()
    lines = read_record(record)
    end, last = time.monotonic() + budget_s, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flips-") as scratch:
        bench = Bench(Path(scratch))
        with record.open("a", encoding="utf-8") as file:
            for line in _work(bench, lines, names, seed, repairs, part, end):
                lines.append(line)
                file.write(json.dumps(line) + "\n")
                file.flush()
                if not quiet and time.monotonic() - last > 30:
                    last = time.monotonic()
                    print(json.dumps(counts(lines)["stores"]), flush=True)
        return counts(lines)


def _work(
    bench: Bench,
    lines: list[dict[str, Any]],
    names: Sequence[str],
    seed: int,
    repairs: int,
    part: int,
    end: float,
) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    done = {(line["store"], line["file"], line["start"]) for line in lines if "start" in line}
    blocks = [
        (name, file, start, min(size, start + BLOCK))
        for name in names
        for file, size in bench.files(name)
        for start in range(0, size, BLOCK)
    ]
    for name, file, start, stop in rng.sample(blocks, max(1, len(blocks) // part)):
        if time.monotonic() > end:
            return
        if (name, file, start) not in done:
            yield bench.sweep(name, file, start, stop)
    mended = {(line["store"], *line["repair"]) for line in lines if "repair" in line}
    for name, file, at in [*_places(lines, names, seed, repairs)]:
        if time.monotonic() > end:
            return
        if (name, file, at) not in mended:
            yield bench.repair(name, file, at)


def _places(
    lines: Sequence[dict[str, Any]], names: Sequence[str], seed: int, repairs: int
) -> Iterator[tuple[str, str, int]]:
    """One place of each kind of finding, then a sample of all bytes that were swept."""
    if repairs < 0:
        return
    swept = sorted((line for line in lines if "start" in line and line["store"] in names),
                   key=lambda line: (line["store"], line["file"], line["start"]))  # fmt: skip
    seen = set()
    for line in swept:
        for kind, (at, _) in sorted(line["kinds"].items()):
            key = (line["store"], Path(line["file"]).name, kind)
            if key not in seen:
                seen.add(key)
                yield line["store"], line["file"], at
    rng = random.Random(f"repairs {seed}")
    for name in names:
        own = [line for line in swept if line["store"] == name]
        for line in rng.choices(own, k=repairs) if own else []:
            yield name, line["file"], rng.randrange(line["start"], line["stop"])


def read_record(record: Path) -> list[dict[str, Any]]:
    """The lines of a record; a half one at its end is left out."""
    if not record.exists():
        return []
    lines = record.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def counts(lines: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Of each store: its bytes by outcome, its repairs by outcome; and what failed."""
    found: dict[str, dict[str, Counter[str]]] = {}
    failed = []
    for line in lines:
        own = found.setdefault(line["store"], {"bytes": Counter(), "repairs": Counter()})
        if "repair" in line:
            own["repairs"][line["outcome"]] += 1
            own["repairs"]["same files"] += line["same files"]
            if line["outcome"] == "differs":
                failed.append(":".join((line["store"], *map(str, line["repair"]))))
        else:
            own["bytes"].update(line["outcomes"])
            failed += [
                f"{line['store']}:{line['file']}:{at} {told}" for at, told in line["faults"].items()
            ]
    return {"stores": found, "failed": failed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--stores", default="zarr,h5")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repairs", type=int, default=REPAIRS)
    parser.add_argument("--part", type=int, default=1, help="only one block of bytes in so many")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--only", metavar="STORE:FILE:BYTE")
    given = parser.parse_args()
    if given.only:
        name, file, at = given.only.split(":")
        import_all()
        with tempfile.TemporaryDirectory(prefix="flips-") as scratch:
            bench = Bench(Path(scratch))
            print(json.dumps(bench.sweep(name, file, int(at), int(at) + 1), indent=1))
            print(json.dumps(bench.repair(name, file, int(at)), indent=1))
        return
    if given.record is None:
        parser.error("--record: a file for the lines")
    found = run(given.record, given.seconds, names=given.stores.split(","), seed=given.seed,
                repairs=given.repairs, part=given.part)  # fmt: skip
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
