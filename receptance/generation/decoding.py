"""Token ids in, token ids out: prompts are read at once, then every row goes on by one token a step.

    decoding = Decoding(model, [[0, 24281, 59], [0, 33155]], [Sampling(), Sampling(temperature=0)])
    while decoding.rows:
        choice = decoding.step()                             # choice.tokens[i] continues prompt decoding.rows[i]
        decoding.keep([...])                                 # the places of the rows that go on

Knows no text: see `continuation.py` for that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import runtime
from ..errors import CompileError, InputError, StateError
from ..models import RWKV
from ..state import State
from .sampling import Choice, Sampler
from .settings import Sampling

log = logging.getLogger(__name__)
# Tokens of a row that are read at once.  Longer prompts are cut at its multiples, always at the same places, so that
# memory stays bounded and the same prompt is always computed in the same way.
PIECE = 512
# Rows of a batch on a GPU for which starting kernels one by one would take longer than computing.
MOST_RECORDED = 256


@torch.no_grad()
def read(model: RWKV, prompts: Sequence[Sequence[int]], state: State | None = None) -> tuple[Tensor, State]:
    """Read prompts of any lengths after `state` (zeros if None; one row serves all of them).

    Returns the logits [B, V] after the last token of each, and the state.  Raises InputError where there is no prompt,
    an empty one or one of another vocabulary, StateError where the state does not fit.
    """
    if not prompts or not all(prompts):
        raise InputError("there is nothing to read; every prompt needs at least one token")
    # Asked here, where the tokens still are Python's: a GPU would break on them.
    if (largest := max(map(max, prompts))) >= model.config.vocab_size:
        raise InputError(
            f"token {largest:,} of the prompt is beyond the model's vocabulary of {model.config.vocab_size:,}; "
            f"give the tokenizer that the model was trained with"
        )
    if state is None:
        state = model.zero_state(len(prompts))
    else:
        check_rows(state, len(prompts))
        state = state.to(model.emb.weight.device)
        state = state.rows([0] * len(prompts)) if state.num_rows == 1 else state
    going, start = list(range(len(prompts))), 0
    ended: list[int] = []
    logits: list[Tensor] = []
    states: list[State] = []
    while going:
        pieces = [prompts[row][start : start + PIECE] for row in going]
        x, state = _read_pieces(model, pieces, state)
        start += PIECE
        last = [place for place, row in enumerate(going) if len(prompts[row]) <= start]
        if last:
            logits.append(model.head(x[last]))
            states.append(state.rows(last))
            ended += [going[place] for place in last]
        rest = [place for place, row in enumerate(going) if len(prompts[row]) > start]
        going, state = [going[place] for place in rest], state.rows(rest)
    order = sorted(range(len(ended)), key=ended.__getitem__)
    return torch.cat(logits)[order], State.stack(states).rows(order)


def check_rows(state: State, num_prompts: int) -> None:
    """Raise StateError unless there is one row for all prompts, or one for each."""
    if state.num_rows not in (1, num_prompts):
        prompts = "one prompt" if num_prompts == 1 else f"{num_prompts} prompts"
        raise StateError(f"the state has {state.num_rows} rows for {prompts}; give one row for all, or one for each")


def _read_pieces(model: RWKV, pieces: list[Sequence[int]], state: State) -> tuple[Tensor, State]:
    """What the head is applied to after the last token of each piece, [B, C], and the state."""
    device = model.emb.weight.device
    longest = max(map(len, pieces))
    tokens = torch.tensor([[*piece, *[0] * (longest - len(piece))] for piece in pieces], device=device)
    lengths = torch.tensor([len(piece) for piece in pieces], device=device)
    ragged = len({len(piece) for piece in pieces}) > 1
    x, state = model.features(tokens, state, lengths if ragged else None)
    return x[torch.arange(len(pieces), device=device), lengths - 1], state


class Decoding:
    """Sequences that are continued together.

    rows      numbers of the prompts that still go on, in the order of the batch
    """

    def __init__(
        self,
        model: RWKV,
        prompts: Sequence[Sequence[int]],
        settings: Sequence[Sampling],
        requests: Sequence[int] | None = None,
        state: State | None = None,
        uncounted: Tensor | None = None,
    ) -> None:
        """Reads the prompts.  `requests` [B] name the rows' noise (0, 1, ... if None); else see `read` and `Sampler`.

        Raises InputError for settings that do not fit and whatever `read` raises.
        """
        device = model.emb.weight.device
        requests = range(len(prompts)) if requests is None else requests
        self.sampler = Sampler(settings, model.config.vocab_size, requests, device, uncounted)
        self.rows = list(range(len(prompts)))
        self.logits, state = read(model, prompts, state)
        self._stepper = stepper(model, state)
        self._unread: Tensor | None = None

    @property
    def state(self) -> State:
        """What the rows have read: all but the tokens of the last `step`."""
        return self._stepper.state

    @torch.no_grad()
    def step(self, num_logprobs: int | None = None) -> Choice:
        """Reads the last tokens chosen, if there are any, and chooses the next ones; see `Sampler.choose`."""
        if self._unread is not None:
            self.logits = self._stepper.step(self._unread)
        choice = self.sampler.choose(self.logits, num_logprobs)
        self._unread = choice.tokens
        return choice

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with some rows only, named by their places in `rows`."""
        if len(places) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in places]
        self.sampler.keep(places)
        self._stepper.keep(places)
        self.logits = self.logits[list(places)]
        if self._unread is not None:
            self._unread = self._unread[list(places)]


class Stepper(Protocol):
    """Rows that read one token each."""

    @property
    def state(self) -> State:
        """What the rows have read."""

    def step(self, tokens: Tensor) -> Tensor:
        """Read tokens [B]; gives logits [B, V], which the next step may overwrite."""

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some rows only."""


def stepper(model: RWKV, state: State) -> Stepper:
    """By the compiled step where there is one, on a GPU by a recorded one, else by the model itself."""
    rows = state.num_rows
    if model.emb.weight.device.type == "cuda" and rows <= MOST_RECORDED:
        try:
            return _InSlots(runtime.record(model, rows), state)
        except CompileError as error:
            log.warning("%s; its kernels are started one by one", error)
            return Called(model, state)
    # More rows than that are bound by arithmetic, which PyTorch's matrix products do faster.
    if rows > runtime.MOST_ROWS or runtime.refusal(model) is not None:
        return Called(model, state)
    return _InSlots(runtime.compile(model, rows), state)


class _InSlots:
    """By one of `runtime`'s steps, each row in a slot of its own."""

    def __init__(self, step: runtime.Step | runtime.RecordedStep, state: State) -> None:
        self._slots = list(range(state.num_rows))
        self._step = step
        self._step.write(self._slots, state)

    @property
    def state(self) -> State:
        return self._step.read(self._slots)

    def step(self, tokens: Tensor) -> Tensor:
        return self._step(tokens, self._slots)

    def keep(self, places: Sequence[int]) -> None:
        self._slots = [self._slots[place] for place in places]


class Called:
    """By the call of a model with `features` and `head`, be it an RWKV or not."""

    def __init__(self, model: Any, state: Any) -> None:
        self._model, self.state = model, state

    def step(self, tokens: Tensor) -> Tensor:
        x, self.state = self._model.features(tokens[:, None], self.state)
        logits: Tensor = self._model.head(x[:, -1])
        return logits

    def keep(self, places: Sequence[int]) -> None:
        self.state = self.state.rows(places)
