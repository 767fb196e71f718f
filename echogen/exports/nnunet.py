"""`--to nnunet`: nnU-Net's raw dataset (version 2), with folds that keep cases and copies apart.

`imagesTr/X_0000.nii.gz`, `labelsTr/X.nii.gz`, `dataset.json`; frames of a test split go to
`imagesTs` and `labelsTs`, originals only. `splits_final.json` trains on originals and copies and
validates on originals, no case in both halves; nnU-Net reads it from its folder of preprocessed
data.

Source: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md, ignore_label.md and
manual_data_splits.md.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen import __version__
from echogen.datasets.nnunet import SPLITS
from echogen.datasets.nnunet_json import DESCRIPTION
from echogen.errors import UsageError
from echogen.exports.naming import sample_names
from echogen.exports.nifti import spacings
from echogen.exports.selection import Excerpt
from echogen.exports.tables import terms
from echogen.exports.writing import FilePlan, SampleFiles
from echogen.store import StoreRecord
from echogen.support.words import counted
from echogen.types import IGNORE

FOLDS = 5
TRAIN, TEST = "Tr", "Ts"
TEST_SPLITS = ("testing", "test")
VALIDATION_SPLITS = ("validation", "val", "valid")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_BACKGROUND, _IGNORE = "background", "ignore"


@dataclass(frozen=True)
class NnunetSettings:
    """What nnU-Net has to know of a dataset.

    Attributes:
        dataset_id: 1 to 999.
        name: of the dataset: letters, digits, `_` and `-`.
        folds: of the cross-validation; None takes the dataset's own validation split where there
            is one, else 5, or one a case where there are fewer.
        seed: of the folds.
    """

    dataset_id: int = 501
    name: str = "Echogen"
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.dataset_id <= 999:
            raise UsageError(f"--dataset-id {self.dataset_id}: must be 1 to 999.")
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"--name {self.name}: expected up to 64 letters, digits, _ and -, beginning with a "
                "letter or digit."
            )
        if self.folds is not None and self.folds < 2:
            raise UsageError(f"--folds {self.folds}: must be at least 2.")

    @property
    def folder(self) -> str:
        """`Dataset501_Echogen`."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"


@dataclass(frozen=True)
class Folds:
    """Who validates where.

    Attributes:
        of_case: {case id: its fold}; a case that is in none is trained on in every fold.
        count: how many folds.
        own: whether the dataset's own validation split is the only one.
    """

    of_case: Mapping[str, int]
    count: int
    own: bool


def plan_nnunet(excerpt: Excerpt, settings: NnunetSettings) -> tuple[FilePlan, int]:
    """Which file holds which sample, and the number of folds.

    Raises:
        UsageError: the store has no labels, nothing to train or to validate on, or fewer cases
            than folds.
    """
    if excerpt.kind == "generated":
        raise UsageError(
            f"--to nnunet: {excerpt.store} holds generated images without labels, which nnU-Net "
            "cannot train on. Use --to folder, zarr or h5."
        )
    columns = excerpt.columns
    folds = make_folds(columns, settings)
    parts, notes = _parts(columns, folds)
    spacing, about_spacing = spacings(excerpt)
    labels, ids = label_ids(excerpt.record)
    items, kept = [], []
    for i, name in enumerate(sample_names(columns)):
        if parts[i]:
            kept.append(i)
            items.append(
                SampleFiles(
                    row=int(excerpt.rows[i]),
                    name=name,
                    image=f"images{parts[i]}/{name}_0000.nii.gz",
                    label=f"labels{parts[i]}/{name}.nii.gz",
                    sha256=str(columns["sha256"][i]),
                    spacing_mm=spacing[i],
                )
            )
    facts = [_Fact(parts[i], str(columns["case_id"][i]), int(columns["copy"][i])) for i in kept]
    tables = partial(_tables, excerpt, settings, labels, folds, tuple(items), tuple(facts))
    plan = FilePlan(
        items=tuple(items),
        encoding="nifti",
        tables=tables,
        layout=_layout(settings, folds),
        kept=np.array(kept, dtype=np.int64),
        columns={
            "part": [fact.part for fact in facts],
            "validated_in_fold": [_fold(fact, folds) for fact in facts],
        },
        ids=ids,
        notes=(*notes, *about_spacing, *_about_folds(folds, settings)),
    )
    return plan, folds.count


@dataclass(frozen=True)
class _Fact:
    part: str
    case: str
    copy: int


def label_ids(record: StoreRecord) -> tuple[dict[str, int], dict[int, int]]:
    """nnU-Net's `labels`, {name: id}, and {class id in the store: that id}.

    nnU-Net wants ids without gaps, 0 named `background`, and `ignore` as the highest. 255 becomes
    `ignore` where the store was made with labels_on_paint = "ignore"; elsewhere it does not occur.

    Args:
        record: the store's.
    """
    declared = record.labels
    labels, ids = {_BACKGROUND: 0}, {0: 0}
    for there in sorted(set(declared) - {0, IGNORE}):
        name = " ".join(declared[there].split()) or f"class {there}"
        if name in labels or name.lower() == _IGNORE:
            name = f"{name} (class {there})"
        ids[there] = labels[name] = len(labels)
    if record.config.transforms.labels_on_paint == "ignore":
        ids[IGNORE] = labels[_IGNORE] = len(labels)
    return labels, ids


