"""The mathematics of RWKV on tensors: a few ops, each with several forms of the same function.

Letters, everywhere in this package:
    B rows   T time   H heads   N head size   C model width   A width of the time mix (= H N)
    S [B, H, N, N] is the state, written S[v, k]: the first axis is the value's, the second the key's.

    wkv7         S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T      y_t = S_t r_t         RWKV-7  (2503.14456)
    wkv6         S_t = S_{t-1}  diag(w_t)              + v_t k_t^T      y_t = S_{t-1} r_t     RWKV-5, 6 (2404.05892)
    wkv4         a weighted mean with decaying weights, per channel                           RWKV-4  (2305.13048)
    token_shift  the input of the step before

and what stands between these and the matrix products: lerps, delta_inputs (RWKV-7), read_out, squared_relu; and
cross_entropy, behind the last of them.

Conventions that hold for every recurrence and every form:
  * The decay is given as `log_w = log w <= 0`.
  * The state has the dtype in which the recurrence is computed: float32, or float64 in a float64 model, also under
    autocast.  Inputs of a lower precision are widened to it; `y` has the dtype of `v`.  (In Triton, where all but the
    decay is bfloat16, the factors of a chunk's matrix products are too, and sums float32.)
  * A state goes in and a new one comes out; no input is changed.
  * `first [B, T]` (bool, or None) marks the tokens before which everything is forgotten: the state is set to its empty
    value before that step.  Never express it by a decay of -inf: the chunked form of wkv7 divides by decays.
  * A row that has ended takes identity steps, made by the caller before the op: log_w = 0 and k = 0 and b = 0
    (wkv4: log_w = 0 and k = -inf).  Such a step leaves the state alone, bit for bit, so no form knows about lengths.
  * Gradients flow to every input, the state included.

Which form serves a call is decided in `dispatch.py`, which also says why the others did not.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import InputError
from .dispatch import FORMS, call, call_fused, explain, forms, remembered, use
from .pointwise import IGNORED

__all__ = [
    "FORMS",
    "IGNORED",
    "OPS",
    "call",
    "cross_entropy",
    "delta_inputs",
    "explain",
    "forms",
    "lerps",
    "read_out",
    "remembered",
    "squared_relu",
    "token_shift",
    "use",
    "wkv4",
    "wkv6",
    "wkv7",
]


def wkv7(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The generalised delta rule of RWKV-7 (2503.14456).

    r, log_w, k, v, a, b [B, T, H, N]; state [B, H, N, N]; first [B, T] bool  ->  y [B, T, H, N], state [B, H, N, N].
    RWKV-7 calls it with a = -kappa and b = kappa * rate, kappa a unit vector per head, and -e^{-1/2} <= log_w <= 0;
    the forms in chunks rely on that bound (they divide by the decay of up to 32 steps) and give NaN far beyond it, the
    reference and Numba take any log_w <= 0.
    Raises InputError where the shapes do not agree.
    """
    _same_shape("wkv7", r=r, log_w=log_w, k=k, v=v, a=a, b=b)
    _square_state("wkv7", v, state, first)
    y, state = call("wkv7", v, (r, log_w, k, v, a, b, state, first))
    return y, state


