"""Which tokenizer belongs to a checkpoint, or to a name that a user gives.

open_tokenizer("world")
open_tokenizer("my_vocabulary.txt")
tokenizer_for(Path("model.pth"), vocab_size=65536)
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointError, InputError
from . import pile, vocabulary
from .byte import ByteTokenizer
from .pile import PileTokenizer
from .tokenizer import Tokenizer
from .world import WorldTokenizer

# The names under which a tokenizer's file lies beside the weights.
WORLD_FILES = (vocabulary.FILE_NAME,)
PILE_FILES = ("20B_tokenizer.json", "tokenizer.json")

# What the embedding of a model tells.  The Pile models' 50277 ids are padded to a multiple of 128 by some trainers, and
# the World vocabulary has 65530 where nobody padded it.
KIND_OF_SIZE = {256: "bytes", 50277: "pile", 50304: "pile", 65530: "world", 65536: "world"}


def open_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """A tokenizer by its name ("world", "pile", "bytes"), or from a vocabulary `.txt` or a `tokenizer.json`.

    Raises InputError for a name that is none, CheckpointError for a file that is none, MissingExtraError where what it
    needs is not installed.
    """
    if isinstance(name_or_path, str) and name_or_path in _BY_NAME:
        return _BY_NAME[name_or_path]()
    path = Path(os.path.expanduser(name_or_path))
    kinds: dict[str, Callable[[Path], Tokenizer]] = {".txt": WorldTokenizer, ".json": PileTokenizer}
    if path.suffix.lower() in kinds:
        return kinds[path.suffix.lower()](path)
    close = difflib.get_close_matches(str(name_or_path), _BY_NAME, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InputError(
        f"no tokenizer is called {str(name_or_path)!r}; "
        f"there are {', '.join(_BY_NAME)}, a vocabulary .txt and a tokenizer.json{hint}"
    )


def tokenizer_for(path: Path, vocab_size: int) -> Tokenizer | None:
    """The tokenizer of a checkpoint, a file or a folder, whose model has `vocab_size` ids; None where it is not known.

    A tokenizer's file beside the weights goes before what is installed or on the hub.  Raises ReceptanceError where it
    is known which tokenizer it is, but its file cannot be had; for a Pile model that may mean asking the hub.
    """
    folder = path if path.is_dir() else path.parent
    kind = KIND_OF_SIZE.get(vocab_size)
    if kind == "world":
        return WorldTokenizer(_beside(folder, WORLD_FILES))
    if kind == "pile":
        file = _beside(folder, PILE_FILES)
        return _pile() if file is None else PileTokenizer(file)
    if kind == "bytes":
        return ByteTokenizer()
    return _of_its_own(folder, vocab_size)


def _of_its_own(folder: Path, vocab_size: int) -> Tokenizer | None:
    """The tokenizer beside a model of another size, where it is one of ours and has no ids that the model lacks."""
    file = _beside(folder, PILE_FILES)
    if file is None:
        return None
    try:
        tokenizer = PileTokenizer(file)
    except CheckpointError:
        return None
    return tokenizer if tokenizer.vocab_size <= vocab_size else None


def _beside(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _pile() -> Tokenizer:
    from ..hub import download

    return PileTokenizer(download(pile.REPOSITORY, pile.FILE_NAME))


_BY_NAME: dict[str, Callable[[], Tokenizer]] = {"world": WorldTokenizer, "pile": _pile, "bytes": ByteTokenizer}
