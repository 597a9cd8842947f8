"""What a model file computes at one token, written down as instructions while its own `forward` runs.

In place of tensors it is given `Traced` values: they have a shape and a register, and PyTorch hands every function that
meets one to `__torch_function__` here.  A function that is not in the table is a refusal with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CompileError
from ..ops import dispatch
from ..ops.cpu.instructions import Op
from ..ops.cpu.storage import BFLOAT16, BY_INPUT, FLOAT32, in_panels, listed_size, rounded_size
from ..quant import linear as quant
from ..quant.linear import Quantised
from ..quant.packing import Packed
from .program import Constant, Program, Register

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}


class Memory:
    """One layer's part of the state: an op reads and writes it in place, nobody else touches it."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, layer: int, which: int, shape: Sequence[int]) -> None:
        self.layer, self.which, self.shape = layer, which, torch.Size(shape)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})


class Traced:
    """One value of a row: `shape` as the model file sees it, [1, 1, ...] for one row and one token.

    rectified   it went through a ReLU, so that many of its numbers are exactly 0
    """

    dtype = torch.float32
    device = torch.device("cpu")
    requires_grad = False

    def __init__(self, program: Program, register: Register, shape: Sequence[int], rectified: bool = False) -> None:
        self.program, self.register, self.shape = program, register, torch.Size(shape)
        self.rectified = rectified
        # As products read it, by the instruction that makes it.
        self._prepared: dict[Op, Register] = {}

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in METHODS:
            raise AttributeError(name)
        return lambda *args, **kwargs: METHODS[name](self, *args, **kwargs)

    def dim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Numbers of one row."""
        return self.shape.numel()

    def seen_as(self, shape: Sequence[int]) -> Traced:
        """The same numbers in another shape."""
        seen = Traced(self.program, self.register, shape, self.rectified)
        seen._prepared = self._prepared
        return seen

    def rounded(self) -> Register:
        """It in int8, in groups of 32, each with a scale and a sum."""
        return self._prepare(Op.ROUND, rounded_size(self.size))

    def listed(self) -> Register:
        """The inputs that count, and how many they are."""
        return self._prepare(Op.LIST, listed_size(self.size))

    def _prepare(self, op: Op, size: int) -> Register:
        if op not in self._prepared:
            self._prepared[op] = self.program.emit(op, size, self.register, self.size)
        return self._prepared[op]

    def __getitem__(self, item: Any) -> Traced:
        picked = np.arange(self.size).reshape(self.shape)[item]
        start, size = int(picked.flat[0]), picked.size
        if not np.array_equal(picked.ravel(), np.arange(start, start + size)):
            raise CompileError(f"the step cannot pick {item!r} out of a value of shape {list(self.shape)}")
        if size == self.size:
            return self.seen_as(picked.shape)
        return Traced(
            self.program, self.program.emit(Op.SLICE, size, self.register, start, self.size, size), picked.shape
        )

    def __add__(self, other: Any) -> Traced:
        return _binary(Op.ADD, self, other)

    def __sub__(self, other: Any) -> Traced:
        return _binary(Op.ADD, self, -other)

    def __rsub__(self, other: Any) -> Traced:
        return _binary(Op.ADD, -self, other)

    def __mul__(self, other: Any) -> Traced:
        return _binary(Op.MUL, self, other)

    def __neg__(self) -> Traced:
        return _scale(self, -1.0, 0.0)

    def __matmul__(self, factor: Any) -> Traced:
        return _packed(self, factor.matrix) if isinstance(factor, Quantised) else _dense(self, factor.mT)

    __radd__, __rmul__ = __add__, __mul__


def constant(values: Tensor, shape: Sequence[int]) -> Constant:
    """A tensor that is the same for every row and token, as a constant of this shape."""
    return Constant(values.detach().to("cpu", torch.float32).expand(shape).contiguous().numpy().reshape(-1))


def _binary(op: Op, left: Traced, right: Any) -> Traced:
    """`left + right` or `left * right` of any shapes that go together."""
    program = left.program
    if isinstance(right, int | float):
        return _scale(left, 1.0, right) if op == Op.ADD else _scale(left, right, 0.0)
    shape = torch.Size(np.broadcast_shapes(left.shape, right.shape))
    size = shape.numel()
    if isinstance(right, Tensor):
        if left.size != size:
            raise CompileError(f"the step cannot stretch {list(left.shape)} to {list(shape)} beside a constant")
        with_constant = Op.ADD_CONSTANT if op == Op.ADD else Op.MUL_CONSTANT
        target = program.emit(with_constant, size, left.register, constant(right, shape), size)
    elif left.size == right.size == size:
        target = program.emit(op, size, left.register, right.register, size)
    else:
        groups, whole = (left, right) if right.size == size else (right, left)
        if op != Op.MUL or whole.size != size or groups.shape[:-1] != whole.shape[:-1] or groups.shape[-1] != 1:
            raise CompileError(f"the step cannot compute {op.name} of {list(left.shape)} and {list(right.shape)}")
        target = program.emit(Op.MUL_GROUPS, size, groups.register, whole.register, size, size // groups.size)
    return Traced(program, target, shape)


def _scale(x: Traced, by: float, plus: float) -> Traced:
    factors = Constant(np.array([by, plus], np.float32))
    return Traced(x.program, x.program.emit(Op.SCALE, x.size, x.register, factors, x.size), x.shape)


def _unary(op: Op) -> Callable[[Traced], Traced]:
    def compute(x: Traced, inplace: bool = False) -> Traced:
        keeps_zeros = op == Op.RELU or (op == Op.SQUARE and x.rectified)
        return Traced(x.program, x.program.emit(op, x.size, x.register, x.size), x.shape, rectified=keeps_zeros)

    return compute


def _lerp(start: Traced, end: Traced, weight: Traced | Tensor) -> Traced:
    program, size = start.program, start.size
    if isinstance(weight, Tensor):
        by = constant(weight, start.shape)
        return Traced(program, program.emit(Op.LERP, size, start.register, end.register, by, size), start.shape)
    return Traced(
        program, program.emit(Op.LERP_VALUES, size, start.register, end.register, weight.register, size), start.shape
    )


def _norm(x: Traced, weight: Tensor, bias: Tensor, eps: float, group: int) -> Traced:
    numbers = torch.cat([weight.detach().float(), bias.detach().float(), torch.tensor([eps])])
    target = x.program.emit(Op.NORM, x.size, x.register, constant(numbers, numbers.shape), x.size, group)
    return Traced(x.program, target, x.shape)


def _layer_norm(x: Traced, _: Any, weight: Tensor, bias: Tensor, eps: float) -> Traced:
    return _norm(x, weight, bias, eps, x.size)


def _group_norm(x: Traced, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Traced:
    return _norm(x, weight, bias, eps, x.size // num_groups)


def _normalize(x: Traced, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Traced:
    if p != 2.0 or dim not in (-1, x.dim() - 1):
        raise CompileError("the step makes unit vectors along the last axis only")
    least = Constant(np.array([eps], np.float32))
    return Traced(x.program, x.program.emit(Op.UNIT, x.size, x.register, least, x.size, x.shape[-1]), x.shape)


def _sum(x: Traced, dim: int, keepdim: bool = False) -> Traced:
    size, group = x.size // x.shape[-1], x.shape[-1]
    if dim not in (-1, x.dim() - 1):
        raise CompileError("the step sums along the last axis only")
    shape = (*x.shape[:-1], 1) if keepdim else x.shape[:-1]
    return Traced(x.program, x.program.emit(Op.SUM, size, x.register, size, group), shape)


def _reshaped(method: str) -> Callable[..., Traced]:
    """A method that changes the shape alone."""

    def see(x: Traced, *args: Any) -> Traced:
        return x.seen_as(getattr(torch.empty(x.shape, device="meta"), method)(*args).shape)

    return see


def _dense(x: Traced, weight: Tensor, bias: Tensor | None = None) -> Traced:
    """x times a `weight` [outputs, inputs] in float32 or bfloat16."""
    if weight.dtype not in KINDS:
        raise CompileError(f"the step multiplies with float32 and bfloat16 weights, not with {weight.dtype}")
    num_out, num_in = weight.shape
    kind = KINDS[weight.dtype]
    # A copy, which makes it possible to leave out what is multiplied by zeros.
    stored = in_panels(weight.detach()) if x.rectified else weight.detach().contiguous()
    return _product(x, kind + BY_INPUT * x.rectified, stored, None, num_out, num_in, bias)


def _packed(x: Traced, matrix: Packed, bias: Tensor | None = None) -> Traced:
    """x times a quantised matrix."""
    return _product(x, matrix.kind, matrix.packed, matrix.scales, matrix.num_out, matrix.num_in, bias)


def _product(
    x: Traced, kind: int, weight: Tensor, scales: Tensor | None, num_out: int, num_in: int, bias: Tensor | None
) -> Traced:
    program = x.program
    read = x.listed() if kind >= BY_INPUT else x.register if scales is None else x.rounded()
    addresses = program.address(weight), 0 if scales is None else program.address(scales)
    target = program.emit(Op.PRODUCT, num_out, read, kind, *addresses, num_out, num_in)
    y = Traced(program, target, (*x.shape[:-1], num_out))
    return y if bias is None else y + bias


def _token_shift(x: Traced, last: Memory, lengths: None, first: None) -> tuple[Traced, Memory]:
    target = x.program.emit(Op.SHIFT, x.size, x.register, last.layer, last.which, x.size)
    return Traced(x.program, target, x.shape), last


def _wkv4(log_w: Any, u: Tensor, k: Traced, v: Traced, state: Memory, first: None) -> tuple[Traced, Memory]:
    operands = (_register(log_w, k), constant(u, u.shape), k.register, v.register, state.layer, v.size)
    return Traced(v.program, v.program.emit(Op.WKV4, v.size, *operands), v.shape), state


def _matrix_recurrence(op: Op) -> Callable[..., tuple[Traced, Memory]]:
    def compute(*inputs: Any) -> tuple[Traced, Memory]:
        *vectors, state, _ = inputs
        v = vectors[3]
        registers = (_register(x, v) for x in vectors)
        target = v.program.emit(op, v.size, *registers, state.layer, *v.shape[2:])
        return Traced(v.program, target, v.shape), state

    return compute


def _register(x: Traced | Tensor, like: Traced) -> Register:
    """Where an op that takes no constants finds x."""
    if isinstance(x, Traced):
        return x.register
    return like.program.emit(Op.LOAD, like.size, constant(x, like.shape), like.size)


OPS: dict[str, Callable[..., Any]] = {
    "token_shift": _token_shift,
    "wkv4": _wkv4,
    "wkv6": _matrix_recurrence(Op.WKV6),
    "wkv7": _matrix_recurrence(Op.WKV7),
}

# By the names of PyTorch's functions and methods; what begins with `r` has its operands turned round.
METHODS: dict[str, Callable[..., Any]] = {
    "square": _unary(Op.SQUARE),
    "sum": _sum,
    "type_as": lambda x, other: x,
    **{method: _reshaped(method) for method in ("flatten", "unflatten", "view", "reshape", "unsqueeze", "squeeze")},
}
FUNCTIONS: dict[str, Callable[..., Any]] = METHODS | {
    # A stack is only ever taken apart again; the new token shifts are in their places already.
    "stack": list,
    "add": lambda left, right: right + left,
    "mul": lambda left, right: right * left,
    "exp": _unary(Op.EXP),
    "tanh": _unary(Op.TANH),
    "sigmoid": _unary(Op.SIGMOID),
    "silu": _unary(Op.SILU),
    "relu": _unary(Op.RELU),
    "lerp": _lerp,
    "linear": _dense,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
}


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of PyTorch or an op of ours, called with at least one Traced or Memory."""
    if function is dispatch.call:
        op, _, inputs = args
        return OPS[op](*inputs) if op in OPS else dispatch.plain(op)(*inputs)
    if function is quant.multiply:
        return _packed(*args)
    name = function.__name__.strip("_")
    if isinstance(args[0], Tensor) and name in ("type_as", "expand_as"):
        return args[0].float() if name == "type_as" else args[0].expand(args[1].shape)
    if name not in FUNCTIONS:
        raise CompileError(f"the compiled step does not know {name}; the model's own call serves")
    return FUNCTIONS[name](*args, **kwargs)
