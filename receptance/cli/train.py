"""`receptance train RECIPE`, `receptance recipes`: a training that a file describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..display import printable
from ..errors import ConfigError
from .terminal import announce_kernels, console, progress

if TYPE_CHECKING:
    from ..training import Recipe

RUNS = Path("runs")
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of the recipe, as optim.lr=3e-4."),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Where it is kept; runs/NAME if not given.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the training in that folder.")]


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file, or a name of `receptance recipes`.")],
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what it needs: memory, operations, days.")
    ] = False,
    gpu: Annotated[str | None, typer.Option(help="With --plan: the kind of GPU; h100 if not given.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="With --plan: how many; 1 if not given.")] = None,
    mfu: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="With --plan: the share of their peak that is used; 0.4 if not given."),
    ] = None,
) -> None:
    """Train a model as a recipe says.

    Ctrl-C finishes the step, saves and leaves; --resume goes on from there.
    On several devices: torchrun --nproc-per-node N -m receptance train RECIPE
    """
    from ..training import Recipe, parse_changes

    chosen = Recipe.read(recipe, parse_changes(settings or []))
    if plan:
        show_plan(chosen, gpu or "h100", gpus or 1, mfu or 0.4)
        return
    if given := [name for name, value in (("--gpu", gpu), ("--gpus", gpus), ("--mfu", mfu)) if value is not None]:
        raise ConfigError(f"{given[0]} is of a plan; add --plan, or start several devices with torchrun")
    start(chosen, out or RUNS / (chosen.name or "unnamed"), resume)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this one.")] = None,
) -> None:
    """List the recipes that the package brings, or print one, to be changed: receptance recipes NAME > mine.toml."""
    from ..training import shipped_recipes
    from ..training.section import suggested

    known = shipped_recipes()
    if name is None:
        width = max(map(len, known))
        for each, text in known.items():
            first = " ".join(line.removeprefix("#").strip() for line in text.split("\n\n")[0].splitlines())
            sentence = first.partition(":")[0].partition(". ")[0]
            print(f"{each:{width}}  {sentence}")
    elif name in known:
        print(known[name], end="")
    else:
        raise ConfigError(f"there is no recipe {printable(name)}; {suggested(name, known, 'there are')}")


def start(recipe: Recipe, folder: Path, resume: bool) -> Path | None:
    """Train, with signs of life, and say what was left where; None in all processes but the first."""
    import os

    from ..experiment import run

    announce_kernels()
    learnt = run(recipe, folder, console(), _making, fresh=not resume)
    if os.environ.get("RANK", "0") != "0":
        return None
    if learnt.outcome.interrupted:
        print(f"stopped by hand; go on with --resume --out {printable(str(folder))}")
    print(f"wrote {printable(str(learnt.path))}")
    return learnt.path


@contextmanager
def _making() -> Iterator[Callable[[int, int], None]]:
    """A bar while text becomes tokens."""
    with progress(in_bytes=True) as update:
        yield lambda num_bytes, num_documents: update(num_bytes, None, f"{num_documents:,} documents", "")


def show_plan(recipe: Recipe, gpu: str, count: int, mfu: float) -> None:
    """What a training needs, as a table.  Raises ConfigError for one of a part of a model."""
    from rich.table import Table

    from ..checkpoints import find, open_checkpoint
    from ..data import Tokens, pair
    from ..training.plan import GPUS, plan_of
    from ..training.progress import readable_time

    if recipe.finetune.method != "full":
        raise ConfigError(f"a plan is made for whole models, and this recipe's method is {recipe.finetune.method}")
    config = open_checkpoint(find(recipe.model.start)).config if recipe.model.start else recipe.model.config()
    tokens: float | None = recipe.schedule.tokens
    if recipe.schedule.steps is not None:
        tokens = recipe.schedule.steps * recipe.batch.rows * recipe.batch.length
    source = recipe.data.train
    if recipe.schedule.epochs is not None and isinstance(source, str) and pair(source)[1].is_file():
        tokens = recipe.schedule.epochs * Tokens.open(source).num_tokens
    made = plan_of(recipe, config, tokens, gpu, count, mfu)
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "parameters": f"{made.parameters:,}",
        "operations of a token": f"{made.flops_per_token / 1e9:,.2f} GFLOP, forward and backward",
        "tokens": "not known before the text is made tokens of" if tokens is None else f"{tokens:,.0f}",
        "devices": f"{count} x {gpu}, {mfu:.0%} of {GPUS[gpu].peak / 1e12:,.0f} TFLOP/s used",
        "tokens/s": f"{made.tokens_per_second:,.0f}",
        "time": "not known" if made.seconds is None else readable_time(made.seconds),
        "memory of a device": f"{made.memory['total'] / 1e9:.1f} GB of {GPUS[gpu].memory / 1e9:.0f}",
        **{f"  {name}": f"{size / 1e9:.1f} GB" for name, size in made.memory.items() if name != "total"},
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console().print(table, highlight=False)
    if not made.fits:
        advice = [
            words
            for words, helps in (
                ("compute.recompute=true", not recipe.compute.recompute),
                ("compute.parallel=fsdp", recipe.compute.parallel != "fsdp" and count > 1),
                ("a smaller batch.rows_at_once", (recipe.batch.rows_at_once or 2) > 1),
            )
            if helps
        ]
        print(f"it does not fit into the memory of one; try {', '.join(advice) or 'more devices'}")
