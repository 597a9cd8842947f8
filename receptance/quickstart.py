"""The main job on real input, in a few minutes and with no download.

    quickstart(Path("quickstart"))          # or on the command line: receptance quickstart

Trains a small RWKV-7 from scratch on the source of Python's own standard library, in the parallel form; then shows what
the recurrent form of the same model gives: the same logits, text that streams, and a cost per token that does not grow
with the context.  Leaves a checkpoint and a figure behind.

Ctrl-C ends the training early, and the demonstrations follow with what was learned so far; Ctrl-C again leaves.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import plots
from .baselines import Transformer
from .config import Config
from .data import Corpus, documents
from .describe import readable_bytes
from .devices import dtype_name, memory_in_use
from .display import write
from .errors import InputError, MissingExtraError
from .evaluation import ContextCost, cost_of_rwkv, cost_of_transformer
from .generation import Prompt, Sampling, Stream
from .language_model import load
from .models import RWKV, build, num_parameters
from .quant import dequantize
from .tokenizers import ByteTokenizer
from .training import Batching, LiveProgress, Optim, Outcome, Schedule, Trainer, Training, bits, mean_loss
from .verify import own_checks

# At the start of a line, where a definition stands.
PROMPT = "\n\ndef "
# The end of a text is banned: the demonstration is to last.
SPEAKING = Sampling(temperature=0.8, top_p=0.95, banned=(ByteTokenizer.end_of_text,))
SMALL = Config(version="7", vocab_size=256, num_layers=4, dim=192)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of the quickstart.  The tests shrink them.

    start    a byte-level checkpoint to go on from, with a tenth of the learning rate; None: a new model of `config`
    """

    config: Config = SMALL
    rows: int = 8
    length: int = 128
    learning_rate: float = 2e-3
    start: str | None = None
    measured_bytes: int = 100_000
    compared_tokens: int = 500
    spoken_bytes: int = 600
    contexts: tuple[int, ...] = (1_000, 10_000, 100_000)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of a run.

    held_out_bits   loss on files that were not learned from, in bits per byte
    differences     by dtype and way of reading: the largest difference of the logits from the plain time loop's, as a
                    share of their standard deviation
    costs           by model: what a token costs at each context
    plot_path       None where matplotlib is not installed
    """

    num_parameters: int
    outcome: Outcome
    held_out_bits: float
    differences: dict[str, dict[str, float]]
    completion: str
    bytes_per_second: float
    costs: dict[str, list[ContextCost]]
    model_path: Path
    plot_path: Path | None


def quickstart(out: Path, seconds: float = 90.0, console: Console | None = None, plan: Plan | None = None) -> Summary:
    """Trains for `seconds`, shows the four demonstrations on `console`, writes model.pth and plot.png into `out`.

    Raises DataError where this Python came without its source, ConfigError for a time that is none, and OSError where
    `out` cannot be written.
    """
    console, plan = console or Console(), plan or Plan()
    recipe = recipe_of(plan, seconds)
    # Before anything takes time: a folder that cannot be made should not cost a training.
    out.mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(console)
    model, outcome = train(corpus, plan, recipe, out / "model.pth", console)
    held_out = measure(model, corpus, plan, console)
    differences = show_agreement(model, corpus, plan, console)
    completion, speed = show_stream(model, plan, console)
    costs = show_costs(model, corpus, plan, console)
    plot = draw(out / "plot.png", outcome, held_out, costs, console)
    summary = Summary(
        num_parameters=num_parameters(model),
        outcome=outcome,
        held_out_bits=held_out,
        differences=differences,
        completion=completion,
        bytes_per_second=speed,
        costs=costs,
        model_path=out / "model.pth",
        plot_path=plot,
    )
    show_next(summary, console)
    return summary


def recipe_of(plan: Plan, seconds: float) -> Training:
    return Training(
        batch=Batching(rows=plan.rows, length=plan.length, order="random", seed=plan.seed),
        optim=Optim(lr=plan.learning_rate if plan.start is None else plan.learning_rate / 10),
        schedule=Schedule(seconds=seconds),
    )


def read_corpus(console: Console) -> Corpus:
    """The standard library's source, with a fixed twentieth of its files kept for measuring."""
    corpus = Corpus.of_bytes(documents("python:"))
    learned, kept = (f"{readable_bytes(part.num_tokens)} in {part.num_documents} files" for part in corpus)
    console.print(
        f"[bold]Text[/]      Python's standard library: {learned} to learn from, {kept} held out", highlight=False
    )
    return corpus


def train(corpus: Corpus, plan: Plan, recipe: Training, path: Path, console: Console) -> tuple[Any, Outcome]:
    """An officially initialised model, trained in the parallel form and saved."""
    model = made(plan)
    with LiveProgress(console, "[bold]Training[/]", bytes_per_token=1.0) as live:
        trainer = Trainer(model, corpus.train, recipe, on_step=live)
        products = dtype_name(trainer.precision)
        console.print(
            f"[bold]Model[/]     RWKV-{model.config.version}, {millions(model)} parameters, bytes as tokens; "
            f"{recipe.schedule.seconds:g} s with {torch.get_num_threads()} threads, matrix products in {products}",
            highlight=False,
        )
        outcome = trainer.train(save_to=path)
    if outcome.interrupted:
        console.print("Stopped by hand; the demonstrations follow with what was learned so far.  Ctrl-C again leaves.")
    return model, outcome


