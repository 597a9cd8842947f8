"""What the tokens of an answer take off the logits of their like, so that it does not go round in circles.

    penalties = Penalties(settings, vocab_size, device, uncounted_tokens(tokenizer))
    logits = penalties.apply(logits)
    penalties.add(tokens)

As in the official runtime: the logit of every generated token loses `presence + count * frequency`; each step the
counts of all are multiplied by `decay`, then the new token's grows by 1.  The presence part does not fade.  Prompts are
not counted.  Digits and spaces add nothing to their counts, or long numbers and indented code would suffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..tokenizers import Tokenizer
from .settings import Sampling

# A token whose text stands somewhere in it is not counted: single digits and spaces, but also "12".
UNCOUNTED_TEXT = " \t0123456789"


# The table costs a look at every token and is asked for by every answer.
@lru_cache(maxsize=4)
def uncounted_tokens(tokenizer: Tokenizer) -> Tensor:
    """Which tokens add nothing to their counts, [vocab_size] bool.  Callers share it: it must not be written to.

    A token without any text, as the end of a document, is counted, as the official runtime does it for World models.
    """
    texts = (tokenizer.token_bytes(token).decode("utf-8", "replace") for token in range(tokenizer.vocab_size))
    return torch.tensor([text != "" and text in UNCOUNTED_TEXT for text in texts])


class Penalties:
    """The counts of those rows of a batch that have penalties, [P, V] on `device`.

    float32 is enough for them: after hundreds of steps the logits are within 1e-6 of those by counts in float64.
    """

    def __init__(
        self, settings: Sequence[Sampling], vocab_size: int, device: torch.device, uncounted: Tensor | None = None
    ) -> None:
        """`uncounted` [any length] bool, as of `uncounted_tokens`; tokens beyond its end are counted."""
        self._num_rows, self._device = len(settings), device
        self._rows = [number for number, row in enumerate(settings) if row.is_penalised]

        def column(name: str) -> Tensor:
            return torch.tensor([getattr(settings[row], name) for row in self._rows], device=device)[:, None]

        self._presence, self._frequency = column("presence_penalty"), column("frequency_penalty")
        self._decay = column("penalty_decay")
        self._seen = torch.zeros(len(self._rows), vocab_size, device=device)
        self._counts = torch.zeros_like(self._seen)
        uncounted = torch.zeros(0, dtype=torch.bool) if uncounted is None else uncounted[:vocab_size]
        self._grows_by = 1.0 - pad(uncounted.to(device, torch.float32), (0, vocab_size - len(uncounted)))

    def apply(self, logits: Tensor) -> Tensor:
        """The logits [B, V] less what their tokens have to lose."""
        if not self._rows:
            return logits
        losses = torch.addcmul(self._seen * self._presence, self._counts, self._frequency)
        return logits.index_add(0, torch.tensor(self._rows, device=self._device), losses, alpha=-1)

    def add(self, tokens: Tensor) -> None:
        """Counts the tokens [B] that were chosen."""
        if not self._rows:
            return
        tokens = tokens[self._rows, None]
        self._seen.scatter_(1, tokens, 1.0)
        self._counts.mul_(self._decay).scatter_add_(1, tokens, self._grows_by[tokens])

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows of the batch only, in this order."""
        places = {row: place for place, row in enumerate(self._rows)}
        kept = [places[row] for row in rows if row in places]
        self._presence, self._frequency, self._decay = self._presence[kept], self._frequency[kept], self._decay[kept]
        self._seen, self._counts = self._seen[kept], self._counts[kept]
        self._num_rows, self._rows = len(rows), [number for number, row in enumerate(rows) if row in places]

    def join(self, other: Penalties) -> None:
        """Goes on with the rows of another batch behind its own."""
        self._presence = torch.cat([self._presence, other._presence])
        self._frequency = torch.cat([self._frequency, other._frequency])
        self._decay = torch.cat([self._decay, other._decay])
        self._seen, self._counts = torch.cat([self._seen, other._seen]), torch.cat([self._counts, other._counts])
        self._rows += [self._num_rows + row for row in other._rows]
        self._num_rows += other._num_rows
