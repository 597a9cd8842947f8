"""RWKV-6 "Finch" (Peng et al. 2024, arXiv 2404.05892).

ddlerp_j(x, p) = x + (p - x) * (maa_j + tanh((x + (p - x) * maa_x) W_1)_j W_2j)
w_t = exp(-exp(decay + tanh(x_w D_1) D_2))
S_t = S_{t-1} diag(w_t) + v_t k_t^T;   y_t = (S_{t-1} + v_t (u k_t)^T) r_t
o_t = W_o (SiLU(W_g x_g) * norm(y_t))
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Config
from ..ops import lerps, read_out, token_shift, wkv6
from .layers import GatedChannelMix, Part, Rows, empty, fill, orthogonal
from .rwkv5 import initial_bonus

NUM_MIXED = 5  # w, k, v, r, g, in the order of time_maa_w1 and time_maa_w2


class TimeMix(Part):
    """x [B, T, C] -> [B, T, C], with the state S [B, H, N, N]."""

    lr_multiples: ClassVar = {"time_decay": 2.0}
    elementwise: ClassVar = frozenset({"time_faaaa"})
    op: ClassVar = "wkv6"

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        C, A, H, N = config.dim, config.attention_dim, config.num_heads, config.head_size
        self.time_maa_x, self.time_maa_w, self.time_maa_k = (empty(1, 1, C) for _ in range(3))
        self.time_maa_v, self.time_maa_r, self.time_maa_g = (empty(1, 1, C) for _ in range(3))
        self.time_maa_w1 = empty(C, NUM_MIXED * config.mix_rank)
        self.time_maa_w2 = empty(NUM_MIXED, config.mix_rank, C)
        self.time_decay = empty(1, 1, A)
        self.time_decay_w1, self.time_decay_w2 = empty(C, config.decay_rank), empty(config.decay_rank, A)
        self.time_faaaa = empty(H, N)
        self.receptance = nn.Linear(C, A, bias=False)
        self.key = nn.Linear(C, A, bias=False)
        self.value = nn.Linear(C, A, bias=False)
        self.gate = nn.Linear(C, A, bias=False)
        self.output = nn.Linear(A, C, bias=False)
        self.ln_x = nn.GroupNorm(H, A, eps=config.group_norm_eps)

    def forward(
        self, x: Tensor, v_first: Tensor | None, last: Tensor, S: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        prev, last = token_shift(x, last, rows.lengths, rows.first)
        xw, xk, xv, xr, xg = self.ddlerp(x, prev)

        r, v, g = self.receptance(xr), self.value(xv), F.silu(self.gate(xg))
        k = rows.hold(self.key(xk))
        decay = self.time_decay.type_as(S) + (torch.tanh(xw @ self.time_decay_w1) @ self.time_decay_w2).type_as(S)
        log_w = rows.hold(-torch.exp(decay))

        r, log_w, k, v = (x.unflatten(-1, self.time_faaaa.shape) for x in (r, log_w, k, v))
        y, S = wkv6(r, log_w, k, v, S, rows.first)
        norm = self.ln_x
        y = read_out(y, r, k, v, self.time_faaaa, g, norm.weight, norm.bias, norm.eps, bonus_first=True)
        return self.output(y), v_first, last, S

    def ddlerp(self, x: Tensor, prev: Tensor) -> list[Tensor]:
        """x and the input before it, mixed for w, k, v, r and g by amounts that depend on both."""
        amounts = (self.time_maa_w, self.time_maa_k, self.time_maa_v, self.time_maa_r, self.time_maa_g)
        (xx,) = lerps(x, prev, (self.time_maa_x,))
        low = torch.tanh(xx @ self.time_maa_w1).unflatten(-1, (NUM_MIXED, -1))
        return lerps(x, prev, amounts, torch.stack([low[..., i, :] @ self.time_maa_w2[i] for i in range(NUM_MIXED)]))

    @staticmethod
    def recurrence_flops(config: Config) -> int:
        """Per token and layer, as the paper counts: 6 D^2 / h."""
        return 6 * config.attention_dim * config.head_size

    def reset_parameters(self) -> None:
        """The official initialisation (`RWKV-v5/src/model.py`)."""
        C, A, depth = self.time_maa_x.numel(), self.time_decay.numel(), self.depth
        ramp = depth.ramp(C, depth.down)
        for amount in (self.time_maa_x, self.time_maa_w, self.time_maa_k):
            fill(amount, 1 - ramp)
        fill(self.time_maa_v, 1 - (ramp + 0.3 * depth.up))
        for amount in (self.time_maa_r, self.time_maa_g):
            fill(amount, 1 - depth.ramp(C, 0.5 * depth.down))
        for down, up in ((self.time_maa_w1, self.time_maa_w2), (self.time_decay_w1, self.time_decay_w2)):
            fill(down, 0.0)
            nn.init.uniform_(up, -0.01, 0.01)
        fill(self.time_decay, depth.climb(A, -6.0, 5.0, 0.7 + 1.3 * depth.up))
        fill(self.time_faaaa, initial_bonus(depth, A, zigzag=True))
        fill(self.ln_x.weight, depth.norm_scale)
        fill(self.ln_x.bias, 0.0)
        for linear, gain in ((self.receptance, 1.0), (self.value, 1.0), (self.key, 0.1), (self.gate, 0.1)):
            orthogonal(linear.weight, gain)
        fill(self.output.weight, 0.0)


class ChannelMix(GatedChannelMix):
    """x [B, T, C] -> [B, T, C]."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.time_maa_k, self.time_maa_r = (empty(1, 1, config.dim) for _ in range(2))

    def forward(self, x: Tensor, last: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        prev, last = token_shift(x, last, rows.lengths, rows.first)
        return self.gated(*lerps(x, prev, (self.time_maa_k, self.time_maa_r))), last

    def reset_parameters(self) -> None:
        ramp = self.depth.ramp(self.time_maa_k.numel(), self.depth.down**3)
        fill(self.time_maa_k, 1 - ramp)
        fill(self.time_maa_r, 1 - ramp)
        orthogonal(self.key.weight)
        fill(self.receptance.weight, 0.0)
        fill(self.value.weight, 0.0)
