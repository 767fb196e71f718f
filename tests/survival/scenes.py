"""The commands that are disturbed, what they find, and what they must leave.

Everything is tiny. A command runs in a folder of its own, always the same one, so that paths that
it records do not differ; what it reads lies beside that folder.
"""

import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from echogen.errors import StoreError
from tests.support.runs import digest  # with what it imports once, before the forks
from tests.survival import flips
from tests.survival.calls import PLAIN, TRACED, Ended, run

State = dict[str, bytes | None]
"""{path below the place: a file's bytes, or None of a folder}."""
DRAWN = re.compile(r"[0-9a-f]{32}")
"""What is drawn anew in the names of unfinished files."""
INPUTS = "../inputs"
ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "guided_diffusion_tiny.pt"


@dataclass(frozen=True)
class Scene:
    """One command.

    Attributes:
        words: of the command; run again after a disturbance.
        before: commands that make what it finds.
        damage: done to it then.
        then: commands that finish the work where `words` alone do not.
        is_done: the exit code of `words` where all of the work is done already.
    """

    words: list[str]
    before: list[list[str]] = field(default_factory=list)
    damage: Callable[[Path], None] | None = None
    then: list[list[str]] = field(default_factory=list)
    is_done: int = 0


def _expand(out: str, *more: str) -> list[str]:
    return ["expand", "--config", f"{INPUTS}/expand.toml", "--out", out, *more]


def _sample(out: str) -> list[str]:
    flags = "--n 5 --steps 3 --device cpu --precision fp32 --sheet sheet.png"
    return ["sample", "--checkpoint", f"{INPUTS}/tiny", *flags.split(), "--out", out]


def _export(to: str, *more: str) -> list[str]:
    out = f"out.{to}" if to in ("zarr", "h5") else "out"
    return ["export", f"{INPUTS}/made.zarr", "--to", to, "--out", out, "--workers", "1", *more]


def _train(*more: str) -> list[str]:
    flags = (
        "--steps 6 --hold-out 2 --device cpu --precision fp32 --evaluations 2 --samples 2 "
        "--sample-steps 4 --inpainted 0 --border-images 3 --compared 0 --log-every 2 --save-every 0"
    )
    where = ["--frames", f"{INPUTS}/frames", "--preset", f"{INPUTS}/train.toml"]
    return ["train", *where, *flags.split(), "--out", "run", *more]


