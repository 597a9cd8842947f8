"""Files that are no usable checkpoints, each with a part of the one sentence that a user gets for it.

    path = BAD_FILES["cut short .pth"].make(folder)

`make` writes the file below a folder and returns what to open.  `needs_numbers` marks what is only seen when the
numbers are read, as by `receptance convert` or `verify`; all others are refused by `receptance info` already.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .weights import CONFIGS, official_weights


class BadFile(NamedTuple):
    make: Callable[[Path], Path]
    says: str
    needs_numbers: bool = False


def _weights() -> dict[str, Tensor]:
    return official_weights(CONFIGS["7"])


def _saved(folder: Path, weights: object, name: str = "model.pth") -> Path:
    torch.save(weights, folder / name)
    return folder / name


def _bytes(content: bytes, name: str = "model.pth") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _changed(**changes: Tensor | None) -> Callable[[Path], Path]:
    """A whole model but for some tensors, named with __ for a dot; None takes one out."""

    def make(folder: Path) -> Path:
        weights = _weights()
        for name, tensor in changes.items():
            weights.pop(name.replace("__", "."), None)
            if tensor is not None:
                weights[name.replace("__", ".")] = tensor
        return _saved(folder, weights)

    return make


def _cut(name: str, share: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        (save_file if name.endswith(".safetensors") else torch.save)(_weights(), path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return make


class _Code:
    """Unpickling this calls a function of the file's choice; a harmless one, should it ever come to that."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path, ("code-was-run",)


def _old_pickle_with_code(folder: Path) -> Path:
    path = folder / "model.pth"
    path.write_bytes(pickle.dumps({"emb.weight": _Code()}, protocol=2))
    return path


def _other_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "model.pth", "w") as archive:
        archive.writestr("letter.txt", "Dear reader,")
    return folder / "model.pth"


def _compressed(folder: Path) -> Path:
    """Every entry deflated: a file that claims to be small and unpacks to anything."""
    source = _saved(folder, _weights(), "plain.pth")
    with zipfile.ZipFile(source) as plain, zipfile.ZipFile(folder / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry))
    return folder / "model.pth"


def _expanded(folder: Path) -> Path:
    """One number in the file that claims to be a matrix."""
    weights = _weights()
    weights["emb.weight"] = torch.zeros(1).expand(50, 24)
    return _saved(folder, weights)


