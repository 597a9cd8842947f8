"""The compiled step with its pool of states: `compile(model, slots)`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CompileError, InputError
from ..models import RWKV
from ..models.layers import Rows
from ..ops import cpu
from ..ops.cpu.instructions import OPERATION, PRODUCT_FUNCTION, PRODUCT_KIND, Field, Op
from ..state import State
from .program import GAP, Program, Register
from .tracing import KINDS, Memory, Traced

# For more rows the products are bound by arithmetic, and PyTorch's are faster.
MOST_ROWS = 32

# What was traced of a model, with what identifies its weights: a trained or moved weight is traced again.
_traced: WeakKeyDictionary[RWKV, tuple[tuple[Any, ...], Program, Register]] = WeakKeyDictionary()


def refusal(model: RWKV) -> str | None:
    """Why this model has no compiled step, as a sentence; None where it has one."""
    try:
        _trace(model)
    except CompileError as error:
        return str(error)
    return None


def compile(model: RWKV, slots: int = 1, skip: bool = True) -> Step:
    """The one-token step of a model, for at most `slots` sequences.

    `skip` leaves out the channel mix's weights whose input is exactly 0, which changes no bit of the result.
    Weights are used where they are, so the model must not change as long as the step is used.
    Raises CompileError where the model or the machine cannot be served.
    """
    program, logits = _trace(model)
    return Step(model, program, logits, slots, skip)


class Step:
    """`step(tokens, slots) -> logits`, in place on a pool of states.

    pool    State of all slots, float32: shift [L, 2, slots, C], wkv [L, slots, ...]
    """

    def __init__(self, model: RWKV, program: Program, logits: Register, slots: int, skip: bool) -> None:
        from ..ops.cpu import executor, products

        assembled, place = program.assemble(slots, logits)
        for row in assembled.table:
            if row[OPERATION] == Op.PRODUCT:
                row[PRODUCT_FUNCTION] = products.worker(row[PRODUCT_KIND]).address
        self.model, self._place = model, place
        self.pool = State(*map(_apart, State.zeros(model.config, slots)))
        self._execute, self._workers = executor.execute, [worker.address for worker in executor.workers()]
        self._scratch = _apart(torch.empty(assembled.scratch_size)).numpy()
        shift, wkv = self.pool
        fields = {
            Field.TABLE: assembled.table.ctypes.data,
            Field.NUM_INSTRUCTIONS: len(assembled.table),
            Field.CONSTANTS: assembled.constants.ctypes.data,
            Field.NUM_CONSTANTS: assembled.constants.size,
            Field.SCRATCH: self._scratch.ctypes.data,
            Field.SCRATCH_SIZE: self._scratch.size,
            Field.SHIFTS: shift.data_ptr(),
            Field.SHIFT_SIZE: shift.shape[-1],
            Field.WKV: wkv.data_ptr(),
            Field.WKV_SIZE: wkv[0, 0].numel(),
            Field.NUM_LAYERS: len(wkv),
            Field.NUM_SLOTS: slots,
            Field.SKIP: int(skip),
        }
        self._machine = np.array([fields.get(field, 0) for field in Field], np.int64)
        # What lies at the addresses above.
        self._held = program, assembled

    @property
    def num_slots(self) -> int:
        return self.pool.num_rows

    def __call__(self, tokens: Tensor, slots: Sequence[int] | None = None) -> Tensor:
        """Read one token for each row: tokens [B] int64, slots [B] (None: 0 to B - 1) -> logits [B, V] float32.

        The logits are the step's own memory: the next call overwrites them.
        Raises InputError for a token or slot that does not exist, or a slot that is named twice.
        """
        from ..ops.cpu.crew import crew

        ids = tokens.numpy()
        places = np.arange(len(ids)) if slots is None else np.asarray(slots, np.int64)
        self._check(ids, places)
        with crew(torch.get_num_threads()) as board:
            self._machine[[Field.TOKENS, Field.SLOTS, Field.NUM_ROWS]] = ids.ctypes.data, places.ctypes.data, len(ids)
            self._execute(self._machine, board, *self._workers)
        vocab = self.model.config.vocab_size
        logits = self._scratch[self._place : self._place + len(ids) * vocab].reshape(len(ids), vocab)
        return torch.from_numpy(logits)

    def read(self, slots: Sequence[int]) -> State:
        """The states of some slots, as the model takes them: a copy."""
        return self.pool.rows(slots).to(dtype=self.model.emb.weight.dtype)

    def write(self, slots: Sequence[int], state: State) -> None:
        """Set some slots to the rows of a state.  Raises StateError where it is another model's."""
        state.check(self.model.config, len(slots))
        self.pool.shift[:, :, list(slots)] = state.shift.to("cpu", torch.float32)
        self.pool.wkv[:, list(slots)] = state.wkv.to("cpu", torch.float32)

    def _check(self, ids: np.ndarray[Any, Any], slots: np.ndarray[Any, Any]) -> None:
        vocab = self.model.config.vocab_size
        if ids.ndim != 1 or ids.dtype != np.int64 or len(ids) != len(slots) or not len(ids):
            raise InputError(f"tokens must be int64 [B], one for each slot, got {ids.dtype} {list(ids.shape)}")
        if ids.min() < 0 or ids.max() >= vocab:
            raise InputError(f"tokens must lie between 0 and {vocab - 1}")
        if slots.min() < 0 or slots.max() >= self.num_slots or len(set(slots.tolist())) < len(slots):
            most = self.num_slots - 1
            raise InputError(f"slots must be different numbers between 0 and {most}, got {slots.tolist()}")


