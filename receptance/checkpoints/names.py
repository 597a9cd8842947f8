"""The names that other programs give to RWKV's tensors, as tables; both directions are derived from them.

dialect = find_dialect(tensors)                 # whose names are these?
dialect.to_official("model.layers.3.attn.w_lora.lora.0.weight")
dialect.to_stored("blocks.3.att.w1")

In a template `{i}` is a layer's number and `{rest}` anything; the first rule that fits a name is taken.  Sources: the
model and converter files of transformers (`models/rwkv`), flash-linear-attention (`models/rwkv6`, `models/rwkv7`),
web-rwkv (`convert_safetensors.py`) and llama.cpp (`src/models/rwkv6.cpp`, `src/models/rwkv7.cpp`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from torch import Tensor

from .layouts import FLA_MIXES, OFFICIAL_MIXES

_FIELDS = {"i": r"(?P<i>\d+)", "rest": r"(?P<rest>.+)"}


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(_FIELDS[piece] if n % 2 else re.escape(piece) for n, piece in enumerate(pieces)))


class Match(NamedTuple):
    """Where a tensor is found: `official[part]` lies in the tensor `stored`, laid out as `layout` says."""

    stored: str
    official: tuple[str, ...]
    layout: str


@dataclass(frozen=True)
class Rule:
    """One stored tensor and the official tensors that it holds (more than one where they are stacked)."""

    official: tuple[str, ...]
    stored: str
    layout: str = "same"

    def matches(self, name: str, templates: tuple[str, ...]) -> Match | None:
        """The rule applied to `name`, where it fits one of `templates`."""
        for template in templates:
            if found := _pattern(template).fullmatch(name):
                fields = found.groupdict()
                official = tuple(other.format(**fields) for other in self.official)
                return Match(self.stored.format(**fields), official, self.layout)
        return None


@dataclass(frozen=True)
class Dialect:
    """A way to name and lay out the tensors.

    is_written_in   whether a file's tensors are in this dialect
    lacks           official tensors that it has no place for, as a regular expression
    in_float32      stored tensors that are float32 in every file of this dialect, as a regular expression
    """

    name: str
    rules: tuple[Rule, ...]
    is_written_in: Callable[[Mapping[str, Tensor]], bool]
    lacks: str = r"(?!)"
    in_float32: str = r"(?!)"

    def to_official(self, stored: str) -> Match | None:
        """What a stored tensor holds; None where this dialect has no such tensor."""
        return next(filter(None, (rule.matches(stored, (rule.stored,)) for rule in self.rules)), None)

    def to_stored(self, official: str) -> Match | None:
        """Where an official tensor belongs; None where this dialect has no place for it."""
        if self._lacks.fullmatch(official):
            return None
        return next(filter(None, (rule.matches(official, rule.official) for rule in self.rules)), None)

    def is_in_float32(self, stored: str) -> bool:
        """Whether a stored tensor is float32 in whatever dtype the others are."""
        return bool(re.fullmatch(self.in_float32, stored))

    @cached_property
    def _lacks(self) -> re.Pattern[str]:
        return re.compile(self.lacks)


def _rules(*rows: tuple[str, str] | tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule((official,), stored, *layout) for official, stored, *layout in rows)


OFFICIAL_RULES = _rules(("{rest}", "{rest}"))

# transformers' RWKV-4, and the RWKV-5 and 6 that repositories on the hub bring along as code of their own.
_WORDS = {"k": "key", "v": "value", "r": "receptance", "g": "gate"}
TRANSFORMERS_RULES = _rules(
    ("emb.weight", "rwkv.embeddings.weight"),
    ("head.weight", "head.weight"),
    ("blocks.0.ln0.{rest}", "rwkv.blocks.0.pre_ln.{rest}"),
    *((f"blocks.{{i}}.att.time_mix_{x}", f"rwkv.blocks.{{i}}.attention.time_mix_{_WORDS[x]}") for x in "kvrg"),
    *((f"blocks.{{i}}.ffn.time_mix_{x}", f"rwkv.blocks.{{i}}.feed_forward.time_mix_{_WORDS[x]}") for x in "kr"),
    ("blocks.{i}.att.{rest}", "rwkv.blocks.{i}.attention.{rest}"),
    ("blocks.{i}.ffn.{rest}", "rwkv.blocks.{i}.feed_forward.{rest}"),
    ("{rest}", "rwkv.{rest}"),
)

# The transformers port of RWKV-7: official names behind a prefix.
TRANSFORMERS_7_RULES = _rules(
    ("emb.weight", "model.embeddings.weight"),
    ("head.weight", "head.weight"),
    ("{rest}", "model.{rest}"),
)

_FLA_OUTER_RULES = _rules(
    ("emb.weight", "model.embeddings.weight"),
    ("head.weight", "lm_head.weight"),
    ("ln_out.{rest}", "model.norm.{rest}"),
    ("blocks.0.ln0.{rest}", "model.layers.0.pre_norm.{rest}"),
    ("blocks.{i}.ln1.{rest}", "model.layers.{i}.attn_norm.{rest}"),
    ("blocks.{i}.ln2.{rest}", "model.layers.{i}.ffn_norm.{rest}"),
    ("blocks.{i}.att.ln_x.{rest}", "model.layers.{i}.attn.g_norm.{rest}"),
    ("blocks.{i}.att.output.weight", "model.layers.{i}.attn.o_proj.weight"),
)


def _fla(official: str, stored: str, layout: str = "same") -> tuple[str, str, str]:
    return f"blocks.{{i}}.{official}", f"model.layers.{{i}}.{stored}", layout


_PROJECTIONS = {"r": "receptance", "k": "key", "v": "value"}
FLA_7_RULES = _FLA_OUTER_RULES + _rules(
    *(_fla(f"att.{x}1", f"attn.{x}_lora.lora.0.weight", "transposed") for x in "wavg"),
    *(_fla(f"att.{x}2", f"attn.{x}_lora.lora.2.weight", "transposed") for x in "wavg"),
    *(_fla(f"att.{x}0", f"attn.{x}_lora.lora.2.bias", "flat") for x in "wav"),
    *(_fla(f"att.x_{x}", f"attn.x_{x}") for x in "rwkvag"),
    *(_fla(f"att.{name}", f"attn.{name}", "flat") for name in ("k_k", "k_a")),
    _fla("att.r_k", "attn.r_k"),
    *(_fla(f"att.{name}.weight", f"attn.{x}_proj.weight") for x, name in _PROJECTIONS.items()),
    _fla("ffn.x_k", "ffn.x_k", "flat"),
    _fla("ffn.key.weight", "ffn.key.weight"),
    _fla("ffn.value.weight", "ffn.value.weight"),
)
# Older files hold the six mixes of a layer in one tensor.  Last, so that it is read but never written.
FLA_7_RULES += (Rule(tuple(f"blocks.{{i}}.att.x_{x}" for x in "rwkvag"), "model.layers.{i}.attn.x_x", "stacked"),)

FLA_6_RULES = _FLA_OUTER_RULES + _rules(
    _fla("att.time_maa_x", "attn.x_proj.0.mu", "flat"),
    _fla("att.time_maa_w1", "attn.x_proj.0.linear.weight", "mix down"),
    _fla("att.time_maa_w2", "attn.x_proj.2.weight", "mix up"),
    *(_fla(f"att.{name}.weight", f"attn.{x}_proj.linear.weight") for x, name in (_PROJECTIONS | {"g": "gate"}).items()),
    _fla("att.time_decay_w1", "attn.w_proj.linear.lora.0.weight", "transposed"),
    _fla("att.time_decay_w2", "attn.w_proj.linear.lora.2.weight", "transposed"),
    _fla("att.time_decay", "attn.w_proj.linear.lora.2.bias", "flat"),
    _fla("att.time_faaaa", "attn.bonus"),
    *(_fla(f"ffn.time_maa_{x}", f"ffn.{_WORDS[x]}.mu", "flat") for x in "kr"),
    *(_fla(f"ffn.{_WORDS[x]}.weight", f"ffn.{_WORDS[x]}.linear.weight") for x in "kr"),
    _fla("ffn.value.weight", "ffn.value.weight"),
)
FLA_6_RULES += (
    Rule(tuple(f"blocks.{{i}}.att.time_maa_{x}" for x in FLA_MIXES), "model.layers.{i}.attn.x_bias", "stacked"),
)

# web-rwkv: some official names are exchanged, and every low-rank factor and tuned state is transposed.
_WEB_STATE = ("blocks.{i}.att.time_state", "blocks.{i}.att.time_state", "transposed")
WEB_5_RULES = _rules(_WEB_STATE, ("blocks.{i}.att.time_faaaa", "blocks.{i}.att.time_first"), ("{rest}", "{rest}"))
WEB_6_RULES = _rules(
    _WEB_STATE,
    *((f"blocks.{{i}}.att.time_maa_{n}", f"blocks.{{i}}.att.time_mix_{n}", "transposed") for n in ("w1", "w2")),
    *((f"blocks.{{i}}.att.time_decay_{n}", f"blocks.{{i}}.att.time_decay_{n}", "transposed") for n in ("w1", "w2")),
    ("blocks.{i}.att.time_faaaa", "blocks.{i}.att.time_first"),
    ("blocks.{i}.att.time_maa_{rest}", "blocks.{i}.att.time_mix_{rest}"),
    ("blocks.{i}.ffn.time_maa_{rest}", "blocks.{i}.ffn.time_mix_{rest}"),
    ("{rest}", "{rest}"),
)
WEB_7_RULES = _rules(
    _WEB_STATE,
    *((f"blocks.{{i}}.att.{x}{n}", f"blocks.{{i}}.att.{x}{n}", "transposed") for x in "wavg" for n in "12"),
    ("{rest}", "{rest}"),
)


# llama.cpp: vectors and the smallest matrices are always float32.
_GGUF_OUTER_RULES = _rules(
    ("emb.weight", "token_embd.weight"),
    ("head.weight", "output.weight"),
    ("ln_out.{rest}", "output_norm.{rest}"),
    ("blocks.0.ln0.{rest}", "token_embd_norm.{rest}"),
    ("blocks.{i}.ln1.{rest}", "blk.{i}.attn_norm.{rest}"),
    ("blocks.{i}.ln2.{rest}", "blk.{i}.attn_norm_2.{rest}"),
    ("blocks.{i}.att.ln_x.{rest}", "blk.{i}.time_mix_ln.{rest}"),
    *(
        (f"blocks.{{i}}.att.{name}.weight", f"blk.{{i}}.time_mix_{name}.weight")
        for name in ("receptance", "key", "value", "gate", "output")
    ),
    *(
        (f"blocks.{{i}}.ffn.{name}.weight", f"blk.{{i}}.channel_mix_{name}.weight")
        for name in ("receptance", "key", "value")
    ),
)


def _gguf(official: str, stored: str, layout: str = "flat") -> tuple[str, str, str]:
    return f"blocks.{{i}}.{official}", f"blk.{{i}}.{stored}.weight", layout


def _gguf_mixes(official: str, mixes: str) -> tuple[Rule, ...]:
    """A layer's mixes: in one tensor, and, read but never written, in one each."""
    names = tuple(f"blocks.{{i}}.att.{official}_{x}" for x in mixes)
    single = (_gguf(f"att.{official}_{x}", f"time_mix_lerp_{x}") for x in mixes)
    return (Rule(names, "blk.{i}.time_mix_lerp_fused.weight", "stacked apart"), *_rules(*single))


