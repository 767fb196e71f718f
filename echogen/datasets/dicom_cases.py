"""Who is who without a name: the ids of cases, pictures and frames of DICOM files.

A patient's id is what a hospital counts its patients by, so a hash of it alone is undone by trying
all numbers. With a salt, a file that only its owner has, the case's id is a keyed hash of the
patient's id: the same in every folder that is read with that salt. Without one it is a hash of the
unique id of one of the patient's studies, the first in order of these ids, which holds no patient's
id, so nothing can be tried; it is the same wherever the same files lie, and another where a study
that comes first is added or taken away. Files' names never go into an id.
"""

import csv
import hashlib
import hmac
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from echogen.datasets.base import digest_of, relative
from echogen.datasets.dicom_header import Header
from echogen.errors import UsageError
from echogen.support.files import real_path
from echogen.support.reading import open_regular, read_bytes, reason
from echogen.types import Case

CASE_DIGITS, INSTANCE_DIGITS = 10, 8
LEAST_SALT, MOST_SALT = 16, 2**20
OUTPUTS = ("echogen.json", "samples.csv", "dataset.json", "model_index.json")
"""Files that a model, an export or a run has: their folders are handed on."""
COLUMNS = ("case", "recording", "patient_id", "patient_name", "file")


def read_salt(path: Path) -> bytes:
    """The content of a salt's file, without white space around it.

    Raises:
        UsageError: it cannot be read, or is short enough to be guessed.
    """
    try:
        salt = read_bytes(path, MOST_SALT).strip()
    except OSError as error:
        raise UsageError(f"--case-salt {path}: cannot be read ({reason(error)}).") from error
    if len(salt) < LEAST_SALT:
        raise UsageError(
            f"--case-salt {path}: holds {len(salt)} bytes, expected at least {LEAST_SALT} that "
            "nobody can guess; make one with: openssl rand -hex 32"
        )
    return salt


def recording_ids(headers: Sequence[Header], salt: bytes = b"") -> list[tuple[str, str]]:
    """(case id, recording id) of each file, in order.

    A patient is who has the same id; without one, the same study; without that, the file. Files
    with the same instance id get the same recording id.

    Args:
        headers: of all files of the dataset.
        salt: of `read_salt`; empty for ids that hold no patient's id.
    """
    studies: dict[tuple[str, ...], str] = {}
    for header in headers:
        who, study = _patient(header), header.study or header.instance
        studies[who] = min(studies.get(who, study), study)
    found = []
    for header in headers:
        who = _patient(header)
        case = f"p{_hash(salt, 'case', who if salt else (studies[who],))[:CASE_DIGITS]}"
        picture = _hash(salt, "instance", (header.instance or _content(header),))[:INSTANCE_DIGITS]
        found.append((case, f"{case}_{picture}"))
    return found


def patients_of_several_studies(headers: Sequence[Header]) -> int:
    """How many patients are known to have several studies."""
    studies: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for header in headers:
        studies[_patient(header)].add(header.study or header.instance)
    return sum(len(found) > 1 for found in studies.values())


def known_of_cases(files: Iterable[tuple[str, str, Header]]) -> list[Case]:
    """What is known of each case: scanner, and rates where its files agree, else of each file.

    Args:
        files: (case id, recording id, header).
    """
    of: dict[str, dict[str, Header]] = defaultdict(dict)
    for case_id, recording, header in files:
        of[case_id][recording] = header
    cases = []
    for case_id, group in sorted(of.items()):
        info: dict[str, float | str] = {}
        for name in ("frame_rate", "heart_rate"):
            found = {recording: getattr(header, name) for recording, header in group.items()}
            known = {recording: value for recording, value in found.items() if value is not None}
            if len(set(known.values())) == 1:
                info[name] = next(iter(known.values()))
            else:
                info |= {f"{name}_{one.partition('_')[2]}": v for one, v in known.items()}
        scanners = sorted({header.scanner for header in group.values()} - {""})
        if scanners:
            info["scanner"] = ", ".join(scanners)
        cases.append(Case(case_id, info))
    return cases


def check_case_map(file: Path) -> None:
    """Refuse a place for the table of `case_table` where others would find or lose something.

    Raises:
        UsageError: it lies in a store or in a training run, or replaces a file of another kind.
    """
    for folder in real_path(file).parents:
        if folder.suffix == ".zarr" or (folder / "zarr.json").exists() or any(
            (folder / name).exists() for name in OUTPUTS
        ):  # fmt: skip
            raise UsageError(
                f"--case-map {file}: names patients, and lies in the output {folder}; give a "
                "place that is not passed on."
            )
    if file.exists() and not _is_case_map(file):
        raise UsageError(f"--case-map {file}: exists, and is not such a table; give another name.")


def _is_case_map(file: Path) -> bool:
    head = ",".join(COLUMNS).encode()
    try:
        with open_regular(file) as content:
            return content.read(len(head)) == head
    except OSError:
        return False


def case_table(
    root: Path,
    files: Iterable[tuple[str, str, Header]],
    damaged: Iterable[tuple[str, Path]] = (),
) -> str:
    """CSV of who is who.

    Args:
        root: files are named relative to it.
        files: (case id, recording id, header).
        damaged: (id, file) of files that cannot be read.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for case, recording, header in files:
        row = (case, recording, header.patient[1], header.patient_name, relative(root, header.path))
        table.writerow(row)
    table.writerows(("", name, "", "", relative(root, path)) for name, path in damaged)
    return text.getvalue()


def _patient(header: Header) -> tuple[str, ...]:
    if header.patient[1]:
        return ("patient", *header.patient)
    if header.study:
        return ("study", header.study)
    return ("instance", header.instance or _content(header))


def _content(header: Header) -> str:
    """Of a file without unique ids, its bytes."""
    return digest_of(header.path)


def _hash(salt: bytes, kind: str, words: tuple[str, ...]) -> str:
    message = "\0".join(("echogen", kind, *words)).encode("utf-8", "surrogateescape")
    return hmac.new(salt, message, hashlib.sha256).hexdigest()
