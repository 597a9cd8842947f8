"""Which form of an op serves a call, decided in this one place, and why the others do not.

    ops.explain("wkv7", length=512)          # [("numba", None), ("chunked", "..."), ...]: None means it serves
    with ops.use("reference"): ...           # one form for every op that has it

Forms stand in the order of preference; the first that does not refuse serves.  A refusal is a sentence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError
from . import chunked, cpu, pointwise, reference, triton


class Call(NamedTuple):
    """What a form may look at before it agrees to serve: never the values.

    dtype is v's, float64 if anything is; size that of the last axis, for a recurrence that of a head.
    """

    length: int
    device: str
    dtype: torch.dtype
    needs_grad: bool
    size: int = 64


class Form(NamedTuple):
    """One way to compute an op: its name, its function, and `refuses(call)`, a sentence or None."""

    name: str
    function: Callable[..., Any]
    refuses: Callable[[Call], str | None]


def _always(_: Call) -> str | None:
    return None


def _at_least(length: int) -> Callable[[Call], str | None]:
    def refuses(call: Call) -> str | None:
        if call.length >= length:
            return None
        return f"below {length} tokens the time loop is faster"

    return refuses


def _numba_refuses(call: Call) -> str | None:
    if call.device != "cpu":
        return f"its kernels are for the CPU, not for {call.device}"
    if call.dtype not in (torch.float32, torch.bfloat16):
        return f"its kernels compute in float32, not in {str(call.dtype).removeprefix('torch.')}"
    return cpu.refusal()


def _triton_refuses(call: Call) -> str | None:
    if call.device != "cuda":
        return f"its kernels are for GPUs, not for {call.device}"
    if call.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"its kernels compute in float32, not in {str(call.dtype).removeprefix('torch.')}"
    return triton.refusal()


def _triton_refuses_heads(call: Call) -> str | None:
    return _triton_refuses(call) or triton.refuses_heads(call.size)


def _compiled_at_use(op: str) -> Callable[..., Any]:
    """The form of an op in Numba, which is imported when the first of them is called."""

    def form(*inputs: Any) -> Any:
        # Not by `import_module`, through which torch.compile does not see.
        from .cpu import forms as kernels

        return getattr(kernels, op)(*inputs)

    return form


def _in_triton(op: str) -> Callable[..., Any]:
    """The form of an op in Triton, which is imported when the first of them is called."""

    def form(*inputs: Any) -> Any:
        from .triton import forms as kernels

        return getattr(kernels, op)(*inputs)

    return form


def _fused_refuses(call: Call) -> str | None:
    if call.length < 16:
        return "below 16 tokens PyTorch's own functions are started faster"
    if call.dtype not in (torch.float32, torch.bfloat16):
        return f"its kernels take float32 and bfloat16, not {str(call.dtype).removeprefix('torch.')}"
    return _numba_refuses(call)


def _fused(op: str) -> tuple[Form, ...]:
    """The forms of an op that stands between matrix products and recurrence."""
    plain = Form("reference", getattr(pointwise, op), _always)
    fused = Form("numba", _compiled_at_use(op), _fused_refuses), Form("triton", _in_triton(op), _triton_refuses)
    return *fused, plain


# About where the chunked form overtakes the loop: forward alone, one row of 12 heads of 64, on two cores.
FORMS: dict[str, tuple[Form, ...]] = {
    "wkv7": (
        Form("numba", _compiled_at_use("wkv7"), _numba_refuses),
        Form("triton", _in_triton("wkv7"), _triton_refuses_heads),
        Form("chunked", chunked.wkv7, _at_least(8)),
        Form("reference", reference.wkv7, _always),
    ),
    "wkv6": (
        Form("numba", _compiled_at_use("wkv6"), _numba_refuses),
        Form("triton", _in_triton("wkv6"), _triton_refuses_heads),
        Form("chunked", chunked.wkv6, _at_least(16)),
        Form("reference", reference.wkv6, _always),
    ),
    "wkv4": (
        Form("numba", _compiled_at_use("wkv4"), _numba_refuses),
        Form("triton", _in_triton("wkv4"), _triton_refuses),
        Form("chunked", chunked.wkv4, _at_least(8)),
        Form("reference", reference.wkv4, _always),
    ),
    "token_shift": (Form("chunked", chunked.token_shift, _always), Form("reference", reference.token_shift, _always)),
    "lerps": _fused("lerps"),
    "delta_inputs": _fused("delta_inputs"),
    "read_out": _fused("read_out"),
    "squared_relu": _fused("squared_relu"),
    "cross_entropy": (
        Form("triton", _in_triton("cross_entropy"), _triton_refuses),
        Form("reference", pointwise.cross_entropy, _always),
    ),
}

# The form that `use` asks for, in this thread.  Read by getattr: torch.compile follows that, and a ContextVar not.
_asked = threading.local()


def asked() -> str | None:
    """The form that an enclosing `use` asks for."""
    form: str | None = getattr(_asked, "form", None)
    return form


def call(op: str, like: Tensor, inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Compute `op` with the first form that serves.

    `like` [B, T, ...] tells length, device and dtype; `inputs` are the op's arguments in the order of its signature.
    Autocast ends here: a recurrence is computed in the dtype of its state.  Whoever follows a model's computation with
    values that are no tensors (`runtime`) is asked through PyTorch's protocol.
    """
    if has_torch_function(inputs):
        return handle_torch_function(call, inputs, op, like, inputs)
    grad = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    device = like.device.type
    wide = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in inputs)
    form = choose(op, Call(like.shape[1], device, torch.float64 if wide else like.dtype, grad, like.shape[-1]))
    if device == "meta" or not torch.is_autocast_enabled(device):
        return cast("tuple[Tensor, Tensor]", form.function(*inputs))
    with torch.autocast(device, enabled=False):
        return cast("tuple[Tensor, Tensor]", form.function(*inputs))


