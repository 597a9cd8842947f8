"""Text for training: documents out of files, tokens on disk, and the order in which a training reads them.

prepare(documents(Path("talks.jsonl")), "world", "talks")          # talks.bin and talks.idx
tokens = Tokens.open("talks")                                      # memory-mapped, one long text
order = MagicPrime(tokens.num_tokens, length=512)                  # sample number -> where it starts
tokens.window(order(0), 513)
"""

from .binidx import BinidxWriter, TokenFile, pair, read_binidx
from .order import ORDERS, InOrder, MagicPrime, Order, Random, Shuffled
from .preparation import Prepared, prepare
from .sources import Document, documents, files_of
from .tokens import Tokens

__all__ = [
    "ORDERS",
    "BinidxWriter",
    "Document",
    "InOrder",
    "MagicPrime",
    "Order",
    "Prepared",
    "Random",
    "Shuffled",
    "TokenFile",
    "Tokens",
    "documents",
    "files_of",
    "pair",
    "prepare",
    "read_binidx",
]
