"""Hugging Face folders: `config.json` to Config and back, one file of weights or several with an index.

files, values = open_folder(path)               # open files and what config.json says
write_folder(path, items, hf_config(config, dialect, dtype), shard_bytes)

Three kinds can be written: transformers' `rwkv` (RWKV-4), and `rwkv6` and `rwkv7` of flash-linear-attention.  All sizes
are read off the tensors, so that of a `config.json` only what no tensor tells is used: the norm epsilons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..config import Config
from ..devices import dtype_name
from ..errors import CheckpointError
from .files import Item, TensorFile, open_file
from .safetensors import write_safetensors

# The dialect that a folder is written in, by generation.
FOLDER_DIALECTS = {"4": "transformers rwkv", "6": "fla rwkv6", "7": "fla rwkv7"}

# Which file of a folder holds the weights; the first that exists is taken.
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".st", ".pth")

MAX_JSON = 64 * 2**20
# Our own part of config.json: the epsilons, which the other programs' fields do not always tell.
OWN = "receptance"
MODEL_TYPES = ("rwkv", "rwkv5", "rwkv6", "rwkv7")


def open_folder(path: Path) -> tuple[list[TensorFile], dict[str, Any]]:
    """The files of weights in a folder, and its config.json ({} where there is none)."""
    config = path / "config.json"
    values = _read_json(config) if config.exists() else {}
    return [open_file(file) for file in _weight_files(path)], values


def _weight_files(path: Path) -> list[Path]:
    for name in _INDEXES:
        if (path / name).exists():
            return _indexed_files(path / name)
    for name in _SINGLE:
        if (path / name).exists():
            return [path / name]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    if len(found) == 1:
        return found
    if found:
        names = ", ".join(file.name for file in found)
        raise CheckpointError(f"{path} holds several checkpoints ({names}); give the path of one of them")
    raise CheckpointError(f"{path} holds no checkpoint; give a folder with a model.safetensors, or a file")


def _indexed_files(index: Path) -> list[Path]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; download the folder again")
    files = []
    for name in sorted(set(map(str, weight_map.values()))):
        # The index comes from outside, and must not lead us out of the folder.
        if Path(name).name != name:
            raise CheckpointError(f"{index} refers to {name!r}, which is no file of its folder")
        if not (index.parent / name).exists():
            raise CheckpointError(f"{index.parent} lacks {name}, which its index refers to; download the folder again")
        files.append(index.parent / name)
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is no ordinary file; download the folder again")
        if path.stat().st_size > MAX_JSON:
            raise CheckpointError(f"{path} is larger than any such file; download the folder again")
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON; download the folder again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is no JSON object; download the folder again")
    return values


def settings(values: dict[str, Any], config: Config) -> dict[str, float]:
    """The norm epsilons that a config.json states for a model of this shape; none where it states none.

    Raises CheckpointError for another kind of model, and for embeddings that a norm is already part of.
    """
    kind = values.get("model_type", "rwkv")
    if kind not in MODEL_TYPES:
        raise CheckpointError(f"its config.json says it is a {kind!r} model; supported are {', '.join(MODEL_TYPES)}")
    if values.get("embedding_layer_norm_fused"):
        raise CheckpointError("the first layer norm is already computed into its embeddings; use a file without that")
    own = values.get(OWN)
    found: dict[str, Any] = dict(own) if isinstance(own, dict) else {}
    if "norm_eps" not in found and (eps := values.get("norm_eps", values.get("layer_norm_epsilon"))) is not None:
        found["norm_eps"] = eps
    if "group_norm_eps" not in found and "group_norm_epsilon" in values:
        found["group_norm_eps"] = values["group_norm_epsilon"]
    if "group_norm_eps" not in found and "head_dim" in values and "norm_eps" in found:
        # flash-linear-attention's RWKV-7 computes it so.  Its RWKV-6 has no such rule and uses norm_eps for all
        # norms, but the weights found in that form are official ones, which need the official epsilon.
        found["group_norm_eps"] = config.head_size * found["norm_eps"]
    names = ("norm_eps", "group_norm_eps")
    for name in names:
        eps = found.get(name, 1e-5)
        if not isinstance(eps, int | float) or not 0 < eps < 1:
            raise CheckpointError(f"its config.json has {name} {eps!r}, which is no small number above 0")
    return {name: float(found[name]) for name in names if name in found}


def hf_config(config: Config, dialect: str, dtype: torch.dtype) -> dict[str, Any]:
    """What config.json says of a model that is written in one of FOLDER_DIALECTS."""
    return {
        **_FIELDS[dialect](config, dtype),
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.num_layers,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": dtype_name(dtype),
        OWN: {"version": __version__, "norm_eps": config.norm_eps, "group_norm_eps": config.group_norm_eps},
    }


def _transformers(config: Config, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "model_type": "rwkv",
        "architectures": ["RwkvForCausalLM"],
        "attention_hidden_size": config.attention_dim,
        "context_length": 1024,
        "layer_norm_epsilon": config.norm_eps,
        # Halving the residual stream every few layers keeps float16 from overflowing; it costs exactness elsewhere.
        "rescale_every": 6 if dtype == torch.float16 else 0,
    }


_FLA = {"attn_mode": "chunk", "norm_first": True, "norm_bias": True, "hidden_act": "sqrelu"}


def _fla_7(config: Config, dtype: torch.dtype) -> dict[str, Any]:
    return {
        **_FLA,
        "model_type": "rwkv7",
        "architectures": ["RWKV7ForCausalLM"],
        "hidden_ratio": config.ffn_dim / config.dim,
        "head_dim": config.head_size,
        "num_heads": config.num_heads,
        "value_dim": [config.dim] * config.num_layers,
        "decay_low_rank_dim": config.decay_rank,
        "a_low_rank_dim": config.rate_rank,
        "v_low_rank_dim": config.value_rank,
        "gate_low_rank_dim": config.gate_rank,
        # Its group norm uses head_dim * norm_eps: with heads of 64 both norms are as ours; with others one of the two
        # must differ, and the group norm's matters more, as its input is small.
        "norm_eps": config.group_norm_eps / config.head_size,
        # The fused norm of k has an epsilon of its own.
        "fuse_norm": False,
    }


def _fla_6(config: Config, dtype: torch.dtype) -> dict[str, Any]:
    return {
        **_FLA,
        "model_type": "rwkv6",
        "architectures": ["RWKV6ForCausalLM"],
        "hidden_ratio": config.ffn_dim / config.dim,
        "num_heads": config.num_heads,
        "expand_k": config.attention_dim / config.dim,
        "expand_v": config.attention_dim / config.dim,
        "proj_low_rank_dim": config.mix_rank,
        "gate_low_rank_dim": config.decay_rank,
        "norm_eps": config.norm_eps,
        "fuse_norm": False,
    }


_FIELDS: dict[str, Callable[[Config, torch.dtype], dict[str, Any]]] = {
    "transformers rwkv": _transformers,
    "fla rwkv6": _fla_6,
    "fla rwkv7": _fla_7,
}


def write_folder(path: Path, items: Sequence[Item], values: dict[str, Any], shard_bytes: int) -> None:
    """Write a folder: config.json, and one file of weights or several with an index, none above `shard_bytes`.

    A tensor that is larger than that gets a file of its own.
    """
    path.mkdir()
    shards: list[list[Item]] = [[]]
    for item in items:
        if shards[-1] and sum(other.like.nbytes for other in shards[-1]) + item.like.nbytes > shard_bytes:
            shards.append([])
        shards[-1].append(item)
    if len(shards) == 1:
        write_safetensors(path / "model.safetensors", items)
    else:
        names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        for name, shard in zip(names, shards, strict=True):
            write_safetensors(path / name, shard)
        index = {
            "metadata": {"total_size": sum(item.like.nbytes for item in items)},
            "weight_map": {item.name: name for name, shard in zip(names, shards, strict=True) for item in shard},
        }
        _write_json(path / "model.safetensors.index.json", index)
    _write_json(path / "config.json", values)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
