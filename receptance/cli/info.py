"""`receptance info [MODEL]`: what a checkpoint is, or what this machine has, without reading a weight."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..display import printable
from .options import MODEL_HELP, named
from .terminal import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..describe import Description, Machine


def info(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=named)] = None,
    ops: Annotated[bool, typer.Option("--ops", help="Which form of each op serves, and why not the others.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List the model's tensors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    length: Annotated[int, typer.Option(min=1, help="With --ops: tokens in the call.")] = 512,
) -> None:
    """Show what MODEL is, or without it, what there is on this machine to compute with.

    Only the file's header is read, so that a model of any size answers at once.
    """
    if tensors and model is None:
        raise typer.BadParameter("needs a MODEL", param_hint="--tensors")
    from .. import describe

    screen = console()
    answer: dict[str, Any] = {}
    if model is not None:
        found = describe.describe(model)
        answer["model"] = _model_values(found, tensors)
        if not as_json:
            _print_model(screen, found, tensors)
    elif not ops:
        here = describe.machine()
        answer["machine"] = asdict(here)
        if not as_json:
            _print_machine(screen, here)
    if ops:
        forms = describe.forms(length)
        answer["ops"] = {op: dict(rows) for op, rows in forms.items()}
        if not as_json:
            _print_forms(screen, forms, f"a call of {length} tokens" if length > 1 else "a call of one token")
    if as_json:
        print(json.dumps(answer, indent=2))


def _model_values(found: Description, with_tensors: bool) -> dict[str, Any]:
    values = {
        "path": str(found.path),
        "dialect": found.dialect,
        "config": found.config.to_dict(),
        "parameters": found.parameters,
        "dtypes": found.dtypes,
        "file_bytes": found.file_bytes,
        "state_bytes": found.state_bytes,
        "flops_per_token": found.flops_per_token,
        "unused": found.unused,
        "bits_per_weight": found.bits_per_weight,
    }
    if with_tensors:
        values["tensors"] = {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in found.tensors.items()}
    return values


def _print_model(console: Console, found: Description, with_tensors: bool) -> None:
    from ..describe import readable_bytes

    config = found.config
    stored = ", ".join(f"{dtype} ({count})" for dtype, count in found.dtypes.items())
    heads = f"{config.num_heads} of size {config.head_size}" if config.num_heads else "none (a vector a channel)"
    ranks = [
        f"{name.removesuffix('_rank')} {rank}"
        for name, rank in config.to_dict().items()
        if name.endswith("_rank") and rank
    ]
    rows = {
        "model": f"RWKV-{config.version}",
        "file": f"{found.path} ({found.dialect}, {readable_bytes(found.file_bytes)})",
        "parameters": f"{found.parameters:,}",
        "stored as": stored,
        "quantised": f"{found.bits_per_weight:.2f} bits a weight" if found.bits_per_weight else "",
        "layers": str(config.num_layers),
        "width": f"{config.dim} (time mix {config.attention_dim}, channel mix {config.ffn_dim})",
        "heads": heads,
        "ranks": ", ".join(ranks),
        "vocabulary": f"{config.vocab_size:,}",
        "state": f"{readable_bytes(found.state_bytes)} a sequence, of any length",
        "work": f"{found.flops_per_token / 1e9:,.3g} GFLOP a token",
        "unused": ", ".join(found.unused),
    }
    _print_rows(console, {name: value for name, value in rows.items() if value})
    if with_tensors:
        from rich.table import Column, Table

        table = Table(Column("tensor", overflow="fold"), "shape", "dtype")
        for name, (shape, dtype) in found.tensors.items():
            table.add_row(_plain(name), " x ".join(map(str, shape)), dtype)
        console.print(table)


def _print_machine(console: Console, here: Machine) -> None:
    from .. import __version__

    bf16 = "has bfloat16 products" if here.bf16_products else "no bfloat16 products (float32 is faster here)"
    rows = {
        "receptance": __version__,
        "python": f"{here.python} on {here.platform}",
        "processor": f"{here.cores} cores, {here.threads} threads, {here.vectors}, {bf16}",
        "accelerators": ", ".join(here.accelerators) or "none",
    }
    libraries = {name: version or "not installed" for name, version in here.libraries.items()}
    _print_rows(console, rows | libraries)


def _print_forms(console: Console, forms: dict[str, list[tuple[str, str | None]]], call: str) -> None:
    from rich.table import Table

    table = Table("op", "form", "", title=call)
    for op, rows in forms.items():
        for number, (form, reason) in enumerate(rows):
            verdict = "[green]serves[/]" if reason is None else _plain(reason)
            table.add_row(op if number == 0 else "", form, verdict, end_section=number == len(rows) - 1)
    console.print(table)


def _print_rows(console: Console, rows: dict[str, str]) -> None:
    from rich.table import Column, Table

    table = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", _plain(value))
    console.print(table)


def _plain(text: str) -> Text:
    """Text that a file may have chosen: what looks like markup is none."""
    from rich.text import Text

    return Text(printable(text))