def _flip(place: Path) -> None:
    """A byte of the last shard of pixels, or in the midst of a file."""
    store = next(place.glob("out.*"))
    file = store if store.is_file() else sorted((store / "images" / "c").rglob("0"))[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0x10
    file.write_bytes(content)


def _export_over(to: str) -> Scene:
    return Scene(_export(to, "--overwrite"), [_export(to, "--cases", "patient0001")])


def _import(*more: str) -> list[str]:
    flags = "--noise-schedule linear --steps 1000 --num-heads 4 --out model --name tiny"
    return ["checkpoint", "import", str(TINY), *flags.split(), *more]


def _repair(out: str) -> Scene:
    return Scene(["validate", out, "--repair"], [_expand(out)], _flip, [_expand(out)])


SCENES: Mapping[str, Scene] = {
    "expand-zarr": Scene(_expand("out.zarr")),
    "expand-h5": Scene(_expand("out.h5")),
    "expand-judge": Scene(_expand("out.zarr", "--judge", f"{INPUTS}/judge")),
    "expand-overwrite": Scene(
        _expand("out.zarr", "--overwrite"), [_expand("out.zarr", "--seed", "1")]
    ),
    "expand-overwrite-h5": Scene(
        _expand("out.h5", "--overwrite"), [_expand("out.h5", "--seed", "1")]
    ),
    "repair-zarr": _repair("out.zarr"),
    "repair-h5": _repair("out.h5"),
    "sample-zarr": Scene(_sample("out.zarr")),
    "sample-h5": Scene(_sample("out.h5")),
    **{f"export-{to}": Scene(_export(to)) for to in ("folder", "nifti", "nnunet", "zarr", "h5")},
    "export-part": Scene(_export("zarr", "--copies", "originals")),
    **{f"export-{to}-overwrite": _export_over(to) for to in ("folder", "nnunet", "zarr", "h5")},
    "train": Scene(_train()),
    "train-overwrite": Scene(_train("--overwrite"), [_train("--seed", "1")]),
    "train-pack": Scene(["train", "--in", f"{INPUTS}/hearts", "--out", "run", "--pack", "run.zip"]),
    "import": Scene(_import(), is_done=4),
    "import-overwrite": Scene(_import("--overwrite"), [_import("--precision", "fp16")]),
    "phantom": Scene(["phantom", "--out", "phantoms", "--cases", "1"]),
    "plan": Scene(_expand("out.zarr", "--dry-run", "--plan", "plan.json")),
    "fans": Scene(["validate", f"{INPUTS}/hearts", "--fans", "fans.csv", "--no-judge"]),
    "preview": Scene(["preview", f"{INPUTS}/made.zarr", "--out", "sheet.png", "--n", "2"]),
    "stats": Scene(
        ["stats", f"{INPUTS}/made.zarr", "--html", "x.html", "--csv", "x.csv", "--workers", "1"]
    ),
}  # fmt: skip


class Workshop:
    """A folder in which scenes are played: inputs, what each finds, and the place itself.

    Attributes:
        place: where commands run.
        changed: after `undisturbed`, what each scene leaves.
        tried: {a scene and a state of the place: what `again` found there}.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / "place"
        self.changed: dict[str, tuple[list[int | None], dict[str, str]]] = {}
        self.tried: dict[tuple[str, str], str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        inputs = folder / "inputs"
        if not (inputs / "made.zarr").exists():
            shutil.rmtree(inputs, ignore_errors=True)
            self.do(partial(_make_inputs, inputs))
            _empty(self.place)
            ended = self.command(_expand("made.zarr"))
            if ended.code != 0:
                raise AssertionError(ended.output)
            (self.place / "made.zarr").rename(inputs / "made.zarr")

    def do(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, made in a child: zarr and torch start threads, and forks lose them."""
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)

        def child() -> int:
            answer.write_text(json.dumps(work()))
            return 0

        ended = run(child)
        if ended.code != 0:
            raise AssertionError(f"{work}: {ended.code}: {ended.output}")
        return json.loads(answer.read_text())

    def command(
        self, words: list[str], *, first: Callable[[], object] | None = None, **how: Any
    ) -> Ended:
        """One command, run in the place.

        Args:
            words: of it.
            first: called before it in the child.
            how: as `calls.run` takes it.
        """

        def work() -> int:
            if first is not None:
                first()
            return _command(words, self.place)

        return run(work, below=self.place, **how)

    def traced(self, words: list[str]) -> Counter[str]:
        """How often strace sees each call that the watch would see of a command."""
        log = self.folder / "strace.txt"
        names = ",".join(f"?{name}" for name in TRACED)
        how = ["strace", "-f", "-qq", "-y", "-s", "4096", "-o", str(log), "-e", f"trace={names}"]
        ended = subprocess.run(
            [*how, sys.executable, "-m", "echogen", *words],
            cwd=self.place,
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])},
        )
        if ended.returncode not in (0, 1):
            raise AssertionError(ended.stderr.decode())
        return Counter(filter(None, map(partial(_traced, self.place), log.open())))

    def play(self, commands: list[list[str]]) -> list[Ended]:
        """Commands after each other, none of them disturbed."""
        return [self.command(words) for words in commands]

    def reset(self, name: str) -> Scene:
        """The place as the scene finds it."""
        scene, before = SCENES[name], self.folder / "before" / name
        if not before.exists():
            _empty(self.place)
            for ended in self.play(scene.before):
                if ended.code != 0:
                    raise AssertionError(f"{name}: {ended.code}: {ended.output}")
            if scene.damage is not None:
                scene.damage(self.place)
            shutil.copytree(self.place, before)
        _empty(self.place)
        shutil.copytree(before, self.place, dirs_exist_ok=True)
        return scene

    def clear(self) -> None:
        """Empty the place."""
        _empty(self.place)

    def undisturbed(self, name: str) -> tuple[list[int | None], dict[str, str]]:
        """Exit codes of the scene's commands, and what they leave: {path: what it holds}."""
        if name not in self.changed:
            scene = self.reset(name)
            modules = self.folder / "modules.json"
            ended = [
                run(partial(_command, words, self.place, modules))
                for words in (scene.words, *scene.then)
            ]
            for module in json.loads(modules.read_text()):
                if module not in sys.modules and not module.startswith("__"):
                    with suppress(Exception):  # a module that was made as it ran
                        importlib.import_module(module)
            self.changed[name] = [each.code for each in ended], self.left()
            if any(each.code not in (0, 1) for each in ended):
                raise AssertionError(f"{name}: {[each.output for each in ended]}")
        return self.changed[name]

    def left(self) -> dict[str, str]:
        """What lies in the place: {path: what it holds}."""
        return self.do(partial(_contents, self.place))

    def lay_out(self, state: State) -> None:
        """Fill the place with a state."""
        _empty(self.place)
        for path, content in sorted(state.items()):
            if content is None:
                (self.place / path).mkdir()
            else:
                (self.place / path).write_bytes(content)

    def lacks(self, name: str) -> str:
        """In what the place differs from undisturbed, but for what the next command removes."""
        if SCENES[name].then:
            return ""
        found, wanted = self.left(), self.undisturbed(name)[1]
        kept = {
            path: what
            for path, what in found.items()
            if path in wanted or not re.search(r"\.(lock|removing)(/|$)", path)
        }
        return difference(kept, wanted)

    def again(self, name: str, *, known: bool = True) -> str:
        """Runs the scene's commands; in what they, and what is left, differ from undisturbed.

        Args:
            name: of the scene.
            known: do not try the same content of the place twice.
        """
        if not known:
            return self._again(name)
        found = hashlib.sha256()
        for path, content in sorted(state_of(self.place).items()):
            found.update(repr((DRAWN.sub("", path), content)).encode())
        key = name, found.hexdigest()
        if key not in self.tried:
            self.tried[key] = self._again(name)
        return self.tried[key]

    def _again(self, name: str) -> str:
        codes, wanted = self.undisturbed(name)
        scene, refused = SCENES[name], False
        for words, code in zip([scene.words, *scene.then], codes, strict=True):
            ended = self.command(words)
            if ended.code not in (0, code, scene.is_done):
                last = "\n".join(ended.output.strip().splitlines()[-3:])
                return f"the same command ends with {ended.code}: {last}"
            refused |= ended.code != code
        left = self.left()
        if refused:  # before it took the lock, whose file the next one that does removes
            left = {name: content for name, content in left.items() if name[-5:] != ".lock"}
        return difference(left, wanted)

    def finished(self, name: str, ended: Ended) -> str:
        """What is wrong when all is done, after a run that may have been the last one needed."""
        done = ended.code in (0, 1) and not SCENES[name].then
        if done and not difference(self.left(), self.undisturbed(name)[1]):
            return ""
        return self.again(name)


