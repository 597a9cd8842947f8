"""Bytes as ids: the tokenizer of small models such as the quickstart's.

ByteTokenizer().encode("é")             # [195, 169]
"""

from __future__ import annotations

from .tokenizer import Tokenizer, utf8


class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are bytes, and text is UTF-8.

    Byte 0 stands between documents, as it does in training data, and decodes to nothing.  So the character U+0000,
    which no ordinary text has, encodes to the end of a document and is the one thing that does not come back.
    """

    name = "bytes"
    vocab_size = 256
    _table = (b"", *(bytes([value]) for value in range(1, 256)))

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return list(utf8(text))

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes, also where they are no UTF-8."""
        return list(data)

    def _settled(self, text: str) -> tuple[list[int], str]:
        return self.encode(text), ""
