"""`receptance verify MODEL`: is this checkpoint computed rightly here?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..display import printable
from .options import LARGEST_SEED, MODEL_HELP, Dtype, named
from .terminal import console

if TYPE_CHECKING:
    from rich.table import Table

    from ..verify import Report

FAILED = 1
# Far more than a difference needs to show, and few enough to be fed one at a time.
MOST_TOKENS = 2**20


def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=named)],
    length: Annotated[int, typer.Option(min=2, max=MOST_TOKENS, help="How many random tokens to feed.")] = 128,
    dtype: Annotated[Dtype, typer.Option(help="What to compute in.")] = Dtype.float32,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the tokens and of the cuts.")] = 0,
    official: Annotated[bool, typer.Option(help="Whether to ask the official runtime too.")] = True,
) -> None:
    """Compare every way of computing a checkpoint with the plain time loop, and with the official runtime.

    The official runtime is used where it is installed (pip install rwkv). Exit code 1 where a difference is larger than
    rounding explains.
    """
    from ..verify import verify as run

    screen = console()
    with screen.status("verifying") as status:
        report = run(
            model,
            length,
            dtype.torch,
            seed=seed,
            with_official=official,
            progress=lambda name: status.update(f"verifying: {name}"),
        )
    screen.print(_table(report))
    for name, reason in report.skipped:
        screen.print(printable(f"not compared with the {name}: {reason}"), highlight=False, markup=False)
    if not report.passed:
        raise typer.Exit(FAILED)


def _table(report: Report) -> Table:
    from rich.table import Table

    from ..devices import dtype_name

    call = f"{report.length} random tokens, {dtype_name(report.dtype)}"
    table = Table(
        title=f"RWKV-{report.config.version}, {call}, against the time loop",
        caption="logits: largest difference / standard deviation; state: largest difference / largest entry",
    )
    table.add_column("way of computing")
    for column in ("logits", "state", "bound"):
        table.add_column(column, justify="right")
    table.add_column()
    for check in report.checks:
        state = "" if check.state is None else f"{check.state:.1e}"
        verdict = "[green]pass[/]" if check.passed else "[bold red]FAIL[/]"
        table.add_row(check.name, f"{check.logits:.1e}", state, f"{check.bound:.0e}", verdict)
    return table
