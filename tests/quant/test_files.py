"""Quantised models on disk: exact round trips, mapped into memory, and one sentence for what cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import receptance
from receptance.checkpoints import convert, open_checkpoint, save_checkpoint
from receptance.checkpoints.safetensors import QUANTISED
from receptance.describe import describe
from receptance.errors import CheckpointError, ConfigError, InputError
from receptance.quant import open_quantised, quantize, quantize_checkpoint, save_quantised
from receptance.state import fingerprint

from .models import CONFIGS, logits_of, model_of, saved

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")


@pytest.fixture
def quantised_path(tmp_path: Path) -> Path:
    save_quantised(quantize(model_of("7"), "int4"), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("version", CONFIGS)
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_a_file_from_a_file_is_that_of_the_model_in_memory(version: str, to: str, tmp_path: Path) -> None:
    source, path = saved(tmp_path, version), tmp_path / "a.safetensors"
    stored = quantize_checkpoint(source, path, to)
    model = quantize(model_of(version), to)
    save_quantised(model, tmp_path / "b.safetensors")
    loaded, other = open_quantised(path), open_quantised(tmp_path / "b.safetensors")
    assert loaded.matrices.keys() == stored.keys() and loaded.matrices == other.matrices
    for found in (loaded.load().eval(), other.load().eval()):
        ours, theirs = model.state_dict(), found.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert torch.equal(logits_of(found), logits_of(model))


def test_the_format_s_own_library_reads_it(quantised_path: Path) -> None:
    with safe_open(quantised_path, framework="pt") as file:
        assert file.metadata()["format"] == QUANTISED
        packed = file.get_tensor("blocks.0.att.key.packed")
    assert torch.equal(packed, open_quantised(quantised_path).load().blocks[0].att.key.packed)


def test_weights_lie_where_a_cache_line_begins(quantised_path: Path) -> None:
    weights = open_quantised(quantised_path).load().state_dict()
    aligned = [name for name, tensor in weights.items() if tensor.nbytes % 64 == 0]
    assert len(aligned) > 50 and all(weights[name].data_ptr() % 64 == 0 for name in aligned)


def test_load_recognises_it_and_the_state_goes_from_one_to_the_other(quantised_path: Path, tmp_path: Path) -> None:
    lm = receptance.load(quantised_path, dtype="float32")
    assert lm.config == CONFIGS["7"] and lm.path == quantised_path
    assert torch.equal(logits_of(lm.model), logits_of(quantize(model_of("7"), "int4")))
    assert fingerprint(lm.model) == fingerprint(model_of("7"))
    half = receptance.load(quantised_path, dtype="bfloat16", norm_eps=1e-4)
    assert half.model.emb.weight.dtype == torch.bfloat16 and half.config.norm_eps == 1e-4
    assert torch.equal(half.model.head.scales, lm.model.head.scales)
    with pytest.raises(ConfigError, match="dim cannot be overridden"):
        receptance.load(quantised_path, dim=3)


def test_info_tells_formats_and_bits(quantised_path: Path) -> None:
    found = describe(quantised_path)
    assert found.dialect == "quantised" and found.config == CONFIGS["7"]
    assert found.tensors["blocks.0.att.key.weight"] == ((64, 64), "int4")
    assert found.tensors["blocks.0.att.w1"] == ((64, 32), "int8")
    assert found.parameters == sum(p.numel() for p in model_of("7").parameters())
    assert found.bits_per_weight is not None and 4.5 < found.bits_per_weight < 8.5


def test_converting_and_saving_it_as_a_checkpoint_is_refused(quantised_path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a quantised model, which can only be run"):
        convert(quantised_path, tmp_path / "back.pth")
    with pytest.raises(CheckpointError, match="is a quantised model"):
        open_checkpoint(quantised_path)
    with pytest.raises(CheckpointError, match="save_quantised writes it"):
        save_checkpoint(open_quantised(quantised_path).load(), tmp_path / "back.pth")
    with pytest.raises(InputError, match="save_checkpoint writes it"):
        save_quantised(model_of("7"), tmp_path / "plain.safetensors")
    assert not list(tmp_path.glob("back*")) and not list(tmp_path.glob("plain*"))


def _header(change: Callable[[dict[str, object]], None]) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]

    return damage


def _metadata(name: str, text: str) -> Callable[[bytes], bytes]:
    return _header(lambda header: header["__metadata__"].update({name: text}))  # type: ignore[attr-defined]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda content: content[:-5000], "cut short or damaged at"),
    "cut in the header": (lambda content: content[:3000], "cut short or damaged in its header"),
    "no config": (_header(lambda header: header["__metadata__"].pop("config")), "metadata make no sense"),  # type: ignore[attr-defined]
    "another config": (_metadata("config", '{"version": "9"}'), "metadata make no sense"),
    "unknown format": (
        _metadata("matrices", '{"head.weight": {"format": "int3", "by_input": false, "error": 0}}'),
        "metadata make no sense",
    ),
    "unknown matrix": (
        _metadata("matrices", '{"tail.weight": {"format": "int4", "by_input": false, "error": 0}}'),
        "its model has no matrix tail.weight",
    ),
    "no matrices": (_metadata("matrices", "{}"), "is missing or misshapen"),
    "a tensor less": (_header(lambda header: header.pop("blocks.1.att.key.scales")), "key.scales is missing"),  # type: ignore[arg-type, return-value]
    "a newer kind": (_metadata("format", QUANTISED[:-1] + "9"), "of a kind that this version does not know"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_one_sentence(damage: str, quantised_path: Path) -> None:
    change, says = DAMAGES[damage]
    quantised_path.write_bytes(change(quantised_path.read_bytes()))
    for open_it in (receptance.load, describe):
        with pytest.raises(CheckpointError, match=says):
            open_it(quantised_path)


def test_whole_numbers_in_any_other_file_are_still_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "foreign.safetensors"
    save_file({"emb.weight": torch.zeros(3, 4, dtype=torch.uint8)}, path)
    with pytest.raises(CheckpointError, match="as U8, which cannot be read"):
        receptance.load(path)
    with pytest.raises(CheckpointError, match="no quantised model of ours"):
        open_quantised(path)


# Quantises a file, and tells by how much its own memory has grown at the peak.  What the kernels take is not counted.
CHILD = """
import sys, torch
from receptance import Config, build
from receptance.quant import quantize, quantize_checkpoint
torch.set_num_threads(1)
quantize(build(Config(version="4", vocab_size=32, num_layers=1, dim=32)), "int4")
def own():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon:"))
before, seen = own(), []
quantize_checkpoint(sys.argv[1], sys.argv[2], "int4", progress=lambda done, total: seen.append(own()))
print((max(seen) - before) * 1024)
"""


@LINUX
def test_streaming_needs_the_memory_of_few_blocks(tmp_path: Path) -> None:
    config = receptance.Config(version="4", vocab_size=500, num_layers=10, dim=512)
    with torch.device("meta"):
        shapes = receptance.RWKV(config).state_dict()
    torch.manual_seed(0)
    torch.save({name: torch.randn(like.shape) / 8 for name, like in shapes.items()}, tmp_path / "large.pth")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "large.pth"), str(tmp_path / "small.safetensors")]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    block = sum(like.nbytes for name, like in shapes.items() if name.startswith("blocks.1."))
    assert grown < 4 * block < sum(like.nbytes for like in shapes.values()) / 2
    assert (tmp_path / "small.safetensors").stat().st_size < (tmp_path / "large.pth").stat().st_size / 5


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    source = saved(tmp_path)
    weights = torch.load(source)
    weights["blocks.1.ffn.key.weight"][0, 0] = torch.inf
    torch.save(weights, source)
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        quantize_checkpoint(source, tmp_path / "out.safetensors", "int8")
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        quantize_checkpoint(source, tmp_path / "out.pth", "int8")
    assert list(tmp_path.iterdir()) == [source]


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    quantize_checkpoint(saved(tmp_path), tmp_path / "a.safetensors", "int8", progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
