"""Known models fetched once: verified, converted where they are foreign, and kept.

A model ends in `checkpoints/NAME` of echogen's cache folder, or not at all. `NAME.json` beside it
records what was fetched; a later download must be the same file, also where no card pins it.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echogen.diffusion.checkpoint import (
    BUILTIN,
    CARD_FILE,
    INFO_FILE,
    CheckpointInfo,
    read_info,
    read_json,
    verify_checkpoint,
)
from echogen.diffusion.saving import whole_folder
from echogen.errors import CheckpointError
from echogen.judging.checkpoint import read_judge_info
from echogen.models.hub import HubFile, fetch
from echogen.models.registry import (
    IN_PACKAGE,
    ModelCard,
    checkpoints_home,
    find_card,
    local_folder,
)
from echogen.models.resolve import unknown_name
from echogen.report import QUIET, CommandReport, Reporter
from echogen.support.files import write_whole

if TYPE_CHECKING:
    from echogen.models.guided.probe import Probe


@dataclass(frozen=True)
class DownloadReport(CommandReport):
    """Where a model is now.

    Attributes:
        name: of the model.
        folder: of its checkpoint; null for the one in the package.
        fresh: whether anything was done.
        checkpoint_sha256: `CheckpointInfo.sha256`.
        licence: of the weights.
        probe: what was measured to choose how it was converted, or null.
    """

    name: str
    folder: str | None
    fresh: bool
    checkpoint_sha256: str
    licence: str
    probe: Mapping[str, Any] | None = None


def download(
    name: str,
    *,
    probe: Path | None = None,
    reporter: Reporter = QUIET,
    show_probe: "Callable[[Probe], None]" = lambda _: None,
) -> DownloadReport:
    """Download a known model, unless it is already here and intact.

    Args:
        name: of a card.
        probe: a dataset, to measure on its frames what a foreign file's shapes leave open; None
            takes the card's word.
        reporter: hears what is done.
        show_probe: called with what was measured, also where it does not decide.

    Raises:
        CheckpointError: no such model; it cannot be fetched, is not what was expected, or cannot
            be converted or written; or the probe does not decide.
        StoreError: another process is writing its folder.
        DatasetError, UsageError: there are no frames to measure on.
    """
    card = find_card(name)
    if card is None:
        raise CheckpointError(unknown_name(name))
    if card.kind in IN_PACKAGE:
        reporter.tell(f"model {card.name}: comes with echogen, nothing to download")
        own = read_judge_info(BUILTIN) if card.kind == "judge" else read_info(BUILTIN)
        return DownloadReport(card.name, None, False, own.sha256, own.licence)
    folder = checkpoints_home() / card.name
    here = _whole(card, reporter)
    if here is not None and (probe is None or card.kind == "echogen"):
        reporter.tell(f"model {card.name}: already downloaded; nothing to do")
        return DownloadReport(card.name, str(folder), False, here.sha256, here.licence)
    reporter.tell(f"model {card.name}: {card.licence}. Cite: {card.citation}")
    if card.kind == "guided":
        info, probed = _foreign(card, folder, probe, reporter, show_probe)
    else:
        info, probed = _ours(card, folder), None
    measured = None if probed is None else probed.to_dict()
    return DownloadReport(card.name, str(folder), True, info.sha256, info.licence, measured)


def record_file(card: ModelCard) -> Path:
    """What was fetched for a model, beside its folder."""
    return checkpoints_home() / f"{card.name}.json"


def _whole(card: ModelCard, reporter: Reporter) -> CheckpointInfo | None:
    folder = local_folder(card)
    if folder is None:
        return None
    try:
        info = verify_checkpoint(folder)
    except CheckpointError as error:
        reporter.tell(f"{error} Downloading it again.")
        return None
    if not _as_its_card_says(card, info):
        reporter.tell(
            f"model {card.name}: its card has changed since the download. Downloading it again."
        )
        return None
    return info


def _as_its_card_says(card: ModelCard, info: CheckpointInfo) -> bool:
    """Whether a model here is the one that its card means: cards of a user's own are corrected."""
    if card.kind == "echogen":
        return card.sha256 in ("", info.sha256)
    imported = info.training.get("imported")
    if not isinstance(imported, Mapping):
        return True
    options = imported.get("probe") or imported.get("options") == card.options.model_dump()
    return bool(options) and card.sha256 in ("", imported.get("sha256"))


def _foreign(
    card: ModelCard,
    folder: Path,
    dataset: Path | None,
    reporter: Reporter,
    show_probe: "Callable[[Probe], None]",
) -> "tuple[CheckpointInfo, Probe | None]":
    from echogen.models.guided.importing import facts_of, import_guided
    from echogen.models.guided.probe import probe_file

    fetched = fetch(card, card.file, *_expected(card))
    probed = None
    if dataset is not None:
        probed = probe_file(fetched.path, dataset, image_size=card.image_size, reporter=reporter)
        show_probe(probed)
    elif card.guided and not card.guided.verified:
        reporter.tell(
            f"model {card.name}: its noise schedule and heads are those of its authors' "
            "configuration, not measured; --probe DATASET measures them on real frames"
        )
    source = f"{card.repo}@{fetched.revision or card.revision or 'unknown revision'}"
    with whole_folder(folder, overwrite=True) as staging:
        info = import_guided(
            fetched.path,
            staging,
            card.options if probed is None else probed.options,
            facts_of(card, source),
            probe=None if probed is None else probed.to_dict(),
            overwrite=True,
        )
        _record(card, card.file, fetched, info)
    return info, probed


def _ours(card: ModelCard, folder: Path) -> CheckpointInfo:
    """A checkpoint's folder from the hub: each file is checked against the description's hash."""
    expected, why = _expected(card)
    described = fetch(card, INFO_FILE, verify=False)
    info = read_info(described.path.parent)
    if expected and info.sha256 != expected:
        raise CheckpointError(
            f"model {card.name}: the checkpoint in {card.repo} has sha256 {info.sha256[:12]}, "
            f"expected {expected[:12]}{why}; it was rejected."
        )
    files = {name: fetch(card, name, info.files[name]).path for name in info.files}
    files[CARD_FILE] = fetch(card, CARD_FILE, verify=False).path
    files[INFO_FILE] = described.path
    with whole_folder(folder, overwrite=True) as staging:
        for name, path in files.items():
            (staging / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, staging / name)
        verify_checkpoint(staging)
        _record(card, INFO_FILE, replace(described, sha256=info.sha256), info)
    return info


def _expected(card: ModelCard) -> tuple[str, str]:
    """The hash that the download must have, and why if no card pins it."""
    file = record_file(card)
    if card.sha256 or not file.is_file():
        return card.sha256, ""
    record = read_json(file)
    if (record.get("repo"), record.get("file")) != (card.repo, card.file or INFO_FILE):
        return "", ""
    return str(
        record.get("sha256", "")
    ), f", as recorded in {file}; delete it to accept a different one"


def _record(card: ModelCard, file: str, fetched: HubFile, info: CheckpointInfo) -> None:
    """Before its folder is there: one without a record would be taken for whole."""
    record = {
        "repo": card.repo,
        "file": file,
        "revision": fetched.revision or card.revision,
        "sha256": fetched.sha256,
        "checkpoint_sha256": info.sha256,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_whole(record_file(card), json.dumps(record, indent=2) + "\n")