def _trace(model: RWKV) -> tuple[Program, Register]:
    """The instructions of one token, from the embedding to the logits; kept as long as the weights stay the same."""
    identity = tuple((x.data_ptr(), _version(x)) for x in chain(model.parameters(), model.buffers()))
    if model in _traced and _traced[model][0] == identity:
        return _traced[model][1:]
    weight = model.emb.weight
    if reason := cpu.refusal():
        raise CompileError(reason)
    if weight.device.type != "cpu" or weight.dtype not in KINDS:
        raise CompileError(
            f"the compiled step is for models in float32 or bfloat16 on the CPU, not {weight.dtype} on {weight.device}"
        )
    if type(model).features is not RWKV.features or type(model).forward is not RWKV.forward:
        raise CompileError(f"the compiled step follows RWKV's own call, and {type(model).__name__} has another one")
    if not isinstance(model.head, nn.Linear):
        raise CompileError(f"the compiled step needs a linear head, not a {type(model.head).__name__}")
    program = Program()
    try:
        with torch.no_grad():
            logits = _follow(model, program)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # Parts that somebody else put into the model may do anything with what they are given.
        raise CompileError(f"the compiled step cannot follow this model: {error}") from error
    _traced[model] = identity, program, logits
    return program, logits


def _follow(model: RWKV, program: Program) -> Register:
    """Calls the model's parts with traced values; returns where the logits are."""
    config, weight = model.config, model.emb.weight.detach().contiguous()
    row = program.emit(Op.EMBED, config.dim, program.address(weight), KINDS[weight.dtype], config.dim)
    x, v_first = Traced(program, row, (1, 1, config.dim)), None
    for layer, block in enumerate(model.blocks):
        shifts = [Memory(layer, which, (1, config.dim)) for which in range(2)]
        x, v_first, _, _ = block(x, v_first, shifts, Memory(layer, 0, (1, *config.state_shape)), Rows())
    register: Register = model.head(model.ln_out(x)).register
    return register


def _apart(tensor: Tensor) -> Tensor:
    """The same numbers where nothing else is near.

    What is written must not nearly touch what is read, be it a weight: see `program.GAP`.
    """
    room = torch.empty(tensor.numel() + 2 * GAP, dtype=tensor.dtype)
    return room[GAP:-GAP].copy_(tensor.reshape(-1)).view(tensor.shape)


def _version(tensor: Tensor) -> int:
    """How often it was written to; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version
