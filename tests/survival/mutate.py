"""One change to one file, drawn by a random generator: bytes, text, structure, headers, kinds.

Each mutator takes the file's path and the generator, changes the file, and returns a few words on
what it did; `None` where it does not apply to this file.
"""

import warnings
import zipfile
from pathlib import Path
from random import Random

from tests.survival.mutate_binary import (
    dicom,
    fields,
    hdf5,
    metaimage,
    nifti,
    npy,
    png,
    safetensors,
    zlib_bomb,
    zlib_content,
)
from tests.survival.mutate_bytes import BYTES, KINDS, Mutator
from tests.survival.mutate_text import TEXT, cells, json_node, json_twice, setting

TEXTS = (".json", ".csv", ".txt", ".toml", ".cfg", ".mhd", ".jsonl", ".md")


def mutate(path: Path, rng: Random, *, kinds: bool = True) -> str:
    """Change the file at `path`; what was done, in a few words.

    Args:
        path: of the file.
        rng: what is drawn.
        kinds: whether something else may stand in its place.
    """
    families = [family for family in _families(path) if kinds or family is not KINDS]
    for _ in range(20):
        mutator = rng.choice(rng.choice(families))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about what they write
            done = mutator(path, rng)
        if done is not None:
            return f"{mutator.__name__}: {done}"
    path.write_bytes(b"")
    return "emptied"


def _families(path: Path) -> list[tuple[Mutator, ...]]:
    """Groups of mutators; each is drawn as often as another."""
    name = path.name.lower()
    special: list[tuple[Mutator, ...]] = [
        mutators for endings, mutators in _BY_ENDING if name.endswith(endings)
    ]
    if _is_text(path):
        return [*special * 4, TEXT, TEXT, BYTES, KINDS]
    return [*special * 4, BYTES, BYTES, KINDS]


def _is_text(path: Path) -> bool:
    if path.name.lower().endswith(TEXTS):
        return True
    try:
        return "\0" not in path.read_bytes()[:2048].decode()
    except UnicodeDecodeError:
        return False


def archive(path: Path, rng: Random) -> str | None:
    """A zip's member changed, doubled, renamed or blown up."""
    try:
        with zipfile.ZipFile(path) as file:
            members = [(info.filename, file.read(info)) for info in file.infolist()]
    except (OSError, zipfile.BadZipFile):
        return None
    at = rng.randrange(len(members))
    name, body = members[at]
    what = rng.choice(("bytes", "bytes", "twice", "delete", "name", "bomb", "more"))
    new = ""
    if what == "bytes":
        scratch = path.with_name("member" + Path(name).suffix)
        scratch.write_bytes(body)
        new = mutate(scratch, rng, kinds=False)
        members[at] = (name, scratch.read_bytes())
        scratch.unlink()
    elif what == "twice":
        members.append(members[at])
    elif what == "delete":
        del members[at]
    elif what == "name":
        new = rng.choice(("../x", "/tmp/x", "x", f"a/{name}", name.upper(), "é", "x" * 300))
        members[at] = (new, body)
    elif what == "bomb":
        members[at] = (name, bytes(2**28))
    else:
        members.append(("more.txt", b"x"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name_, body_ in members:
            file.writestr(zipfile.ZipInfo(name_), body_, zipfile.ZIP_DEFLATED)
    return f"{what} {name} {new}"


_BY_ENDING: tuple[tuple[tuple[str, ...], tuple[Mutator, ...]], ...] = (
    ((".json", ".jsonl"), (json_node, json_node, json_node, json_node, json_twice)),
    ((".csv",), (cells,)),
    ((".toml", ".cfg"), (setting,)),
    ((".nii.gz", ".nii"), (nifti,)),
    ((".mhd", ".mha"), (metaimage,)),
    ((".zraw",), (zlib_bomb, zlib_content)),
    ((".png",), (png,)),
    ((".bmp", ".jpg", ".tif", ".avi", ".h5", ".pt"), (fields,)),
    ((".dcm", ".ima"), (dicom, dicom, fields)),
    ((".npy",), (npy,)),
    ((".safetensors",), (safetensors,)),
    ((".zip", ".pt"), (archive,)),
    ((".h5",), (hdf5,)),
)
