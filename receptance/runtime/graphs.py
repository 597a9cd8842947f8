"""The one-token step on a GPU: the model's own call, recorded as a CUDA graph for batches of 1, 2, 4 ... rows.

    step = record(model, slots=8)
    logits = step(torch.tensor([5, 7], device="cuda"), [0, 3])      # token 5 after state 0, token 7 after state 3

A graph starts all kernels of a step at once: none waits for Python.  On other devices the same is called each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import CompileError, InputError
from ..models import RWKV
from ..state import State

# Calls before recording, in which kernels are compiled and chosen.
WARM_UP = 2
# Few rows cost hardly less than so many times as many, and recording costs several steps.
MUCH = 8


def record(model: RWKV, slots: int = 1) -> RecordedStep:
    """The one-token step of a model on its device, for at most `slots` sequences.

    Weights are used where they are: a model that was moved, or cast, needs a new step.
    Raises CompileError where the model's call cannot be recorded.
    """
    return RecordedStep(model, slots)


class RecordedStep:
    """`step(tokens, slots) -> logits`, in place on a pool of states, on the model's device.

    num_slots   sequences at a time
    """

    def __init__(self, model: RWKV, slots: int) -> None:
        self.model, self.num_slots = model, slots
        # One more, for the rows that fill up a batch.
        self._states = model.zero_state(slots + 1)
        self._batches: dict[int, _Batch] = {}
        self._batch(slots)

    def __call__(self, tokens: Tensor, slots: Sequence[int] | None = None) -> Tensor:
        """Read one token for each row: tokens [B] int64, slots [B] (None: 0 to B - 1) -> logits [B, V].

        The logits are the step's own memory: the next call overwrites them.
        Raises InputError for a slot that does not exist or is named twice.
        """
        places = list(range(len(tokens)) if slots is None else slots)
        if len(set(places)) < len(places) or not all(0 <= place < self.num_slots for place in places):
            raise InputError(f"slots must be different numbers between 0 and {self.num_slots - 1}, got {places}")
        if tokens.dim() != 1 or len(tokens) != len(places) or not places:
            raise InputError(f"tokens must be [B], one for each slot, got {list(tokens.shape)} for {len(places)}")
        return self._batch(len(places))(tokens, places)

    def _batch(self, rows: int) -> _Batch:
        """The smallest recorded one that takes so many rows, unless a new one would be far smaller."""
        wanted = 1 << (rows - 1).bit_length()
        size = min((size for size in self._batches if wanted <= size <= MUCH * wanted), default=wanted)
        if size not in self._batches:
            self._batches[size] = _Batch(self.model, self._states, size)
        return self._batches[size]

    def read(self, slots: Sequence[int]) -> State:
        """The states of some slots, as the model takes them: a copy."""
        return self._states.rows(slots)

    def write(self, slots: Sequence[int], state: State) -> None:
        """Set some slots to the rows of a state.  Raises StateError where it is another model's."""
        state.check(self.model.config, len(slots))
        self._states.shift[:, :, list(slots)] = state.shift.to(self._states.shift)
        self._states.wkv[:, list(slots)] = state.wkv.to(self._states.wkv)


class _Batch:
    """The step of a fixed number of rows: memory for tokens and slots, and what reads it."""

    def __init__(self, model: RWKV, states: State, size: int) -> None:
        self.model, self.states = model, states
        device, self.filler = model.emb.weight.device, states.num_rows - 1
        self.tokens = torch.zeros(size, dtype=torch.int64, device=device)
        self.slots = torch.full((size,), self.filler, dtype=torch.int64, device=device)
        self.logits = torch.empty(0, device=device)
        self.run: Callable[[], None] = self._recorded() if device.type == "cuda" else self._step

    def __call__(self, tokens: Tensor, slots: list[int]) -> Tensor:
        count = len(slots)
        self.tokens[:count] = tokens
        self.slots[:count] = torch.tensor(slots).to(self.slots.device, non_blocking=True)
        self.slots[count:] = self.filler
        self.run()
        return self.logits[:count]

    @torch.no_grad()
    def _step(self) -> None:
        logits, state = self.model(self.tokens[:, None], self.states.rows(self.slots))
        self.states.shift.index_copy_(2, self.slots, state.shift)
        self.states.wkv.index_copy_(1, self.slots, state.wkv)
        self.logits = logits[:, 0]

    def _recorded(self) -> Callable[[], None]:
        """Records the step; nothing but the filler's state moves meanwhile.  Raises CompileError where it cannot be."""
        graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.tokens.device)
        try:
            aside.wait_stream(torch.cuda.current_stream(self.tokens.device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._step()
            torch.cuda.current_stream(self.tokens.device).wait_stream(aside)
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                self._step()
        except Exception as error:  # Triton's errors have no base in common with PyTorch's.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CompileError(f"the step cannot be recorded as a CUDA graph: {reason}") from error
        replay: Callable[[], None] = graph.replay
        return replay
