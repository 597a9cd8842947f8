"""The quantised form of a checkpoint, made when it is first asked for and kept beside it.

    found = quantised("model.pth", "int8")              # model.int8.safetensors, and the next time at once
    model = found.load()

It is made anew when the checkpoint has changed.  A model of the hub, and one in a folder that cannot be written to, has
its quantised form in the user's folder for such things, which stderr is told.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..checkpoints import Checkpoint, open_checkpoint
from ..display import printable
from ..errors import CheckpointError, InputError
from .files import QuantisedFile, is_quantised_file, open_quantised
from .formats import format_of
from .quantize import Progress
from .streaming import quantize_checkpoint, state_of

__all__ = ["bar", "cache_folder", "place_of", "quantised"]


def quantised(path: str | Path, to: str, beside: bool = True) -> QuantisedFile:
    """The model in a local checkpoint in "int8" or "int4", made before or newly, with a bar on a terminal.

    beside     whether the quantised form may lie beside the checkpoint, as not in the hub's own folders

    Raises CheckpointError for a source that is no checkpoint, InputError for another format and for a quantised source.
    """
    format_of(to)
    path = Path(path)
    if is_quantised_file(path):
        raise InputError(f"{path} is quantised already; load it as it is")
    place = place_of(path, to, beside)
    if (found := _kept(place, path)) is not None:
        return found
    _make(open_checkpoint(path), place, to)
    return open_quantised(place)


def place_of(path: Path, to: str, beside: bool = True) -> Path:
    """Where the quantised form of a local checkpoint belongs."""
    name = f"{path.stem if path.is_file() else path.name}.{to}.safetensors"
    folder = path.absolute().parent
    if beside and os.access(folder, os.W_OK):
        return folder / name
    # Many checkpoints are called model.safetensors.
    whose = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:12]
    return cache_folder() / f"{whose}-{name}"


def cache_folder() -> Path:
    """The user's folder for what can be made again."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "receptance" / "quantised"


def _kept(place: Path, path: Path) -> QuantisedFile | None:
    """What was made before; None where there is nothing, or nothing that can be used."""
    if not place.exists():
        return None
    try:
        found = open_quantised(place)
    except CheckpointError:
        return None
    return found if found.source == state_of(path) else None


def _make(checkpoint: Checkpoint, place: Path, to: str) -> None:
    if place.parent == cache_folder():
        # A line that nobody has to look for later: these files may be large.
        print(f"{checkpoint.path.name}: its {to} weights are kept as {place}", file=sys.stderr)
    with bar(f"{checkpoint.path.name} to {to}") as progress:
        quantize_checkpoint(checkpoint, place, to, progress=progress)


@contextmanager
def bar(words: str) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal, moved as quantising goes on."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(printable(words), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
