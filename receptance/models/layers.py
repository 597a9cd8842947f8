"""What more than one generation needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..config import Config
from ..ops import squared_relu


class Rows(NamedTuple):
    """Where the rows of a batch end, and where documents in them begin.

    lengths [B] int64  how many tokens of each row are real; None: all
    live [B, T] bool   the same as a mask
    first [B, T] bool  tokens before which everything is forgotten; None: nowhere
    """

    lengths: Tensor | None = None
    live: Tensor | None = None
    first: Tensor | None = None

    @classmethod
    def of(cls, lengths: Tensor | None, first: Tensor | None, length: int) -> Rows:
        """For a batch of `length` tokens a row."""
        if lengths is None:
            return cls(first=first)
        live = torch.arange(length, device=lengths.device) < lengths[:, None]
        return cls(lengths, live, None if first is None else first & live)

    def hold(self, x: Tensor, value: float = 0.0) -> Tensor:
        """x [B, T, A] with `value` where a row has ended, so that the op takes identity steps there."""
        return x if self.live is None else x.masked_fill(~self.live[..., None], value)


class Depth(NamedTuple):
    """Where a layer stands, as the official initialisations count it."""

    layer: int
    num_layers: int

    @property
    def up(self) -> float:
        """0 at the first layer, 1 at the last: the official `ratio_0_to_1`."""
        return self.layer / max(1, self.num_layers - 1)

    @property
    def down(self) -> float:
        """1 at the first layer, 1/L at the last: the official `ratio_1_to_almost0`."""
        return 1.0 - self.layer / self.num_layers

    def ramp(self, width: int, power: float) -> Tensor:
        """(i / width) ^ power for i in 0 .. width - 1, float32."""
        return torch.pow(torch.arange(width) / width, power)

    def climb(self, width: int, low: float, rise: float, power: float) -> Tensor:
        """low + rise * (i / (width - 1)) ^ power: the decays' initial curve."""
        return low + rise * torch.pow(torch.arange(width) / max(1, width - 1), power)

    @property
    def norm_scale(self) -> float:
        """Initial weight of the norm over the heads' outputs (RWKV-5 and later)."""
        return float(((1 + self.layer) / self.num_layers) ** 0.7)


class Part(nn.Module):
    """What a time mix and a channel mix of any generation have in common.

    A time mix is called as `att(x, v_first, last, state, rows)` and returns its output and the new v_first, last and
    state; a channel mix as `ffn(x, last, rows)` and returns its output and the new last.

    x [B, T, C]   the normalised residual stream
    v_first       what the first layer's time mix hands to all others, [B, T, C]; None into the first, and where a
                  generation has no such thing
    last [B, C]   the part's last input, for the token shift
    state         the recurrence's, [B, H, N, N] (RWKV-4: [B, 3, A])

    lr_multiples  leaf name of a parameter -> by how much its learning rate is multiplied; 1 for the others
    elementwise   parameters that are stored as matrices and not multiplied as such
    sparse_inputs linear layers whose input is mostly exact zeros, as behind a squared ReLU
    op            the recurrence that a time mix computes
    """

    lr_multiples: ClassVar[Mapping[str, float]] = {}
    elementwise: ClassVar[frozenset[str]] = frozenset()
    sparse_inputs: ClassVar[frozenset[str]] = frozenset()
    op: ClassVar[str] = ""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.depth = Depth(layer, config.num_layers)

    def reset_parameters(self) -> None:
        """The official initialisation."""
        raise NotImplementedError

    @staticmethod
    def recurrence_flops(config: Config) -> int:
        """Floating-point operations of the recurrence for one token in one layer."""
        raise NotImplementedError


class GatedChannelMix(Part):
    """Squared ReLU behind a receptance gate, RWKV-4 to 6: y = sigmoid(W_r x_r) * W_v relu(W_k x_k)^2.

    The generations differ in how they name and mix `x_k` and `x_r`, and in the initialisation.
    """

    sparse_inputs: ClassVar = frozenset({"value"})

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.key = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.receptance = nn.Linear(config.dim, config.dim, bias=False)
        self.value = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def gated(self, xk: Tensor, xr: Tensor) -> Tensor:
        """xk, xr [B, T, C] -> [B, T, C]."""
        y: Tensor = self.value(squared_relu(self.key(xk)))
        return torch.sigmoid(self.receptance(xr)) * y


def empty(*shape: int) -> nn.Parameter:
    """A parameter that `reset_parameters` or a checkpoint will fill."""
    return nn.Parameter(torch.empty(shape))


def fill(parameter: Tensor, value: Tensor | float) -> None:
    """Set a parameter, whatever its dtype and device, to values of the same number of elements."""
    with torch.no_grad():
        if isinstance(value, Tensor):
            parameter.copy_(value.view(parameter.shape))
        else:
            parameter.fill_(value)


def orthogonal(weight: Tensor, gain: float = 1.0, scale_tall: bool = False) -> None:
    """An orthogonal matrix times `gain`; `scale_tall`: also times sqrt(rows / columns) where it has more rows."""
    rows, columns = weight.shape
    stretch = (rows / columns) ** 0.5 if scale_tall and rows > columns else 1.0
    with torch.no_grad():
        # The QR decomposition behind it exists for float32 and up only.
        wide = torch.empty(rows, columns, device=weight.device)
        weight.copy_(nn.init.orthogonal_(wide, gain * stretch))
