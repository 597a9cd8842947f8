"""What RWKV is compared with: a Transformer and an LSTM, called exactly as an RWKV is called.

    model = Transformer.like(rwkv)                 # same depth and width, about as many parameters
    logits, state = model(tokens)                  # tokens [B, T]
    logits, state = model(more_tokens, state)      # goes on where the first call stopped

Whole, cut anywhere or token by token gives the same logits.  Both peers are modern and honest: the Transformer is
pre-norm with RMS norms, rotary positions (2104.09864), SwiGLU (2002.05202), PyTorch's fused attention and a cache of
keys and values that costs one write a token; the LSTM is PyTorch's own fused one.

Letters: B rows, T tokens, S tokens seen so far, L layers, C width, H heads, N head size, F width of the feed-forward.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ConfigError


class _Storage:
    """The memory under one or several tapes; `filled` is how far the longest of them has written."""

    __slots__ = ("filled", "tensor")

    def __init__(self, tensor: Tensor, filled: int) -> None:
        self.tensor = tensor
        self.filled = filled


class Tape:
    """A tensor [..., S, N] that grows along S and is still a value.

    `append` returns a longer tape and leaves this one as it was.  A tape that nothing has been appended to yet lends
    its spare memory to the longer one, so that a token costs one write; a second append to the same tape (a fork)
    copies it.  Memory doubles when it runs out.  Where autograd records, every append copies, since autograd must keep
    what it has seen unchanged.
    """

    __slots__ = ("_storage", "length")

    def __init__(self, storage: _Storage, length: int) -> None:
        self._storage = storage
        self.length = length

    @classmethod
    def holding(cls, tensor: Tensor, capacity: int = 0) -> Tape:
        """A tape of `tensor` [..., S, N] with memory for `capacity` places (S or more)."""
        length = tensor.shape[-2]
        if capacity <= length:
            return cls(_Storage(tensor, length), length)
        memory = tensor.new_empty(*tensor.shape[:-2], capacity, tensor.shape[-1])
        memory[..., :length, :] = tensor
        return cls(_Storage(memory, length), length)

    @property
    def tensor(self) -> Tensor:
        """[..., S, N], a view."""
        return self._storage.tensor[..., : self.length, :]

    def append(self, new: Tensor) -> Tape:
        """This tape with `new` [..., T, N] at its end."""
        length = self.length + new.shape[-2]
        if torch.is_grad_enabled():
            return Tape.holding(torch.cat([self.tensor, new], -2))
        memory = self._storage.tensor
        newest = self._storage.filled == self.length
        # A tensor made in inference mode may not be written to outside of it.
        writable = torch.is_inference_mode_enabled() or not memory.is_inference()
        tape = self
        if not newest or not writable or length > memory.shape[-2] or memory.dtype != new.dtype:
            tape = Tape.holding(self.tensor.to(new.dtype), capacity=max(2 * self.length, length, 64))
        tape._storage.tensor[..., self.length : length, :] = new
        tape._storage.filled = length
        return Tape(tape._storage, length)


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


class LSTMState(NamedTuple):
    """An LSTM's state: hidden and cell, each [L, B, C]."""

    hidden: Tensor
    cell: Tensor

    @property
    def num_bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self)

    def rows(self, index: Any) -> LSTMState:
        """The rows of the batch that `index` picks, copied."""
        return LSTMState(self.hidden[:, index].clone(), self.cell[:, index].clone())

    def detach(self) -> LSTMState:
        """The same values, cut off from the graph that made them."""
        return LSTMState(self.hidden.detach(), self.cell.detach())


class Peer(nn.Module):
    """What the two peers share: the call, and the groups for the optimiser."""

    head: nn.Linear

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens [B, T] to what the head reads [B, T, C], and the state after them."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens [B, T] to logits [B, T, V], and the state after them."""
        x, state = self.features(tokens, state)
        return self.head(x), state

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for torch.optim.AdamW: matrices decay, vectors do not, all learn at the same rate."""
        groups: list[dict[str, Any]] = []
        for decays in (True, False):
            named = [(name, p) for name, p in self.named_parameters() if (p.dim() >= 2) == decays]
            group: dict[str, Any] = {"params": [p for _, p in named], "names": [name for name, _ in named]}
            groups.append(group | {"lr": lr, "lr_multiple": 1.0, "weight_decay": weight_decay if decays else 0.0})
        return groups


def _closest_size(model: nn.Module, make: Callable[[int], nn.Module], step: int = 8) -> int:
    """The multiple of `step` with which `make` comes closest to the model's number of parameters."""

    def excess(size: int) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in make(size).parameters()) - wanted

    wanted = sum(p.numel() for p in model.parameters())
    sizes = range(step, 2**20, step)
    first_too_large = bisect_right(sizes, 0, key=excess)
    return min(sizes[max(0, first_too_large - 1) : first_too_large + 1], key=lambda size: abs(excess(size)))


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
        return make(_closest_size(model, make))

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


class LSTM(Peer):
    """Embedding, PyTorch's stacked LSTM, layer norm, head."""

    def __init__(self, vocab_size: int, num_layers: int, dim: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab_size, dim)
        self.lstm = nn.LSTM(dim, dim, num_layers, batch_first=True)
        self.ln_out = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        nn.init.normal_(self.emb.weight, std=0.02)
        for name, bias in self.lstm.named_parameters():
            # The gates lie as input, forget, cell, output; a forget gate that starts open lets gradients through.
            if name.startswith("bias_ih"):
                nn.init.ones_(bias[dim : 2 * dim])

    @classmethod
    def like(cls, model: Any) -> Self:
        """Depth of an RWKV, and the width that gives about as many parameters."""
        make = partial(cls, model.config.vocab_size, model.config.num_layers)
        return make(_closest_size(model, make))

    def zero_state(self, rows: int) -> LSTMState:
        """The state before the first token, for `rows` sequences."""
        zeros = self.emb.weight.detach().new_zeros(self.lstm.num_layers, rows, self.lstm.hidden_size)
        return LSTMState(zeros, zeros.clone())

    def features(self, tokens: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """Tokens [B, T] to what the head reads [B, T, C], and the state after them."""
        state = self.zero_state(tokens.shape[0]) if state is None else state
        x, (hidden, cell) = self.lstm(self.emb(tokens), tuple(state))
        return self.ln_out(x), LSTMState(hidden, cell)
