"""`receptance quickstart`: the main job on real input, in a few minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the model and the plot.")] = Path("quickstart"),
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to train.")] = 90.0,
) -> None:
    """Train a small RWKV-7 from scratch on Python's own source, then show it at work as an RNN.

    Nothing is downloaded. Ctrl-C ends the training early.
    """
    # OpenMP reads this once, when PyTorch is loaded.  By default a thread that has finished its part spins until the
    # others have; beside other programs it spins on the core that they wait for, and training nearly stalls.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..quickstart import quickstart as run

    run(out, seconds=seconds)
