"""One file from the hub, through `huggingface_hub`, with its SHA-256 checked.

The client's own cache, variables (`HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`), tokens,
progress bar and resumed downloads are at work; here is only what it does not do: a file that is not
the expected one is removed from its cache, and each of its errors becomes one line.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from echogen.diffusion.checkpoint import file_sha256
from echogen.errors import CheckpointError
from echogen.models.registry import ModelCard
from echogen.support.words import one_line

NEWEST = "main"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EROFS, errno.EPERM)


@dataclass(frozen=True)
class HubFile:
    """A verified file in the hub's cache.

    Attributes:
        path: of the file.
        revision: the commit that it is of; empty where the hub could not be asked.
        sha256: of its bytes.
    """

    path: Path
    revision: str
    sha256: str


def fetch(
    card: ModelCard, file: str, sha256: str = "", why: str = "", *, verify: bool = True
) -> HubFile:
    """A file of a model's repository, downloaded unless the hub's cache has it.

    Args:
        card: says the repository and the revision.
        file: its path in the repository.
        sha256: that it must have; empty takes the hub's own.
        why: where that hash is from, for the message; empty for a card's or the hub's.
        verify: False for a small file, for which the hub gives no SHA-256.

    Raises:
        CheckpointError: it cannot be fetched, or is another file than expected; one line says why
            and what to do.
    """
    from huggingface_hub import hf_hub_download

    revision = card.revision or NEWEST
    try:
        path = Path(hf_hub_download(card.repo, file, revision=revision))
    except Exception as error:  # its network errors have another base in each version
        _explain(error, card, file)
    found = file_sha256(path)
    stated, commit = _hub_metadata(card.repo, file, revision)
    # Offline the cache still knows: it names a large file by the hash that the hub gave.
    expected = sha256 or stated or _as_sha256(path.resolve().name)
    if not verify:
        return HubFile(path, commit, found)
    if not expected:
        raise CheckpointError(
            f"model {card.name}: neither its card nor the hub gives a SHA-256 for {file} of "
            f"{card.repo}, so it cannot be verified; download it yourself, then import it with: "
            f"echogen checkpoint import {file} --out FOLDER --probe DATASET"
        )
    if found != expected:
        size = path.stat().st_size
        _remove(path)
        raise CheckpointError(
            f"model {card.name}: {file} of {card.repo} has sha256 {found[:12]} ({size} bytes), "
            f"expected {expected[:12]}{why}. It was rejected and deleted. Try again; if that does "
            "not help, the file on the hub was changed or damaged."
        )
    return HubFile(path, commit, found)


def _hub_metadata(repo: str, file: str, revision: str) -> tuple[str, str]:
    """The hash and the commit that the hub gives; empty where it cannot be asked."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        metadata = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
    except Exception:  # the file has arrived; only a second opinion is lost
        return "", ""
    return _as_sha256(metadata.etag or ""), metadata.commit_hash or ""


def _as_sha256(text: str) -> str:
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text if is_hash else ""


def _remove(path: Path) -> None:
    """Deletes a file of the hub's cache and the links that lead to it."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _explain(error: Exception, card: ModelCard, file: str) -> NoReturn:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"model {card.name}: {file} of {card.repo}"
    endpoint = constants.ENDPOINT
    if isinstance(error, LocalEntryNotFoundError):  # before its base, a file that does not exist
        if isinstance(error.__cause__, FileMetadataError):
            line = f"{endpoint} does not answer like the hub; check HF_ENDPOINT and the proxy"
        elif constants.HF_HUB_OFFLINE:
            line = (
                "HF_HUB_OFFLINE is set and the file is not in the hub's cache "
                f"({constants.HF_HUB_CACHE}); unset it, or download the model on a machine with a "
                "network"
            )
        else:
            line = (
                f"{endpoint} cannot be reached and the file is not in the hub's cache "
                f"({constants.HF_HUB_CACHE}); check the network, the proxy and HF_ENDPOINT"
            )
    elif isinstance(error, GatedRepoError):
        line = (
            f"access is restricted by its authors; accept their terms at {card.page}, then log in "
            "with `hf auth login` or set HF_TOKEN"
        )
    elif isinstance(error, RepositoryNotFoundError):
        line = (
            f"{endpoint} has no such repository, or it is private; check {card.page}, and log in "
            "with `hf auth login` if you have access"
        )
    elif isinstance(error, RevisionNotFoundError):
        line = f"the repository has no revision {card.revision or NEWEST}; check {card.page}"
    elif isinstance(error, EntryNotFoundError):
        line = f"the repository has no such file; check {card.page}"
    elif isinstance(error, HfHubHTTPError):
        line = f"{endpoint} answered with status {error.response.status_code}; try again later"
    elif isinstance(error, OSError) and error.errno in _NO_SPACE:
        line = (
            f"no space left for it in {constants.HF_HUB_CACHE}; free some space, or set HF_HOME to "
            "a folder on another disk"
        )
    elif isinstance(error, OSError) and error.errno in _NO_ACCESS:
        line = f"{error.filename or constants.HF_HUB_CACHE} cannot be written; set HF_HOME"
    else:
        kind = f"{type(error).__name__}: {one_line(error, 200)}"
        line = f"the download failed ({kind}); run the same command to try again"
    raise CheckpointError(f"{what}: {line}.") from error
