"""Mutations of everything that is read: `python -m tests.survival.mutations --count 10000 ...`.

A case is the name of a source and a seed, from which its file, its mutation and its command follow;
`--only NAME:SEED` runs one again and shows what was said. The record has one line of JSON a case;
what stands in it is not run again.
"""

import argparse
import json
import os
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from echogen.support import processes
from tests.survival.children import Ended, command, drop_rights, import_all, in_child
from tests.survival.mutate import mutate
from tests.survival.source_models import write_base
from tests.survival.sources import SOURCES, Source

FAULTS = ("traceback", "signal", "hang", "memory", "wrong exit code", "file not named")
IN_WORKERS = 0.01
"""Share of the cases whose files are read in worker processes."""
TAIL = 1200


@dataclass(frozen=True)
class Case:
    """One mutation, and what became of it; a line of the record."""

    source: str
    seed: int
    command: str
    file: str
    mutation: str
    outcome: str
    code: int
    seconds: float
    megabytes: float
    where: str = ""
    said: str = ""

    @property
    def name(self) -> str:
        return f"{self.source}:{self.seed}"


class Workshop:
    """The sources, each made once, and a folder for the case at hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, Path] = {}
        self.codes: dict[tuple[str, str], int] = {}
        root.chmod(0o755)
        self._make(root / "base", write_base)

    def folder(self, source: Source) -> Path:
        """The source as it was made; do not change."""
        if source.name not in self.made:
            place = self.root / source.name
            place.mkdir()
            self._make(place, source.make)
            self.made[source.name] = place
        return self.made[source.name]

    def words(self, text: str) -> list[str]:
        base = self.root / "base"
        text = text.replace("{tiny}", str(base / "tiny"))
        return shlex.split(text.replace("{recipe}", str(base / "recipe.toml")))

    def files(self, source: Source) -> list[Path]:
        """Those that may be changed, relative to the folder."""
        place = self.folder(source)
        found = {path for pattern in source.files for path in place.glob(pattern) if path.is_file()}
        return sorted(path.relative_to(place) for path in found)

    def attempt(self, source: Source, seed: int) -> tuple[Case, Ended]:
        """One case."""
        rng = random.Random(f"{source.name}:{seed}")
        files = self.files(source)
        kinds = sorted({_kind(path) for path in files})
        kind = rng.choice(kinds)
        file = rng.choice([path for path in files if _kind(path) == kind])
        text = rng.choice(source.commands)
        self.usual(source, text)
        case = self.copy(source)
        mutation = mutate(case / file, rng)
        if rng.random() < IN_WORKERS:
            text = text.replace("--workers 1", "--workers 2")
        ended = self.run(text, case, source.env)
        outcome = _outcome(ended, source, file, mutation, self.usual(source, text))
        said = (ended.err[-TAIL:] + ended.out[-TAIL:]) if outcome in FAULTS else ""
        made = Case(source.name, seed, text, file.as_posix(), mutation, outcome, ended.code,
                    round(ended.seconds, 2), round(ended.megabytes), ended.where, said)  # fmt: skip
        return made, ended

    def usual(self, source: Source, text: str) -> int:
        """A command's exit code where nothing is changed."""
        key = (source.name, text)
        if key not in self.codes:
            code = self.run(text, self.copy(source), source.env).code
            if code > 1 and "verify" not in text:  # which an untrained model never passes
                raise SystemExit(
                    f"{source.name}: {text}: ends with {code} where nothing is damaged"
                )
            self.codes[key] = code
        return self.codes[key]

    def copy(self, source: Source) -> Path:
        """The folder of the case, filled."""
        case = self.root / "case"
        _remove(case)
        shutil.copytree(self.folder(source), case, symlinks=True)
        return case

    def run(self, text: str, folder: Path, env: Mapping[str, str]) -> Ended:
        """A source's command in a folder."""
        call = command(*self.words(text))

        def prepared() -> int | None:
            for name, value in env.items():
                os.environ[name] = value.replace("{here}", str(folder))
            drop_rights()
            if "--workers 2" in text:
                processes.START_S = 0.0  # at once, however little there is to do
            return call()

        return in_child(prepared, folder)

    def _make(self, place: Path, make: object) -> None:
        def made() -> None:
            make(place)  # type: ignore[operator]

        ended = in_child(made, self.root if not place.exists() else place)
        if ended.code:
            raise SystemExit(f"{place.name} cannot be made: {ended.err[-3000:]}")


def cases(names: Sequence[str], seed: int) -> Iterator[tuple[str, int]]:
    """Sources in turn, with seeds from `seed` million on."""
    number = seed * 1_000_000
    while True:
        for name in names:
            yield name, number
        number += 1


