"""A training seen live on a terminal: where it stands, its losses, speed, memory, and the last sample of its text.

    with LiveProgress(console, "training", bytes_per_token=1.0) as live:
        Trainer(model, text, recipe, on_step=live).train()

Where the output is no terminal (a file, a log of a test run) it prints a plain line every ten seconds instead.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..display import printable
from .step import Step
from .validation import bits

SECONDS_BETWEEN_LINES = 10.0
BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 48


def readable_time(seconds: float) -> str:
    """As 42 s, 3 min 20 s, 5 h 12 min or 3 d 4 h."""
    whole = round(seconds)
    for size, name, small, lesser in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // small} {lesser}"
    return f"{whole} s"


class Curve:
    """Values as a row of bars; of too many, each bar is the mean of neighbours."""

    def __init__(self, width: int = CURVE_WIDTH) -> None:
        self.width, self.means, self.stride = width, list[float](), 1
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """One more value."""
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count == self.stride:
            self.means.append(self._sum / self._count)
            self._sum, self._count = 0.0, 0
        if len(self.means) == 2 * self.width:
            self.means = [(a + b) / 2 for a, b in zip(self.means[::2], self.means[1::2], strict=True)]
            self.stride *= 2

    def drawn(self) -> str:
        """The row."""
        means = self.means[-self.width :] if self.stride == 1 else self.means
        low, high = min(means, default=0.0), max(means, default=0.0)
        scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
        return "".join(BARS[round((value - low) * scale)] for value in means)


class LiveProgress:
    """Shows each `Step` that it is called with.

    bytes_per_token  of the text; None: losses are told in nats a token only
    flops_per_token  of a step, forward and backward, and peak_flops of all devices: then their use is told (MFU)
    """

    def __init__(
        self,
        console: Console,
        title: str,
        bytes_per_token: float | None = None,
        flops_per_token: float = 0.0,
        peak_flops: float = 0.0,
    ) -> None:
        self.console, self.title, self.bytes_per_token = console, title, bytes_per_token
        self.use_per_token = flops_per_token / peak_flops if peak_flops else 0.0
        self.losses = Curve()
        self.held_out: float | None = None
        self.num_skipped = 0
        self.sample = ""
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._last_line = -SECONDS_BETWEEN_LINES

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, step: Step) -> None:
        self.num_skipped += bool(step.skipped)
        self.held_out = self.held_out if step.held_out is None else step.held_out
        if not step.skipped:
            self.losses.add(step.loss)
        ends = step.share >= 1
        if self.console.is_terminal:
            # Drawing takes some milliseconds, as small steps do.
            if ends or step.seconds - self._last_line >= 0.2:
                self._last_line = step.seconds
                self._live.update(self.panel(step), refresh=True)
        elif ends or step.held_out is not None or step.seconds - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = step.seconds
            self.console.print(f"{self.title}  step {step.number:5d}   {self.describe(step)}", highlight=False)

    def show_sample(self, text: str) -> None:
        """Show a text that the model wrote."""
        self.sample = text
        if not self.console.is_terminal:
            self.console.print(f"{self.title}  sample: {printable(text)!r}", highlight=False, markup=False)

    def describe(self, step: Step) -> str:
        """One step in one line."""
        parts = [f"loss {self.loss(step.smooth_loss)}"]
        if step.held_out is not None:
            parts.append(f"held out {self.loss(step.held_out)}")
        parts += [f"{step.tokens_per_second:,.0f} tokens/s", f"{readable_time(step.seconds_left)} left"]
        return "   ".join(parts)

    def loss(self, nats: float) -> str:
        """A loss in nats a token, and in bits a byte where that is known."""
        known = self.bytes_per_token
        return f"{nats:.3f}" + (f" ({bits(nats) / known:.2f} bits/byte)" if known else "")

    def panel(self, step: Step) -> RenderableType:
        """What stands on the screen after a step."""
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text.from_markup(self.title),
            ProgressBar(total=1.0, completed=min(1.0, step.share), width=30),
            Text(f"{step.share:4.0%}   {readable_time(step.seconds_left)} left"),
        )
        table = Table.grid(padding=(0, 2))
        for _ in range(4):
            table.add_column(no_wrap=True)
        rows = self._figures(step)
        for left, right in zip(rows[::2], [*rows[1::2], ("", "")], strict=False):
            table.add_row(f"[dim]{left[0]}[/]", left[1], f"[dim]{right[0]}[/]", right[1])
        shown: list[RenderableType] = [head, table, Text(self.losses.drawn(), style="cyan")]
        if self.sample:
            shown.append(Text(printable(self.sample), style="dim"))
        return Group(*shown)

    def _figures(self, step: Step) -> list[tuple[str, str]]:
        figures = [
            ("loss", self.loss(step.smooth_loss)),
            ("held out", "-" if self.held_out is None else self.loss(self.held_out)),
            ("step", f"{step.number + 1:,}"),
            ("tokens", f"{step.tokens:,}"),
            ("tokens/s", f"{step.tokens_per_second:,.0f}"),
            ("learning rate", f"{step.learning_rate:.2e}"),
            ("gradient", f"{step.gradient_norm:.3g}"),
            ("memory", f"{step.memory / 1e9:.2f} GB"),
        ]
        if self.use_per_token:
            figures.append(("use of the peak", f"{self.use_per_token * step.tokens_per_second:.1%}"))
        if self.num_skipped:
            figures.append(("skipped", f"{self.num_skipped:,} steps"))
        return figures
