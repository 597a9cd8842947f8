"""`receptance convert SRC DST`: any checkpoint format into any that can be written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import CheckpointError
from .options import MODEL_HELP, Dtype, named


def convert(
    src: Annotated[str, typer.Argument(metavar="SRC", help=MODEL_HELP, callback=named)],
    dst: Annotated[
        Path,
        typer.Argument(metavar="DST", help="NAME.pth, NAME.safetensors, NAME.gguf, or a folder for Hugging Face."),
    ],
    dtype: Annotated[Dtype | None, typer.Option(help="Store the numbers as; unchanged if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DST where it exists.")] = False,
) -> None:
    """Write the checkpoint SRC in another format; DST's name says which. Memory stays at the largest tensor."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from ..checkpoints import convert as run

    refuse_existing(dst, force)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("converting", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        left_out = run(src, dst, dtype=dtype.torch if dtype else None, progress=progress)
    print(f"wrote {dst}")
    if left_out:
        print(f"left out, because this format does not hold them: {', '.join(left_out)}")


def refuse_existing(path: Path, force: bool) -> None:
    """Raise CheckpointError where `path` exists and may not be replaced."""
    if path.exists() and not force:
        raise CheckpointError(f"{path} exists; give --force to replace it")
