"""A training seen live on a terminal: a bar with loss, bits per byte, tokens per second and time left.

    with LiveProgress(console, "training") as live:
        Trainer(model, text, recipe, on_step=live).train()

Where the output is no terminal (a file, a log of a test run) it prints a plain line every ten seconds instead.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .trainer import Step
from .validation import bits

SECONDS_BETWEEN_LINES = 10.0


def describe(step: Step) -> str:
    """One step in one line."""
    return (
        f"loss {step.smooth_loss:.3f}   {bits(step.smooth_loss):.2f} bits/byte   "
        f"{step.tokens_per_second:,.0f} tokens/s   {step.seconds_left:3.0f} s left"
    )


class LiveProgress:
    """Shows each `Step` that it is called with."""

    def __init__(self, console: Console, title: str) -> None:
        self.console, self.title = console, title
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[line]}"),
            console=console,
        )
        self.task = self.bar.add_task(title, total=1.0, line="")
        self.last_line = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, step: Step) -> None:
        if self.console.is_terminal:
            self.bar.update(self.task, completed=min(1.0, step.share), line=describe(step))
        elif step.number == 0 or step.share >= 1 or step.seconds - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = step.seconds
            self.console.print(f"{self.title}  step {step.number:5d}   {describe(step)}", highlight=False)
