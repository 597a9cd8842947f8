"""The first bytes of a `.safetensors` file are a length, which can be those of any other kind of file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from receptance import CheckpointError
from receptance.checkpoints import convert, open_checkpoint

from .weights import CONFIGS, official_weights, same

# What each beginning would be taken for.
BEGINNINGS = {
    "a pickle": b"\x80\x02",
    "a pickle, by one byte": b"\x80\x07",
    "a zip archive": b"PK",
    "a web page": b"<!",
    "gzip": b"\x1f\x8b",
    "7-Zip": b"7z",
}


def padded(path: Path, beginning: bytes) -> Path:
    """The file with spaces behind its header, as the format allows, until the length begins with these two bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    wanted = int.from_bytes(beginning, "little")
    while wanted < length:
        wanted += 2**16
    header = content[8 : 8 + length].ljust(wanted)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    return path


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_length_that_looks_like_another_kind_of_file(kind: str, tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["7"])
    torch.save(weights, tmp_path / "source.pth")
    convert(tmp_path / "source.pth", tmp_path / "model.safetensors")
    path = padded(tmp_path / "model.safetensors", BEGINNINGS[kind])
    assert path.read_bytes().startswith(BEGINNINGS[kind])
    assert same(load_file(path), weights)
    checkpoint = open_checkpoint(path)
    assert same({name: checkpoint.tensor(name) for name in checkpoint.tensors}, weights)


def test_four_bytes_of_another_kind_are_beyond_a_headers_limit(tmp_path: Path) -> None:
    """`GGUF`, read as a length, is a header of more than a gigabyte, which the format does not allow."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(4) + b"{" + bytes(64))
    with pytest.raises(CheckpointError, match="has version 0 of GGUF"):
        open_checkpoint(path)


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_cut_short_it_is_still_told(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(BEGINNINGS[kind] + bytes(6) + json.dumps({"emb.weight": {}}).encode())
    with pytest.raises(CheckpointError, match="cut short or damaged in its header"):
        open_checkpoint(path)
