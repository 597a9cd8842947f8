"""From a name to a path: local files and folders, repositories of the Hugging Face hub, models known by name.

find("model.pth")                       # a local file or folder, as it is
find("user/repo")                       # downloaded, if there is one checkpoint in it
find("user/repo:model.pth")             # one file of a repository
find("rwkv7-g1-1.5b")                   # a model of the catalogue
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ..catalogue import HOUSE, HOUSE_FILE, resolve, suggestion
from ..errors import CheckpointError
from ..hub import download, download_folder, list_files
from .hf import ENDINGS

_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>.+))?")
# What a folder needs besides its weights.
_FOLDER_FILES = ("config.json", "*.index.json")
_FOLDER_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def find(name: str | Path) -> Path:
    """The local path of a checkpoint, downloaded first where `name` is a repository's or a known model's.

    "house" is the little model that the package brings.
    A file or folder of that name comes first.  Of a known model, stderr is told which file was chosen.
    Raises CheckpointError where there is none, or where a repository has several to choose from.
    """
    path = Path(os.path.expanduser(name))
    if _is_here(path):
        return path
    if str(name) == HOUSE:
        return HOUSE_FILE
    chosen = resolve(str(name))
    if chosen:
        print(f"{name}: taking {chosen}", file=sys.stderr)
    match = _REPOSITORY.fullmatch(chosen or str(name))
    if match is None or (not match["file"] and path.suffix.lower() in (*ENDINGS, ".pt", ".bin", ".gguf", ".ckpt")):
        raise CheckpointError(f"there is no file or folder {name}; {_advice(str(name))}")
    if match["file"]:
        return download(match["repo"], match["file"])
    return _repository(match["repo"])


def _advice(name: str) -> str:
    known = suggestion(name)
    if known:
        return f"did you mean {known}, a model that can be downloaded?"
    return "a repository of the hub is called user/name, and `receptance models` lists what has a short name"


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


def _repository(repo: str) -> Path:
    """The one checkpoint of a repository: its folder, if it is in Hugging Face's form, or its one file."""
    files = list_files(repo)
    # The first that fits, not all: a repository often has the same weights in either form.
    pattern = next((pattern for pattern in _FOLDER_WEIGHTS if fnmatch.filter(files, pattern)), None)
    if pattern and "config.json" in files:
        return download_folder(repo, (*_FOLDER_FILES, pattern))
    found = [file for file in files if file.lower().endswith(ENDINGS)]
    if len(found) == 1:
        return download(repo, found[0])
    if found:
        raise CheckpointError(f"{repo} holds several checkpoints; say which: {_choices(repo, found)}")
    raise CheckpointError(f"{repo} holds no checkpoint (none of its files ends in {', '.join(ENDINGS)})")


def _choices(repo: str, files: Sequence[str], most: int = 12) -> str:
    more = f" and {len(files) - most} more" if len(files) > most else ""
    return ", ".join(f"{repo}:{file}" for file in sorted(files)[:most]) + more
