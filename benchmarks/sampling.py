"""The sampler against the official runtime's, one token at a time on a CPU, with the penalties that each applies.

    python benchmarks/sampling.py               # a vocabulary of 65,536, about half a minute
    python benchmarks/sampling.py --rounds 50 --out my.json

Logits are random; `kept` says how many tokens top_p left on average, which is what the time can depend on.  A trained
model leaves a few dozen, an untrained one tens of thousands.  Both sides have generated the same 500 tokens before, and
the official side is its loop from `PIPELINE.generate` without the model and the tokenizer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocol import interleave, medians, report
from receptance.generation import PRESETS, Sampler, Sampling
from receptance.generation.filters import Filtered

# Standard deviations of the logits: of a trained model, of an uncertain one, of one that has learnt little.
SPREADS = (6.0, 4.5, 3.0)
SAMPLINGS = ("official", "api-demo", "g1-think")
NUM_BEFORE, NUM_LOGITS = 500, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("vocab", 65536), ("rounds", 200), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    for preset in SAMPLINGS:
        for spread in SPREADS:
            rows.append(measure(preset, spread * torch.randn(NUM_LOGITS, args.vocab), args.rounds))
    report("sampling", rows, args.out)


def measure(preset: str, logits: Tensor, rounds: int) -> dict[str, Any]:
    sampling = PRESETS[preset]
    filters = Filtered([sampling], logits.shape[1], torch.device("cpu"))
    kept = sum(int(filters.kept(row[None]).count) for row in logits) / len(logits)
    before = torch.randint(logits.shape[1], (NUM_BEFORE,)).tolist()
    candidates = {"ours": ours(sampling, logits, before), "official": official(sampling, logits, before)}
    seconds = medians(interleave(candidates, rounds))
    return {
        "preset": preset,
        "kept": kept,
        "ms": 1e3 * seconds["ours"],
        "official ms": 1e3 * seconds["official"],
        "times the official speed": seconds["official"] / seconds["ours"],
    }


def ours(sampling: Sampling, logits: Tensor, before: list[int]) -> Callable[[], object]:
    sampler = Sampler([sampling], logits.shape[1], [0])
    for token in before:
        forced = torch.full((1, logits.shape[1]), -1000.0)
        forced[0, token] = 1000.0
        sampler.choose(forced)
    steps = cycle(logits.split(1))
    return lambda: sampler.choose(next(steps))


def official(sampling: Sampling, logits: Tensor, before: list[int]) -> Callable[[], object]:
    from rwkv.utils import PIPELINE

    pipeline = PIPELINE.__new__(PIPELINE)  # its tokenizer is not needed
    occurrence: dict[int, float] = {}
    steps = cycle(logits)

    def count(token: int) -> None:
        for known in occurrence:
            occurrence[known] *= sampling.penalty_decay
        occurrence[token] = occurrence.get(token, 0) + 1

    def run() -> None:
        out = next(steps).clone()  # a model's output is new, and the loop writes to it
        for token in sampling.banned:
            out[token] = -float("inf")
        for token in occurrence:
            out[token] -= sampling.presence_penalty + occurrence[token] * sampling.frequency_penalty
        count(pipeline.sample_logits(out, sampling.temperature, sampling.top_p, sampling.top_k))

    for token in before:
        count(token)
    return run


if __name__ == "__main__":
    main()
