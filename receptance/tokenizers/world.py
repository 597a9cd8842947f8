"""The tokenizer of the World and G1 models: at every place the longest token that fits.

WorldTokenizer().encode("Hello world")  # [33155, 40213]

`pyrwkv_tokenizer` encodes; where it has no wheel, a loop in Python does, more slowly and with the same result.
Everything else comes from the bytes in the vocabulary file.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, MissingExtraError
from .tokenizer import Tokenizer, utf8
from .vocabulary import FILE_NAME, Vocabulary, installed_file, is_official, official_file, read_vocabulary

if TYPE_CHECKING:
    from pyrwkv_tokenizer import RWKVTokenizer

VOCAB_SIZE = 65536


class WorldTokenizer(Tokenizer):
    """Longest match over bytes; any bytes come back as they were.

    Id 0 ends a document and is not in the file; nor are those that fill up the model's 65536.  All of them decode to
    nothing, and no text encodes to them.  A stream can be cut wherever a token begins with a character.
    """

    name = "world"

    def __init__(self, vocabulary: Path | None = None) -> None:
        """Take the vocabulary of a file; None: the official one, from an installed package.

        Raises CheckpointError for a file that is none, MissingExtraError where no package has it.
        """
        vocabulary = official_file() if vocabulary is None else vocabulary
        if vocabulary is None:
            raise MissingExtraError(
                f"the vocabulary of the World models is not here; `pip install rwkv` brings it, "
                f"or put {FILE_NAME} beside the checkpoint"
            )
        self._vocabulary = read_vocabulary(vocabulary)
        self._table = self._vocabulary.tokens
        self.vocab_size = VOCAB_SIZE if self._vocabulary.official else len(self._table)

    @cached_property
    def _lengths(self) -> dict[bytes, list[int]]:
        return _lengths(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`.  Raises InputError also for a byte that a vocabulary of the user's own lacks."""
        data = utf8(text)
        encoder = _compiled() if self._vocabulary.official else None
        return self.encode_bytes(data) if encoder is None else list(encoder.encode(text))

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes, also where they are no UTF-8."""
        ids, lengths, single = self._vocabulary.ids, self._lengths, [1]
        found = []
        start = 0
        while start < len(data):
            for length in lengths.get(data[start : start + 2], single):
                piece = data[start : start + length]
                token = ids.get(piece)
                if token is not None:
                    break
            else:
                raise InputError(f"the vocabulary has no token for byte 0x{data[start]:02X}; give a complete one")
            found.append(token)
            # Near the end a piece is shorter than the length that was tried.
            start += len(piece)
        return found

    def _settled(self, text: str) -> tuple[list[int], str]:
        ids, data = self.encode(text), text.encode("utf-8")
        count, end = len(ids), len(data)
        # A token that begins so near the end could still have become a longer one.
        while count and (end > len(data) - self._vocabulary.longest or _inside_character(data, end)):
            count -= 1
            end -= len(self._table[ids[count]])
        return ids[:count], data[end:].decode("utf-8")


def _inside_character(data: bytes, position: int) -> bool:
    return data[position] & 0xC0 == 0x80


def _lengths(vocabulary: Vocabulary) -> dict[bytes, list[int]]:
    """The lengths of the tokens that begin with two given bytes, longest first, and 1 where its first byte is one."""
    lengths: dict[bytes, set[int]] = defaultdict(set)
    for token in vocabulary.ids:
        lengths[token[:2]].add(len(token))
    return {start: sorted({*found, 1}, reverse=True) for start, found in lengths.items()}


@cache
def _compiled() -> RWKVTokenizer | None:
    """The compiled encoder of the official vocabulary, where it is installed; it takes half a second to start.

    It reads its own file only: it does not check what it reads, and no error of its kind of code may get out of here.
    """
    path = installed_file("pyrwkv_tokenizer")
    if path is None or not is_official(path):
        return None
    try:
        from pyrwkv_tokenizer import RWKVTokenizer
    except ImportError:
        return None
    return RWKVTokenizer()
