"""How far a model has come off the one that it was made from: by quantising it, or by distilling.

    found = compare(original.model, quantised.model, original.tokenizer, "book.txt")
    found.divergence, found.top_agreement, found.after.bits_per_byte

Both read the same text side by side, a piece at a time; no more than a few positions' logits are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..errors import DataError
from ..models import RWKV
from ..tokenizers import Tokenizer
from .perplexity import Score, fed, open_text, slices, text_pieces

# Short, for two models' activations are held.
PIECE = 512


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two models on one text.

    before, after   the scores of the original and of the other
    nats            Kullback-Leibler divergence of the other's predictions from the original's, added up over the tokens
    same_top        at how many tokens both hold the same one for the likeliest
    """

    before: Score = field(default_factory=Score)
    after: Score = field(default_factory=Score)
    nats: float = 0.0
    same_top: int = 0

    @property
    def divergence(self) -> float:
        """Kullback-Leibler divergence, nats a token."""
        return self.nats / self.before.tokens

    @property
    def top_agreement(self) -> float:
        """The share of tokens at which both hold the same one for the likeliest."""
        return self.same_top / self.before.tokens

    @property
    def more_bits(self) -> float:
        """By which share of the original's bits per byte the other's are higher."""
        return self.after.nats / self.before.nats - 1


@torch.no_grad()
def compare(
    original: RWKV,
    other: RWKV,
    tokenizer: Tokenizer,
    source: str | os.PathLike[str] | Iterable[str],
    on_progress: Callable[[Agreement], None] | None = None,
    piece: int = PIECE,
) -> Agreement:
    """Compare what two models of one vocabulary foretell of a text; `source` and `on_progress` as for `score`.

    Raises DataError for a text that cannot be read or is empty, InputError for a tokenizer that does not fit.
    """
    if isinstance(source, str | os.PathLike):
        with open_text(source) as file:
            return compare(original, other, tokenizer, text_pieces(file, str(source)), on_progress, piece)
    found, state, other_state = Agreement(), None, None
    for inputs, targets in fed(original, tokenizer, source, piece):
        x, state = original.features(inputs, state)
        y, other_state = other.features(inputs, other_state)
        num_bytes = len(tokenizer.decode_bytes(targets[0].tolist()))
        found = _added(found, original.head, other.head, x[0], y[0], targets[0], num_bytes)
        if on_progress is not None:
            on_progress(found)
    if not found.before.tokens:
        raise DataError("the text is empty; there is nothing to compare the models on")
    return found


def _added(
    found: Agreement, head: nn.Linear, other: nn.Linear, x: Tensor, y: Tensor, targets: Tensor, num_bytes: int
) -> Agreement:
    """With T more positions, x and y [T, C]."""
    nats = [found.nats, found.before.nats, found.after.nats]
    same = found.same_top
    for x_part, y_part, wanted in slices(head, x, y, targets):
        p, q = (torch.log_softmax(h(part).float(), -1) for h, part in ((head, x_part), (other, y_part)))
        sums = (p.exp() * (p - q)).sum(), -p.gather(1, wanted[:, None]).sum(), -q.gather(1, wanted[:, None]).sum()
        nats = [before + float(more) for before, more in zip(nats, sums, strict=True)]
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
    count = {"tokens": found.before.tokens + len(targets), "num_bytes": found.before.num_bytes + num_bytes}
    return Agreement(
        before=replace(found.before, nats=nats[1], **count),
        after=replace(found.after, nats=nats[2], **count),
        nats=nats[0],
        same_top=same,
    )
