"""The skeleton that all generations share.

    logits, state = model(tokens)                      # a new sequence
    logits, state = model(tokens, state)               # the same sequence goes on
    x, state = model.features(tokens, state)           # without the head: model.head(x[:, -1]) is the last token's

One path for every length: a prompt, a chunk of one, or a single token; training or inference.  How a recurrence is
computed is decided in `ops/dispatch.py`.  No generation is named in this file.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config
from ..errors import InputError, StateError
from ..state import State
from .layers import Part, Rows, fill, orthogonal
from .versions import PARTS

WHOLE = (torch.int64, torch.int32)


class Block(nn.Module):
    """One layer: time mix and channel mix, each behind a layer norm and added to the residual stream."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        time_mix, channel_mix = PARTS[config.version]
        # The first layer normalises the embedding.
        self.ln0 = nn.LayerNorm(config.dim, eps=config.norm_eps) if layer == 0 else nn.Identity()
        self.ln1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.ln2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.att = time_mix(config, layer)
        self.ffn = channel_mix(config, layer)

    def forward(
        self, x: Tensor, v_first: Tensor | None, shift: Tensor, wkv: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """x [B, T, C]; v_first, see `Part`; shift [2, B, C] and wkv [B, ...], this layer's part of the state.

        Returns the new values of all four.
        """
        x = self.ln0(x)
        dx, v_first, last_time, wkv = self.att(self.ln1(x), v_first, shift[0], wkv, rows)
        x = x + dx
        dx, last_channel = self.ffn(self.ln2(x), shift[1], rows)
        return x + dx, v_first, torch.stack([last_time, last_channel]), wkv


class RWKV(nn.Module):
    """A language model of any generation, with the official names in `state_dict()`.

    The constructor allocates and does not initialise: use `build`, or load a checkpoint.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        # Not `nn.Embedding(V, C)`: it draws random numbers, for which the meta device loads a compiler.
        self.emb = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.dim), freeze=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.ln_out = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)

    def forward(
        self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None, first: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Read `tokens` [B, T] after `state`.

        lengths [B] int64   tokens of each row that are real, the rest is padding on the right; 0 leaves a row untouched
        first [B, T] bool   tokens before which everything is forgotten: the start of a document in a packed row

        Returns the logits [B, T, V] (those of padding mean nothing) and the state after each row's last real token.
        Raises InputError where tensors do not fit, StateError where the state is another model's.
        """
        x, state = self.features(tokens, state, lengths, first)
        return self.head(x), state

    def features(
        self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None, first: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The same without the head: what that would be applied to, [B, T, C], and the state.  Raises the same."""
        _check(tokens, lengths, first, self.config.vocab_size)
        x = self.emb(tokens)
        if state is None:
            state = State.zeros(self.config, len(tokens), x.device, x.dtype)
        else:
            if not isinstance(state, State):
                raise StateError(f"a state must be a State, got a {type(state).__name__}")
            state.check(self.config, len(tokens))
            state = state.to(dtype=x.dtype)
        rows = Rows.of(lengths, first, tokens.shape[1])

        v_first, shifts, memories = None, [], []
        for block, shift, wkv in zip(self.blocks, state.shift.unbind(), state.wkv.unbind(), strict=True):
            x, v_first, shift, wkv = block(x, v_first, shift, wkv, rows)
            shifts.append(shift)
            memories.append(wkv)
        return self.ln_out(x), State(torch.stack(shifts), torch.stack(memories))

    def zero_state(self, rows: int) -> State:
        """The empty memory of `rows` sequences, on this model's device."""
        return State.zeros(self.config, rows, self.emb.weight.device, self.emb.weight.dtype)

    def param_groups(self, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimiser, as the official trainers make them.

        Matrices decay; vectors, low-rank factors and norms do not; the parameters of the decay learn faster (each
        generation's `lr_multiples`).  Each group has "params", "names", "lr", "lr_multiple" and "weight_decay"; a
        schedule sets `group["lr"] = lr * group["lr_multiple"]`.
        """
        members: dict[tuple[float, bool], list[str]] = defaultdict(list)
        parameters = {name: p for name, p in self.named_parameters() if p.requires_grad}
        for name, parameter in parameters.items():
            decays = name.endswith(".weight") and parameter.squeeze().dim() >= 2
            members[self._lr_multiple(name), decays].append(name)
        return [
            {
                "params": [parameters[name] for name in names],
                "names": names,
                "lr": lr * multiple,
                "lr_multiple": multiple,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (multiple, decays), names in sorted(members.items())
        ]

    def _lr_multiple(self, name: str) -> float:
        time_mix, _ = PARTS[self.config.version]
        return time_mix.lr_multiples.get(name.rpartition(".")[2], 1.0)

    def reset_parameters(self, emb_scale: float = 1e-4) -> None:
        """The official initialisation: a small uniform embedding, an orthogonal head, and what each part says."""
        nn.init.uniform_(self.emb.weight, -emb_scale, emb_scale)
        orthogonal(self.head.weight, 0.5, scale_tall=True)
        for norm in (m for m in self.modules() if isinstance(m, nn.LayerNorm)):
            fill(norm.weight, 1.0)
            fill(norm.bias, 0.0)
        for part in (m for m in self.modules() if isinstance(m, Part)):
            part.reset_parameters()


def num_parameters(model: nn.Module) -> int:
    """How many numbers are learnt; works on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_per_token(model: RWKV) -> int:
    """Floating-point operations of one token's forward pass; training takes three times as many.

    Two for every weight of a matrix product (the embedding is a look-up) and those of the recurrence; elementwise work
    is left out.  RWKV-4's paper counts the same; Eagle and Finch's counts the embedding and the vectors too.
    """
    config = model.config
    time_mix, _ = PARTS[config.version]
    matrices = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.squeeze().dim() >= 2
        and name != "emb.weight"
        and name.rpartition(".")[2] not in time_mix.elementwise
    )
    return 2 * matrices + config.num_layers * time_mix.recurrence_flops(config)


def _check(tokens: Tensor, lengths: Tensor | None, first: Tensor | None, vocab_size: int) -> None:
    """Raise InputError for a call that cannot be served.  Values are looked at on the CPU only, where that is free."""
    for name, given in (("tokens", tokens), ("lengths", lengths), ("first", first)):
        if given is not None and not isinstance(given, Tensor):
            raise InputError(f"{name} must be a tensor, got a {type(given).__name__}")
    if tokens.dim() != 2 or 0 in tokens.shape or tokens.dtype not in WHOLE:
        raise InputError(f"tokens must be int64 [B, T] with B and T >= 1, got {tokens.dtype} {list(tokens.shape)}")
    if lengths is not None and (lengths.shape != tokens.shape[:1] or lengths.dtype not in WHOLE):
        raise InputError(f"lengths must be int64 [{len(tokens)}], one a row, got {lengths.dtype} {list(lengths.shape)}")
    if first is not None and (first.shape != tokens.shape or first.dtype != torch.bool):
        raise InputError(f"first must be bool {list(tokens.shape)} like tokens, got {first.dtype} {list(first.shape)}")
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_range("tokens", tokens, vocab_size - 1)
        if lengths is not None:
            _check_range("lengths", lengths, tokens.shape[1])


def _check_range(name: str, values: Tensor, most: int) -> None:
    low, high = (int(value) for value in values.aminmax())
    if low < 0 or high > most:
        raise InputError(f"{name} must lie between 0 and {most}, got {low if low < 0 else high}")
