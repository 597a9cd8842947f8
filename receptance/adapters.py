"""Low-rank additions to the matrices of a model: made, saved, loaded, merged.  The additions are `peft`'s.

    add_adapter(model, "lora", rank=16)                    # from now on these are all that is learnt
    save_adapter(model, Path("mine"))                      # a folder that peft knows, too
    model = load_adapter(load("model.pth").model, Path("mine"))
    model = merge_adapter(model)                           # an ordinary model again

LoRA (2106.09685) adds B A, DoRA (2402.09353) learns the columns' lengths apart, PiSSA (2404.02948) begins with the
largest singular vectors of the matrix, and is saved as the LoRA that it amounts to.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import CheckpointError, ConfigError, InputError, MissingExtraError
from .models import RWKV
from .quant import QuantLinear
from .replacing import replacing
from .state import fingerprint

METHODS = ("lora", "dora", "pissa")
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
# What peft puts before the names of a model that it wraps.
PREFIX = "base_model.model."
BEGIN = ("begin_A", "begin_B")
# What peft's adapters can do besides, and would change what is computed.
UNLIKE = ("use_rslora", "alpha_pattern", "rank_pattern", "modules_to_save", "lora_bias", "layer_replication")


def add_adapter(
    model: RWKV,
    method: str = "lora",
    rank: int = 16,
    alpha: float = 0.0,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
    kept: Path | None = None,
) -> None:
    """Put additions beside the matrices of the layers, and leave nothing else to be learnt.

    alpha     they are multiplied by alpha / rank; 0: twice the rank
    dropout   share of their inputs that is left out by chance, in training
    targets   the ends of the names of the matrices, as "att.key"; none: all
    kept      PiSSA: the file of `save_principal` with what it begins with; None: it is computed now

    Raises ConfigError for a method or target that is none.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; choose {', '.join(METHODS)}")
    names = _targets(model, targets)
    model.requires_grad_(False)
    peft = _peft()
    begin: dict[str, tuple[Tensor, Tensor]] = {}
    if method == "pissa":
        made = _principal(_matrices(model), names, rank) if kept is None else load_file(kept)
        begin = {name: (made[f"{name}.A"], made[f"{name}.B"]) for name in names}
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha or 2 * rank,
        lora_dropout=dropout,
        target_modules=names,
        use_dora=method == "dora",
    )
    peft.inject_adapter_in_model(config, model)
    for name, layer in _named_layers(model):
        # The additions are learnt, and are exact whatever the model computes in.
        for part in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
            part.float()
        if name in begin:
            _begin_with(layer, *begin[name])


def _matrices(model: RWKV) -> dict[str, nn.Module]:
    found = model.named_modules()
    return {n: m for n, m in found if n.startswith("blocks.") and isinstance(m, nn.Linear | QuantLinear)}


def save_principal(model: RWKV, rank: int, targets: Sequence[str], path: Path) -> None:
    """Write what PiSSA begins with, for `add_adapter`; leaves a file that is of this model, rank and targets.

    Raises ConfigError for a target that is none.
    """
    names = _targets(model, targets)
    mark = {"fingerprint": fingerprint(model), "names": json.dumps(names), "rank": str(rank)}
    if path.exists():
        with safe_open(path, framework="pt") as file:
            if file.metadata() == mark:
                return
    tensors = _principal(_matrices(model), names, rank)
    with replacing(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, mark)


def _principal(known: dict[str, nn.Module], names: Sequence[str], rank: int) -> dict[str, Tensor]:
    """The largest `rank` singular vectors of each matrix as NAME.A [rank, in] and NAME.B [out, rank]."""
    made: dict[str, Tensor] = {}
    for name in names:
        weight = known[name].weight
        assert isinstance(weight, Tensor)
        left, values, right = torch.linalg.svd(weight.detach().float(), full_matrices=False)
        root = values[:rank].sqrt()
        made[f"{name}.A"], made[f"{name}.B"] = root[:, None] * right[:rank], left[:, :rank] * root
    return made


def _targets(model: RWKV, targets: Sequence[str]) -> list[str]:
    """The names of the matrices that get additions.  Raises ConfigError where that cannot be."""
    known = _matrices(model)
    if wrong := [target for target in targets if not any(name.endswith(f".{target}") for name in known)]:
        ends = sorted({".".join(name.split(".")[2:]) for name in known})
        raise ConfigError(f"no matrix of the layers ends in {', '.join(wrong)}; there are {', '.join(ends)}")
    return [name for name in known if not targets or any(name.endswith(f".{target}") for target in targets)]


