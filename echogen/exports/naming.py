"""File names for samples: safe whatever a store says, unique on every file system, and stable.

A name has ASCII letters, digits, `_` and `-` only. An id that had to be changed, or that another
one resembles, carries eight digits of its own SHA-256, so that no name depends on the other
samples unless two of them clash.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

LONGEST = 80
CAMUS_PHASES = ("ED", "ES")
_VIEW = re.compile(r"[A-Za-z0-9]{1,16}")
_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
_LABEL_ENDING = re.compile(r"_gt", re.IGNORECASE)  # of CAMUS' label files


def unique_names(ids: Sequence[str]) -> list[str]:
    """A safe file name for each id, in order; all differ, also without regard to case.

    An id that is safe already keeps its name unless another id resembles it.
    """
    bases = [_safe(text) for text in ids]
    alike = Counter(base.casefold() for base in bases)
    taken: set[str] = set()
    names = []
    for text, base in zip(ids, bases, strict=True):
        plain = base == text and alike[base.casefold()] == 1
        marked = f"{base}-{_digest(text)}"
        name, again = base if plain else marked, 2
        while name.casefold() in taken:
            name, again = f"{marked}-{again}", again + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def case_folders(columns: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """The name of each row's case: `patient0001` for an original, `patient0001c02` for copy 2.

    A frame that is named after its recording, since its case has several of one view, has that for
    a case here.

    Args:
        columns: `frame_id`, `case_id`, `view`, `phase` and `copy`, (n,).
    """
    pairs = [
        (_stem(columns, i) or str(columns["case_id"][i]), int(copy))
        for i, copy in enumerate(columns["copy"])
    ]
    known = list(dict.fromkeys(pairs))
    texts = [f"{case}c{copy:02d}" if copy else case for case, copy in known]
    names = dict(zip(known, unique_names(texts), strict=True))
    return [names[pair] for pair in pairs]


def sample_names(columns: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """A file name without suffix for each row, the same in every format.

    CAMUS' own where the frame has it, with the copy in the case: `patient0001_4CH_ED`,
    `patient0001c02_4CH_ED`. Else the sample's id.

    Args:
        columns: `sample_id`, `frame_id`, `case_id`, `view`, `phase` and `copy`, (n,).
    """
    wanted = []
    for i, folder in enumerate(case_folders(columns)):
        view, phase = (str(columns[name][i]) for name in ("view", "phase"))
        is_camus = _stem(columns, i) and _VIEW.fullmatch(view) and phase in CAMUS_PHASES
        wanted.append(f"{folder}_{view}_{phase}" if is_camus else str(columns["sample_id"][i]))
    return unique_names(wanted)


def _stem(columns: Mapping[str, npt.NDArray[Any]], i: int) -> str:
    """What comes before view and phase in a frame's id; empty where it has another form."""
    frame, ending = str(columns["frame_id"][i]), f"_{columns['view'][i]}_{columns['phase'][i]}"
    return frame.removesuffix(ending) if frame.endswith(ending) else ""


def _safe(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = _OTHERS.sub("-", plain).strip("-_")[:LONGEST] or "sample"
    if _DEVICES.fullmatch(name) or _LABEL_ENDING.fullmatch(name[-3:]):
        return f"{name}-"
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
