"""`receptance generate --batch IN OUT`: a bar while it works, and how to go on where it was stopped."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .generate_text import Wish, tell_guess
from .terminal import progress

if TYPE_CHECKING:
    from ..batch import Summary

SOME_FAILED = 1


def answer_all(wish: Wish, source: Path, destination: Path, batch_size: int, as_json: bool) -> None:
    """Answer a file; exit code 1 where the model could not answer some of its lines, now or before."""
    from ..batch import check_files, run

    check_files(source, destination)
    lm, state = wish.load()
    with progress() as update:

        def on_progress(now: Summary) -> None:
            words = f"{now.tokens_per_second:,.1f} tokens/s"
            update(now.num_done, now.num_requests, words, _so_far(now, destination))

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
    if summary.num_messages:
        tell_guess(lm)
    if as_json:
        print(json.dumps(asdict(summary), indent=2))
    else:
        print(_sentence(summary, destination), file=sys.stderr)
    if summary.num_failed:
        raise typer.Exit(SOME_FAILED)


def _sentence(summary: Summary, destination: Path) -> str:
    failed = f", {summary.num_failed:,} of them errors" if summary.num_failed else ""
    if summary.num_earlier == summary.num_requests:
        return f"nothing to do: {destination} has all {summary.num_requests:,} results{failed}"
    earlier = f", {summary.num_earlier:,} of them from before" if summary.num_earlier else ""
    return (
        f"{summary.num_done:,} results in {destination}{earlier}{failed}; {summary.num_tokens:,} tokens "
        f"in {summary.seconds:,.1f} s ({summary.tokens_per_second:,.1f} tokens/s); seed {summary.seed}"
    )


def _so_far(now: Summary, destination: Path) -> str:
    return f"{now.num_done:,} of {now.num_requests:,} results are in {destination}; the same command goes on from there"
