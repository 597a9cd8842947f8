"""Which generation, and what shape: read off the names and shapes of a checkpoint's tensors.

    config = detect(tensors)        # {official name: tensor}; nothing of the tensors but their shapes is looked at

The rules for generations 4 to 7 are those of the official runtime (`rwkv/model.py`), with the head size and every rank
inferred.  Models that only look like one of these are named in the refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..config import Config
from ..errors import CheckpointError

# Relatives with other equations, by a name that only they have; the first that fits is taken.
RELATIVES = (
    ("RWKV-7b (DeepEmbedAttention)", r"\.qkv\.qq\.weight$"),
    ("RWKV-7a (DeepEmbed)", r"\.ffn\.s_emb(_x)?\.weight$"),
    ("RWKV-8", r"\.ffn\.enn\.weight$|\.rosa|\.ln3\."),
    ("RWKV-4b", r"\.att\.(qq|kk|vv|oo)\.weight$|\.time_mix_qq$"),
    ("RWKV-4a (tiny attention)", r"\.tiny_(ln|q|k|v)\b"),
    ("RWKV with a channel mix before the first block", r"\.ffnPre\."),
    ("RWKV with position embeddings", r"\.pos_emb_[xy]$"),
    ("RWKV with a copying head", r"^(head_q|head_k)\."),
)


def relative(names: Iterable[str]) -> str | None:
    """What kind of RWKV these names belong to, where it is one that is not supported."""
    names = list(names)
    for kind, pattern in RELATIVES:
        if any(re.search(pattern, name) for name in names):
            return kind
    return None


def version_of(tensors: Mapping[str, Tensor]) -> str:
    """The generation; "4" where nothing speaks for a later one."""

    def any_has(part: str) -> bool:
        return any(part in name for name in tensors)

    if "blocks.0.att.r_k" in tensors:
        return "7"
    if any_has("time_maa"):
        return "6"
    decay = tensors.get("blocks.0.att.time_decay")
    if any_has("ln_x") and decay is not None and decay.dim() == 2 and decay.shape[1] > 1:
        return "5.2"
    if any_has("gate.weight"):
        return "5.1"
    return "5.0" if any_has("ln_x") else "4"


# Where each size is read: Config's field -> (tensor, dimension), per generation.
_SIZES_OF_ALL = {
    "vocab_size": ("emb.weight", 0),
    "dim": ("emb.weight", 1),
    "ffn_dim": ("blocks.0.ffn.key.weight", 0),
    "attention_dim": ("blocks.0.att.receptance.weight", 0),
}
_SIZES_OF = {
    "6": {"decay_rank": ("blocks.0.att.time_decay_w1", 1)},
    "7": {
        "decay_rank": ("blocks.0.att.w1", 1),
        "rate_rank": ("blocks.0.att.a1", 1),
        "gate_rank": ("blocks.0.att.g1", 1),
    },
}
# Which tensor has one row for each head.
_HEADS = {
    "5.0": "blocks.0.att.time_decay",
    "5.1": "blocks.0.att.time_decay",
    "5.2": "blocks.0.att.time_decay",
    "6": "blocks.0.att.time_faaaa",
    "7": "blocks.0.att.r_k",
}


def num_layers(tensors: Iterable[str]) -> int:
    """How many layers there are.  Counted, not the largest number: a name must not decide what we build."""
    return len({found[1] for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))})


def detect(tensors: Mapping[str, Tensor]) -> Config:
    """The shape of the model that these tensors {official name: tensor} are.

    Raises CheckpointError where they are none or an unsupported relative's, and ConfigError for impossible sizes.
    """
    if kind := relative(tensors):
        raise CheckpointError(f"this is {kind}, which is not supported; supported are RWKV-4, 5, 6 and 7")
    if not any(name in tensors for name in ("emb.weight", "blocks.0.att.receptance.weight")):
        raise CheckpointError("no tensor in it has a name of RWKV's, so it is another kind of model")
    version = version_of(tensors)

    def size(name: str, dimension: int) -> int:
        if name not in tensors:
            raise CheckpointError(f"the tensor {name} is missing, so it is not a whole RWKV-{version} language model")
        shape = tensors[name].shape
        if len(shape) <= dimension:
            raise CheckpointError(f"the tensor {name} has {len(shape)} dimensions, which is too few")
        return int(shape[dimension])

    sizes = {field: size(*place) for field, place in (_SIZES_OF_ALL | _SIZES_OF.get(version, {})).items()}
    if version == "6":
        sizes["mix_rank"] = size("blocks.0.att.time_maa_w1", 1) // 5
    if version == "7" and (value_down := tensors.get("blocks.1.att.v1")) is not None and value_down.dim() == 2:
        # Layer 0 has no value residual, and only official files hold its tensors.
        sizes["value_rank"] = int(value_down.shape[1])
    if version in _HEADS:
        heads = size(_HEADS[version], 0)
        if heads == 0 or sizes["attention_dim"] % heads:
            raise CheckpointError(f"{sizes['attention_dim']} channels of attention cannot be cut into {heads} heads")
        sizes["head_size"] = sizes["attention_dim"] // heads
    log_bonus = version in ("5.0", "5.1") and "blocks.0.att.time_first" in tensors
    return Config(version=version, num_layers=num_layers(tensors), log_bonus=log_bonus, **sizes)
