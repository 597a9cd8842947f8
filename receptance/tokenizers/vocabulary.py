"""The vocabulary file of the World models: one token a line, as `id literal length-in-bytes`.

    257 '\\t\\t' 2
    65 b'\\x80' 1

The literals are Python's, of text or of bytes.  They are read with `ast.literal_eval`, which knows literals and
computes nothing.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ..errors import CheckpointError

FILE_NAME = "rwkv_vocab_v20230424.txt"
# SHA-256 of the official file, with lines that end in "\n".
OFFICIAL = "e6dee3d4e31b4d5c40ac99508ac6c701ceef4bed681bf2167ce9a908552bca89"
# The packages that carry the file.
PACKAGES = ("pyrwkv_tokenizer", "rwkv")

# The official file has 1.1 MiB, lines of at most 400 characters and ids below 65536.
MOST_BYTES = 2**25
MOST_CHARACTERS = 2**13
MOST_IDS = 2**20
_LINE = re.compile(r"""(?P<token>\d{1,9}) (?P<literal>b?(?P<quote>['"]).+(?P=quote)) (?P<length>\d{1,9})""")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What a vocabulary file says.

    tokens    the bytes of each id, b"" for an id that the file does not have
    ids       the id of each string of bytes
    longest   bytes of the longest token
    official  whether this is the vocabulary of the World models
    """

    tokens: tuple[bytes, ...]
    ids: dict[bytes, int]
    longest: int
    official: bool


def installed_file(package: str) -> Path | None:
    """The vocabulary file that comes with a package, where that is installed."""
    # Nothing is imported for it: the official runtime reads settings from the environment at import.
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / FILE_NAME
        if path.is_file():
            return path
    return None


def read_vocabulary(path: Path) -> Vocabulary:
    """Read and check a vocabulary file; a second call for the same content costs nothing.

    Raises CheckpointError where it cannot be read, or with the number of the first line that is wrong.
    """
    return _parse(_read_lines(path), str(path))


def official_file() -> Path | None:
    """The vocabulary of the World models from an installed package; None where none carries it."""
    return next((path for path in map(installed_file, PACKAGES) if path is not None and is_official(path)), None)


def is_official(path: Path) -> bool:
    """Whether a file is the vocabulary of the World models.  Raises CheckpointError where it cannot be read."""
    return hashlib.sha256(_read_lines(path)).hexdigest() == OFFICIAL


def _read_lines(path: Path) -> bytes:
    """A file with lines that end in "\n": copies that were written on Windows are the same vocabulary."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{path} is too large for a vocabulary; give one such as {FILE_NAME}")
        return path.read_bytes().replace(b"\r\n", b"\n")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


@lru_cache(maxsize=4)
def _parse(data: bytes, name: str) -> Vocabulary:
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise CheckpointError(f"{name} is no vocabulary file: it is not UTF-8 text") from None
    by_id: dict[int, bytes] = {}
    ids: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        try:
            token, value = _entry(line)
            if token in by_id:
                raise ValueError(f"id {token} stands there for the second time")
            if value in ids:
                raise ValueError(f"its text is that of id {ids[value]} already")
        except ValueError as error:
            raise CheckpointError(
                f"line {number} of {name} is wrong: {error}; give a vocabulary such as {FILE_NAME}"
            ) from None
        by_id[token], ids[value] = value, token
    tokens = tuple(by_id.get(token, b"") for token in range(max(by_id) + 1))
    return Vocabulary(tokens, ids, max(map(len, ids)), hashlib.sha256(data).hexdigest() == OFFICIAL)


def _entry(line: str) -> tuple[int, bytes]:
    """The id and the bytes of one line.  Raises ValueError that says what is wrong with it."""
    match = _LINE.fullmatch(line) if len(line) <= MOST_CHARACTERS else None
    if match is None:
        raise ValueError("a line is an id, a Python literal and its length in bytes")
    try:
        value = ast.literal_eval(match["literal"])
        # A text can hold half of a surrogate pair, which is a ValueError here.
        value = value.encode("utf-8") if isinstance(value, str) else value
    # The last two are what Python says of an expression that is too deep.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, bytes) or not value:
        raise ValueError("what stands between the numbers is no literal of text or bytes")
    if len(value) != int(match["length"]):
        raise ValueError(f"it says {int(match['length'])} bytes and has {len(value)}")
    token = int(match["token"])
    if not 0 < token < MOST_IDS:
        raise ValueError(f"ids go from 1 to {MOST_IDS - 1}, and 0 is the end of a text")
    return token, value