def _begin_with(layer: Any, A: Tensor, B: Tensor) -> None:
    """Move B A out of the matrix and into its addition; a quantised matrix stays, and what it gives has B A x less."""
    scale, base = layer.scaling["default"], layer.get_base_layer()
    A, B = A.to(base.weight.device) / scale, B.to(base.weight.device)
    with torch.no_grad():
        if isinstance(base, QuantLinear):
            base.register_forward_hook(partial(_without_principal, layer, scale))
        else:
            base.weight.copy_(base.weight.float() - scale * (B @ A))
        layer.lora_A["default"].weight.copy_(A)
        layer.lora_B["default"].weight.copy_(B)
    for name, tensor in zip(BEGIN, (A, B), strict=True):
        layer.register_buffer(name, tensor, persistent=False)


def _without_principal(layer: Any, scale: float, base: nn.Module, inputs: tuple[Tensor], y: Tensor) -> Tensor:
    """What a quantised matrix gives, less what PiSSA moved into its addition."""
    x = inputs[0].to(layer.begin_A.dtype)
    return y - scale * F.linear(F.linear(x, layer.begin_A), layer.begin_B).to(y.dtype)


def save_adapter(model: RWKV, path: Path) -> None:
    """Write the additions as a folder that peft's `PeftModel.from_pretrained` reads, too.

    Raises CheckpointError where it cannot be written, InputError where the model has none.
    """
    tensors: dict[str, Tensor] = dict(_peft().get_peft_model_state_dict(model))
    if not tensors:
        raise InputError("the model has no adapter; add one first")
    config = _config(model)
    begun = [(name, layer) for name, layer in _named_layers(model) if hasattr(layer, BEGIN[0])]
    for name, layer in begun:
        # W - s B0 A0 + s B A = W + s [B, -B0] [A; A0].
        A, B = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        tensors[A] = torch.cat([tensors[A], layer.begin_A])
        tensors[B] = torch.cat([tensors[B], -layer.begin_B], 1)
    if begun:
        config |= {"r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"]}
    named = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(path) as partial:
            partial.mkdir()
            save_file(named, partial / WEIGHTS, {"format": "pt", "fingerprint": fingerprint(model)})
            (partial / SETTINGS).write_text(json.dumps(config, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def load_adapter(model: RWKV, path: Path) -> RWKV:
    """Put the additions of a folder beside the matrices of `model`, in place.

    Raises CheckpointError where the folder has none, is damaged, or was made for another model.
    """
    peft = _peft()
    try:
        settings = json.loads((path / SETTINGS).read_text("utf-8"))
        with safe_open(path / WEIGHTS, framework="pt") as file:
            owner = (file.metadata() or {}).get("fingerprint")
            tensors = {name.removeprefix(PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if unlike := [name for name in UNLIKE if settings.get(name)]:
            raise CheckpointError(f"the adapter in {path} needs {', '.join(unlike)}, which is not known here")
        wanted = {name: settings[name] for name in ("r", "lora_alpha", "target_modules")}
        config = peft.LoraConfig(**wanted, use_dora=bool(settings.get("use_dora")), lora_dropout=0.0)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(f"{path} is no folder of an adapter ({SETTINGS}, {WEIGHTS}): {reason}") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"the adapter in {path} is damaged, or no LoRA; copy it anew") from error
    if owner is not None and owner != fingerprint(model):
        raise CheckpointError(f"the adapter in {path} was made for another model; load it with the one it is of")
    try:
        peft.inject_adapter_in_model(config, model)
        result = peft.set_peft_model_state_dict(model, tensors)
    except (ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"the adapter in {path} does not fit this model: {_first_line(error)}") from error
    missing = [name for name in result.missing_keys if ".lora_" in name]
    if missing or result.unexpected_keys:
        raise CheckpointError(f"the adapter in {path} does not fit this model; load it with the one it is of")
    return model.eval()


def merge_adapter(model: RWKV) -> RWKV:
    """Add the additions to the matrices, in place; quantised matrices keep theirs beside them."""
    for name, layer in list(_named_layers(model)):
        if isinstance(layer.get_base_layer(), QuantLinear):
            continue
        layer.merge()
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, layer.get_base_layer())
    return model


def adapted(model: RWKV, path: Path) -> RWKV:
    """A second model, with the additions of a folder; the weights that they leave alone are those of the first.

    Raises what `load_adapter` raises.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    other = load_adapter(copy.deepcopy(model, shared), path)
    for _, layer in _named_layers(other):
        base = layer.get_base_layer()
        if not isinstance(base, QuantLinear):
            base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)
    return merge_adapter(other)


def _named_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A"))


def _config(model: RWKV) -> dict[str, Any]:
    """What peft needs to know of the additions."""
    names, layers = zip(*_named_layers(model), strict=True)
    layer = layers[0]
    return {
        "peft_type": "LORA",
        "r": layer.r["default"],
        "lora_alpha": layer.lora_alpha["default"],
        "use_dora": bool(layer.use_dora["default"]),
        "target_modules": list(names),
        "bias": "none",
        "lora_dropout": 0.0,
        "task_type": None,
        "base_model_name_or_path": None,
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("adapters need peft; install it: pip install 'receptance[finetune]'") from error
    return peft
