"""The forms of the ops against the time loop, forward and backward, as a training step meets them.

    python benchmarks/ops.py                    # B 4, T 512, H 12, N 64, float32, about two minutes
    python benchmarks/ops.py --rounds 9 --out my.json --peer ../shared/sketches/chunked_wkv7.py

`--peer` is a Python file with a function `wkv7(r, log_w, k, v, a, b)` to be timed beside ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocol import interleave, medians, report
from receptance import ops
from receptance.ops import dispatch
from tests.ops.cases import make, relative

PEER = Path(__file__).resolve().parents[2] / "shared" / "sketches" / "chunked_wkv7.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 4), ("length", 512), ("heads", 12), ("rounds", 5), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer", type=Path, default=PEER if PEER.exists() else None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    for op in ("wkv7", "wkv6", "wkv4"):
        rows += measure(op, args)
    report("ops", rows, args.out)


def measure(op: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each form of `op`, and for the peer, after a check that they agree."""
    inputs = make(op, args.batch, args.length, torch.float32, args.heads, 64)
    inputs[-1].zero_()  # the peer starts from nothing
    inputs = [x.requires_grad_() for x in inputs]
    call = dispatch.Call(args.length, "cpu", torch.float32, True)
    serving = [form.name for form in dispatch.FORMS[op] if form.refuses(call) is None]
    candidates = {form: step(op, form, inputs) for form in serving}
    if op == "wkv7" and args.peer:
        candidates[args.peer.stem] = peer_step(args.peer, inputs[:-1])
    truth = candidates["reference"]()
    for name, run in candidates.items():
        error = relative(run(), truth)
        assert error < 1e-4, f"{op} {name} is wrong by {error}: not timed"
    seconds = medians(interleave(candidates, args.rounds))
    return [
        {"op": op, "form": name, "ms": 1e3 * took, "times the loop's speed": seconds["reference"] / took}
        for name, took in seconds.items()
    ]


def step(op: str, form: str, inputs: list[Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with ops.use(form):
            y, _ = ops.OPS[op](*inputs)
        torch.autograd.grad(y.square().sum(), inputs, allow_unused=True)
        return y.detach()

    return run


def peer_step(path: Path, inputs: list[Tensor]) -> Callable[[], Tensor]:
    spec = importlib.util.spec_from_file_location("peer", path)
    assert spec and spec.loader, f"{path} is not a Python file"
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)

    def run() -> Tensor:
        y: Tensor = peer.wkv7(*inputs)
        torch.autograd.grad(y.square().sum(), inputs)
        return y.detach()

    return run


if __name__ == "__main__":
    main()
