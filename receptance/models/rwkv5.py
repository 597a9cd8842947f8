"""RWKV-5 "Eagle" (Peng et al. 2024, arXiv 2404.05892), in its three released forms.

    S_t = S_{t-1} diag(w) + v_t k_t^T,   w = exp(-exp(decay))
    y_t = (S_{t-1} + v_t (u k_t)^T) r_t
    o_t = W_o (SiLU(W_g x_g) * norm(y_t))

5.0 has no gate and one decay a head, 5.1 adds the gate, 5.2 has a decay for every channel (the paper's Eagle).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Config
from ..ops import lerps, read_out, token_shift, wkv6
from . import rwkv4
from .layers import Depth, Part, Rows, empty, fill, orthogonal


class TimeMix(Part):
    """x [B, T, C] -> [B, T, C], with the state S [B, H, N, N]."""

    lr_multiples: ClassVar = {"time_decay": 2.0, "time_first": 3.0}
    elementwise: ClassVar = frozenset({"time_decay", "time_first", "time_faaaa"})
    op: ClassVar = "wkv6"

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        C, A, H, N = config.dim, config.attention_dim, config.num_heads, config.head_size
        self.head_shape = (H, N)
        self.per_channel = config.version == "5.2"
        self.log_bonus = config.log_bonus
        per_head = (H, N) if self.per_channel else (H,)
        self.time_decay = empty(*per_head)
        if self.log_bonus:
            self.time_first = empty(*per_head)
        else:
            self.time_faaaa = empty(*per_head)
        self.time_mix_k, self.time_mix_v, self.time_mix_r = (empty(1, 1, C) for _ in range(3))
        self.receptance = nn.Linear(C, A, bias=False)
        self.key = nn.Linear(C, A, bias=False)
        self.value = nn.Linear(C, A, bias=False)
        self.output = nn.Linear(A, C, bias=False)
        self.gate: nn.Linear | None = None
        if config.version != "5.0":
            self.time_mix_g = empty(1, 1, C)
            self.gate = nn.Linear(C, A, bias=False)
        self.ln_x = nn.GroupNorm(H, A, eps=config.group_norm_eps)

    def forward(
        self, x: Tensor, v_first: Tensor | None, last: Tensor, S: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        prev, last = token_shift(x, last, rows.lengths, rows.first)
        mixes = [self.time_mix_r, self.time_mix_k, self.time_mix_v]
        if self.gate is not None:
            mixes.append(self.time_mix_g)
        xr, xk, xv, *xg = lerps(prev, x, mixes)
        r, k, v = self.receptance(xr), rows.hold(self.key(xk)), self.value(xv)
        gate = None if self.gate is None else F.silu(self.gate(*xg))
        log_w = rows.hold(-torch.exp(self._for_channels(self.time_decay).type_as(S)).flatten().expand_as(k))

        r, log_w, k, v = (y.unflatten(-1, self.head_shape) for y in (r, log_w, k, v))
        y, S = wkv6(r, log_w, k, v, S, rows.first)
        norm = self.ln_x
        y = read_out(y, r, k, v, self.bonus, gate, norm.weight, norm.bias, norm.eps, bonus_first=True)
        return self.output(y), v_first, last, S

    @property
    def bonus(self) -> Tensor:
        """u [H, N]."""
        return self._for_channels(torch.exp(self.time_first) if self.log_bonus else self.time_faaaa)

    def _for_channels(self, x: Tensor) -> Tensor:
        """[H, N], or [H] for a whole head -> [H, N]."""
        return x if self.per_channel else x[:, None].expand(self.head_shape)

    @staticmethod
    def recurrence_flops(config: Config) -> int:
        """Per token and layer, as the paper counts: 6 D^2 / h."""
        return 6 * config.attention_dim * config.head_size

    def reset_parameters(self) -> None:
        """The official initialisation: RWKV-5.2 of `RWKV-v5/src/model.py`, 5.0 and 5.1 of `RWKV-v4neo`."""
        C, depth, width = self.time_mix_k.numel(), self.depth, self.time_decay.numel()
        fill(self.time_mix_k, depth.ramp(C, depth.down))
        fill(self.time_mix_v, depth.ramp(C, depth.down) + 0.3 * depth.up)
        fill(self.time_mix_r, depth.ramp(C, 0.5 * depth.down))
        fill(self.time_decay, depth.climb(width, -6.0, 5.0, 0.7 + 1.3 * depth.up))
        if self.log_bonus:
            fill(self.time_first, -3.0)
        else:
            fill(self.time_faaaa, initial_bonus(depth, width, zigzag=self.per_channel))
        fill(self.ln_x.weight, depth.norm_scale)
        fill(self.ln_x.bias, 0.0)
        fill(self.output.weight, 0.0)
        for linear, gain in ((self.receptance, 1.0), (self.value, 1.0), (self.key, 0.1), (self.gate, 0.1)):
            if linear is not None:
                orthogonal(linear.weight, gain if self.per_channel else 1.0, scale_tall=not self.per_channel)
        if self.gate is not None:
            fill(self.time_mix_g, depth.ramp(C, 0.5 * depth.down))


class ChannelMix(rwkv4.ChannelMix):
    """RWKV-4's; only the initialisation of 5.2 differs."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.stretched = config.version != "5.2"

    def reset_parameters(self) -> None:
        super().reset_parameters()
        orthogonal(self.key.weight, scale_tall=self.stretched)


def initial_bonus(depth: Depth, width: int, zigzag: bool) -> Tensor:
    """u falls over the channels, the steeper the deeper the layer; with a zigzag of +-0.1 where it is per channel."""
    n = torch.arange(width)
    bonus = depth.up * (1 - n / max(1, width - 1))
    return bonus + 0.1 * ((n + 1) % 3 - 1) if zigzag else bonus