GGUF_7_RULES = _GGUF_OUTER_RULES + _rules(
    *(_gguf(f"att.{x}0", f"time_mix_{x}0") for x in "wav"),
    *(_gguf(f"att.{x}{n}", f"time_mix_{x}{n}", "transposed") for x in "wavg" for n in "12"),
    *(_gguf(f"att.{name}", f"time_mix_{name}") for name in ("k_k", "k_a", "r_k")),
    _gguf("ffn.x_k", "channel_mix_lerp_k"),
)
GGUF_7_RULES += _gguf_mixes("x", "rwkvag")
GGUF_6_RULES = _GGUF_OUTER_RULES + _rules(
    _gguf("att.time_maa_x", "time_mix_lerp_x"),
    *(_gguf(f"att.time_maa_{n}", f"time_mix_{n}", "transposed") for n in ("w1", "w2")),
    *(_gguf(f"att.time_decay_{n}", f"time_mix_decay_{n}", "transposed") for n in ("w1", "w2")),
    _gguf("att.time_decay", "time_mix_decay"),
    _gguf("att.time_faaaa", "time_mix_first", "same"),
    *(_gguf(f"ffn.time_maa_{x}", f"channel_mix_lerp_{x}") for x in "kr"),
)
GGUF_6_RULES += _gguf_mixes("time_maa", OFFICIAL_MIXES)
_GGUF_FLOAT32 = (
    r".*_norm(_2)?\..*|blk\.\d+\.(time_mix_ln\..*|channel_mix_lerp_.*|"
    r"time_mix_(lerp_.*|[wav]0|w[12]|[kr]_[ka]|first|decay.*)\.weight)"
)


