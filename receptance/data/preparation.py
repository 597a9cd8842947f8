"""Documents to tokens on disk, by as many processes as there are cores.

    prepared = prepare(documents(Path("talks.jsonl")), "world", "talks")

Documents keep their order, so that the files are the same however many processes took part.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..tokenizers import Tokenizer, open_tokenizer
from .binidx import BinidxWriter
from .sources import Document

# Characters that go to a process at a time: enough for sending them not to matter.
BATCH = 2**20
# Batches that wait for each process.
WAITING = 4

Progress = Callable[[int, int], None]


class HeldOut(NamedTuple):
    """Documents that are kept from training, for measuring: one in `one_in`, written to files of their own.

    Which ones depends on their names alone: the same on every machine and in every run, whatever else is there.
    """

    path: str | Path
    one_in: int


class Prepared(NamedTuple):
    """What was written, with what was held out."""

    num_documents: int
    num_tokens: int


def is_held_out(name: str, one_in: int) -> bool:
    """Whether the hash of a name (SHA-256, as a whole number) is a multiple of `one_in`."""
    return int(sha256(name.encode("utf-8", "surrogatepass")).hexdigest(), 16) % one_in == 0


def prepare(
    documents: Iterable[Document],
    tokenizer: str,
    out: str | Path,
    processes: int | None = None,
    progress: Progress | None = None,
    held_out: HeldOut | None = None,
) -> Prepared:
    """Write the tokens of the documents, each with the id that ends it, to OUT.bin and OUT.idx.

    tokenizer    "world", "pile", "bytes" or a file, see `open_tokenizer`
    processes    None: one for each core
    progress     is called with the bytes and the documents so far
    held_out     which documents go to other files

    Raises DataError where there is no document for one of the files, and whatever reading them raises; then nothing is
    written.
    """
    known = open_tokenizer(tokenizer)
    dtype = np.uint16 if known.vocab_size <= 2**16 else np.int32
    num_documents = num_tokens = num_bytes = 0
    with ExitStack() as stack:
        writer = stack.enter_context(BinidxWriter(out, dtype))
        other = stack.enter_context(BinidxWriter(held_out.path, dtype)) if held_out else writer
        for encoded in _encoded(_batches(documents), known, tokenizer, processes or os.cpu_count() or 1):
            for name, ids, learnt in encoded.documents:
                is_other = held_out is not None and is_held_out(name, held_out.one_in)
                (other if is_other else writer).add(ids, learnt)
                num_tokens += len(ids)
            num_documents += len(encoded.documents)
            num_bytes += encoded.num_bytes
            if progress:
                progress(num_bytes, num_documents)
        for each, words in ((writer, "to make tokens of"), (other, "to hold out")):
            if not each.num_documents:
                raise DataError(f"there is no document {words}; give more text")
    return Prepared(num_documents, num_tokens)


class _Encoded(NamedTuple):
    """The name, the tokens and which of them are to be learnt, of each document."""

    documents: list[tuple[str, NDArray[Any], NDArray[np.bool_] | None]]
    num_bytes: int


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    length = 0
    for document in documents:
        if not document.text:
            continue
        batch.append(document)
        length += len(document.text)
        if length >= BATCH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _encoded(
    batches: Iterator[list[Document]], tokenizer: Tokenizer, name: str, processes: int
) -> Iterator[_Encoded]:
    """The batches in their order.  A few of them need no other process, which takes a second to start."""
    first = list(islice(batches, WAITING))
    if processes == 1 or len(first) < WAITING:
        for batch in chain(first, batches):
            yield _encode(tokenizer, batch)
        return
    # Spawned, never forked: a forked process would inherit locks that threads hold.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _start, (name,)) as pool:
        pending: deque[Future[_Encoded]] = deque()
        try:
            for batch in chain(first, batches):
                pending.append(pool.submit(_work, batch))
                if len(pending) >= WAITING * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DataError("a process that made tokens was ended; try again with fewer (--processes)") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _encode(tokenizer: Tokenizer, batch: list[Document]) -> _Encoded:
    made = []
    for document in batch:
        try:
            made.append((document.name, *_tokens_of(tokenizer, document)))
        except InputError as error:
            raise DataError(f"a document cannot be made tokens of: {error}") from error
    return _Encoded(made, sum(document.num_bytes for document in batch))


def _tokens_of(tokenizer: Tokenizer, document: Document) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The tokens of a document with the id that ends it, and which of them are to be learnt.

    Where its parts differ in that, each is made tokens of by itself, as it will be when a model is asked.
    """
    if document.learnt is None:
        return np.array([*tokenizer.encode(document.text), tokenizer.end_of_text], np.int32), None
    ids: list[int] = []
    flags: list[bool] = []
    place = 0
    for start, end in (*document.learnt, (len(document.text),) * 2):
        for text, is_learnt in ((document.text[place:start], False), (document.text[start:end], True)):
            more = tokenizer.encode(text)
            ids += more
            flags += [is_learnt] * len(more)
        place = end
    # Who has learnt an answer has learnt to end it.
    ends_learnt = bool(document.learnt) and document.learnt[-1][1] == len(document.text)
    return np.array([*ids, tokenizer.end_of_text], np.int32), np.array([*flags, ends_learnt])


_tokenizer: Tokenizer


def _start(name: str) -> None:
    """Once in each process."""
    global _tokenizer
    _tokenizer = open_tokenizer(name)


def _work(batch: list[Document]) -> _Encoded:
    return _encode(_tokenizer, batch)