def call_fused(op: str, like: Tensor, inputs: tuple[Any, ...]) -> Any:
    """Compute an op that stands between matrix products and recurrence, under autocast where that is on.

    Whoever follows a model's computation with values that are no tensors sees PyTorch's elementary functions.
    """
    if has_torch_function((like,)):
        return plain(op)(*inputs)
    grad = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    return choose(op, Call(like.shape[1], like.device.type, like.dtype, grad, like.shape[-1])).function(*inputs)


def plain(op: str) -> Callable[..., Any]:
    """The form of an op that is made of PyTorch's elementary functions: the last one, which refuses nothing."""
    return FORMS[op][-1].function


def choose(op: str, call: Call) -> Form:
    """The form that serves a call."""
    name = asked()
    if name in forms(op):
        return next(form for form in FORMS[op] if form.name == name)
    return next(form for form in FORMS[op] if form.refuses(call) is None)


def forms(op: str) -> list[str]:
    """The names of an op's forms, in the order of preference."""
    return [form.name for form in FORMS[op]]


def explain(
    op: str,
    length: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    needs_grad: bool = False,
    size: int = 64,
) -> list[tuple[str, str | None]]:
    """Every form of `op` with None where it serves such a call, or the sentence why it does not."""
    call = Call(length, device, dtype, needs_grad, size)
    serving = choose(op, call).name
    reasons: list[tuple[str, str | None]] = []
    for form in FORMS[op]:
        standing_by = f"{serving} was asked for" if asked() == serving else f"{serving} comes first"
        reasons.append((form.name, None if form.name == serving else form.refuses(call) or standing_by))
    return reasons


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as it would be called here: with the form that is asked for, also in another thread, or later.

    What is computed again for a backward pass is computed by PyTorch's own threads on a GPU.
    """
    form = asked()

    def call(*inputs: Any) -> Any:
        with use(form) if form else nullcontext():
            return function(*inputs)

    return call


@contextmanager
def use(name: str) -> Iterator[None]:
    """Within this block, in this thread, every op that has a form called `name` is computed by it, refusing or not.

    Raises InputError at once where no op has such a form.
    """
    if not any(name in forms(op) for op in FORMS):
        raise InputError(f"no op has a form called {name!r}")
    before, _asked.form = asked(), name
    try:
        yield
    finally:
        _asked.form = before