def run(
    record: Path,
    budget_s: float,
    *,
    count: int = 10_000,
    seed: int = 1,
    names: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, object]:
    """Run cases until `count` stand in the record, or the time is over; the counts.

    Args:
        record: a file of JSON lines, made or continued.
        budget_s: seconds.
        count: of the cases in the record, those of earlier runs among them.
        seed: another one gives other cases.
        names: of sources; empty takes all.
        quiet: print no progress.
    """
    import_all()
    sources = {source.name: source for source in SOURCES if not names or source.name in names}
    done = read_record(record)
    tried = {case.name for case in done}
    end, last = time.monotonic() + budget_s, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        workshop = Workshop(Path(scratch))
        with record.open("a", encoding="utf-8") as file:
            for name, number in cases(list(sources), seed):
                if len(done) >= count or time.monotonic() > end:
                    break
                if f"{name}:{number}" in tried:
                    continue
                case, _ = workshop.attempt(sources[name], number)
                done.append(case)
                file.write(json.dumps(asdict(case)) + "\n")
                file.flush()
                if not quiet and time.monotonic() - last > 30:
                    last = time.monotonic()
                    print(f"{len(done)} of {count}: {dict(_outcomes(done))}", flush=True)
        _remove(workshop.root / "case")
    return counts(done)


def read_record(record: Path) -> list[Case]:
    """The cases in a record; a half line at its end is left out."""
    if not record.exists():
        return []
    lines = record.read_text(encoding="utf-8").splitlines()
    return [Case(**json.loads(line)) for line in lines if line.endswith("}")]


def counts(done: Sequence[Case]) -> dict[str, object]:
    """By outcome, by source and outcome, and the names of the cases that failed."""
    by_source: dict[str, Counter[str]] = {}
    for case in done:
        by_source.setdefault(case.source, Counter())[case.outcome] += 1
    return {
        "cases": len(done),
        "outcomes": dict(_outcomes(done)),
        "sources": {name: dict(found) for name, found in sorted(by_source.items())},
        "failed": [case.name for case in done if case.outcome in FAULTS],
    }


def kinds_of_faults(done: Sequence[Case]) -> list[str]:
    """A line for each kind of fault: how often, what, where, and one case of it."""
    groups: dict[tuple[str, ...], list[Case]] = {}
    for case in done:
        if case.outcome in FAULTS:
            place = case.where or f"{case.source} {case.command.split(' --')[0]}"
            key = (case.outcome, re.sub(r"\d{3,}|'.*'", "..", place))
            groups.setdefault(key, []).append(case)
    return [
        f"{len(found)} x {outcome}: {place}; such as {found[0].name}: {found[0].command[:70]}, "
        f"{found[0].file}, {found[0].mutation[:100]}"
        for (outcome, place), found in sorted(groups.items(), key=lambda one: -len(one[1]))
    ]


def check(names: Sequence[str] = ()) -> int:
    """Run each command of each source unchanged, with its seconds; how many do not exit with 0."""
    import_all()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        workshop = Workshop(Path(scratch))
        for source in SOURCES:
            if names and source.name not in names:
                continue
            for text in source.commands:
                ended = workshop.run(text, workshop.copy(source), source.env)
                print(f"{source.name}: {ended.code} in {ended.seconds:.2f} s, "
                      f"{ended.megabytes:.0f} MB, {len(workshop.files(source))} files: {text[:60]}",
                      flush=True)  # fmt: skip
                if ended.code:
                    wrong += 1
                    print(ended.out[-1500:], ended.err[-1500:])
    return wrong


def _outcomes(done: Sequence[Case]) -> Counter[str]:
    return Counter(case.outcome for case in done)


def _kind(path: Path) -> str:
    """What is drawn first, so that a store's many chunks are not all of its cases."""
    return path.name if path.suffix in (".json", ".csv", ".toml") else path.suffix


def _outcome(ended: Ended, source: Source, file: Path, mutation: str, usual: int) -> str:
    if ended.fault:
        return ended.fault
    if ended.code == 0 or ended.code == usual == 1:
        return "read"
    named = [re.escape(file.name), *source.names]
    if file.suffix not in (".json", ".toml", ".csv"):
        named.append(re.escape(_stem(file.name)))
    if mutation.startswith(("gone", "link", "folder", "renamed")):
        named.append("data")
    if mutation.startswith("beside"):  # another file than the one that is copied
        named.append(re.escape(mutation.removeprefix("beside: ").strip("'")))
    said = ended.out + ended.err
    return "refused" if any(re.search(name, said) for name in named) else "file not named"


def _stem(name: str) -> str:
    stem = name.split(".")[0]
    for tail in ("_gt", "_0000", "_image", "_label", "_half_sequence"):
        stem = stem.removesuffix(tail)
    return stem or name


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--sources", default="", help="names, parted by commas")
    parser.add_argument("--only", metavar="NAME:SEED")
    parser.add_argument("--kinds", action="store_true", help="a line for each fault of the record")
    parser.add_argument("--check", action="store_true", help="run every command, nothing changed")
    given = parser.parse_args()
    names = [name for name in given.sources.split(",") if name]
    if given.check:
        sys.exit(check(names) > 0)
    if given.kinds:
        print("\n".join(kinds_of_faults(read_record(given.record))))
        return
    if given.only:
        name, seed = given.only.split(":")
        source = next(source for source in SOURCES if source.name == name)
        import_all()
        with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
            workshop = Workshop(Path(scratch))
            case, ended = workshop.attempt(source, int(seed))
            print(json.dumps(asdict(case), indent=1))
            print(ended.out, ended.err, sep="\n")
        sys.exit(case.outcome in FAULTS)
    if given.record is None:
        parser.error("--record: a file for the cases")
    found = run(given.record, given.seconds, count=given.count, seed=given.seed, names=names)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