def _traced(place: Path, line: str) -> str:
    """The plain name of a call in a line of strace's, where it concerns the place."""
    found = re.match(r"\d+ +(\w+)\((.*)", line)
    if found is None:
        return ""  # the rest of a call that was interrupted by another thread's
    name, rest = found.groups()
    opens = name in ("open", "openat")
    if opens and not re.search("O_(WRONLY|RDWR|CREAT|TRUNC)", rest):
        return ""
    rest = re.sub(r'^AT_FDCWD<[^>]*>, (?="/)', "", rest)
    below = str(place) in rest or (rest.startswith('"') and not rest.startswith('"/'))
    if not below:
        return ""
    return "rmdir" if "AT_REMOVEDIR" in rest else PLAIN.get(name, name)


def difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """In words, or an empty text."""
    parts = []
    for word, names in (
        ("left over", found.keys() - wanted.keys()),
        ("missing", wanted.keys() - found.keys()),
        ("other content", {n for n in found.keys() & wanted.keys() if found[n] != wanted[n]}),
    ):
        if names:
            parts.append(f"{word}: {', '.join(sorted(names)[:4])} ({len(names)})")
    return "; ".join(parts)


def state_of(place: Path) -> State:
    """What lies in a folder."""
    found: State = {}
    for path in place.rglob("*"):
        with suppress(FileNotFoundError):  # another thread's, removed meanwhile
            name = path.relative_to(place).as_posix()
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _command(words: list[str], place: Path, modules: Path | None = None) -> int:
    from echogen.cli import main

    os.chdir(place)
    sys.argv = ["echogen", *words]
    code: Any = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    if modules is not None:
        modules.write_text(json.dumps(list(sys.modules)))
    return int(code)