def make_folds(columns: Mapping[str, npt.NDArray[Any]], settings: NnunetSettings) -> Folds:
    """A fold for each case that has an original; no case is in two.

    Cases go to folds in the order of a hash of seed and id, so that they do not depend on the
    order of rows.

    Args:
        columns: `case_id`, `split` and `copy`, (n,).
        settings: how many folds.

    Raises:
        UsageError: nothing to train or to validate on, or fewer cases than folds.
    """
    trained, original = ~_tested(columns), columns["copy"] == 0
    if not trained.any():
        raise UsageError(
            "--to nnunet: the selection contains only frames of the test split, so nothing to "
            "train on. Omit --split, or use --to nifti."
        )
    held = _in_split(columns, VALIDATION_SPLITS) & trained
    cases = sorted(set(columns["case_id"][trained & original].tolist()))
    if not cases:
        raise UsageError(
            "--to nnunet: folds validate on originals, and the selection holds none. Leave out "
            "--copies, expand without --no-originals, or use --to nifti."
        )
    own = set(columns["case_id"][held & original].tolist())
    elsewhere = set(columns["case_id"][trained & ~held].tolist())
    if settings.folds is None and own - elsewhere and elsewhere:
        return Folds(dict.fromkeys(sorted(own - elsewhere), 0), 1, own=True)
    every = set(columns["case_id"][trained].tolist())
    count = settings.folds or min(FOLDS, len(cases))
    if settings.folds is not None and len(cases) < settings.folds:
        raise UsageError(
            f"--folds {settings.folds}: there are originals of only {counted(len(cases), 'case')} "
            "to train on; give fewer."
        )
    if len(cases) < 2 and len(every) < 2:
        return Folds({}, 0, own=False)
    return Folds({case: i % count for i, case in enumerate(_drawn(cases, settings.seed))}, count,
                 own=False)  # fmt: skip


def _in_split(
    columns: Mapping[str, npt.NDArray[Any]], names: Sequence[str]
) -> npt.NDArray[np.bool_]:
    return np.isin(np.char.lower(columns["split"].astype(str)), names)


def _tested(columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Rows of every case of which a frame is in a test split."""
    cases = set(columns["case_id"][_in_split(columns, TEST_SPLITS)].tolist())
    return np.isin(columns["case_id"], sorted(cases))


def _drawn(cases: Sequence[str], seed: int) -> list[str]:
    return sorted(cases, key=lambda case: hashlib.sha256(f"{seed} {case}".encode()).digest())


def _parts(columns: Mapping[str, npt.NDArray[Any]], folds: Folds) -> tuple[list[str], list[str]]:
    """`Tr`, `Ts`, or empty for what is of no use to nnU-Net; and notes of that."""
    copy, tested = columns["copy"] > 0, _tested(columns)
    held = np.isin(columns["case_id"], sorted(folds.of_case)) if folds.own else np.zeros_like(copy)
    parts = np.where(tested, TEST, TRAIN)
    parts[copy & (tested | held)] = ""
    notes = []
    for which, what in ((tested, "test"), (held & ~tested, "validation")):
        if (left := int((copy & which).sum())) > 0:
            notes.append(f"{counted(left, 'sample')} left out: copies of {what} cases.")
    return parts.tolist(), notes


def _fold(fact: _Fact, folds: Folds) -> str:
    validates = fact.part == TRAIN and not fact.copy and fact.case in folds.of_case
    return str(folds.of_case[fact.case]) if validates else ""


def _tables(
    excerpt: Excerpt,
    settings: NnunetSettings,
    labels: Mapping[str, int],
    folds: Folds,
    items: Sequence[SampleFiles],
    facts: Sequence[_Fact],
    there: Sequence[bool],
) -> dict[str, str]:
    training = [
        (item.name, fact)
        for item, fact, is_there in zip(items, facts, there, strict=True)
        if is_there and fact.part == TRAIN
    ]
    described = {
        "channel_names": {"0": "ultrasound"},
        "labels": dict(labels),
        "numTraining": len(training),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "name": settings.name,
        "description": f"exported by echogen {__version__} from {excerpt.store.name}; samples.csv "
        "says where each sample comes from",
        "licence": terms(excerpt),
    }
    found = {DESCRIPTION: _json(described)}
    splits = [
        {
            "train": [name for name, fact in training if folds.of_case.get(fact.case) != fold],
            "val": [name for name, fact in training if _fold(fact, folds) == str(fold)],
        }
        for fold in range(folds.count)
    ]
    if splits:
        found[SPLITS] = _json(splits)
    return found


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _about_folds(folds: Folds, settings: NnunetSettings) -> list[str]:
    if not folds.count:
        return ["a single case: no folds; train with `nnUNetv2_train ... all`."]
    if folds.own:
        return ["one fold, 0: the dataset's own validation split; --folds 5 makes five instead."]
    if settings.folds is None and folds.count < FOLDS:
        return [f"{folds.count} folds: there are no more cases to validate on."]
    return []


def _layout(settings: NnunetSettings, folds: Folds) -> str:
    text = (
        "A raw dataset of nnU-Net (version 2): `imagesTr/X_0000.nii.gz` with `labelsTr/X.nii.gz`, "
        "each with its own millimetres, and `dataset.json`. Copy 2 of `patient0001_4CH_ED` is "
        "`patient0001c02_4CH_ED`."
    )
    if not folds.count:
        return text
    return (
        f"{text} `{SPLITS}` trains on originals and copies and validates on originals, no "
        "case in both; nnU-Net reads it from its folder of preprocessed data. Once you have run "
        f"`nnUNetv2_plan_and_preprocess -d {settings.dataset_id} -c 2d`, and before training:\n\n"
        f"    {copy_command(settings)}\n\n"
        "Without it nnU-Net makes folds of its own, which mix cases and validate on copies; so it "
        f"does for any fold above {folds.count - 1}."
    )


def copy_command(settings: NnunetSettings) -> str:
    """What puts the folds where nnU-Net reads them."""
    place = settings.folder
    return f'cp "$nnUNet_raw/{place}/{SPLITS}" "$nnUNet_preprocessed/{place}/"'
