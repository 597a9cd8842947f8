"""What every tokenizer does: text to ids, ids to bytes, bytes to text, each also as a stream.

    ids = tokenizer.encode("Hello world")
    text = tokenizer.decode(ids)

    decoder = tokenizer.stream()            # ids arrive one at a time
    for token in tokens:
        print(decoder.push(token), end="")  # never half a character
    print(decoder.finish())

A token is a string of bytes, and a character may be spread over several tokens; so text is decoded from the joined
bytes, never token by token.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from ..errors import InputError

# Characters that are collected before a stream is encoded: enough for the cost of a call not to matter.
BLOCK = 2**16


class Tokenizer(ABC):
    """Text to ids and back.

    name         "world", "pile" or "bytes"
    vocab_size   ids are below it
    end_of_text  the id that stands where a document ends and the next begins; it decodes to nothing
    """

    name: str
    vocab_size: int
    end_of_text: int = 0
    # The bytes of each id, b"" where it has none.
    _table: Sequence[bytes]

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises InputError for half of a surrogate pair, which no UTF-8 can hold.
        """

    @abstractmethod
    def _settled(self, text: str) -> tuple[list[int], str]:
        """The ids that no further text can change, and the rest of the text, which begins where they end."""

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        """The ids of a text that arrives in pieces, wherever it is cut: joined, they are `encode("".join(pieces))`.

        The memory that this takes does not depend on the length of the text, as long as the text has a place to cut
        now and then: every tokenizer says where.  Raises InputError as `encode` does.
        """
        pending: list[str] = []
        length, enough, read = 0, BLOCK, 0
        for piece in pieces:
            utf8(piece, read)
            read += len(piece)
            pending.append(piece)
            length += len(piece)
            if length < enough:
                continue
            ids, rest = self._settled("".join(pending))
            if ids:
                yield ids
            pending, length = [rest], len(rest)
            # Twice as much where there was no place to cut: so the whole takes time in proportion to the text.
            enough = max(BLOCK, 2 * length)
        if length:
            yield self.encode("".join(pending))

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id; b"" for the end of a text and for ids that stand for nothing, whatever their size.

        Raises InputError for a negative one.
        """
        if token < 0:
            raise InputError(f"{token} is no token; ids are 0 to {self.vocab_size - 1}")
        return self._table[token] if token < len(self._table) else b""

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes of several ids, joined."""
        return b"".join(map(self.token_bytes, tokens))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of several ids; what is no UTF-8 becomes U+FFFD, as Unicode recommends."""
        return self.decode_bytes(tokens).decode("utf-8", "replace")

    def stream(self) -> StreamDecoder:
        """A decoder for ids that arrive one at a time."""
        return StreamDecoder(self)


class StreamDecoder:
    """Decodes ids one at a time: the pieces, joined, are what `Tokenizer.decode` makes of all ids together."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that are complete with this token; "" where it leaves one unfinished."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    @property
    def is_unfinished(self) -> bool:
        """Whether the first bytes of a character wait for the others."""
        return bool(self._decoder.getstate()[0])

    def finish(self) -> str:
        """What an unfinished character at the end becomes: U+FFFD, or "" where there is none."""
        return self._decoder.decode(b"", final=True)


def utf8(text: str, before: int = 0) -> bytes:
    """The bytes of a text, of which `before` characters went before.

    Raises InputError for half of a surrogate pair.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise InputError(
            f"character {before + error.start + 1} of the text is U+{half:04X}, half of a surrogate pair, "
            "which stands for nothing; read the text as UTF-8 again or remove it"
        ) from None
