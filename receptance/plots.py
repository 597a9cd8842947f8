"""Every figure of the project, from plain numbers to a PNG (or PDF, SVG: the ending of the path decides).

    plots.quickstart(Path("quickstart/plot.png"), tokens, losses, held_out, costs)

Needs matplotlib: pip install 'receptance[plots]'.  Nothing else imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, MissingExtraError
from .replacing import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinguishable with every common kind of colour blindness, and in grey (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
GREY = "#888888"
ENDINGS = (".png", ".pdf", ".svg")


# By the model's name, what one more token costs: (tokens of context, seconds, bytes of state), at several contexts.
Costs = Mapping[str, Sequence[tuple[int, float, int]]]


def figure(columns: int) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure with panels side by side.  Raises MissingExtraError without matplotlib."""
    try:
        # Figure itself and not pyplot: no window system is touched and no global state is left behind.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("figures need matplotlib; install it with: pip install 'receptance[plots]'") from error
    made = Figure(figsize=(4.6 * columns, 3.6), layout="constrained")
    axes = [made.add_subplot(1, columns, column + 1) for column in range(columns)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    return made, axes


def save(made: Figure, path: Path) -> None:
    """Writes beside the path and then renames, so that no half figure is ever seen.

    Raises InputError for an ending that is none of a picture.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path} is no name for a picture; choose one that ends in {', '.join(ENDINGS)}")
    with replacing(path) as partial:
        made.savefig(partial, dpi=150, format=path.suffix.lower().lstrip("."))


def smoothed(values: Sequence[float], share: float = 0.02) -> list[float]:
    """Mean of the last `share` of all values, at every place."""
    width = max(1, int(len(values) * share))
    return [sum(part) / len(part) for part in (values[max(0, i - width + 1) : i + 1] for i in range(len(values)))]


def loss_curve(axes: Axes, tokens: Sequence[int], bits: Sequence[float], held_out: float | None) -> None:
    """Training loss in bits per byte against tokens read, with the held-out loss at the end as a line."""
    axes.plot(tokens, bits, color=COLOURS[0], alpha=0.25, linewidth=0.8)
    axes.plot(tokens, smoothed(bits), color=COLOURS[0], label="training")
    if held_out is not None:
        axes.axhline(held_out, color=COLOURS[1], linestyle="--", label=f"held out, at the end: {held_out:.2f}")
    axes.set(title="Learning", xlabel="tokens read", ylabel="bits per byte", ylim=(0, None), xlim=(0, None))
    axes.xaxis.set_major_formatter(_thousands)
    axes.legend(frameon=False)


def time_against_context(axes: Axes, costs: Costs) -> None:
    """Median time of one decode step against context, one line a model."""
    for colour, (name, points) in zip(COLOURS, costs.items(), strict=False):
        contexts, seconds, _ = zip(*points, strict=True)
        axes.plot(contexts, [1e3 * value for value in seconds], "o-", color=colour, label=name)
    axes.set(title="Time per token", ylabel="milliseconds", ylim=(0, None))
    _context_axis(axes)


def memory_against_context(axes: Axes, costs: Costs) -> None:
    """Size of the state against context, one line a model."""
    for colour, (name, points) in zip(COLOURS, costs.items(), strict=False):
        contexts, _, state_bytes = zip(*points, strict=True)
        axes.plot(contexts, [value / 1e6 for value in state_bytes], "o-", color=colour, label=name)
    axes.set(title="Memory of the past, per sequence", ylabel="megabytes", yscale="log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _context_axis(axes)


def quickstart(path: Path, tokens: Sequence[int], bits: Sequence[float], held_out: float | None, costs: Costs) -> None:
    """The figure of the quickstart: learning, time per token and memory against context.

    tokens, bits   tokens read and training loss (bits per byte), step by step
    held_out       loss on text that was not learned from, in the same unit
    costs          see `Costs`
    """
    made, (learning, seconds, memory) = figure(columns=3)
    loss_curve(learning, tokens, bits, held_out)
    time_against_context(seconds, costs)
    memory_against_context(memory, costs)
    save(made, path)


def loss_curves(path: Path, runs: Mapping[str, Sequence[Mapping[str, Any]]], against: str = "tokens") -> None:
    """The losses of several trainings in one panel: while learning as a thin line, on what is held out as points.

    runs      by name, their metrics: a mapping for each step with "loss", "held_out", "tokens" and "seconds"
    against   "tokens" or "seconds"
    """
    made, (axes,) = figure(columns=1)
    for number, (name, steps) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        taken = [step for step in steps if step.get("loss") is not None]
        places, losses = [step[against] for step in taken], [step["loss"] for step in taken]
        axes.plot(places, losses, color=colour, alpha=0.15, linewidth=0.6)
        axes.plot(places, smoothed(losses), color=colour, label=name)
        measured = [step for step in steps if step.get("held_out") is not None]
        if measured:
            points = [step[against] for step in measured], [step["held_out"] for step in measured]
            axes.plot(*points, "o--", color=colour, markersize=3, label=f"{name}, held out")
    axes.set(xlabel="tokens read" if against == "tokens" else "seconds", ylabel="loss, nats a token", xlim=(0, None))
    axes.xaxis.set_major_formatter(_thousands)
    axes.legend(frameon=False, fontsize=7)
    save(made, path)


def _context_axis(axes: Axes) -> None:
    axes.set(xlabel="tokens of context", xscale="log")
    axes.xaxis.set_major_formatter(_thousands)
    axes.legend(frameon=False)


def _thousands(value: float, _: object) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