def _contents(place: Path) -> dict[str, str]:
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        found[name] = "a folder" if path.is_dir() else _content(path)
    return found


def _content(path: Path) -> str:
    """A digest of a file without the times that it tells."""
    try:
        content = _without_times(path)
    except (SafetensorError, StoreError, zipfile.BadZipFile, OSError, ValueError, KeyError):
        return "damaged"
    return hashlib.sha256(content).hexdigest()


def _without_times(path: Path) -> bytes:
    if path.suffix == ".h5":
        return digest(path).encode() + flips.content(path, remade=True).encode()
    if path.name == "state.safetensors":
        with safe_open(path, framework="pt") as state:
            header = json.loads(state.metadata()["progress"])
        tensors = load_file(path)
        numbers = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
        return repr({**header, "seconds": 0}).encode() + numbers
    if path.suffix == ".zip":  # whose own table has times
        with zipfile.ZipFile(path) as packed:
            return b"".join(name.encode() + packed.read(name) for name in packed.namelist())
    if path.name == "log.jsonl":  # which starts anew after a kill
        events = [json.loads(line) for line in path.open()]
        return repr([(e["event"], e["step"]) for e in events if e["event"] != "start"]).encode()
    found = path.read_bytes()
    if path.suffix == ".html":
        found = re.sub(rb", in [0-9a-z ]+<", b"<", found)
    if path.name == "zarr.json":
        found = re.sub(rb'"(created|seal)": ?"[^"]*"', b"", found)
    if "run" in path.parts and path.name in ("README.md", "echogen.json"):  # tell how long it took
        found = re.sub(rb'"(seconds|sha256|README.md)": ?[^,}]*', b"", found)
        found = re.sub(rb"[0-9.]+ (s|min|h)\b|after .* (s|min|h)\b", b"", found)
    return found


def _make_inputs(folder: Path) -> None:
    import torch

    from tests.conftest import save_tiny
    from tests.support.hearts import write_dataset
    from tests.support.judges import write_judge
    from tests.support.tiny_training import recipe, tiny_frames, write_frames, write_recipe

    torch.set_num_threads(1)
    write_dataset(folder / "hearts")
    save_tiny(folder / "tiny", "none")
    write_judge(folder / "judge")
    write_frames(folder / "frames", tiny_frames())
    write_recipe(folder / "train.toml", recipe())
    (folder / "expand.toml").write_text(
        f'input = "{INPUTS}/hearts"\ncopies = 1\ncheckpoint = "{INPUTS}/tiny"\njudge = "none"\n'
        '[sampler]\nname = "repaint"\nsteps = 4\njump_length = 2\nresamplings = 2\n'
        '[engine]\ndevice = "cpu"\nprecision = "fp32"\nbatch_size = 3\nworkers = 1\n'
        "[store]\nshard_size = 4\n"
    )
