"""The official runtime (`pip install rwkv`) as a witness: its logits on a file of ours.

    logits("model.pth", "7", [[[1, 2, 3, 4]], [[1, 2], [3, 4]]])       # the same tokens in one piece and in two

It runs in a process of its own, `python -m receptance.official`, because it reads its switches from the environment
when it is imported and keeps them for good.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from .config import Config
from .errors import MissingExtraError, ReceptanceError

Pieces = list[list[int]]


def refuses(config: Config) -> str | None:
    """Why the official runtime cannot serve such a model, or None."""
    if config.version in ("5.0", "5.1", "5.2") and config.num_layers == 1:
        return f"it cannot read an RWKV-{config.version} of one layer"
    if config.version in ("5.0", "5.1") and config.num_heads == 1:
        return f"it cannot read an RWKV-{config.version} of one head"
    if config.attention_dim != config.dim:
        return f"its state has room for {config.dim} channels of attention, not {config.attention_dim}"
    if 1 in (config.mix_rank, config.decay_rank, config.rate_rank, config.value_rank, config.gate_rank):
        return "it cannot read a low-rank factor of rank 1"
    if config.group_norm_eps != 64e-5 and config.version != "4":
        return f"its group norm epsilon is 64e-5 and cannot be changed to {config.group_norm_eps:g}"
    if config.norm_eps != 1e-5:
        return f"its layer norm epsilon is 1e-5 and cannot be changed to {config.norm_eps:g}"
    return None


def logits(path: Path, version: str, ways: list[Pieces]) -> list[Tensor]:
    """The logits [T, V] of the same tokens fed in several ways, each a list of pieces, in float32 on the CPU.

    `path` must be an official `.pth` in float32: RWKV-4 to 6 compute the embedding's norm in the file's dtype.
    Raises MissingExtraError where `rwkv` is not installed, and ReceptanceError where it fails.
    """
    if importlib.util.find_spec("rwkv") is None:
        raise MissingExtraError("the official runtime is not installed; get it with: pip install rwkv")
    with TemporaryDirectory() as folder:
        asked, answered = Path(folder, "ways.json"), Path(folder, "logits.pt")
        asked.write_text(json.dumps(ways))
        switches = {"RWKV_V7_ON": str(int(version == "7")), "RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}
        command = [sys.executable, "-m", "receptance.official", str(path), str(asked), str(answered)]
        done = subprocess.run(command, env=os.environ | switches, capture_output=True, text=True, check=False)
        if done.returncode or not answered.exists():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ReceptanceError(f"the official runtime failed on this model: {last}")
        results: list[Tensor] = torch.load(answered, weights_only=True)
    return results


def _serve(path: str, asked: str, answered: str) -> None:
    """The other process: run every way, from an empty state each."""
    from rwkv.model import RWKV

    # Generations up to 6 accept the name with its ending, generation 7 only without.
    model = RWKV(model=path.removesuffix(".pth"), strategy="cpu fp32")
    results = []
    for pieces in json.loads(Path(asked).read_text()):
        state, rows = None, []
        for piece in pieces:
            out, state = model.forward(piece, state, full_output=True)
            rows.append(out.reshape(len(piece), -1).float())
        results.append(torch.cat(rows))
    torch.save(results, answered)


if __name__ == "__main__":
    # It reports its progress on stdout, which is not what our caller reads.
    with contextlib.redirect_stdout(sys.stderr):
        _serve(*sys.argv[1:])
