"""A small text in memory, as bytes: what is learnt from, and what is measured on.

    corpus = Corpus.of_bytes(documents("python:"))
    corpus.train.num_tokens, corpus.held_out.num_documents
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tokenizers import ByteTokenizer
from .preparation import is_held_out
from .sources import Document
from .tokens import Tokens


class Corpus(NamedTuple):
    """A text to learn from and a text to measure on."""

    train: Tokens
    held_out: Tokens

    @classmethod
    def of_bytes(cls, documents: Iterable[Document], one_in: int = 20) -> Corpus:
        """The bytes of documents, of which one in `one_in` is held out (`is_held_out`).

        Raises DataError where a part would be empty, and whatever reading the documents raises.
        """
        end = bytes([ByteTokenizer.end_of_text])
        parts: dict[bool, list[NDArray[np.uint8]]] = {True: [], False: []}
        for document in documents:
            raw = np.frombuffer(document.text.encode() + end, np.uint8)
            parts[is_held_out(document.name, one_in)].append(raw)
        for name, texts in (("learn from", parts[False]), ("measure on", parts[True])):
            if not texts:
                raise DataError(f"there is no document to {name}; give more files")
        return cls(train=Tokens.of(parts[False]), held_out=Tokens.of(parts[True]))