def made(plan: Plan) -> RWKV:
    """A new model, or the one to go on from.

    Raises CheckpointError where that is none, InputError where its tokens are no bytes.
    """
    if plan.start is None:
        torch.manual_seed(plan.seed)
        return build(plan.config)
    model = dequantize(load(plan.start, dtype=torch.float32, device="cpu").model)
    if model.config.vocab_size != plan.config.vocab_size:
        raise InputError(
            f"{plan.start} has a vocabulary of {model.config.vocab_size:,} and the quickstart's tokens are bytes; "
            f"finetune it in place of that: receptance finetune {plan.start} python:"
        )
    return model


def measure(model: Any, corpus: Corpus, plan: Plan, console: Console) -> float:
    """Bits per byte on files that were not learned from."""
    held_out = bits(mean_loss(model, corpus.held_out, limit=plan.measured_bytes))
    console.print(
        f"[bold]Held out[/]  {held_out:.3f} bits per byte (a model that knows nothing needs 8)", highlight=False
    )
    return held_out


def show_agreement(model: Any, corpus: Corpus, plan: Plan, console: Console) -> dict[str, dict[str, float]]:
    """Demonstration 1: one function, however it is called."""
    tokens = torch.from_numpy(corpus.held_out.window(0, plan.compared_tokens))[None]
    differences = {
        dtype_name(dtype): {
            check.name: check.logits
            for check in own_checks(copy.deepcopy(model).to(dtype), tokens, random.Random(plan.seed))
        }
        for dtype in (torch.float32, torch.float64)
    }
    title = f"1. The same logits, however {tokens.shape[1]} tokens are read"
    ways = next(iter(differences.values()))
    # Not every form computes in every dtype.
    rows = [(way, *(f"{by_way[way]:.1e}" if way in by_way else "-" for by_way in differences.values())) for way in ways]
    print_table(console, title, ("largest difference from the plain time loop", *differences), rows)
    console.print("[dim]As a share of the logits' standard deviation; what remains is rounding.[/]")
    return differences


def show_stream(model: Any, plan: Plan, console: Console) -> tuple[str, float]:
    """Demonstration 2: the model goes on after the prompt, byte by byte, with a state of fixed size."""
    console.print(f"\n[bold]2. Speaking as an RNN[/], after {escape(repr(PROMPT))}\n", highlight=False)
    text, start = PROMPT.lstrip(), time.perf_counter()
    write(console, text)
    prompt = Prompt(PROMPT, replace(SPEAKING, seed=plan.seed), plan.spoken_bytes)
    for piece in Stream(model, ByteTokenizer(), prompt):
        text += piece
        write(console, piece)
    speed = plan.spoken_bytes / (time.perf_counter() - start)
    console.print(
        f"\n\n[dim]{speed:,.0f} tokens/s; the whole memory of the past is a state of "
        f"{readable_bytes(model.zero_state(1).num_bytes)}[/]",
        highlight=False,
    )
    return text, speed


def show_costs(model: Any, corpus: Corpus, plan: Plan, console: Console) -> dict[str, list[ContextCost]]:
    """Demonstration 3: time and memory of one more token, after a short and after a long context."""
    peer = Transformer.like(model).eval()
    text = torch.from_numpy(corpus.held_out.window(0, corpus.held_out.num_tokens))
    names = f"RWKV-{model.config.version}, {millions(model)}", f"Transformer, {millions(peer)}"
    makers: tuple[Callable[[], Iterable[ContextCost]], ...] = (
        lambda: cost_of_rwkv(model, text, plan.contexts),
        lambda: cost_of_transformer(peer, plan.contexts),
    )
    costs: dict[str, list[ContextCost]] = {}
    rows: list[tuple[str, ...]] = []
    for name, make in zip(names, makers, strict=True):
        costs[name] = []
        for cost in make():
            costs[name].append(cost)
            resident = memory_in_use()
            whole = readable_bytes(resident) if resident else "unknown"
            seconds, memory = f"{1e3 * cost.seconds:.2f} ms", readable_bytes(cost.state_bytes)
            rows.append((name, f"{cost.context:,}", seconds, memory, whole))
    header = ("model", "context", "time per token", "memory of the past", "whole process")
    print_table(console, "3. What one more token costs", header, rows)
    console.print("[dim]The Transformer's cache is filled with noise of that length: same work, no long reading.[/]")
    return costs


def draw(
    path: Path, outcome: Outcome, held_out: float, costs: dict[str, list[ContextCost]], console: Console
) -> Path | None:
    """Demonstration 4: the figure; None, with a sentence, where matplotlib is not installed."""
    used = [step for step in outcome.steps if not step.skipped]
    try:
        plots.quickstart(path, [step.tokens for step in used], [bits(step.loss) for step in used], held_out, costs)
    except MissingExtraError as error:
        console.print(f"The plot was left out: {escape(str(error))}", highlight=False)
        return None
    return path


def show_next(summary: Summary, console: Console) -> None:
    """What was written and what to try with it."""
    model = escape(str(summary.model_path))
    console.print(
        f"\n[bold]4. Written[/]  {model}" + (f", {escape(str(summary.plot_path))}" if summary.plot_path else "")
    )
    console.print(
        f"\n[bold]Next[/]\n"
        f"  receptance generate 'class ' -m {model}\n"
        f"  receptance info {model}\n"
        f"  receptance verify {model}\n"
        f"  receptance convert {model} {escape(str(summary.model_path.with_suffix('.safetensors')))}\n"
        f"  python -c \"import receptance; print(receptance.load('{model}').config)\"",
        highlight=False,
        soft_wrap=True,
    )


def millions(model: torch.nn.Module) -> str:
    return f"{num_parameters(model) / 1e6:.1f}M"


def print_table(console: Console, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table, highlight=False)