def wkv6(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated linear recurrence of RWKV-5 and 6 (2404.05892): reads the state before the step's write.

    r, log_w, k, v [B, T, H, N]; state [B, H, N, N]; first [B, T] bool  ->  y [B, T, H, N], state [B, H, N, N].
    Any log_w <= 0 is served to rounding, however negative.  The bonus (r . (u k)) v for the current token is
    elementwise and stays in the model file.  Raises InputError where the shapes do not agree.
    """
    _same_shape("wkv6", r=r, log_w=log_w, k=k, v=v)
    _square_state("wkv6", v, state, first)
    y, state = call("wkv6", v, (r, log_w, k, v, state, first))
    return y, state


def wkv4(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The attention-free recurrence of RWKV-4 (2305.13048).

    log_w, k, v [B, T, A]; u [A]; state [B, 3, A]; first [B, T] bool  ->  y [B, T, A], state [B, 3, A].

        y_t = (num_{t-1} + e^{u + k_t} v_t) / (den_{t-1} + e^{u + k_t})
        num_t = e^{log_w} num_{t-1} + e^{k_t} v_t        den_t = e^{log_w} den_{t-1} + e^{k_t}

    The state holds (num, den, max) with num and den divided by e^max, where max is the largest exponent met so far;
    empty it is (0, 0, EMPTY_MAX).  Where an ended row meets an empty state, y is 0.
    Raises InputError where the shapes do not agree.
    """
    _same_shape("wkv4", log_w=log_w, k=k, v=v)
    if state.shape != (v.shape[0], 3, v.shape[2]) or u.shape != v.shape[2:]:
        raise InputError(f"wkv4 got u {list(u.shape)} and a state {list(state.shape)} for v {list(v.shape)}")
    _check_first("wkv4", v, first)
    y, state = call("wkv4", v, (log_w, u, k, v, state, first))
    return y, state


def token_shift(
    x: Tensor, last: Tensor, lengths: Tensor | None = None, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The input before each one, and the one to remember (2305.13048).

    x [B, T, C]; last [B, C], the input before x[:, 0]; lengths [B] (None: all T); first [B, T] bool
    ->  prev [B, T, C] with prev[:, t] = x[:, t-1], or 0 where first; and each row's last real input [B, C], which is
    `last` itself where lengths is 0.  Raises InputError where the shapes do not agree.
    """
    if last.shape != (x.shape[0], x.shape[2]):
        raise InputError(f"token_shift got x {list(x.shape)} and last {list(last.shape)}; last must be [B, C]")
    _check_first("token_shift", x, first)
    prev, last = call("token_shift", x, (x, last, lengths, first))
    return prev, last


def lerps(start: Tensor, end: Tensor, weights: Sequence[Tensor], offsets: Tensor | None = None) -> list[Tensor]:
    """The token shift's mixtures (2404.05892): start + (end - start) * (weight_j + offsets_j), for each j.

    start, end [B, T, C]; weights n of [1, 1, C]; offsets [n, B, T, C] (None: 0)  ->  n of [B, T, C].
    """
    mixed: list[Tensor] = call_fused("lerps", start, (start, end, weights, offsets))
    return mixed


def delta_inputs(
    w: Tensor,
    rate: Tensor,
    k: Tensor,
    v: Tensor,
    residual: tuple[Tensor, Tensor, Tensor] | None,
    w_0: Tensor,
    a_0: Tensor,
    k_k: Tensor,
    k_a: Tensor,
    head_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """From RWKV-7's matrix products to what `wkv7` takes (2503.14456): log_w, k, v, a, b, all [B, T, C].

        log_w = -e^{-1/2} sigmoid(w_0 + w)         rate = sigmoid(a_0 + rate)
        kappa = k k_k, made a unit vector per head              a = -kappa    b = kappa rate
        k <- k (1 + (rate - 1) k_a)                v <- v + (v_first - v) sigmoid(v_0 + share)

    w, rate, k, v [B, T, C]; residual (v_first, share [B, T, C], v_0 [1, 1, C]), or None: v stays; the others [1, 1, C].
    log_w has the dtype of w, which is the state's; the others those of k and v.
    """
    inputs = (w, rate, k, v, residual, w_0, a_0, k_k, k_a, head_size)
    log_w, k, v, a, b = call_fused("delta_inputs", k, inputs)
    return log_w, k, v, a, b


def read_out(
    y: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    bonus: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    bonus_first: bool = False,
) -> Tensor:
    """What the heads give: (norm(y) + (sum r k bonus) v) gate, and with `bonus_first` norm(y + (sum r k bonus) v) gate.

    y, r, k, v [B, T, H, N]; bonus [H, N]; gate [B, T, A] (None: 1)  ->  [B, T, A] in the dtype of r.
    The norm is over each head's N numbers, with weight and bias [A].
    """
    out: Tensor = call_fused("read_out", r, (y, r, k, v, bonus, gate, weight, bias, eps, bonus_first))
    return out


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 of x [B, T, F]."""
    y: Tensor = call_fused("squared_relu", x, (x,))
    return y


def cross_entropy(logits: Tensor, targets: Tensor, l2wrap: float = 0.0) -> Tensor:
    """The sum of R positions' cross entropies, in nats.

    logits [R, V]; targets [R] int64, IGNORED where a position does not count  ->  [] in float32, or float64 of such.
    L2Wrap (RWKV-LM, `src/model.py`): each counted position's largest logit gets the gradient l2wrap * logit besides,
    times the gradient that arrives at the sum.
    """
    loss: Tensor = call_fused("cross_entropy", logits, (logits, targets, l2wrap))
    return loss


OPS = {"wkv4": wkv4, "wkv6": wkv6, "wkv7": wkv7, "token_shift": token_shift}


def _same_shape(op: str, **tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise InputError(f"{op} needs inputs of one shape, got {got}")


def _square_state(op: str, v: Tensor, state: Tensor, first: Tensor | None) -> None:
    if v.dim() != 4 or state.shape != (v.shape[0], v.shape[2], v.shape[3], v.shape[3]):
        shapes = f"v {list(v.shape)} and a state {list(state.shape)}"
        raise InputError(f"{op} got {shapes}; it needs [B, T, H, N] and [B, H, N, N]")
    _check_first(op, v, first)


def _check_first(op: str, x: Tensor, first: Tensor | None) -> None:
    if first is not None and first.shape != x.shape[:2]:
        raise InputError(f"{op} got first {list(first.shape)}; it marks tokens and must be {list(x.shape[:2])}")
