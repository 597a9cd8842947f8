"""A training step of RWKV-4, 6 and 7 beside a Transformer of RWKV-7's depth, width and number of parameters.

    python benchmarks/training.py                     # two threads, bfloat16, about five minutes on two cores
    python benchmarks/training.py --rounds 9 --shapes 4x512 1x4096 --out my.json

A step is the trainer's own: forward, loss, backward, clipping and AdamW, with the matrix products in bfloat16 under
autocast for all of them.  All have 12 layers of width 256, heads of 64, and a vocabulary of 256.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocol import interleave, medians, report
from receptance import Config, build
from receptance.baselines import Transformer
from receptance.data import Tokens
from receptance.models import num_parameters
from receptance.training import Batch, Batching, Compute, Optim, Schedule, Trainer, Training

PEER = "Transformer"
# Rows x tokens -> what a step of RWKV-7 may take, as a share of the Transformer's.
BOUNDS = {(4, 512): 1.2, (1, 4096): 0.9, (1, 8192): 0.6}
# And of RWKV-4 and 6, as a share of RWKV-7's.
OTHERS_BOUND = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", type=shape, default=list(BOUNDS), metavar="ROWSxTOKENS")
    for name, default in (("rounds", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = make_models()
    report("training", [row for size in args.shapes for row in measure(models, *size, args.rounds)], args.out)


def shape(text: str) -> tuple[int, int]:
    """4x512 -> (4, 512)."""
    rows, length = text.split("x")
    return int(rows), int(length)


def make_models() -> dict[str, Any]:
    """The candidates by name, with no matrix left at zero: products with zeros cost as much, but gradients vanish."""
    torch.manual_seed(0)
    shape = {"vocab_size": 256, "num_layers": 12, "dim": 256}  # heads of 64 by default
    models: dict[str, Any] = {f"RWKV-{v}": build(Config(version=v, **shape)) for v in ("7", "6", "4")}
    for model in models.values():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return {PEER: Transformer.like(models["RWKV-7"]), **models}


def measure(models: dict[str, Any], rows: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each model, with what its step may take."""
    steps = {name: step(model, rows, length) for name, model in models.items()}
    seconds = medians(interleave(steps, rounds))
    ours, peer = seconds["RWKV-7"], seconds[PEER]
    return [
        {
            "rows": rows,
            "tokens": length,
            "model": name,
            "parameters": num_parameters(models[name]),
            "ms": 1e3 * took,
            "of the Transformer's": took / peer,
            "of RWKV-7's": took / ours,
            "at most": bound(name, rows, length),
        }
        for name, took in seconds.items()
    ]


def bound(name: str, rows: int, length: int) -> float | str:
    """What a step may take: RWKV-7's as a share of the Transformer's, those of RWKV-4 and 6 as a share of RWKV-7's."""
    if name == "RWKV-7":
        return BOUNDS.get((rows, length), "")
    return "" if name == PEER else OTHERS_BOUND


def step(model: Any, rows: int, length: int) -> Callable[[], object]:
    """A step of the trainer on random tokens."""
    recipe = Training(
        batch=Batching(rows=rows, length=length),
        optim=Optim(lr=1e-4),
        schedule=Schedule(tokens=10**9, end=1.0),
        compute=Compute(precision="bfloat16"),
    )
    tokens = torch.randint(256, (rows, length + 1))
    trainer = Trainer(model, Tokens.of([tokens.flatten().byte().numpy()]), recipe)
    return lambda: trainer.train_step(Batch.of(tokens))


if __name__ == "__main__":
    main()
