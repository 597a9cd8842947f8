"""Two minutes on a CPU: our decoding, prefill and kernels as multiples of plain PyTorch and NumPy in the same run.

    make bench-quick                            # compares with the figures in the last commit, and writes new ones
    python benchmarks/quick.py --tolerance 0.2 --out my.json

The baseline of decoding and prefill is the model's matrix products alone, in float32, by PyTorch and by NumPy; that of
training is the chunked form of the op.  Ratios of one run move by a tenth or two on a busy machine, so the exit code is
1 only where one has lost more than `--tolerance` of what it was, on the same processor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cpu_models import random_weight
from benchmarks.protocol import RESULTS, interleave, machine, medians, report
from receptance import Config, ops, runtime
from receptance.models import RWKV
from receptance.quant import quantize
from tests.ops.cases import make, relative

# Wide enough for memory to count, and made within seconds.
CONFIG = Config(version="7", vocab_size=16384, num_layers=6, dim=768)
NUM_TOKENS, PREFILL = 8, 256
FORMATS = ("fp32", "bf16", "int8", "int4")
OWN_FORM, BASE_FORM = "numba", "chunked"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=0.3, help="the share of a ratio that may be lost")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    before = committed()
    with torch.no_grad():
        ratios = models(args.rounds)
    for op in ("wkv7", "wkv6", "wkv4"):
        ratios |= training(op, args.rounds)
    rows = [row(figure, ratio, before) for figure, ratio in ratios.items()]
    report("quick", rows, args.out)
    if lost := [row["figure"] for row in rows if row["change"] != "" and row["change"] < -args.tolerance]:
        raise SystemExit(f"slower than in the last commit by more than {args.tolerance:.0%}: {', '.join(lost)}")


def row(figure: str, ratio: float, before: Mapping[str, float]) -> dict[str, Any]:
    change = ratio / before[figure] - 1 if figure in before else ""
    return {"figure": figure, "times the baseline": ratio, "committed": before.get(figure, ""), "change": change}


def committed() -> dict[str, float]:
    """The ratios of the last commit by figure; none where there are none, or another processor's."""
    path = (RESULTS / "quick.json").relative_to(RESULTS.parents[1])
    command = ["git", "show", f"HEAD:./{path}"]
    done = subprocess.run(command, cwd=RESULTS.parents[1], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 else None
    if found is None or any(found["machine"][name] != machine()[name] for name in ("processor", "threads")):
        print("the last commit has no figures of such a machine; nothing to compare with")
        return {}
    return {row["figure"]: row["times the baseline"] for row in found["rows"]}


def models(rounds: int) -> dict[str, float]:
    """Decoding in every format, and prefill, over the products of the same matrices."""
    built = {kind: model(kind) for kind in FORMATS}
    matrices = [weight for name, weight in built["fp32"].named_parameters() if is_product(name, weight)]
    tokens = torch.arange(1, PREFILL + 1)
    candidates = {f"decode {kind}": decode(of, tokens[:NUM_TOKENS]) for kind, of in built.items()}
    candidates["PyTorch"] = products(matrices, [torch.randn(1, weight.shape[1]) for weight in matrices], NUM_TOKENS)
    candidates["NumPy"] = numpy_products(matrices, NUM_TOKENS)
    candidates |= {f"prefill {kind}": prefill(built[kind], tokens[None]) for kind in FORMATS[:2]}
    many = products(matrices, [torch.randn(PREFILL, weight.shape[1]) for weight in matrices], 1)
    seconds = medians(interleave({**candidates, "PyTorch, many": many}, rounds))
    ratios = {f"{name} / {base}": seconds[base] / seconds[name] for name in candidates for base in ("PyTorch", "NumPy")}
    ratios = {figure: ratio for figure, ratio in ratios.items() if figure.startswith("decode")}
    return ratios | {
        f"{name} / PyTorch": seconds["PyTorch, many"] / seconds[name] for name in candidates if "prefill" in name
    }


def model(kind: str) -> RWKV:
    """The same random weights in a format."""
    with torch.device("meta"):
        built = RWKV(CONFIG)
    weights = {name: random_weight(name, like.shape, n) for n, (name, like) in enumerate(built.state_dict().items())}
    built.load_state_dict(weights, assign=True)
    built.eval()
    if kind == "fp32":
        return built.float()
    return built if kind == "bf16" else quantize(built, kind)


def is_product(name: str, weight: Tensor) -> bool:
    """Whether a token is multiplied by this; low-rank factors are left out, the head is in."""
    return weight.dim() == 2 and name.endswith(".weight") and name != "emb.weight"


def decode(of: RWKV, tokens: Tensor) -> Callable[[], object]:
    step = runtime.compile(of, slots=1, skip=False)
    return lambda: [step(token) for token in tokens.split(1)]


def prefill(of: RWKV, tokens: Tensor) -> Callable[[], object]:
    return lambda: of.head(of.features(tokens)[0])


def products(matrices: list[Tensor], inputs: list[Tensor], times: int) -> Callable[[], object]:
    return lambda: [F.linear(x, weight) for _ in range(times) for x, weight in zip(inputs, matrices, strict=True)]


def numpy_products(matrices: list[Tensor], times: int) -> Callable[[], object]:
    arrays = [weight.detach().numpy() for weight in matrices]
    inputs = [np.ones(array.shape[1], np.float32) for array in arrays]
    return lambda: [array @ x for _ in range(times) for x, array in zip(inputs, arrays, strict=True)]


def training(op: str, rounds: int) -> dict[str, float]:
    """Forward and backward of an op's kernels over those of its chunked form."""
    inputs = [x.requires_grad_() for x in make(op, 2, 256, torch.float32, 12, 64)]

    def run(form: str) -> Tensor:
        with ops.use(form):
            y, _ = ops.OPS[op](*inputs)
        torch.autograd.grad(y.square().sum(), inputs, allow_unused=True)
        return y.detach()

    error = relative(run(OWN_FORM), run(BASE_FORM))
    assert error < 1e-3, f"{op} is wrong by {error}: not timed"
    candidates = {form: lambda form=form: run(form) for form in (OWN_FORM, BASE_FORM)}
    seconds = medians(interleave(candidates, max(3, rounds // 3)))
    return {f"{op} forward and backward / {BASE_FORM} form": seconds[BASE_FORM] / seconds[OWN_FORM]}


if __name__ == "__main__":
    main()
