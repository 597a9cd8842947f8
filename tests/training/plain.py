"""RWKV-4 and 7 and their training, written out once as plain loops over time in any dtype: what ours is compared with.

Nothing of the package is used.  Weights have the official names; the equations are those of RWKV-LM's
`RWKV-v4neo/src/model.py` and `RWKV-v7/train_temp/src/model.py`, the groups those of their `configure_optimizers`, the
update that of FusedAdam in AdamW mode.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def shifted(x: Tensor) -> Tensor:
    """[B, T, C], one step later."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def logits(w: Weights, tokens: Tensor, version: str, head_size: int) -> Tensor:
    """[B, T] to [B, T, V]."""
    x, v_first = norm(w, "blocks.0.ln0", w["emb.weight"][tokens]), None
    layer = 0
    while f"blocks.{layer}.ln1.weight" in w:
        start = f"blocks.{layer}."
        part = {name.removeprefix(start): value for name, value in w.items() if name.startswith(start)}
        y = norm(part, "ln1", x)
        if version == "7":
            y, v_first = time_mix_7(part, y, v_first, head_size)
        else:
            y = time_mix_4(part, y)
        x = x + y
        x = x + (channel_mix_7 if version == "7" else channel_mix_4)(part, norm(part, "ln2", x))
        layer += 1
    return norm(w, "ln_out", x) @ w["head.weight"].T


def time_mix_7(w: Weights, x: Tensor, v_first: Tensor | None, head_size: int) -> tuple[Tensor, Tensor]:
    B, T, C = x.shape
    H = C // head_size
    w = {name.removeprefix("att."): value for name, value in w.items()}
    xx = shifted(x) - x
    xr, xw, xk, xv, xa, xg = (x + xx * w[f"x_{name}"] for name in "rwkvag")
    r, k, v = xr @ w["receptance.weight"].T, xk @ w["key.weight"].T, xv @ w["value.weight"].T
    log_w = -F.softplus(-(w["w0"] + torch.tanh(xw @ w["w1"]) @ w["w2"])) - 0.5
    if v_first is None:
        v_first = v
    else:
        v = v + (v_first - v) * torch.sigmoid(w["v0"] + (xv @ w["v1"]) @ w["v2"])
    a = torch.sigmoid(w["a0"] + (xa @ w["a1"]) @ w["a2"])
    g = torch.sigmoid(xg @ w["g1"]) @ w["g2"]
    kk = F.normalize((k * w["k_k"]).view(B, T, H, -1), dim=-1).view(B, T, C)
    k = k * (1 + (a - 1) * w["k_a"])
    decay = torch.exp(-torch.exp(log_w))
    heads = [y.view(B, T, H, head_size) for y in (r, decay, k, v, -kk, kk * a)]
    S, out = x.new_zeros(B, H, head_size, head_size), []
    for t in range(T):
        rt, wt, kt, vt, at, bt = (y[:, t] for y in heads)
        S = S * wt[..., None, :] + (S @ at[..., None]) @ bt[..., None, :] + vt[..., None] @ kt[..., None, :]
        out.append((S @ rt[..., None])[..., 0])
    y = torch.stack(out, 1).reshape(B * T, C)
    y = F.group_norm(y, H, w["ln_x.weight"], w["ln_x.bias"], eps=64e-5).view(B, T, C)
    bonus = (heads[0] * heads[2] * w["r_k"]).sum(-1, keepdim=True) * heads[3]
    return (y + bonus.view(B, T, C)) * g @ w["output.weight"].T, v_first


def channel_mix_7(w: Weights, x: Tensor) -> Tensor:
    k = (x + (shifted(x) - x) * w["ffn.x_k"]) @ w["ffn.key.weight"].T
    return torch.relu(k) ** 2 @ w["ffn.value.weight"].T


