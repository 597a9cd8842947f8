"""Files of the Hugging Face hub, and of earlier downloads.

download("user/repo", "model.pth")      # the path of the file here; transferred only where it is not here yet
download_folder("user/repo", ("config.json", "model*.safetensors"))
list_files("user/repo")                 # what the repository holds; without a connection, what is here of it
kept("user/repo")                       # what is here of it, without asking the hub

Transfers go through `huggingface_hub`: they show their progress, go on where the line broke, keep what is complete, and
respect HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE.  Loads no PyTorch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from .errors import CheckpointError


def download(repo: str, file: str) -> Path:
    """The local path of one file of a repository.

    Without a connection, and where the repository no longer has the file, an earlier download of it serves.
    Raises CheckpointError where there is none.
    """
    from huggingface_hub import hf_hub_download

    _be_brief()
    try:
        return Path(hf_hub_download(repo, file))
    except Exception as error:
        if path := kept(repo).get(file):
            return path
        raise _failure(f"{repo}:{file}", error) from error


def download_folder(repo: str, patterns: Sequence[str]) -> Path:
    """A local folder with those files of the repository's top level whose names fit one of the patterns.

    Raises CheckpointError where they cannot all be had.
    """
    from huggingface_hub import snapshot_download

    _be_brief()
    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns), ignore_patterns="*/*"))
    except Exception as error:
        raise _failure(repo, error) from error


def list_files(repo: str) -> list[str]:
    """The names of all files of a repository; where the hub does not tell, of those that are kept here.

    Raises CheckpointError where there are none either.
    """
    from huggingface_hub import HfApi

    _be_brief()
    try:
        return list(HfApi().list_repo_files(repo))
    except Exception as error:
        if here := kept(repo):
            return list(here)
        raise _failure(repo, error) from error


def kept(repo: str) -> dict[str, Path]:
    """Name and path of every file that earlier downloads from this repository left here, whole."""
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "snapshots")
    if not snapshots.is_dir():
        return {}
    # A repository that changes has a folder for each state it was in; of two files of one name the later one counts.
    folders = sorted(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime)
    return {
        path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def _be_brief() -> None:
    """Without a connection its library tells of every try; what became of them is our one sentence."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _failure(name: str, error: Exception) -> CheckpointError:
    """What went wrong on the way to the hub.  Its library and the one below it raise errors of many kinds."""
    from huggingface_hub import errors

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "its owner must grant access first; log in with `hf auth login`"),
        (errors.RepositoryNotFoundError, "neither a local file nor a repository of the hub has this name"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached, and no earlier download is here"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE keeps us from the hub, and no earlier download is here"),
        (errors.EntryNotFoundError, "the repository has no such file"),
        (errors.HFValidationError, "this is no name of a repository"),
    )
    for kind, reason in reasons:
        if isinstance(error, kind):
            return CheckpointError(f"cannot get {name}: {reason}")
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"cannot get {name} from the hub ({first}); try again, files that were complete are kept")
