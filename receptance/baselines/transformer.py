"""A decoder-only Transformer, as it is built today, with a cache of keys and values as its state.

Letters: B rows, T tokens, S tokens seen so far, C width, H heads, N head size.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .peer import Peer, closest_size
from .tape import Tape


class KeyValues(NamedTuple):
    """A Transformer's state: one tape [2, B, H, S, N] a layer, keys first, then values."""

    layers: tuple[Tape, ...]

    @property
    def length(self) -> int:
        """S, the tokens seen so far."""
        return self.layers[0].length

    @property
    def num_bytes(self) -> int:
        """Bytes of the keys and values that are held, without spare memory."""
        return sum(tape.tensor.numel() * tape.tensor.element_size() for tape in self.layers)

    def rows(self, index: Any) -> KeyValues:
        """The rows of the batch that `index` picks (a slice, a list or a tensor), copied."""
        return KeyValues(tuple(Tape.holding(tape.tensor[:, index].clone()) for tape in self.layers))

    def detach(self) -> KeyValues:
        """The same values, cut off from the graph that made them."""
        return KeyValues(tuple(Tape.holding(tape.tensor.detach()) for tape in self.layers))

    @classmethod
    def random(cls, model: Transformer, rows: int, length: int, spare: int = 0) -> KeyValues:
        """A cache as full as after `length` tokens, filled with noise: to time a step without reading the context."""
        weight = model.emb.weight
        shape = (2, rows, model.num_heads, length, model.head_size)
        made = (torch.randn(shape, dtype=weight.dtype, device=weight.device) for _ in model.blocks)
        return cls(tuple(Tape.holding(tensor, capacity=length + spare) for tensor in made))


def rotary(start: int, count: int, head_size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [T, N/2] of rotary positions, of the device and dtype of `like`."""
    # In float64 and on the CPU (some devices lack it): in float32 the angle of position 100,000 is off by 0.004.
    position = torch.arange(start, start + count, dtype=torch.float64)
    pair = torch.arange(head_size // 2, dtype=torch.float64)
    angles = position[:, None] * 10_000.0 ** (-2 * pair / head_size)
    return angles.cos().to(like), angles.sin().to(like)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, H, T, N] turned by its position, channel i being paired with channel i + N/2."""
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)


class Attention(nn.Module):
    """Causal attention over the cache and the new tokens."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], past: Tape) -> tuple[Tensor, Tape]:
        B, T, C = x.shape
        qkv = self.query_key_value(x).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        tape = past.append(torch.stack([rotate(k, *turn), v]))
        keys, values = tape.tensor
        S = tape.length
        # From an empty cache the fused causal kernel serves; otherwise new token t sees the first S - T + t + 1 places.
        causal = T > 1 and S == T
        mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T) if T > 1 and not causal else None
        y = F.scaled_dot_product_attention(rotate(q, *turn), keys, values, attn_mask=mask, is_causal=causal)
        return self.output(y.transpose(1, 2).reshape(B, T, C)), tape


class FeedForward(nn.Module):
    """SwiGLU: SiLU(x W_gate) * (x W_up), then W_down."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * ffn_dim, bias=False)
        self.down = nn.Linear(ffn_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        down: Tensor = self.down(F.silu(gate) * up)
        return down


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        self.att = Attention(dim, num_heads)
        self.ffn = FeedForward(dim, ffn_dim)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], past: Tape) -> tuple[Tensor, Tape]:
        y, tape = self.att(self.ln1(x), turn, past)
        x = x + y
        return x + self.ffn(self.ln2(x)), tape


class Transformer(Peer):
    """A decoder-only Transformer.  Decode under torch.no_grad() or torch.inference_mode(): see `Tape`.

    ffn_dim of 0 means 8C/3 rounded up to a multiple of 32, which makes a layer 12 C^2 parameters.
    Raises ConfigError where the heads do not divide the width or a head has an odd size.
    """

    def __init__(self, vocab_size: int, num_layers: int, dim: int, num_heads: int, ffn_dim: int = 0) -> None:
        super().__init__()
        if dim % num_heads or dim // num_heads % 2:
            raise ConfigError(
                f"{num_heads} heads cannot share {dim} channels in even parts; choose a width that is a multiple of "
                f"{2 * num_heads}"
            )
        self.num_heads, self.head_size = num_heads, dim // num_heads
        self.emb = nn.Embedding(vocab_size, dim)
        hidden = ffn_dim or -(-8 * dim // 96) * 32
        self.blocks = nn.ModuleList(Block(dim, num_heads, hidden) for _ in range(num_layers))
        self.ln_out = nn.RMSNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2's: normal of 0.02, the projections into the residual stream smaller by sqrt(2 L)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_stream = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / ((2 * len(self.blocks)) ** 0.5 if into_stream else 1.0))

    @classmethod
    def like(cls, model: Any) -> Self:
        """Depth, width and heads of an RWKV, and the feed-forward width that gives about as many parameters."""
        config = model.config
        heads = config.num_heads or max(1, config.dim // 64)
        make = partial(cls, config.vocab_size, config.num_layers, config.dim, heads)
        return make(closest_size(model, make))

    def zero_state(self, rows: int) -> KeyValues:
        """An empty cache for `rows` sequences."""
        empty = self.emb.weight.detach().new_empty(2, rows, self.num_heads, 0, self.head_size)
        return KeyValues(tuple(Tape.holding(empty) for _ in self.blocks))

    def features(self, tokens: Tensor, state: KeyValues | None = None) -> tuple[Tensor, KeyValues]:
        """Tokens [B, T] to what the head reads [B, T, C], and the state after them."""
        state = self.zero_state(tokens.shape[0]) if state is None else state
        x, tapes = self.emb(tokens), []
        turn = rotary(state.length, tokens.shape[1], self.head_size, like=x)
        for block, past in zip(self.blocks, state.layers, strict=True):
            x, tape = block(x, turn, past)
            tapes.append(tape)
        return self.ln_out(x), KeyValues(tuple(tapes))
