"""`receptance quickstart`: the main job on real input, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

A_WEEK = 7 * 24 * 3600.0


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the model and the plot.")] = Path("quickstart"),
    seconds: Annotated[float, typer.Option(min=0.1, max=A_WEEK, help="How long to train.")] = 90.0,
    start: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Go on with a byte-level model, as `house`, the one that comes along."),
    ] = None,
) -> None:
    """Train a small RWKV-7 from scratch on Python's own source, then show it at work as an RNN.

    Nothing is downloaded. Ctrl-C ends the training early.
    """
    from ..quickstart import Plan
    from ..quickstart import quickstart as run

    run(out, seconds=seconds, plan=Plan(start=start))