def _has(name: str) -> Callable[[Mapping[str, Tensor]], bool]:
    return lambda tensors: name in tensors


def _is_web_5(tensors: Mapping[str, Tensor]) -> bool:
    """A bonus for every channel under a name that official files only use for one a head."""
    bonus = tensors.get("blocks.0.att.time_first")
    return bonus is not None and bonus.dim() == 2 and bonus.shape[1] > 1 and "blocks.0.att.ln_x.weight" in tensors


# The first factor of each low-rank product of RWKV-7, officially [C, rank].
DOWN_7 = tuple(f"blocks.{layer}.att.{x}1" for x, layer in zip("wagv", (0, 0, 0, 1), strict=True))


def _is_web_7(tensors: Mapping[str, Tensor]) -> bool:
    """One of the low-rank factors is [rank, C].  Where all ranks are C this cannot be seen, and is not assumed."""
    emb = tensors.get("emb.weight")
    if emb is None or emb.dim() != 2:
        return False
    shapes = [tensors[name].shape for name in DOWN_7 if name in tensors]
    return any(len(shape) == 2 and shape[1] == emb.shape[1] != shape[0] for shape in shapes)


# Layer 0 of RWKV-7 has no value residual; official files hold its tensors all the same.
UNUSED_7 = r"blocks\.0\.att\.v[012]"
STATE = r"blocks\.\d+\.att\.time_state"

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("fla rwkv7", FLA_7_RULES, _has("model.layers.0.attn.r_k"), f"{UNUSED_7}|{STATE}"),
        Dialect("fla rwkv6", FLA_6_RULES, _has("model.layers.0.attn.bonus"), STATE),
        Dialect("gguf rwkv7", GGUF_7_RULES, _has("blk.0.time_mix_r_k.weight"), f"{UNUSED_7}|{STATE}", _GGUF_FLOAT32),
        Dialect("gguf rwkv6", GGUF_6_RULES, _has("blk.0.time_mix_first.weight"), STATE, _GGUF_FLOAT32),
        Dialect("transformers rwkv", TRANSFORMERS_RULES, _has("rwkv.embeddings.weight"), STATE),
        Dialect("transformers rwkv7", TRANSFORMERS_7_RULES, _has("model.blocks.0.att.r_k")),
        Dialect("web-rwkv 7", WEB_7_RULES, _is_web_7),
        Dialect("web-rwkv 6", WEB_6_RULES, _has("blocks.0.att.time_mix_w1")),
        Dialect("web-rwkv 5", WEB_5_RULES, _is_web_5),
        # Last, because everything is a name to it.
        Dialect("official", OFFICIAL_RULES, lambda tensors: True),
    )
}


# What torch.compile and DistributedDataParallel write before every name, in either order.
_WRAPPER = re.compile(r"(?:(?:_orig_mod|module)\.)*")


def wrapper(names: Iterable[str]) -> str:
    """What wrappers around a model have put before all of its names; "" where there was none."""
    found = {match[0] for name in names if (match := _WRAPPER.match(name))}
    return found.pop() if len(found) == 1 else ""


def find_dialect(tensors: Mapping[str, Tensor]) -> Dialect:
    """The dialect of a file by its tensors' names and shapes; official where no other is recognised."""
    return next(dialect for dialect in DIALECTS.values() if dialect.is_written_in(tensors))
