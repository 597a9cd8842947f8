"""Which tokens may be chosen, and the choice among them: for several rows at once, each by its own settings.

    drawing = DRAWINGS[drawing_of(settings[0])](settings, vocab_size, device)
    tokens = drawing.draw(logits, noise)

The field has two orders, and they choose differently.  The official runtime measures top_p, top_k and min_p by the
model's own probabilities and applies the temperature to what is left; most other programs apply the temperature first,
so that a high one lets more tokens through.  `STEPS` shows both as lists.

Every filter keeps the likeliest tokens and drops the rest.  So the tokens are ranked once, and all that a step changes
is how many are kept.

B rows, V tokens in the vocabulary, k tokens that are ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .ranking import ranked
from .settings import Order, Sampling

# How many tokens are ranked at first, and the growth of this number until it holds all that are kept.
FIRST, GROWTH = 1024, 8


class Limits(NamedTuple):
    """The settings of rows as columns [B, 1] float64, top_k int64.  A filter that is off has a limit that keeps all."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor

    @classmethod
    def of(cls, settings: Sequence[Sampling], vocab_size: int, device: torch.device) -> Limits:
        """The limits of these settings."""

        def column(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        return cls(
            column([row.temperature for row in settings]),
            column([min(row.top_k or vocab_size, vocab_size) for row in settings], torch.int64),
            # Not 1: rounding lets sums of probabilities arrive there before the last token.
            column([row.top_p if row.top_p < 1 else float("inf") for row in settings]),
            column([row.min_p for row in settings]),
        )


@dataclass(frozen=True)
class Kept:
    """The likeliest tokens, and how many of them are kept.

    logits        [B, V] float32
    ids           [B, k] int64, the likeliest tokens first, of equally likely ones the lowest id
    scores        [B, k] float64, their logits less the largest
    count         [B, 1] int64, so many are kept so far, at least one; k: so many or more
    temperature   [B, 1] float64 that probabilities are measured at; None: 1
    """

    logits: Tensor
    ids: Tensor
    scores: Tensor
    count: Tensor
    temperature: Tensor | None = None

    @classmethod
    def first(cls, logits: Tensor, k: int) -> Kept:
        """The k likeliest, none of them dropped yet."""
        ids = ranked(logits, k)
        scores = logits.gather(1, ids).double()
        return cls(logits, ids, scores - scores[:, :1], torch.full_like(ids[:, :1], k))

    def at_most(self, count: Tensor) -> Kept:
        """No more than so many, [B, 1]."""
        return replace(self, count=torch.minimum(self.count, count))

    def is_settled(self) -> bool:
        """Whether a ranking of more tokens would keep the same ones.

        Not where all that are ranked are kept, or where others may be as likely as the last one kept.
        """
        if self.ids.shape[1] == self.logits.shape[1]:
            return True
        return bool((self.scores.gather(1, self.count - 1) > self.scores[:, -1:]).all())

    def draw(self, noise: Tensor) -> Tensor:
        """One of the kept tokens, [B], by noise [B]."""
        kept = torch.arange(self.ids.shape[1], device=self.ids.device) < self.count
        parts = weights(self.scores, self.temperature).where(kept, 0.0)
        # In the order of the ids, as in the official runtime.
        return pick(torch.zeros_like(self.logits, dtype=parts.dtype).scatter_(1, self.ids, parts), noise)


def temperature(kept: Kept, limits: Limits) -> Kept:
    """From here on probabilities are those at the temperature."""
    return replace(kept, temperature=limits.temperature)


def top_k(kept: Kept, limits: Limits) -> Kept:
    """The k likeliest tokens."""
    return kept.at_most(limits.top_k)


def top_p(kept: Kept, limits: Limits) -> Kept:
    """The fewest tokens that have at least the part top_p of the probability of all that were kept before."""
    sums = weights(kept.scores, kept.temperature).cumsum(1)
    whole = all_weights(kept.logits, kept.temperature).sum(1, keepdim=True)
    whole = sums.gather(1, kept.count - 1).where(kept.count < sums.shape[1], whole)
    return kept.at_most(1 + (sums < limits.top_p * whole).sum(1, keepdim=True))


def ties(kept: Kept, limits: Limits) -> Kept:
    """Also the tokens that are as likely as the last one kept."""
    last = kept.scores.gather(1, kept.count - 1)
    return replace(kept, count=(kept.scores >= last).sum(1, keepdim=True))


def min_p(kept: Kept, limits: Limits) -> Kept:
    """The tokens that are at least the part min_p as likely as the likeliest."""
    likely = weights(kept.scores, kept.temperature) >= limits.min_p
    return kept.at_most(likely.sum(1, keepdim=True))


Step = Callable[[Kept, Limits], Kept]

STEPS: dict[Order, tuple[Step, ...]] = {
    # `PIPELINE.sample_logits` of the pip package rwkv, which has no min_p.
    "official": (top_p, ties, top_k, min_p, temperature),
    # As transformers; vLLM and llama.cpp differ from it in the place of min_p.
    "usual": (temperature, top_k, top_p, min_p),
}

# A step is left out where no row needs it.
NEEDED: dict[Step, Callable[[Sampling], bool]] = {
    temperature: lambda row: row.temperature != 1,
    top_k: lambda row: row.top_k > 0,
    top_p: lambda row: row.top_p < 1,
    ties: lambda row: row.top_p < 1,
    min_p: lambda row: row.min_p > 0,
}


class Drawing(Protocol):
    """A way to choose tokens for rows of settings."""

    def __init__(self, settings: Sequence[Sampling], vocab_size: int, device: torch.device) -> None: ...

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Tokens [B] by logits [B, V], float32, and noise [B] in [0, 1), float64.

        Each row has a finite logit and no NaN or +inf.
        """
        ...


class Greedy:
    """The likeliest token; of several, the lowest id."""

    def __init__(self, settings: Sequence[Sampling], vocab_size: int, device: torch.device) -> None:
        pass

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """See `Drawing`."""
        return logits.argmax(1)


class Filtered:
    """One of the tokens that the filters keep, by its probability.  All settings have the same order."""

    def __init__(self, settings: Sequence[Sampling], vocab_size: int, device: torch.device) -> None:
        self._steps = [step for step in STEPS[settings[0].order] if any(map(NEEDED[step], settings))]
        self._limits = Limits.of(settings, vocab_size, device)
        # More than `top_k` keeps, or `top_p` would measure the whole vocabulary instead of them.
        self._first = min(vocab_size, max([FIRST, *(row.top_k + 1 for row in settings if row.top_k < vocab_size)]))

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """See `Drawing`."""
        if set(self._steps) <= {temperature}:
            return pick(all_weights(logits, self._limits.temperature if self._steps else None), noise)
        return self.kept(logits).draw(noise)

    def kept(self, logits: Tensor) -> Kept:
        """The tokens that can be drawn."""
        k = self._first
        while True:
            kept = Kept.first(logits, k)
            for step in self._steps:
                kept = step(kept, self._limits)
            if kept.is_settled():
                return kept
            k = min(GROWTH * k, logits.shape[1])


DRAWINGS: dict[str, type[Drawing]] = {"greedy": Greedy, "official": Filtered, "usual": Filtered}


def drawing_of(row: Sampling) -> str:
    """The name of the way in which tokens are chosen by these settings; rows of the same name go together."""
    return "greedy" if row.temperature == 0 else row.order


def weights(scores: Tensor, temperature: Tensor | None) -> Tensor:
    """Probabilities at the temperature, as parts of the largest; from scores, of which the largest is 0."""
    return (scores if temperature is None else scores / temperature).exp()


def all_weights(logits: Tensor, temperature: Tensor | None) -> Tensor:
    """The same from logits [B, V]; float64."""
    scores = logits.double().sub_(logits.amax(1, keepdim=True))
    return (scores if temperature is None else scores.div_(temperature)).exp_()


def pick(parts: Tensor, noise: Tensor) -> Tensor:
    """Tokens [B] by weights [B, V]: where their sum gets beyond the part `noise` [B] of the whole.

    In float64, as `numpy.random.choice` does it.
    """
    sums = parts.cumsum(1)
    return torch.searchsorted(sums, noise[:, None] * sums[:, -1:], right=True)[:, 0]
