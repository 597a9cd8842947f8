"""`receptance models [NAME]`: the models that have a short name, and which of them are here already."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckpointError
from .terminal import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..catalogue import Known

Row = tuple["Known", Path | None]
# Heading and width; together they fit a terminal of 80 columns.
COLUMNS = {"name": 18, "download": 8, "float32": 8, "template": 8, "here": 4, "repository": 24}
NUMBERS = ("download", "float32")


def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Tell everything about this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models that have a short name, for every command that takes a MODEL.

    Any other checkpoint is named by its path, or by its place on the hub: user/repository:file.
    """
    from ..catalogue import KNOWN

    wanted = KNOWN.values() if name is None else [_known(name)]
    rows: list[Row] = [(known, known.here()) for known in wanted]
    if as_json:
        values = [_values(*row) for row in rows]
        print(json.dumps(values if name is None else values[0], indent=2))
    elif name is None:
        _print_all(console(), rows)
    else:
        _print_one(console(), *rows[0])


def _known(name: str) -> Known:
    from ..catalogue import KNOWN, suggestion

    if name.lower() in KNOWN:
        return KNOWN[name.lower()]
    close = suggestion(name)
    raise CheckpointError(
        f"no model is called {name!r}; " + (f"did you mean {close}?" if close else "`receptance models` lists them")
    )


def _values(known: Known, here: Path | None) -> dict[str, Any]:
    sizes = {"download_bytes": known.download_bytes, "float32_bytes": known.float32_bytes}
    return asdict(known) | sizes | {"here": str(here) if here else None}


def _print_all(screen: Console, rows: list[Row]) -> None:
    """One block for each family, whose columns stand below one another."""
    screen.print(_block(with_header=True))
    for (about, precision), family in groupby(rows, lambda row: (row[0].about, row[0].precision)):
        block = _block(with_header=False)
        for known, here in family:
            block.add_row(
                f"  {known.name}",
                gigabytes(known.download_bytes),
                gigabytes(known.float32_bytes),
                known.template or "none",
                "[green]yes[/]" if here else "",
                known.repo,
            )
        screen.print(f"[bold]{about}[/] ({precision})", highlight=False)
        screen.print(block)
    screen.print(
        "[bold]house[/] is no chat model: 3M parameters that write Python, in this package (generate, quickstart).\n"
        "\ndownload is also the memory that the weights take as they are stored, float32 what they take in float32.\n"
        "More about one of them: receptance models NAME",
        highlight=False,
    )


def _block(with_header: bool) -> Table:
    from rich.table import Column, Table

    columns = [
        Column(title, width=width, justify="right" if title in NUMBERS else "left", overflow="fold")
        for title, width in COLUMNS.items()
    ]
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=with_header)


def _print_one(screen: Console, known: Known, here: Path | None) -> None:
    from rich.table import Column, Table

    newest = " or a newer one of the repository, where none is here yet" if known.pattern else ""
    table = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2))
    for title, value in {
        "name": f"{known.name} ({known.about})",
        "repository": known.repo,
        "file": known.file + newest,
        "model": f"RWKV-{known.version}, {known.num_layers} layers of width {known.dim}",
        "parameters": f"{known.parameters:,}",
        "download": gigabytes(known.download_bytes),
        "memory": f"{gigabytes(known.download_bytes)} as stored, {gigabytes(known.float32_bytes)} in float32",
        "precision": known.precision,
        "template": known.template or "none; it continues a text",
        "here": str(here) if here else "not yet",
    }.items():
        table.add_row(f"[bold]{title}[/]", value)
    screen.print(table)


def gigabytes(num_bytes: int) -> str:
    """`3.1 GB`, of 10^9 bytes, as download pages count."""
    return f"{num_bytes / 1e9:.1f} GB"
