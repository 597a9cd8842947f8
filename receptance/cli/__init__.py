"""The command `receptance`: one command a file, which only parses and prints; the work is done by the Python API.

Nothing here imports PyTorch until a command runs, so that `receptance --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from .chat import chat
from .convert import convert
from .data import data_info, to_binidx
from .finetune import finetune
from .generate import generate
from .guard import DEBUG, Guarded, debug_by_environment, finish, one_sentence
from .info import info
from .models import models
from .plot import plot
from .quantize import quantize
from .quickstart import quickstart
from .score import score
from .serve import serve
from .terminal import prepare_streams
from .train import recipes, train
from .verify import verify

__all__ = ["app", "main"]

app = typer.Typer(
    name="receptance",
    cls=Guarded,
    help="RWKV, generations 4 to 7: one model from training to the last generated token.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "quickstart": quickstart,
    "generate": generate,
    "chat": chat,
    "serve": serve,
    "score": score,
    "models": models,
    "info": info,
    "convert": convert,
    "quantize": quantize,
    "verify": verify,
    "train": train,
    "finetune": finetune,
    "recipes": recipes,
    "plot": plot,
    "data to-binidx": to_binidx,
    "data info": data_info,
}
# Commands of two words belong to one of these.
GROUPS = {"data": "Text to tokens on disk, for training, and a look at them."}

_groups = {name: typer.Typer(no_args_is_help=True, help=words) for name, words in GROUPS.items()}
for name, command in COMMANDS.items():
    group, _, own = name.rpartition(" ")
    (_groups[group] if group else app).command(own)(command)
for name, group_app in _groups.items():
    app.add_typer(group_app, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"receptance {__version__}")
        raise typer.Exit


@app.callback()
def _receptance(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help=f"Show the traceback where a command fails; {DEBUG}=1 does the same.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command that sys.argv names, and exit."""
    # OpenMP reads this once, when PyTorch is loaded.  By default a thread that has finished its part spins for long
    # until the others have; beside other programs it takes the core that they wait for, and all work nearly stalls.
    # Two threads, tokens a second of the quickstart: 16,000 alone and 1,400 beside one busy program at 20,000
    # spins, 15,000 and 7,000 to 15,000 at 1,000.  The one-token step has threads of its own, and no barriers.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    prepare_streams()
    try:
        # The commands are guarded already; this is for what `--help` and `--version` print.
        with one_sentence(debug="--debug" in sys.argv or debug_by_environment()):
            app()
    finally:
        finish()