def time_mix_4(w: Weights, x: Tensor) -> Tensor:
    w = {name.removeprefix("att."): value for name, value in w.items()}
    last = shifted(x)
    xk, xv, xr = (x * w[f"time_mix_{name}"] + last * (1 - w[f"time_mix_{name}"]) for name in "kvr")
    k, v, r = xk @ w["key.weight"].T, xv @ w["value.weight"].T, torch.sigmoid(xr @ w["receptance.weight"].T)
    decay, first = -torch.exp(w["time_decay"]), w["time_first"]
    num, den, top, out = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -1e38), []
    for t in range(k.shape[1]):
        q = torch.maximum(top, first + k[:, t])
        e, f = torch.exp(top - q), torch.exp(first + k[:, t] - q)
        out.append((e * num + f * v[:, t]) / (e * den + f))
        q = torch.maximum(top + decay, k[:, t])
        e, f = torch.exp(top + decay - q), torch.exp(k[:, t] - q)
        num, den, top = e * num + f * v[:, t], e * den + f, q
    return r * torch.stack(out, 1) @ w["output.weight"].T


def channel_mix_4(w: Weights, x: Tensor) -> Tensor:
    last = shifted(x)
    xk, xr = (x * w[f"ffn.time_mix_{name}"] + last * (1 - w[f"ffn.time_mix_{name}"]) for name in "kr")
    k = torch.relu(xk @ w["ffn.key.weight"].T) ** 2
    return torch.sigmoid(xr @ w["ffn.receptance.weight"].T) * (k @ w["ffn.value.weight"].T)


def group(name: str, value: Tensor, version: str) -> tuple[float, bool]:
    """By how much a parameter learns faster, and whether it decays."""
    is_matrix = len(value.squeeze().shape) >= 2
    if version == "7":
        return (2.0 if "att.w0" in name else 1.0), is_matrix and ".weight" in name
    for part, multiple in (("time_mix", 1.0), ("time_decay", 2.0), ("time_first", 3.0)):
        if part in name:
            return multiple, False
    return 1.0, is_matrix


class PlainTraining:
    """One parameter at a time: clipped gradients, AdamW with bias correction and decoupled decay."""

    def __init__(
        self, w: Weights, version: str, head_size: int, weight_decay: float, betas: tuple[float, float], eps: float
    ) -> None:
        self.w = {name: value.clone().requires_grad_() for name, value in w.items()}
        self.version, self.head_size = version, head_size
        self.weight_decay, self.betas, self.eps = weight_decay, betas, eps
        self.moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in w.items()}
        self.num_steps = 0

    def step(self, tokens: Tensor, rate: float) -> float:
        """Predict every next token of [B, T + 1] and move; the loss before."""
        made = logits(self.w, tokens[:, :-1], self.version, self.head_size).flatten(0, 1)
        loss = F.cross_entropy(made, tokens[:, 1:].flatten())
        # L2Wrap: the largest logit of each position gets the gradient 1e-4 / (B T) times itself.
        pull = (made.max(-1).values ** 2).sum() * (1e-4 / len(made) / 2)
        names = list(self.w)
        gradients = torch.autograd.grad(loss + pull, [self.w[name] for name in names], allow_unused=True)
        found = {name: g for name, g in zip(names, gradients, strict=True) if g is not None}
        length = math.sqrt(sum(float((g**2).sum()) for g in found.values()))
        shrink = min(1.0, 1.0 / (length + 1e-6))
        self.num_steps += 1
        with torch.no_grad():
            for name, g in found.items():
                self._move(name, g * shrink, rate)
        return loss.item()

    def _move(self, name: str, g: Tensor, rate: float) -> None:
        value, (mean, square), (b1, b2) = self.w[name], self.moments[name], self.betas
        multiple, decays = group(name, value, self.version)
        mean.mul_(b1).add_((1 - b1) * g)
        square.mul_(b2).add_((1 - b2) * g * g)
        right = mean / (1 - b1**self.num_steps)
        left = (square / (1 - b2**self.num_steps)).sqrt() + self.eps
        decay = self.weight_decay * value if decays else 0.0
        value.sub_(rate * multiple * (right / left + decay))


def cosine(step: int, total: int, warmup: int, start: float, end: float) -> float:
    """The official rate of RWKV-7 (`train_temp/src/trainer.py`), where every step has as many tokens."""
    progress = min(1.0, max(0.0, (step - warmup) / (total - warmup)))
    rate = start * ((0.5 + end / start / 2) + (0.5 - end / start / 2) * math.cos(math.pi * progress))
    return rate * (0.01 + 0.99 * step / warmup) if step < warmup else rate
