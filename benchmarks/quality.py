"""RWKV-7 and RWKV-4 beside a Transformer and an LSTM: the same text, parameters, tokens and batches.

    python benchmarks/quality.py                      # three hours on two cores; goes on where it was stopped
    python benchmarks/quality.py --tokens 1e6 --models RWKV-7 Transformer --out my.json

The text is the source of Python's standard library, byte by byte; one file in twenty is held out.  Every model has
about three million parameters and learns with AdamW, the cosine schedule and its own weight decay groups at each of the
same three learning rates.  Measured are bits per byte on the held-out files, read in pieces as long as those of the
training, with nothing before each: no model may look further back than another.  The rate is chosen on the first half
of these files, and what is told is measured on the second.  For RWKV and the LSTM the same is told with the state
carried on from piece to piece.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocol import report
from receptance import Config, build, plots
from receptance.baselines import LSTM, Transformer
from receptance.data import Corpus, Tokens, documents
from receptance.models import num_parameters
from receptance.replacing import replacing
from receptance.training import (
    Batching,
    Checkpoints,
    LiveProgress,
    Optim,
    Run,
    Schedule,
    Trainer,
    Training,
    bits,
    mean_loss,
    read_metrics,
)

RATES = (1e-3, 2e-3, 4e-3)
ROWS, LENGTH = 8, 256
SHAPE = {"vocab_size": 256, "num_layers": 6, "dim": 192}
RUNS = Path(__file__).parent / "runs"


def rwkv(version: str) -> Any:
    return build(Config(version=version, **SHAPE))


MODELS: dict[str, Callable[[], Any]] = {
    "RWKV-7": lambda: rwkv("7"),
    "Transformer": lambda: Transformer.like(rwkv("7")),
    "RWKV-4": lambda: rwkv("4"),
    "LSTM": lambda: LSTM(256, 2, 416),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=float, default=1e7)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--runs", type=Path, default=RUNS, help="where trainings are kept, to be gone on with")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quality.json")
    args = parser.parse_args()
    corpus, console = Corpus.of_bytes(documents("python:")), Console()
    rows, speeds = [], training_speeds(args.models, corpus)
    for rate in args.rates:
        for name in args.models:
            row = trained(name, rate, int(args.tokens), corpus, args.runs, console)
            rows.append({**row, "tokens/s": speeds[name], "minutes": args.tokens / speeds[name] / 60})
            report("quality", with_best(rows), args.out)
    best = {row["model"]: row["rate"] for row in with_best(rows) if row["best"]}
    curves = {name: read_metrics(args.runs / run_name(name, rate, int(args.tokens))) for name, rate in best.items()}
    plots.loss_curves(args.out.with_suffix(".png"), curves)


def training_speeds(names: list[str], corpus: Corpus, rounds: int = 7, steps: int = 4) -> dict[str, float]:
    """Tokens a second of training each model, measured in turns: the trainings themselves may have stood aside."""
    trainers, seconds = {}, {name: list[float]() for name in names}
    for name in names:
        recipe = Training(batch=Batching(rows=ROWS, length=LENGTH, order="random"), schedule=Schedule(steps=1))
        trainers[name] = Trainer(MODELS[name](), corpus.train, recipe)
    for number in range(rounds):
        for name, trainer in trainers.items():
            start = perf_counter()
            for _ in range(steps):
                trainer.train_step(trainer.batches(trainer.position.steps))
            # The first round compiles.
            if number:
                seconds[name].append(perf_counter() - start)
    return {name: steps * ROWS * LENGTH / median(taken) for name, taken in seconds.items()}


def run_name(name: str, rate: float, tokens: int) -> str:
    return f"{name}-{rate:g}-{tokens}"


def trained(name: str, rate: float, tokens: int, corpus: Corpus, runs: Path, console: Console) -> dict[str, Any]:
    """One training, or what is left of it to do, and what it came to."""
    folder = runs / run_name(name, rate, tokens)
    recipe = Training(
        batch=Batching(rows=ROWS, length=LENGTH, order="random"),
        optim=Optim(lr=rate),
        schedule=Schedule(tokens=tokens, warmup_steps=100),
        checkpoints=Checkpoints(every_minutes=2, keep=1),
    )
    torch.manual_seed(0)
    model = MODELS[name]()
    done = folder / "result.json"
    if not done.exists():
        with LiveProgress(console, f"{name}, {rate:g}", bytes_per_token=1.0) as live:
            Trainer(model, corpus.train, recipe, live, keeper=Run(folder, recipe)).train()
        choosing, telling = halves(corpus.held_out)
        measured = {"bits on the first half": in_pieces(model, choosing), "bits per byte": in_pieces(model, telling)}
        if not isinstance(model, Transformer):
            measured["carried on"] = bits(mean_loss(model, telling, rows=16, length=LENGTH))
        with replacing(done) as partial:
            partial.write_text(json.dumps(measured))
    steps, found = read_metrics(folder), json.loads(done.read_text())
    return {
        "model": name,
        "parameters": num_parameters(model),
        "rate": rate,
        "tokens": tokens,
        "bits on the first half": found["bits on the first half"],
        "bits per byte": found["bits per byte"],
        "carried on": found.get("carried on", ""),
        "training bits": bits(steps[-1]["smooth_loss"]),
    }


def halves(text: Tokens) -> tuple[Tokens, Tokens]:
    """The first half of the documents, and the others."""
    pieces = [text.window(start, end - start) for start, end in pairwise(text.starts.tolist())]
    return Tokens.of(pieces[: len(pieces) // 2]), Tokens.of(pieces[len(pieces) // 2 :])


@torch.no_grad()
def in_pieces(model: Any, text: Tokens) -> float:
    """Bits per byte of a text in pieces of the training's length, with nothing before each."""
    total, count = 0.0, 0
    whole = (text.num_tokens - 1) // LENGTH
    for start in range(0, whole, 32):
        rows = range(start, min(start + 32, whole))
        tokens = torch.stack([torch.from_numpy(text.window(row * LENGTH, LENGTH + 1)) for row in rows])
        logits, _ = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="sum")
        total, count = total + loss.item(), count + tokens[:, 1:].numel()
    return bits(total / count)


def with_best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row, and whether it has its model's best rate, and how its bits stand to those of the Transformer's best."""
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=itemgetter("bits on the first half")):
        best.setdefault(row["model"], row)
    peer = best.get("Transformer")
    return [
        {
            **row,
            "best": row is best[row["model"]],
            "to the Transformer's": row["bits per byte"] / peer["bits per byte"] if peer else "",
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()
