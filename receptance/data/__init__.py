"""Text for training: documents out of files, tokens on disk, and the order in which a training reads them.

prepare(documents(Path("talks.jsonl")), "world", "talks")          # talks.bin and talks.idx
tokens = Tokens.open("talks")                                      # memory-mapped, one long text
order = MagicPrime(tokens.starts, length=512)                      # sample number -> where it starts, its length
tokens.window(*order(0))
"""

from .binidx import BinidxWriter, TokenFile, pair, read_binidx
from .conversations import conversations
from .corpus import Corpus
from .order import ORDERS, Documents, InOrder, MagicPrime, Order, Packed, Random, Shuffled
from .preparation import HeldOut, Prepared, is_held_out, prepare
from .sources import Document, documents, files_of
from .tokens import Tokens

__all__ = [
    "ORDERS",
    "BinidxWriter",
    "Corpus",
    "Document",
    "Documents",
    "HeldOut",
    "InOrder",
    "MagicPrime",
    "Order",
    "Packed",
    "Prepared",
    "Random",
    "Shuffled",
    "TokenFile",
    "Tokens",
    "conversations",
    "documents",
    "files_of",
    "is_held_out",
    "pair",
    "prepare",
    "read_binidx",
]
