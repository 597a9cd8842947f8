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
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Add these low-rank additions to the matrices of SRC.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DST where it exists.")] = False,
) -> None:
    """Write the checkpoint SRC in another format; DST's name says which. Memory stays at the largest tensor.

    SRC may also be a checkpoint of a training, as runs/NAME/checkpoints/step-0001000: that one, and one that gets an
    adapter, is in memory as a whole.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from ..checkpoints import convert as run

    refuse_existing(dst, force)
    if adapter is not None or (Path(src) / "training.json").is_file():
        _write_model(src, dst, dtype, adapter)
        print(f"wrote {dst}")
        return
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


def _write_model(src: str, dst: Path, dtype: Dtype | None, adapter: Path | None) -> None:
    """Write a model that has to be made in memory first."""
    from ..checkpoints import find, open_checkpoint, save_checkpoint
    from ..experiment import model_of
    from ..language_model import load

    if (Path(src) / "training.json").is_file():
        if adapter is not None:
            raise CheckpointError("--adapter goes with the model that it was learnt for, not with this checkpoint")
        model = model_of(Path(src))
    else:
        # In the precision of the file, whatever this machine computes in.
        model = load(src, dtype=open_checkpoint(find(src)).dtype, device="cpu", adapter=adapter).model
    save_checkpoint(model if dtype is None else model.to(dtype.torch), dst)


def refuse_existing(path: Path, force: bool) -> None:
    """Raise CheckpointError where `path` exists and may not be replaced."""
    if path.exists() and not force:
        raise CheckpointError(f"{path} exists; give --force to replace it")
