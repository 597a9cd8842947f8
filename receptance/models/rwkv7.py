"""RWKV-7 "Goose" (Peng et al. 2025, arXiv 2503.14456).

w_t = exp(-e^{-1/2} sigmoid(w_0 + tanh(x_w W_1) W_2))        the decay of each key channel
a_t = sigmoid(a_0 + x_a A_1 A_2)                             the in-context learning rate
kappa_t = k_t * k_k, made a unit vector per head             the key that is removed
k_t <- k_t * (1 + (a_t - 1) * k_a)                           the key that is written
v_t <- v_t + (v_t^{first layer} - v_t) * sigmoid(v_0 + x_v V_1 V_2)
S_t = S_{t-1} (diag(w_t) - kappa_t (a_t * kappa_t)^T) + v_t k_t^T;   y_t = S_t r_t
o_t = W_o ((norm(y_t) + (sum r_t * k_t * r_k) v_t) * sigmoid(x_g G_1) G_2)
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import Config
from ..ops import delta_inputs, lerps, read_out, squared_relu, token_shift, wkv7
from .layers import Part, Rows, empty, fill, orthogonal


class TimeMix(Part):
    """x [B, T, C] -> [B, T, C], with the state S [B, H, N, N]; `v_first` [B, T, C] are the first layer's values."""

    lr_multiples: ClassVar = {"w0": 2.0}
    elementwise: ClassVar = frozenset({"r_k"})
    op: ClassVar = "wkv7"

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        C, H, N = config.dim, config.num_heads, config.head_size
        self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g = (empty(1, 1, C) for _ in range(6))
        self.w0, self.w1, self.w2 = empty(1, 1, C), empty(C, config.decay_rank), empty(config.decay_rank, C)
        self.a0, self.a1, self.a2 = empty(1, 1, C), empty(C, config.rate_rank), empty(config.rate_rank, C)
        if layer > 0:  # the first layer has no earlier values to mix in
            self.v0, self.v1, self.v2 = empty(1, 1, C), empty(C, config.value_rank), empty(config.value_rank, C)
        self.g1, self.g2 = empty(C, config.gate_rank), empty(config.gate_rank, C)
        self.k_k, self.k_a = empty(1, 1, C), empty(1, 1, C)
        self.r_k = empty(H, N)
        self.receptance = nn.Linear(C, C, bias=False)
        self.key = nn.Linear(C, C, bias=False)
        self.value = nn.Linear(C, C, bias=False)
        self.output = nn.Linear(C, C, bias=False)
        self.ln_x = nn.GroupNorm(H, C, eps=config.group_norm_eps)

    def forward(
        self, x: Tensor, v_first: Tensor | None, last: Tensor, S: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        prev, last = token_shift(x, last, rows.lengths, rows.first)
        xr, xw, xk, xv, xa, xg = lerps(x, prev, (self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g))

        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)
        w, rate = (torch.tanh(xw @ self.w1) @ self.w2).type_as(S), (xa @ self.a1) @ self.a2
        gate = torch.sigmoid(xg @ self.g1) @ self.g2
        residual = None if v_first is None else (v_first, (xv @ self.v1) @ self.v2, self.v0)
        v_first = v if v_first is None else v_first
        log_w, k, v, a, b = delta_inputs(
            w, rate, k, v, residual, self.w0, self.a0, self.k_k, self.k_a, self.r_k.shape[1]
        )

        log_w, k, b = rows.hold(log_w), rows.hold(k), rows.hold(b)
        r, log_w, k, v, a, b = (y.unflatten(-1, self.r_k.shape) for y in (r, log_w, k, v, a, b))
        y, S = wkv7(r, log_w, k, v, a, b, S, rows.first)
        norm = self.ln_x
        return self.output(read_out(y, r, k, v, self.r_k, gate, norm.weight, norm.bias, norm.eps)), v_first, last, S

    @staticmethod
    def recurrence_flops(config: Config) -> int:
        """Per token and layer: decay, S a, two rank-one writes and the read, 9 for each number in the state."""
        return 9 * config.dim * config.head_size

    def reset_parameters(self) -> None:
        """The official initialisation (`RWKV-v7/train_temp/src/model.py`)."""
        C, depth, N = self.x_r.numel(), self.depth, self.r_k.shape[1]
        n = torch.arange(C)
        linear = n / max(1, C - 1) - 0.5
        z = (n % N - (N - 1) / 2) / max(0.5, (N - 1) / 2)
        zigzag = z * z.abs()
        for mix in (self.x_r, self.x_g):
            fill(mix, 1 - depth.ramp(C, 0.2 * depth.down))
        for mix, value in ((self.x_w, 0.9), (self.x_a, 0.9), (self.x_k, 0.7), (self.x_v, 0.7)):
            fill(mix, value)
        fill(self.w0, depth.climb(C, -6.0, 6.0, 1 + depth.up**0.3) + 0.5 + 2.5 * zigzag)
        fill(self.a0, -0.19 + 0.3 * zigzag + 0.4 * linear)
        low_rank = [(self.w1, self.w2), (self.a1, self.a2), (self.g1, self.g2)]
        if depth.layer > 0:
            fill(self.v0, 0.73 - 0.4 * linear)
            low_rank.append((self.v1, self.v2))
        for down, up in low_rank:
            fill(down, 0.0)
            orthogonal(up, 0.1, scale_tall=True)
        fill(self.k_k, 0.71 - 0.1 * linear)
        fill(self.k_a, 1.02)
        fill(self.r_k, -0.04)
        fill(self.ln_x.weight, depth.norm_scale)
        fill(self.ln_x.bias, 0.0)
        for matrix, gain in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0)):
            orthogonal(matrix.weight, gain)
        fill(self.output.weight, 0.0)


class ChannelMix(Part):
    """x [B, T, C] -> [B, T, C]: y = W_v relu(W_k x_k)^2, without RWKV-4's gate."""

    sparse_inputs: ClassVar = frozenset({"value"})

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.x_k = empty(1, 1, config.dim)
        self.key = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.value = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor, last: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        prev, last = token_shift(x, last, rows.lengths, rows.first)
        (xk,) = lerps(x, prev, (self.x_k,))
        return self.value(squared_relu(self.key(xk))), last

    def reset_parameters(self) -> None:
        fill(self.x_k, 1 - self.depth.ramp(self.x_k.numel(), self.depth.down**4))
        orthogonal(self.key.weight)
        fill(self.value.weight, 0.0)
