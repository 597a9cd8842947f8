"""`make acceptance PART=big_model`: RWKV-4 14B becomes int4 within 4 GB of memory, runs within 10 GB, near its floor.

Random weights are written to disk tensor by tensor: 14B where 45 GB are free, else 7B.  BIG_MODEL=rwkv4-169m takes
another preset, for which the bounds are smaller by as much; BIG_MODEL_FOLDER=/big another place than the system's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from receptance import RWKV, Config
from receptance.checkpoints.safetensors import SafetensorsStream
from receptance.quant import open_quantised

NEEDS = {"rwkv4-14b": 45 * 10**9, "rwkv4-7b": 24 * 10**9}
GB = 10**9
# Python, PyTorch and Numba take this before any model is there.
PROGRAMS = GB

CONVERT = """
import sys, torch
from receptance.quant import quantize_checkpoint
quantize_checkpoint(sys.argv[1], sys.argv[2], "int4")
"""
RUN = """
import sys, time, torch, receptance
from receptance import runtime
lm = receptance.load(sys.argv[2])
step = runtime.compile(lm.model, skip=False)
for token in range(3):
    logits = step(torch.tensor([token]))
    assert logits.isfinite().all() and logits.std() > 0
"""
# Follows PEAK, because the GiB that is read for comparison is no memory of the model's.
SPEED = """
from statistics import median
from benchmarks.cpu_worker import Bandwidth, seconds
stored = [*lm.model.named_parameters(), *lm.model.named_buffers()]
needed = sum(tensor.nbytes for name, tensor in stored if name != "emb.weight")
memory, shares = Bandwidth("-", torch.float32), []
for token in range(15):
    read = memory.read()
    took = seconds(lambda: step(torch.tensor([token])))
    shares.append(needed / took / ((read + memory.read()) / 2))
    print(f"{took:.3f} s a token, {read / 1e9:.1f} GB/s, {shares[-1]:.0%}", file=sys.stderr)
print(median(shares))
"""
# Bytes that the process has in memory at the most, pages of mapped files included.
PEAK = """
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    named = os.environ.get("BIG_MODEL_FOLDER")
    folder = Path(named) / "big-model" if named else tmp_path_factory.mktemp("big-model")
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def preset(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    asked = os.environ.get("BIG_MODEL") or next((name for name, size in NEEDS.items() if free > size), None)
    if asked is None:
        pytest.skip(f"needs {NEEDS['rwkv4-7b'] // GB} GB of disk in {folder}")
    return asked


@pytest.fixture(scope="module")
def source(folder: Path, preset: str) -> Path:
    """Random bfloat16 weights, small enough for the activations to stay finite."""
    path = folder / "model.safetensors"
    with torch.device("meta"):
        shapes = RWKV(Config.preset(preset)).state_dict()
    start = time.perf_counter()
    with SafetensorsStream(path, room=2**20) as stream:
        for name, like in shapes.items():
            stream.add(name, _random(name, like.shape))
    print(f"\n{preset}: {path.stat().st_size / GB:.1f} GB written in {time.perf_counter() - start:.0f} s")
    return path


def _random(name: str, shape: torch.Size) -> torch.Tensor:
    if "ln" in name:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
    if "time_mix" in name:
        return torch.rand(shape).bfloat16()
    return torch.empty(shape, dtype=torch.bfloat16).uniform_(-1, 1).mul_(shape[-1] ** -0.5)


def _ask(script: str, *arguments: Path) -> list[float]:
    """The numbers that a script prints, a line each."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [float(line) for line in said.splitlines()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has another unit elsewhere")
def test_it_is_quantised_and_run_in_little_memory(folder: Path, preset: str, source: Path) -> None:
    small = folder / "model.int4.safetensors"
    # Nothing is taken from the smaller presets for what the programs need themselves.
    share = source.stat().st_size / (28.3 * GB)
    start = time.perf_counter()
    (peak,) = _ask(CONVERT + PEAK, source, small)
    print(f"converted in {time.perf_counter() - start:.0f} s, {peak / GB:.2f} GB at the peak")
    assert peak < PROGRAMS + 3 * GB * share
    bits = open_quantised(small).bits_per_weight
    print(f"{small.stat().st_size / GB:.2f} GB, {bits:.2f} bits a weight but for the embedding")
    assert bits < 4.6
    peak, floor = _ask(RUN + PEAK + SPEED, source, small)
    print(f"run with {peak / GB:.2f} GB at the peak, at {floor:.0%} of the floor of its bytes")
    assert peak < PROGRAMS + 9 * GB * share
    # Of a token of a small one, the vectors between the products are a part.
    assert floor > 0.7 or preset not in NEEDS
