"""Every writable format into every other and back, to the bit; and what a format does not hold is named."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from receptance import CheckpointError
from receptance.checkpoints import Checkpoint, convert, load_model, open_checkpoint, save_checkpoint
from receptance.checkpoints.hf import FOLDER_DIALECTS

from .weights import CONFIGS, VERSIONS, official_weights, same, unused_weights

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# A small limit makes a folder of several files, whose index is then part of the test.
SHARD_BYTES = 20_000
FILES = ("a.pth", "a.safetensors")


def formats(version: str) -> tuple[str, ...]:
    return (*FILES, "folder") if CONFIGS[version].version in FOLDER_DIALECTS else FILES


PAIRS = [(version, *pair) for version in VERSIONS for pair in itertools.product(formats(version), repeat=2)]


def contents(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: checkpoint.tensor(name) for name in checkpoint.tensors}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("version", "first", "second"), PAIRS)
def test_there_and_back(version: str, first: str, second: str, dtype: torch.dtype, tmp_path: Path) -> None:
    weights = official_weights(CONFIGS[version], dtype)
    torch.save(weights, tmp_path / "official.pth")
    source = tmp_path / "official.pth"
    for number, name in enumerate((first, second, "back.pth")):
        checkpoint = open_checkpoint(source)
        assert checkpoint.config == CONFIGS[version] and same(contents(checkpoint), weights)
        source = tmp_path / f"{number}{name}"
        assert convert(checkpoint, source, shard_bytes=SHARD_BYTES) == []
    assert same(torch.load(source, weights_only=True, mmap=True), weights)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_saved_and_loaded(version: str, tmp_path: Path) -> None:
    weights = official_weights(CONFIGS[version])
    torch.save(weights, tmp_path / "official.pth")
    model = load_model(tmp_path / "official.pth")
    assert same(dict(model.state_dict()), weights)
    for name in formats(version):
        save_checkpoint(model, tmp_path / f"saved-{name}")
        again = load_model(tmp_path / f"saved-{name}")
        assert same(dict(again.state_dict()), weights) and again.config == CONFIGS[version]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_has_an_index_only_where_it_has_several_files(tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS["7"]), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "one")
    convert(tmp_path / "a.pth", tmp_path / "several", shard_bytes=SHARD_BYTES)
    assert {file.name for file in (tmp_path / "one").iterdir()} == {"config.json", "model.safetensors"}
    several = sorted(file.name for file in (tmp_path / "several").iterdir())
    shards = [name for name in several if name.endswith(".safetensors")]
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors" and len(shards) > 1
    assert set(several) == {"config.json", "model.safetensors.index.json", *shards}
    assert all((tmp_path / "several" / name).stat().st_size < SHARD_BYTES + 5_000 for name in shards)


def test_a_folder_that_exists_keeps_what_is_not_ours(tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS["7"]), tmp_path / "a.pth")
    folder = tmp_path / "folder"
    convert(tmp_path / "a.pth", folder, shard_bytes=SHARD_BYTES)
    (folder / "tokenizer.json").write_text("{}")
    convert(tmp_path / "a.pth", folder)
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


def test_what_a_format_has_no_place_for_is_named(tmp_path: Path) -> None:
    config = CONFIGS["7"]
    unused = unused_weights(config) | {"blocks.1.att.time_state": torch.randn(3, 8, 8)}
    torch.save(official_weights(config) | unused, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "b.safetensors") == []
    assert convert(tmp_path / "b.safetensors", tmp_path / "c.pth") == []
    assert same(torch.load(tmp_path / "c.pth", weights_only=True), torch.load(tmp_path / "a.pth", weights_only=True))
    assert convert(tmp_path / "c.pth", tmp_path / "folder") == list(unused)


@pytest.mark.parametrize("version", ["5.0", "5.1", "5.2"])
def test_generations_without_a_folder_format(version: str, tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS[version]), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"no Hugging Face folder holds RWKV-{version}"):
        convert(tmp_path / "a.pth", tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("name", ["b.st", "b.gguf", "b.onnx", "a.pth/b.safetensors"])
def test_destinations_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS["4"]), tmp_path / "a.pth")
    with pytest.raises((CheckpointError, OSError)):
        convert(tmp_path / "a.pth", tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS["4"]), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "rwkv4-0.1b")
    assert open_checkpoint(tmp_path / "rwkv4-0.1b").dialect == "transformers rwkv"
