"""RWKV-4 "Dove" (Peng et al. 2023, arXiv 2305.13048).

r_t = W_r (mu_r x_t + (1 - mu_r) x_{t-1}), and likewise k and v
wkv_t = (sum_{i<t} e^{-(t-1-i)w + k_i} v_i + e^{u + k_t} v_t) / (the same sum without v)
o_t = W_o (sigmoid(r_t) * wkv_t)
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import Config
from ..ops import lerps, token_shift, wkv4
from .layers import GatedChannelMix, Part, Rows, empty, fill, orthogonal


class TimeMix(Part):
    """x [B, T, C] -> [B, T, C], with the state [B, 3, A]."""

    lr_multiples: ClassVar = {"time_decay": 2.0, "time_first": 3.0}
    op: ClassVar = "wkv4"

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        C, A = config.dim, config.attention_dim
        self.time_decay, self.time_first = empty(A), empty(A)
        self.time_mix_k, self.time_mix_v, self.time_mix_r = (empty(1, 1, C) for _ in range(3))
        self.key = nn.Linear(C, A, bias=False)
        self.value = nn.Linear(C, A, bias=False)
        self.receptance = nn.Linear(C, A, bias=False)
        self.output = nn.Linear(A, C, bias=False)

    def forward(
        self, x: Tensor, v_first: Tensor | None, last: Tensor, state: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        prev, last = token_shift(x, last, rows.lengths, rows.first)
        xk, xv, xr = lerps(prev, x, (self.time_mix_k, self.time_mix_v, self.time_mix_r))
        k, v, r = self.key(xk), self.value(xv), self.receptance(xr)

        log_w = -torch.exp(self.time_decay.type_as(state)).expand_as(k)
        y, state = wkv4(rows.hold(log_w), self.time_first, rows.hold(k, -math.inf), v, state, rows.first)
        return self.output(torch.sigmoid(r) * y), v_first, last, state

    @staticmethod
    def recurrence_flops(config: Config) -> int:
        """The paper counts the matrix products only."""
        return 0

    def reset_parameters(self) -> None:
        """The official initialisation (where paper and code differ, the code)."""
        C, depth = self.time_mix_k.numel(), self.depth
        fill(self.time_decay, depth.climb(self.time_decay.numel(), -5.0, 8.0, 0.7 + 1.3 * depth.up))
        zigzag = 0.5 * ((torch.arange(self.time_first.numel()) + 1) % 3 - 1)
        fill(self.time_first, math.log(0.3) + zigzag)
        fill(self.time_mix_k, depth.ramp(C, depth.down))
        fill(self.time_mix_v, depth.ramp(C, depth.down) + 0.3 * depth.up)
        fill(self.time_mix_r, depth.ramp(C, 0.5 * depth.down))
        for linear in (self.key, self.receptance, self.output):
            fill(linear.weight, 0.0)
        orthogonal(self.value.weight, scale_tall=True)


class ChannelMix(GatedChannelMix):
    """x [B, T, C] -> [B, T, C]."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.time_mix_k, self.time_mix_r = (empty(1, 1, config.dim) for _ in range(2))

    def forward(self, x: Tensor, last: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        prev, last = token_shift(x, last, rows.lengths, rows.first)
        return self.gated(*lerps(prev, x, (self.time_mix_k, self.time_mix_r))), last

    def reset_parameters(self) -> None:
        ramp = self.depth.ramp(self.time_mix_k.numel(), self.depth.down)
        fill(self.time_mix_k, ramp)
        fill(self.time_mix_r, ramp)
        fill(self.receptance.weight, 0.0)
        fill(self.value.weight, 0.0)
        orthogonal(self.key.weight, scale_tall=True)
