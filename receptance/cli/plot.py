"""`receptance plot RUN...`: the loss curves of trainings, in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of trainings, as runs/NAME.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture: .png, .pdf or .svg.")] = Path("losses.png"),
    seconds: Annotated[bool, typer.Option("--seconds", help="Against time in place of tokens read.")] = False,
) -> None:
    """Draw the losses of trainings, while learning and on what was held out."""
    from ..plots import loss_curves
    from ..training import read_metrics

    names = [run.name or str(run) for run in runs]
    # Folders of one name are told apart by their paths.
    labels = [str(run) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]
    curves = {label: read_metrics(run) for label, run in zip(labels, runs, strict=True)}
    loss_curves(out, curves, "seconds" if seconds else "tokens")
    print(f"wrote {out}")
