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


class Prepared(NamedTuple):
    """What was written."""

    num_documents: int
    num_tokens: int


def prepare(
    documents: Iterable[Document],
    tokenizer: str,
    out: str | Path,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write the tokens of the documents, each with the id that ends it, to OUT.bin and OUT.idx.

    tokenizer    "world", "pile", "bytes" or a file, see `open_tokenizer`
    processes    None: one for each core
    progress     is called with the bytes and the documents so far

    Raises DataError where there is no document, and whatever reading them raises; then nothing is written.
    """
    known = open_tokenizer(tokenizer)
    dtype = np.uint16 if known.vocab_size <= 2**16 else np.int32
    num_documents = num_tokens = num_bytes = 0
    with BinidxWriter(out, dtype) as writer:
        for encoded in _encoded(_batches(documents), known, tokenizer, processes or os.cpu_count() or 1):
            for ids in encoded.documents:
                writer.add(ids)
                num_tokens += len(ids)
            num_documents += len(encoded.documents)
            num_bytes += encoded.num_bytes
            if progress:
                progress(num_bytes, num_documents)
        if not num_documents:
            raise DataError("there is no document to make tokens of; give text that is not empty")
    return Prepared(num_documents, num_tokens)


class _Encoded(NamedTuple):
    documents: list[NDArray[Any]]
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
            ids = tokenizer.encode(document.text)
        except InputError as error:
            raise DataError(f"a document cannot be made tokens of: {error}") from error
        made.append(np.array([*ids, tokenizer.end_of_text], np.int32))
    return _Encoded(made, sum(document.num_bytes for document in batch))


_tokenizer: Tokenizer


def _start(name: str) -> None:
    """Once in each process."""
    global _tokenizer
    _tokenizer = open_tokenizer(name)


def _work(batch: list[Document]) -> _Encoded:
    return _encode(_tokenizer, batch)
