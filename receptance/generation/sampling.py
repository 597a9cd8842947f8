"""From logits to tokens: every row of a batch by its own settings, and as if it were alone.

    sampler = Sampler([Sampling(top_p=0.5), Sampling(temperature=0)], vocab_size=65536, requests=[0, 1])
    choice = sampler.choose(logits)              # [2, V] -> choice.tokens [2]
    sampler.keep([1])                            # row 0 has ended
    sampler.join(Sampler([Sampling()], 65536))   # another one begins, behind the others
    choice = sampler.choose(logits)              # [2, V]

In this order: `logit_bias` and `banned`, penalties (`penalties.py`), filters and the choice (`filters.py`), which takes
its noise from seed, request and position (`noise.py`).  With the same noise it gives the tokens of the official
runtime's `PIPELINE.generate`, but for four accidents of that: where it keeps thousands of tokens, its float32 sums may
keep one more or less; where top_p is 1 and they end below 1, it takes the likeliest; at temperature 0 it draws among
equally likely ones; and a very low temperature makes it fail.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .filters import DRAWINGS, Drawing, drawing_of
from .noise import LIMIT, uniform
from .penalties import Penalties
from .ranking import largest
from .settings import Sampling

# Seeds that are drawn here are numbers that JSON and JavaScript can hold too.
SEED_BITS = 48


class RowError(InputError):
    """There is no token for one row; the others could be served.

    row     its place in the batch
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class Top(NamedTuple):
    """The likeliest tokens of each row by the model itself, the likeliest first, and their logarithms.

    ids       [B, n] int64
    logprobs  [B, n] float32
    """

    ids: Tensor
    logprobs: Tensor


class Choice(NamedTuple):
    """One token for each row.

    tokens    [B] int64
    logprobs  [B] float32, if asked for: how likely it was by the model itself, before biases, penalties, filters and
              temperature
    top       the likeliest ones, if asked for
    """

    tokens: Tensor
    logprobs: Tensor | None
    top: Top | None


