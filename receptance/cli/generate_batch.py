"""`receptance generate --batch IN OUT`: a bar while it works, and how to go on where it was stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .generate_text import Wish

if TYPE_CHECKING:
    from ..batch import Summary

SOME_FAILED = 1


def answer_all(wish: Wish, source: Path, destination: Path, batch_size: int, as_json: bool) -> None:
    """Answer a file; exit code 1 where the model could not answer some of its lines."""
    from ..batch import run
    from ..batch.job import check_files

    check_files(source, destination)
    lm, state = wish.load()
    with _bar(destination) as on_progress:
        summary = run(
            lm,
            source,
            destination,
            sampling=wish.sampling,
            max_tokens=wish.max_tokens,
            stop=wish.stops,
            think=wish.think,
            state=state,
            batch_size=batch_size,
            on_progress=on_progress,
            **wish.settings,
        )
    if as_json:
        print(json.dumps(asdict(summary), indent=2))
    else:
        print(_sentence(summary, destination), file=sys.stderr)
    if summary.num_failed:
        raise typer.Exit(SOME_FAILED)


def _sentence(summary: Summary, destination: Path) -> str:
    if summary.num_earlier == summary.num_requests:
        return f"nothing to do: {destination} has all {summary.num_requests:,} results"
    earlier = f", {summary.num_earlier:,} of them from before" if summary.num_earlier else ""
    failed = f", {summary.num_failed:,} of them errors" if summary.num_failed else ""
    return (
        f"{summary.num_done:,} results in {destination}{earlier}{failed}; {summary.num_tokens:,} tokens "
        f"in {summary.seconds:,.1f} s ({summary.tokens_per_second:,.1f} tokens/s); seed {summary.seed}"
    )


@contextmanager
def _bar(destination: Path) -> Iterator[Callable[[Summary], None]]:
    """On stderr; where the work is stopped, it says what is safe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    latest: list[Summary] = []
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    screen = Console(stderr=True)
    try:
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task("", total=None)

            def update(now: Summary) -> None:
                latest[:] = [now]
                words = f"{now.tokens_per_second:,.1f} tokens/s"
                bar.update(task, total=now.num_requests, completed=now.num_done, description=words)

            yield update
    except KeyboardInterrupt:
        if latest:
            now = latest[0]
            print(
                f"{now.num_done:,} of {now.num_requests:,} results are in {destination}; "
                f"the same command goes on from there",
                file=sys.stderr,
            )
        raise
