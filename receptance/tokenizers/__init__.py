"""Text to ids and back, without PyTorch.

    tokenizer = open_tokenizer("world")     # or "pile", "bytes", a vocabulary .txt, a tokenizer.json
    ids = tokenizer.encode("Hello world")   # [33155, 40213]
    tokenizer.decode(ids)                   # "Hello world"

`Tokenizer.stream` decodes ids as they arrive and never shows half a character, `Tokenizer.encode_pieces` encodes a text
of any length at constant memory, `StopFinder` ends a text at a string, and `tokenizer_for` knows which tokenizer a
checkpoint has.
"""

from .byte import ByteTokenizer
from .find import open_tokenizer, tokenizer_for
from .pile import PileTokenizer
from .stops import StopFinder
from .tokenizer import StreamDecoder, Tokenizer
from .world import WorldTokenizer

__all__ = [
    "ByteTokenizer",
    "PileTokenizer",
    "StopFinder",
    "StreamDecoder",
    "Tokenizer",
    "WorldTokenizer",
    "open_tokenizer",
    "tokenizer_for",
]
