"""llama.cpp's files: there and back to the bit, what stands in them, what is refused, and llama.cpp's own logits."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import receptance
from benchmarks.cpu_peers import llama_command, peers_python
from benchmarks.cpu_serve import Worker
from receptance import CheckpointError, Config, MissingExtraError
from receptance.checkpoints import convert, open_checkpoint, save_checkpoint
from receptance.checkpoints.gguf import GgufFile
from receptance.checkpoints.gguf_writer import CHAT_TEMPLATE
from receptance.cli import app
from receptance.templates import Message, open_template
from receptance.tokenizers import WorldTokenizer

from .weights import official_weights, same, unused_weights

gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")

# Every size different from every other, heads of the least size that llama.cpp computes.
CONFIGS = {
    "6": Config(version="6", vocab_size=50, num_layers=3, dim=128, ffn_dim=96, mix_rank=3, decay_rank=7),
    "7": Config(
        version="7",
        vocab_size=50,
        num_layers=3,
        dim=128,
        ffn_dim=96,
        decay_rank=5,
        rate_rank=6,
        value_rank=7,
        gate_rank=9,
    ),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TEXTS = ("Hello world", "<s> and </s>", "a\n\nb\r\n\t", "Grüße, 你好 ☃", "quotes ' \" and \\x41", "\x01\x7f")
WORLD_SIZE = 65536


def saved(folder: Path, config: Config, dtype: torch.dtype = torch.float32, name: str = "a.pth") -> Path:
    torch.save(official_weights(config, dtype), folder / name)
    return folder / name


def contents(path: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.tensor(name) for name in checkpoint.tensors}


def metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("version", CONFIGS)
def test_there_and_back_to_the_bit(version: str, dtype: torch.dtype, tmp_path: Path) -> None:
    source = saved(tmp_path, CONFIGS[version], dtype)
    assert convert(source, tmp_path / "b.gguf") == []
    assert open_checkpoint(tmp_path / "b.gguf").config == CONFIGS[version]
    assert open_checkpoint(tmp_path / "b.gguf").dtype == dtype
    # Vectors are float32 in such a file, so that the way back has to be told the dtype.
    convert(tmp_path / "b.gguf", tmp_path / "c.pth", dtype=dtype)
    assert same(torch.load(tmp_path / "c.pth"), torch.load(source))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("version", CONFIGS)
def test_a_smaller_dtype_is_for_matrices_only(version: str, tmp_path: Path) -> None:
    weights = torch.load(saved(tmp_path, CONFIGS[version]))
    convert(tmp_path / "a.pth", tmp_path / "b.gguf", dtype="bfloat16")
    found = contents(tmp_path / "b.gguf")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, torch.bfloat16}
    for name, tensor in found.items():
        assert torch.equal(tensor, weights[name].to(tensor.dtype)), name
        assert tensor.dtype == torch.bfloat16 or ".weight" not in name or "ln" in name


@pytest.mark.parametrize("version", CONFIGS)
def test_the_reader_of_llama_cpp_finds_its_names_and_shapes(version: str, tmp_path: Path) -> None:
    c, f, v, n, h = 128, 96, 50, 64, 2
    layer: dict[str, tuple[int, ...]] = {
        f"attn_norm{n}.{part}": (c,) for n in ("", "_2") for part in ("weight", "bias")
    }
    layer |= {f"time_mix_ln.{part}": (c,) for part in ("weight", "bias")}
    layer |= {f"time_mix_{name}.weight": (c, c) for name in ("receptance", "key", "value", "output")}
    layer |= {"channel_mix_key.weight": (c, f), "channel_mix_value.weight": (f, c), "channel_mix_lerp_k.weight": (c,)}
    if version == "7":
        layer |= {f"time_mix_{name}.weight": (c,) for name in ("w0", "a0", "v0", "k_k", "k_a", "r_k")}
        for x, rank in zip("wavg", (5, 6, 7, 9), strict=True):
            layer |= {f"time_mix_{x}1.weight": (c, rank), f"time_mix_{x}2.weight": (rank, c)}
        layer["time_mix_lerp_fused.weight"] = (c, 1, 1, 6)
    else:
        layer |= {f"{name}.weight": (c,) for name in ("time_mix_decay", "time_mix_lerp_x", "channel_mix_lerp_r")}
        layer |= {f"{name}.weight": (c, c) for name in ("time_mix_gate", "channel_mix_receptance")}
        layer |= {"time_mix_w1.weight": (c, 15), "time_mix_w2.weight": (3, c, 5), "time_mix_first.weight": (n, h)}
        layer |= {"time_mix_decay_w1.weight": (c, 7), "time_mix_decay_w2.weight": (7, c)}
        layer["time_mix_lerp_fused.weight"] = (c, 1, 1, 5)
    wanted = {f"blk.{number}.{name}": shape for number in range(3) for name, shape in layer.items()}
    wanted |= {"token_embd.weight": (c, v), "output.weight": (c, v)}
    wanted |= {f"{norm}.{part}": (c,) for norm in ("token_embd_norm", "output_norm") for part in ("weight", "bias")}
    if version == "7":
        # Unused there, and llama.cpp has room for the rank of the rates only.
        wanted |= {"blk.0.time_mix_v1.weight": (c, 6), "blk.0.time_mix_v2.weight": (6, c)}
    convert(saved(tmp_path, CONFIGS[version]), tmp_path / "b.gguf")
    tensors = gguf.GGUFReader(tmp_path / "b.gguf").tensors
    assert {tensor.name: tuple(map(int, tensor.shape)) for tensor in tensors} == wanted


def test_metadata_of_both_generations(tmp_path: Path) -> None:
    for version, config in CONFIGS.items():
        convert(saved(tmp_path, config), tmp_path / f"{version}.gguf", dtype="bfloat16")
    sixth, seventh = (metadata(tmp_path / f"{version}.gguf") for version in CONFIGS)
    for found, kind in ((sixth, "rwkv6"), (seventh, "rwkv7")):
        assert found["general.architecture"] == kind and found["general.file_type"] == 32
        sizes = {"block_count": 3, "embedding_length": 128, "feed_forward_length": 96, "wkv.head_size": 64}
        assert {name: found[f"{kind}.{name}"] for name in sizes} == sizes
        assert found[f"{kind}.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    assert [sixth[f"rwkv6.time_{name}_extra_dim"] for name in ("mix", "decay")] == [3, 7]
    ranks = ("decay", "iclr", "value_residual_mix", "gate")
    assert [seventh[f"rwkv7.attention.{name}_lora_rank"] for name in ranks] == [5, 6, 7, 9]


def _unescaped(text: str) -> bytes:
    pieces = re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
    return pieces.encode("latin-1")


def test_the_world_vocabulary_is_whole_and_ids_that_end_a_text_are_right(tmp_path: Path) -> None:
    config = CONFIGS["7"].replace(vocab_size=WORLD_SIZE)
    convert(saved(tmp_path, config), tmp_path / "b.gguf")
    found = metadata(tmp_path / "b.gguf")
    texts, types, tokenizer = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"], WorldTokenizer()
    assert found["tokenizer.ggml.model"] == "rwkv" and len(texts) == len(types) == len(set(texts)) == WORLD_SIZE
    kinds = gguf.TokenType
    for token in range(WORLD_SIZE):
        if value := tokenizer.token_bytes(token):
            assert _unescaped(texts[token]) == value and types[token] == kinds.NORMAL
        else:
            assert types[token] == (kinds.UNUSED if token else kinds.CONTROL)
    assert [found[f"tokenizer.ggml.{end}_token_id"] for end in ("bos", "eos", "eot")] == [0, 0, 261]


def test_only_models_whose_answers_end_with_a_blank_line_say_so(tmp_path: Path) -> None:
    config = CONFIGS["7"].replace(vocab_size=WORLD_SIZE)
    for name in ("RWKV-x070-World-0.1B-v2.8-20241210-ctx4096.pth", "rwkv7-g1h-7.2b-20260710-ctx10240.pth"):
        convert(saved(tmp_path, config, name=name), tmp_path / f"{name}.gguf")
        ends = "tokenizer.ggml.eot_token_id" in GgufFile(tmp_path / f"{name}.gguf").metadata
        assert ends == ("World" in name)


def test_bytes_are_a_vocabulary_and_other_sizes_have_none(tmp_path: Path) -> None:
    for size in (256, 50277):
        convert(saved(tmp_path, CONFIGS["7"].replace(vocab_size=size)), tmp_path / f"{size}.gguf")
    found = metadata(tmp_path / "256.gguf")
    texts = found["tokenizer.ggml.tokens"]
    assert [_unescaped(text) for text in texts[1:]] == [bytes([value]) for value in range(1, 256)]
    assert found["tokenizer.ggml.eos_token_id"] == 0
    found = metadata(tmp_path / "50277.gguf")
    assert found["tokenizer.ggml.model"] == "none" and found["rwkv7.vocab_size"] == 50277


def test_the_chat_template_writes_what_ours_does(tmp_path: Path) -> None:
    (tmp_path / "written.jinja").write_text(CHAT_TEMPLATE)
    talk = [Message("user", "Hi there"), Message("assistant", "Hello."), Message("user", "How are you?")]
    assert open_template(str(tmp_path / "written.jinja")).prompt(talk) == open_template("g1").prompt(talk)


@pytest.mark.parametrize("version", CONFIGS)
def test_info_and_load_take_such_a_file(version: str, tmp_path: Path) -> None:
    convert(saved(tmp_path, CONFIGS[version]), tmp_path / "b.gguf")
    result = CliRunner().invoke(app, ["info", str(tmp_path / "b.gguf")])
    assert result.exit_code == 0 and f"RWKV-{version}" in result.output
    tokens = torch.randint(50, (1, 9))
    ours, theirs = (receptance.load(tmp_path / name).model(tokens)[0] for name in ("a.pth", "b.gguf"))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("version", CONFIGS)
def test_a_model_in_memory_is_written_too(version: str, tmp_path: Path) -> None:
    model = receptance.build(CONFIGS[version])
    save_checkpoint(model, tmp_path / "a.GGUF")
    assert same(contents(tmp_path / "a.GGUF"), dict(model.state_dict()))


def test_the_epsilon_of_the_norms_is_kept(tmp_path: Path) -> None:
    config = CONFIGS["7"].replace(norm_eps=3e-6)
    save_checkpoint(receptance.build(config), tmp_path / "a.gguf")
    assert open_checkpoint(tmp_path / "a.gguf").config == config


def test_what_has_no_place_is_named(tmp_path: Path) -> None:
    unused = unused_weights(CONFIGS["7"]) | {"blocks.1.att.time_state": torch.randn(2, 64, 64)}
    torch.save(official_weights(CONFIGS["7"]) | unused, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "b.gguf") == list(unused)


def written_by_others(path: Path, weights: dict[str, np.ndarray], **values: int) -> Path:
    """A file of RWKV-6 with tensors of our choice, by the format's own library."""
    writer = gguf.GGUFWriter(path, "rwkv6")
    writer.add_wkv_head_size(64)
    for name, value in values.items():
        writer.add_uint32(f"rwkv6.{name}", value)
    for name, numbers in weights.items():
        writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_files_of_other_writers_mixes_apart_and_scaled_layers(tmp_path: Path) -> None:
    weights = torch.load(saved(tmp_path, CONFIGS["6"]))
    convert(tmp_path / "a.pth", tmp_path / "b.gguf")
    tensors = {}
    for tensor in gguf.GGUFReader(tmp_path / "b.gguf").tensors:
        if tensor.name.endswith("lerp_fused.weight"):
            for x, mix in zip("wkvrg", tensor.data, strict=True):
                tensors[tensor.name.replace("fused", x)] = mix.reshape(-1)
        elif re.search("time_mix_output|channel_mix_value", tensor.name):
            tensors[tensor.name] = tensor.data / 2 ** (int(tensor.name.split(".")[1]) // 2)
        else:
            tensors[tensor.name] = tensor.data
    path = written_by_others(tmp_path / "c.gguf", tensors, rescale_every_n_layers=2)
    assert same(contents(path), weights)


REFUSED = {
    "RWKV-4": (Config(version="4", vocab_size=50, num_layers=1, dim=24), "llama.cpp has no RWKV-4"),
    "small heads": (CONFIGS["7"].replace(head_size=32), "heads of 32"),
    "a wide time mix": (CONFIGS["6"].replace(attention_dim=64), "a time mix of 64 channels beside 128"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_llama_cpp_would_compute_wrongly_are_refused(kind: str, tmp_path: Path) -> None:
    config, says = REFUSED[kind]
    with pytest.raises(CheckpointError, match=says):
        convert(saved(tmp_path, config), tmp_path / "b.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_another_group_norm_and_float64_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a group norm epsilon of 1e-05"):
        save_checkpoint(receptance.build(CONFIGS["7"].replace(group_norm_eps=1e-5)), tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match="no float64; choose --dtype float32"):
        convert(saved(tmp_path, CONFIGS["7"], torch.float64), tmp_path / "b.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"receptance\[gguf\]"):
        convert(saved(tmp_path, CONFIGS["7"]), tmp_path / "b.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_quantised_foreign_and_split_files_are_refused(tmp_path: Path) -> None:
    numbers = {"token_embd.weight": np.zeros((4, 32), np.int8)}
    with pytest.raises(CheckpointError, match=r"token_embd.weight quantised, which cannot be read"):
        GgufFile(written_by_others(tmp_path / "a.gguf", numbers))
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="of the kind 'llama'"):
        GgufFile(tmp_path / "b.gguf")
    writer = gguf.GGUFWriter(tmp_path / "c.gguf", "rwkv7")
    writer.add_uint16("split.count", 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="one part of several"):
        GgufFile(tmp_path / "c.gguf")


def test_damage_anywhere_is_a_sentence_or_harmless(tmp_path: Path) -> None:
    rng = random.Random(0)
    convert(saved(tmp_path, CONFIGS["7"]), tmp_path / "b.gguf")
    whole = (tmp_path / "b.gguf").read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(6000)] = rng.randrange(256)
        (tmp_path / "bad.gguf").write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            contents(tmp_path / "bad.gguf")
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


@pytest.fixture(scope="module")
def peers() -> Path:
    python = peers_python()
    if python is None:
        pytest.skip("llama-cpp-python is not installed; `make bench-peers` does that")
    return python


@pytest.fixture(params=CONFIGS)
def pair(request: pytest.FixtureRequest, peers: Path, tmp_path: Path) -> Iterator[tuple[Worker, Any]]:
    """A small random model with the World vocabulary: llama.cpp's and ours."""
    torch.manual_seed(int(request.param))
    config = CONFIGS[request.param].replace(vocab_size=WORLD_SIZE)
    convert(saved(tmp_path, config), tmp_path / "b.gguf")
    with Worker(llama_command(peers, tmp_path / "b.gguf", 1), tmp_path / "log", threads=1) as worker:
        yield worker, receptance.load(tmp_path / "a.pth")


def test_llama_cpp_gives_our_logits_and_our_ids(pair: tuple[Worker, Any]) -> None:
    worker, ours = pair
    tokens = torch.randint(1, WORLD_SIZE, (1, 40))
    with torch.no_grad():
        wanted = ours.model(tokens)[0][0]
    spread = wanted.std()
    for whole in (True, False):
        found = torch.tensor(worker.ask("logits", tokens=tokens[0].tolist(), whole=whole))
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < 1e-3 * spread
    for text in TEXTS:
        assert worker.ask("tokenize", text=text) == ours.tokenizer.encode(text)
    special = worker.ask("special")
    assert special["eos"] == 0 and special["ends"] == [0, 261] and special["template"] == CHAT_TEMPLATE


@pytest.mark.parametrize("size", [256, 50277])
def test_llama_cpp_takes_models_without_the_world_vocabulary(size: int, peers: Path, tmp_path: Path) -> None:
    convert(saved(tmp_path, CONFIGS["7"].replace(vocab_size=size)), tmp_path / "b.gguf")
    tokens = torch.randint(1, 256, (1, 9))
    with Worker(llama_command(peers, tmp_path / "b.gguf", 1), tmp_path / "log", threads=1) as worker:
        found = torch.tensor(worker.ask("logits", tokens=tokens[0].tolist(), whole=True))
        ids = worker.ask("tokenize", text="é\n") if size == 256 else [195, 169, 10]
    with torch.no_grad():
        wanted = receptance.load(tmp_path / "a.pth").model(tokens)[0][0]
    assert (found - wanted).abs().max() < 1e-3 * wanted.std()
    assert ids == [195, 169, 10]
