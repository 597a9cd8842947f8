"""Large files: opened by their headers, converted in the memory of one tensor, written whole or not at all."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from receptance import Config
from receptance.checkpoints import convert, open_checkpoint, save_checkpoint
from receptance.checkpoints.pth_writer import write_pth
from receptance.models import RWKV

from .weights import CONFIGS, official_weights

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")


def own_memory() -> int:
    """Bytes of memory that belong to this process alone: not those of mapped files, which the system can take back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """140 MB, of which the largest tensor is 9 MB."""
    path = tmp_path_factory.mktemp("large") / "model.pth"
    config = Config(version="4", vocab_size=500, num_layers=5, dim=768, ffn_dim=3072)
    with torch.device("meta"):
        shapes = RWKV(config).state_dict()
    torch.save({name: torch.full(like.shape, 0.5) for name, like in shapes.items()}, path)
    yield path
    path.unlink()


@LINUX
@pytest.mark.parametrize(("target", "dtype"), [("b.pth", None), ("b.safetensors", torch.bfloat16), ("b", None)])
def test_a_conversion_needs_the_memory_of_one_tensor(
    target: str, dtype: torch.dtype | None, large: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(large)
    sizes = [tensor.nbytes for tensor in checkpoint.tensors.values()]
    gc.collect()
    before, seen = own_memory(), []
    convert(checkpoint, tmp_path / target, dtype=dtype, progress=lambda done, total: seen.append(own_memory()))
    # A tensor, what it becomes in another dtype, and what the allocator keeps of the last one.
    assert max(seen) - before < 4 * max(sizes) < sum(sizes) / 3
    assert len(seen) == len(sizes)


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS["7"]), tmp_path / "a.pth")
    seen: list[tuple[int, int]] = []
    convert(tmp_path / "a.pth", tmp_path / "b.pth", progress=lambda done, total: seen.append((done, total)))
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done) and done[-1] == totals[-1] and len(set(totals)) == 1


@pytest.fixture(scope="module")
def fourteen_billion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """28 GB on paper: the headers of RWKV-4 14B in bfloat16, with holes where the numbers would be."""
    folder = tmp_path_factory.mktemp("14b")
    with torch.device("meta"):
        shapes = RWKV(Config.preset("rwkv4-14b")).state_dict()
    paths = {name: folder / f"model.{name}" for name in ("pth", "safetensors")}
    try:
        _pth_with_holes(paths["pth"], shapes)
        _safetensors_with_holes(paths["safetensors"], shapes)
    except OSError as error:
        pytest.skip(f"this file system cannot hold a file with holes of 28 GB: {error}")
    yield paths
    for path in paths.values():
        path.unlink()


def _pth_with_holes(path: Path, shapes: dict[str, torch.Tensor]) -> None:
    """By PyTorch's own writer, which can leave the numbers out."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        weights = {name: torch.empty(like.shape, dtype=torch.bfloat16) for name, like in shapes.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(weights, path)


def _safetensors_with_holes(path: Path, shapes: dict[str, torch.Tensor]) -> None:
    import json

    header: dict[str, Any] = {}
    end = 0
    for name, like in shapes.items():
        start, end = end, end + 2 * like.numel()
        header[name] = {"dtype": "BF16", "shape": list(like.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


# Starts a process, and tells what it used when it has ended: processor seconds, and memory at its peak.
MEASURE = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.PIPE)
output = process.stdout.read().decode()
_, status, usage = os.wait4(process.pid, 0)
print(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, "RWKV-4" in output)
"""


def measure(*arguments: str) -> tuple[float, int, bool]:
    """Processor seconds (the clock would count what others do meanwhile), kilobytes, whether the answer was RWKV-4."""
    command = [sys.executable, "-c", MEASURE, *arguments]
    status, seconds, kilobytes, right = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    assert status == "0"
    return float(seconds), int(kilobytes), right == "True"


@LINUX
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_info_of_14b_takes_two_seconds_and_half_a_gigabyte(kind: str, fourteen_billion: dict[str, Path]) -> None:
    path = fourteen_billion[kind]
    assert path.stat().st_size > 28e9
    seconds, kilobytes, right = measure("-m", "receptance", "info", str(path))
    assert right and kilobytes < 500_000
    if seconds > 2:
        # On a slow or busy machine PyTorch alone may take that long.
        pytorch = measure("-c", "import torch")[0]
        again = measure("-m", "receptance", "info", str(path))[0]
        assert min(seconds, again) < max(2, 1.6 * pytorch)


def test_one_tensor_of_a_file_larger_than_memory_can_be_read(fourteen_billion: dict[str, Path]) -> None:
    for path in fourteen_billion.values():
        checkpoint = open_checkpoint(path)
        assert checkpoint.config == Config.preset("rwkv4-14b")
        assert checkpoint.tensor("blocks.39.ffn.time_mix_k").shape == (1, 1, 5120)
        assert float(checkpoint.tensor("blocks.39.ffn.key.weight")[-1, -1]) == 0


def test_a_pth_of_ours_is_as_pytorch_wants_it(tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["6"], torch.bfloat16)
    torch.save(weights, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.pth")
    for mmap in (False, True):
        loaded = torch.load(tmp_path / "b.pth", weights_only=True, mmap=mmap)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values())


def test_a_safetensors_file_of_ours_is_as_its_library_wants_it(tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["6"], torch.bfloat16)
    weights["emb.weight"] = weights["emb.weight"].float()
    torch.save(weights, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(weights)
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in weights.items())


def test_the_official_runtime_reads_a_pth_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("rwkv", reason="the official runtime is not installed")
    from receptance import official
    from receptance.checkpoints import load_model

    config = Config(version="7", vocab_size=50, num_layers=2, dim=128)
    torch.save(official_weights(config), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "b.pth")
    tokens = list(range(1, 20))
    (theirs,) = official.logits(tmp_path / "b.pth", "7", [[tokens]])
    with torch.no_grad():
        ours = load_model(tmp_path / "b.pth")(torch.tensor([tokens]))[0][0]
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.std())


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "folder"])
def test_a_failure_halfway_leaves_what_was_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source.pth", tmp_path / "out" / name
    torch.save(official_weights(CONFIGS["7"]), source)
    convert(source, target)
    before = {path: path.read_bytes() for path in target.parent.rglob("*") if path.is_file()}

    def disk_full(done: int, total: int) -> None:
        if done > total / 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        convert(source, target, dtype=torch.bfloat16, progress=disk_full)
    assert {path: path.read_bytes() for path in target.parent.rglob("*") if path.is_file()} == before


def test_interrupting_a_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(path: Path, items: object) -> None:
        write_pth(path, [])
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules["receptance.checkpoints.convert"].WRITERS, ".pth", stop)
    with torch.device("meta"):
        model = RWKV(CONFIGS["4"])
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(model, tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())
