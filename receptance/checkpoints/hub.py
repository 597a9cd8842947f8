"""From a name to a path: local files and folders, and repositories of the Hugging Face hub.

find("model.pth")                       # a local file or folder, as it is
find("user/repo")                       # downloaded, if there is one checkpoint in it
find("user/repo:model.pth")             # one file of a repository

Downloads go through `huggingface_hub`: they show their progress, go on where the line broke, keep what is complete, and
respect HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import CheckpointError
from .hf import ENDINGS

_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>.+))?")
# What a folder needs besides its weights.
_FOLDER_FILES = ("config.json", "*.index.json")
_FOLDER_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def find(name: str | Path) -> Path:
    """The local path of a checkpoint, downloaded first where `name` is a repository's.

    Raises CheckpointError where there is none, or where a repository has several to choose from.
    """
    path = Path(os.path.expanduser(name))
    if _is_here(path):
        return path
    match = _REPOSITORY.fullmatch(str(name))
    if match is None or (not match["file"] and path.suffix.lower() in (*ENDINGS, ".pt", ".bin", ".gguf", ".ckpt")):
        raise CheckpointError(f"there is no file or folder {name}; a repository of the hub is called user/name")
    if match["file"]:
        return _one_file(match["repo"], match["file"])
    return _repository(match["repo"])


def _is_here(path: Path) -> bool:
    """Whether there is such a file, folder or link.  Raises CheckpointError where that cannot be seen."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # A link that leads nowhere is here, and must not be taken for a repository.
        return os.path.lexists(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    return True


def _one_file(repo: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file))
    except Exception as error:
        raise _failure(f"{repo}:{file}", error) from error


def _repository(repo: str) -> Path:
    """The one checkpoint of a repository: its folder, if it is in Hugging Face's form, or its one file."""
    from huggingface_hub import snapshot_download

    files = _list_files(repo)
    # The first that fits, not all: a repository often has the same weights in either form.
    pattern = next((pattern for pattern in _FOLDER_WEIGHTS if fnmatch.filter(files, pattern)), None)
    if pattern and "config.json" in files:
        try:
            return Path(snapshot_download(repo, allow_patterns=[*_FOLDER_FILES, pattern], ignore_patterns="*/*"))
        except Exception as error:
            raise _failure(repo, error) from error
    found = [file for file in files if file.lower().endswith(ENDINGS)]
    if len(found) == 1:
        return _one_file(repo, found[0])
    if found:
        raise CheckpointError(f"{repo} holds several checkpoints; say which: {_choices(repo, found)}")
    raise CheckpointError(f"{repo} holds no checkpoint (none of its files ends in {', '.join(ENDINGS)})")


def _choices(repo: str, files: Sequence[str], most: int = 12) -> str:
    more = f" and {len(files) - most} more" if len(files) > most else ""
    return ", ".join(f"{repo}:{file}" for file in sorted(files)[:most]) + more


def _list_files(repo: str) -> list[str]:
    """All files of a repository; without a connection, those that an earlier download left here."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return list(HfApi().list_repo_files(repo))
    except HfHubHTTPError as error:
        raise _failure(repo, error) from error
    except Exception as error:
        kept = _kept(repo)
        if kept is None:
            raise _failure(repo, error) from error
        return [file.relative_to(kept).as_posix() for file in kept.rglob("*") if file.is_file()]


def _kept(repo: str) -> Path | None:
    """The folder of an earlier download, where it is complete in the one form or the other."""
    from huggingface_hub import snapshot_download

    for pattern in (*_FOLDER_WEIGHTS, *(f"*{ending}" for ending in ENDINGS)):
        with suppress(Exception):
            return Path(snapshot_download(repo, local_files_only=True, allow_patterns=[*_FOLDER_FILES, pattern]))
    return None


def _failure(name: str, error: Exception) -> CheckpointError:
    """What went wrong on the way to the hub.  Its library and the one below it raise errors of many kinds."""
    from huggingface_hub import errors

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "its owner must grant access first; log in with `hf auth login`"),
        (errors.RepositoryNotFoundError, "neither a local file nor a repository of the hub has this name"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached, and no earlier download is here"),
        (errors.EntryNotFoundError, "the repository has no such file"),
        (errors.HFValidationError, "this is no name of a repository"),
    )
    for kind, reason in reasons:
        if isinstance(error, kind):
            return CheckpointError(f"cannot get {name}: {reason}")
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"cannot get {name} from the hub ({first}); try again, files that were complete are kept")