def _header(entry: dict[str, object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        text = json.dumps({"emb.weight": entry}).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
        return folder / "model.safetensors"

    return make


def _shards(change: Callable[[Path, dict[str, str]], None]) -> Callable[[Path], Path]:
    """A folder of two files with an index, which `change` spoils."""

    def make(folder: Path) -> Path:
        weights = _weights()
        names = sorted(weights)
        files = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
        for file, held in files.items():
            save_file({name: weights[name] for name in held}, folder / file)
        weight_map = {name: file for file, held in files.items() for name in held}
        change(folder, weight_map)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return folder

    return make


def _spoiled_config(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_file(_weights(), folder / "model.safetensors")
        (folder / "config.json").write_text(text)
        return folder

    return make


def _two_models(folder: Path) -> Path:
    _saved(folder, _weights(), "a.pth")
    _saved(folder, _weights(), "b.pth")
    return folder


def _lead_out(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "one.safetensors").rename(folder.parent / f"{folder.name}-outside.safetensors")
    outside = f"../{folder.name}-outside.safetensors"
    weight_map.update({name: outside for name, file in weight_map.items() if file == "one.safetensors"})


def _quantised(folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file(_weights() | {"blocks.0.att.key.weight": torch.zeros(24, 24, dtype=torch.int8)}, path)
    assert load_file(path)
    return path


class _Claim:
    """Is pickled as a tensor of a shape that its numbers need not have."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        arguments = ("the storage", 0, self.shape, (1,) * len(self.shape), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class _Claimer(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return ("storage", torch.FloatStorage, "0", "cpu", 1) if obj == "the storage" else None


def _claiming(shape: tuple[int, ...], numbers: bytes) -> Callable[[Path], Path]:
    """A `.pth` with one tensor, which says that these bytes are float32 numbers of that shape."""

    def make(folder: Path) -> Path:
        content = io.BytesIO()
        _Claimer(content, protocol=2).dump({"emb.weight": _Claim(shape)})
        with zipfile.ZipFile(folder / "model.pth", "w") as archive:
            archive.writestr("archive/data.pkl", content.getvalue())
            archive.writestr("archive/data/0", numbers)
        return folder / "model.pth"

    return make


def _web_rwkv_5_0(folder: Path) -> Path:
    """Its converter gives the bonus the name that other official files have for the bonus's logarithm."""
    weights = official_weights(CONFIGS["5.0"], torch.float16)
    save_file(
        {name.replace("time_faaaa", "time_first"): tensor for name, tensor in weights.items()}, folder / "model.st"
    )
    return folder / "model.st"


def _pipe(name: str) -> Callable[[Path], Path]:
    """Whoever opens it waits for somebody to write to it."""

    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name if name.endswith(".pth") else folder

    return make


def _one_name_a_layer(folder: Path) -> Path:
    return _saved(folder, _weights() | {f"blocks.{layer}.x": torch.zeros(0) for layer in range(5_000)})


NOT_A_NUMBER = torch.full((50, 24), float("nan"))
BAD_FILES = {
    "missing": BadFile(lambda folder: folder / "absent.pth", "there is no file or folder"),
    "a path through a file": BadFile(lambda folder: _saved(folder, _weights()) / "model.pth", "no file or folder"),
    "empty": BadFile(_bytes(b""), "is empty"),
    "text": BadFile(_bytes(b"Dear reader, this is a letter.", "letter.pth"), "letter.pth is no checkpoint"),
    "a web page": BadFile(_bytes(b"<!DOCTYPE html><html></html>"), "is a web page"),
    "a pointer of Git LFS": BadFile(_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), "Git LFS"),
    "GGUF": BadFile(_bytes(b"GGUF\x03\x00\x00\x00" + bytes(64), "model.gguf"), "is a GGUF file of the kind None"),
    "rwkv.cpp": BadFile(_bytes(0x67676D66.to_bytes(4, "little") + bytes(64), "model.bin"), "is an rwkv.cpp file"),
    "zeros": BadFile(_bytes(bytes(4096)), "is no checkpoint"),
    "another zip archive": BadFile(_other_zip, "is a zip archive and no checkpoint"),
    "compressed .pth": BadFile(_compressed, "is compressed"),
    "cut short .pth": BadFile(_cut("model.pth", 0.7), "is cut short"),
    "cut short .safetensors": BadFile(_cut("model.safetensors", 0.7), "is cut short or damaged at"),
    ".safetensors cut in its header": BadFile(_cut("model.safetensors", 0.05), "cut short or damaged in its header"),
    "code in a pickle": BadFile(lambda folder: _saved(folder, {"emb.weight": _Code()}), "no code is run from files"),
    "code in an old pickle": BadFile(_old_pickle_with_code, "no code is run from files"),
    "an optimiser": BadFile(lambda folder: _saved(folder, {"step": 3, "lr": 0.1}), "which is no tensor"),
    "a bare tensor": BadFile(lambda folder: _saved(folder, torch.zeros(3)), "holds no tensors by name"),
    "another kind of model": BadFile(
        lambda folder: _saved(folder, {"transformer.wte.weight": torch.zeros(3, 3)}), "another kind of model"
    ),
    "a missing tensor": BadFile(_changed(blocks__1__att__key__weight=None), "lacks blocks.1.att.key.weight"),
    "a missing layer": BadFile(
        lambda folder: _saved(folder, {n: t for n, t in _weights().items() if "blocks.1." not in n}),
        "lacks blocks.1.ln1.weight",
    ),
    "an unknown tensor": BadFile(_changed(head__bias=torch.zeros(50)), "has the tensor head.bias"),
    "a wrong shape": BadFile(_changed(blocks__1__att__key__weight=torch.zeros(24, 20)), "blocks.1.att.key.weight in"),
    "a wrong vocabulary": BadFile(_changed(head__weight=torch.zeros(60, 24)), "is 60x24, but"),
    "sizes that fit no heads": BadFile(_changed(blocks__0__att__r_k=torch.zeros(7, 8)), "cut into 7 heads"),
    "an expanded tensor": BadFile(_expanded, "too few numbers for the shape of emb.weight"),
    "quantised": BadFile(_quantised, "holds blocks.0.att.key.weight as I8"),
    "whole numbers": BadFile(_changed(emb__weight=torch.zeros(50, 24, dtype=torch.int64)), "emb.weight as int64"),
    "complex numbers": BadFile(
        _changed(emb__weight=torch.zeros(50, 24, dtype=torch.complex64)), "of a kind that cannot"
    ),
    "eight bits": BadFile(_changed(emb__weight=torch.zeros(50, 24).to(torch.float8_e4m3fn)), "of a kind that cannot"),
    "a sparse tensor": BadFile(_changed(emb__weight=torch.zeros(50, 24).to_sparse()), "of a kind that cannot"),
    "a pipe": BadFile(_pipe("model.pth"), "is no ordinary file"),
    "a pipe for a config.json": BadFile(_pipe("config.json"), "is no ordinary file"),
    "thousands of layers by name": BadFile(_one_name_a_layer, "lacks blocks.3.ln1.weight and"),
    "a relative": BadFile(_changed(blocks__0__ffn__s_emb__weight=torch.zeros(50, 1024)), "RWKV-7a (DeepEmbed)"),
    "a header that lies about sizes": BadFile(
        _header({"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}), "impossible shape"
    ),
    "a header whose strides overflow": BadFile(
        _header({"dtype": "F32", "shape": [0, 2**47, 2**47], "data_offsets": [0, 0]}), "impossible shape"
    ),
    "a header with a hundred dimensions": BadFile(
        _header({"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}), "impossible shape"
    ),
    "a header whose shape is none": BadFile(
        _header({"dtype": "F32", "shape": {"a": 1}, "data_offsets": [0, 4]}), "impossible shape"
    ),
    "a header whose dtype is none": BadFile(
        _header({"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}), "which cannot be read"
    ),
    "a .pth whose strides overflow": BadFile(_claiming((0, 2**47, 2**47), bytes(4)), "is damaged"),
    "a .pth with half a number": BadFile(_claiming((1, 1), bytes(6)), "too few numbers"),
    "a .st of RWKV-5.0": BadFile(_web_rwkv_5_0, "tells what its time_first is"),
    "a header that points outside": BadFile(
        _header({"dtype": "F32", "shape": [4], "data_offsets": [64, 80]}), "is cut short or damaged"
    ),
    "a header without places": BadFile(_header({"dtype": "F32"}), "does not describe emb.weight"),
    "a folder without a checkpoint": BadFile(lambda folder: folder, "holds no checkpoint"),
    "a folder with two": BadFile(_two_models, "several checkpoints (a.pth, b.pth)"),
    "an index without its file": BadFile(
        _shards(lambda folder, _: (folder / "two.safetensors").unlink()), "lacks two.safetensors"
    ),
    "an index that leads out of its folder": BadFile(_shards(_lead_out), "which is no file of its folder"),
    "a broken config.json": BadFile(_spoiled_config("{"), "no valid JSON"),
    "a config.json of another model": BadFile(_spoiled_config('{"model_type": "llama"}'), "a 'llama' model"),
    "an impossible epsilon": BadFile(_spoiled_config('{"norm_eps": -1}'), "norm_eps -1"),
    "NaN weights": BadFile(_changed(emb__weight=NOT_A_NUMBER), "holds NaN or infinity", needs_numbers=True),
    "infinite weights": BadFile(
        _changed(blocks__2__att__w0=torch.full((1, 1, 24), float("inf"))), "holds NaN or infinity", needs_numbers=True
    ),
}
