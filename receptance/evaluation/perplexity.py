"""How well a model foretells a text of any length, in memory that does not grow with it.

    found = score(lm.model, lm.tokenizer, "book.txt")
    found.perplexity, found.bits_per_byte

The text is read, turned into tokens and fed in pieces; only the state goes from one piece to the next, so that every
token is foretold from all the text before it.  The first one is foretold from the id that stands between documents, as
in the official evaluations (BlinkDL/Albatross, `eval_gpqa_diamond.py`).
"""

from __future__ import annotations

import codecs
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError, InputError
from ..models import RWKV
from ..tokenizers import Tokenizer

PIECE = 1024
READ_BYTES = 2**16
# 8 MB in float32: with 65,536 tokens in the vocabulary, the logits of 32 positions.  Much larger slices would each be
# new memory of the system, and clearing that takes longer than the work on it.
MAX_LOGITS = 2**21


@dataclass(frozen=True, kw_only=True)
class Score:
    """The loss of a text, or of what was read of it so far.

    tokens     that were foretold
    num_bytes  of the text in UTF-8; while it is being read, those of the tokens that were foretold
    nats       -log of the probability that the model gave to the whole text
    seconds    that it took
    """

    tokens: int = 0
    num_bytes: int = 0
    nats: float = 0.0
    seconds: float = 0.0

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens): depends on the tokenizer, so that only models of one vocabulary can be compared."""
        # Where it is beyond every number, the loss says all there is to say.
        return math.exp(self.nats / self.tokens) if self.nats < 700 * self.tokens else math.inf

    @property
    def bits_per_byte(self) -> float:
        """nats / log(2) / bytes: compares any two models, and tells how far one would compress the text."""
        # The first tokens may have no bytes, as the mark between documents.
        return self.nats / math.log(2) / self.num_bytes if self.num_bytes else math.inf

    @property
    def tokens_per_second(self) -> float:
        """0 where no time was measured."""
        return self.tokens / self.seconds if self.seconds else 0.0


@torch.no_grad()
def score(
    model: RWKV,
    tokenizer: Tokenizer,
    source: str | os.PathLike[str] | Iterable[str],
    on_progress: Callable[[Score], None] | None = None,
    piece: int = PIECE,
) -> Score:
    """The loss of a text under a model.

    source       the path of a UTF-8 file, or the text itself in pieces: `[text]`
    on_progress  is called after every piece with the score so far
    piece        tokens that are fed at a time; changes the speed and the memory, and the result by rounding only

    Raises DataError for a file that cannot be read, is empty or is no UTF-8, InputError for a tokenizer that does not
    fit the model and where the loss is no finite number.
    """
    if piece < 1:
        raise InputError(f"a piece must be at least 1 token long, got {piece}")
    if isinstance(source, str | os.PathLike):
        with open_text(source) as file:
            return score(model, tokenizer, text_pieces(file, str(source)), on_progress, piece)
    text = _Measured(source)
    found, start, state = Score(), time.perf_counter(), None
    for inputs, targets in fed(model, tokenizer, text, piece):
        x, state = model.features(inputs, state)
        found = Score(
            tokens=found.tokens + targets.numel(),
            num_bytes=found.num_bytes + len(tokenizer.decode_bytes(targets[0].tolist())),
            nats=found.nats + _nats(model.head, x[0], targets[0]),
            seconds=time.perf_counter() - start,
        )
        _check_finite(found, model.emb.weight.dtype)
        if on_progress is not None:
            on_progress(found)
    if not found.tokens:
        raise DataError("the text is empty; there is nothing to score")
    # Not the tokens' bytes: a tokenizer may bring the text to another form first.
    return replace(found, num_bytes=text.num_bytes)


def fed(model: RWKV, tokenizer: Tokenizer, text: Iterable[str], piece: int) -> Iterator[tuple[Tensor, Tensor]]:
    """What a model is fed to score a text, and what it has to foretell from it: pairs of [1, piece], the last shorter.

    Raises InputError for a tokenizer that does not fit the model.
    """
    device = model.emb.weight.device
    last = torch.tensor([[tokenizer.end_of_text]], device=device)
    for ids in _cut(tokenizer.encode_pieces(text), piece):
        _check_known(ids, tokenizer, model.config.vocab_size)
        targets = torch.tensor([ids], device=device)
        yield torch.cat([last, targets[:, :-1]], 1), targets
        last = targets[:, -1:]


def slices(head: nn.Linear, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors [T, ...], a few positions at a time, so that the logits of these are no large tensor."""
    size = max(1, MAX_LOGITS // head.out_features)
    return zip(*(torch.split(tensor, size) for tensor in rows), strict=True)


def open_text(path: str | os.PathLike[str]) -> BinaryIO:
    """A file to read.  Raises DataError where it cannot be opened."""
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise _unreadable(str(path), error) from error


def text_pieces(file: BinaryIO, name: str) -> Iterator[str]:
    """The text of an open file, piece by piece, line ends as they are.

    Raises DataError where it is no UTF-8, or breaks off; `name` is what the sentence calls it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    read, more = 0, True
    while more:
        try:
            data = file.read(READ_BYTES)
        except OSError as error:
            raise _unreadable(name, error) from error
        unfinished = len(decoder.getstate()[0])
        more = bool(data)
        try:
            yield decoder.decode(data, final=not more)
        except UnicodeDecodeError as error:
            place = read - unfinished + error.start + 1
            raise DataError(f"{name} is no UTF-8 text at byte {place:,}; convert it first, as with iconv") from None
        read += len(data)


def _unreadable(name: str, error: OSError) -> DataError:
    return DataError(f"cannot read {name}: {(error.strerror or str(error)).lower()}")


class _Measured:
    """The pieces of a text, and how many bytes went through."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = pieces
        self.num_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._pieces:
            # Half of a surrogate pair is for the tokenizer to refuse.
            self.num_bytes += len(text.encode("utf-8", "surrogatepass"))
            yield text


def _cut(lists: Iterable[list[int]], length: int) -> Iterator[list[int]]:
    """The same ids in lists of one length; the last one may be shorter."""
    waiting: list[int] = []
    for ids in lists:
        waiting += ids
        whole = len(waiting) // length * length
        for start in range(0, whole, length):
            yield waiting[start : start + length]
        del waiting[:whole]
    if waiting:
        yield waiting


def _nats(head: nn.Linear, x: Tensor, targets: Tensor) -> float:
    """Sum of the losses of T positions, x [T, C] and targets [T], added up in float64."""
    losses = []
    for part, wanted in slices(head, x, targets):
        logits = head(part)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses.append(F.cross_entropy(logits, wanted, reduction="none"))
    # On the CPU, as not every accelerator has float64.
    return float(torch.cat(losses).cpu().double().sum())


def _check_known(ids: list[int], tokenizer: Tokenizer, vocab_size: int) -> None:
    # The sizes of the two vocabularies say nothing: either may count ids that stand for nothing.
    if max(ids) >= vocab_size:
        raise InputError(
            f"the tokenizer {tokenizer.name!r} makes token {max(ids):,} of this text and the model knows only "
            f"{vocab_size:,}; give the tokenizer that the model was trained with"
        )


def _check_finite(found: Score, dtype: torch.dtype) -> None:
    if math.isfinite(found.nats):
        return
    remedy = "the weights may be damaged" if dtype in (torch.float32, torch.float64) else "try float32"
    raise InputError(f"the loss is {found.nats} within the first {found.tokens:,} tokens; {remedy}")