class Sampler:
    """Chooses the tokens of B rows, step by step.

    seeds      [B] those of the settings, or drawn: with them the same tokens come again
    positions  [B] how many tokens each row has got
    """

    def __init__(
        self,
        settings: Sequence[Sampling],
        vocab_size: int,
        requests: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        uncounted: Tensor | None = None,
    ) -> None:
        """For rows with these settings, whose noise belongs to the numbers `requests` [B]; 0, 1, ... if None.

        uncounted   [any length] bool, tokens that add nothing to their counts; see `uncounted_tokens`

        Raises InputError for a token that the vocabulary lacks, where all tokens are banned, and for a request below 0.
        """
        requests = range(len(settings)) if requests is None else requests
        if not settings or len(requests) != len(settings):
            raise InputError(f"give each row its settings and its request, got {len(settings)} and {len(requests)}")
        for row in settings:
            row.check(vocab_size)
        for request in requests:
            if not 0 <= request < LIMIT:
                raise InputError(f"the number of a request must be from 0 to {LIMIT - 1}, got {request}")
        self._settings, self._requests, self.vocab_size = list(settings), list(requests), vocab_size
        self.seeds = [secrets.randbits(SEED_BITS) if row.seed is None else row.seed for row in settings]
        self.positions = [0] * len(settings)
        device = torch.get_default_device() if device is None else torch.device(device)
        # Apple's GPUs have no float64, which the sums of probabilities need.
        self._device = torch.device("cpu") if device.type == "mps" else device
        self._bias = self._make_bias()
        self._penalties = Penalties(settings, vocab_size, self._device, uncounted)
        self._groups = self._make_groups()

    @torch.no_grad()
    def choose(self, logits: Tensor, num_logprobs: int | None = None, allowed: Tensor | None = None) -> Choice:
        """The next token of each row by logits [B, V] of any dtype.

        num_logprobs  None: no logprobs; else how many likeliest tokens beside the chosen one's
        allowed       [B, V] bool: tokens that may be chosen; None: all

        Raises RowError where logits are NaN or infinite or where no token is left, InputError for other shapes.  Then
        nothing has changed.
        """
        self._check(logits, num_logprobs)
        raw = logits.to(self._device, torch.float32)
        adjusted = self._penalties.apply(raw if self._bias is None else raw + self._bias)
        if allowed is not None:
            adjusted = adjusted.masked_fill(~allowed.to(self._device), float("-inf"))
        self._refuse_broken(raw, adjusted)
        tokens = self._draw(adjusted)
        self._penalties.add(tokens)
        self.positions = [position + 1 for position in self.positions]
        if num_logprobs is None:
            return Choice(tokens.to(logits.device), None, None)
        logprobs, top = raw.log_softmax(1), None
        if num_logprobs:
            ids = largest(logprobs, num_logprobs)
            top = Top(ids.to(logits.device), logprobs.gather(1, ids).to(logits.device))
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        return Choice(tokens.to(logits.device), chosen.to(logits.device), top)

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows only, in this order; the others have ended."""
        self._settings = [self._settings[row] for row in rows]
        self._requests = [self._requests[row] for row in rows]
        self.seeds = [self.seeds[row] for row in rows]
        self.positions = [self.positions[row] for row in rows]
        self._bias = self._make_bias()
        self._penalties.keep(rows)
        self._groups = self._make_groups()

    def join(self, other: Sampler) -> None:
        """Goes on with the rows of another sampler too, behind its own."""
        self._settings += other._settings
        self._requests += other._requests
        self.seeds += other.seeds
        self.positions += other.positions
        self._bias = self._make_bias()
        self._penalties.join(other._penalties)
        self._groups = self._make_groups()

    def _make_bias(self) -> Tensor | None:
        """What is added to the logits, [B, V]; None where no row asks for it."""
        if not any(row.logit_bias or row.banned for row in self._settings):
            return None
        bias = torch.zeros(len(self._settings), self.vocab_size)
        for number, row in enumerate(self._settings):
            bias[number, list(row.logit_bias)] = torch.tensor(list(row.logit_bias.values()), dtype=torch.float32)
            bias[number, list(row.banned)] = float("-inf")
        return bias.to(self._device)

    def _make_groups(self) -> list[tuple[Tensor, Drawing]]:
        """Rows that are drawn in the same way, with the way."""
        members: dict[str, list[int]] = {}
        for number, row in enumerate(self._settings):
            members.setdefault(drawing_of(row), []).append(number)
        return [
            (
                torch.tensor(rows, device=self._device),
                DRAWINGS[name]([self._settings[row] for row in rows], self.vocab_size, self._device),
            )
            for name, rows in members.items()
        ]

    def _draw(self, logits: Tensor) -> Tensor:
        noise = torch.tensor(
            list(map(uniform, self.seeds, self._requests, self.positions)),
            dtype=torch.float64,
            device=self._device,
        )
        if len(self._groups) == 1:
            return self._groups[0][1].draw(logits, noise)
        tokens = torch.empty(len(logits), dtype=torch.int64, device=self._device)
        for rows, drawing in self._groups:
            tokens[rows] = drawing.draw(logits[rows], noise[rows])
        return tokens

    def _check(self, logits: Tensor, num_logprobs: int | None) -> None:
        if logits.shape != (len(self._settings), self.vocab_size):
            raise InputError(
                f"logits must be [{len(self._settings)}, {self.vocab_size}], one row for each that is sampled, "
                f"got {list(logits.shape)}"
            )
        if num_logprobs is not None and not 0 <= num_logprobs <= self.vocab_size:
            raise InputError(f"logprobs can be told of 0 to {self.vocab_size} tokens, got {num_logprobs}")

    def _refuse_broken(self, raw: Tensor, adjusted: Tensor) -> None:
        # The largest of a row is NaN where one is, +inf where one is, and -inf where all are.
        broken = ~raw.amax(1).isfinite()
        empty = adjusted.amax(1) == float("-inf")
        if not (broken | empty).any():
            return
        row = int((broken | empty).nonzero()[0])
        if broken[row]:
            raise RowError(
                f"the model's logits of row {row} are not finite; "
                f"load it in float32 or bfloat16, and check the checkpoint with `receptance verify`",
                row,
            )
        raise RowError(f"every token that the model allows in row {row} is banned; ban fewer", row)
