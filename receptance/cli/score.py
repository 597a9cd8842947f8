"""`receptance score MODEL FILE`: how well a model foretells a text."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ..errors import DataError, InputError
from .options import (
    MODEL_HELP,
    AdapterOption,
    DeviceOption,
    DtypeOption,
    QuantOption,
    TokenizerOption,
    model_or_advice,
    named,
)
from .terminal import console, progress

if TYPE_CHECKING:
    from ..evaluation import Score

STDIN = "-"


def score(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=named)] = None,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A UTF-8 text of any length; - reads stdin.")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    quant: QuantOption = None,
    adapter: AdapterOption = None,
    tokenizer: TokenizerOption = None,
    piece: Annotated[int, typer.Option(min=1, help="Tokens that are fed at a time.")] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell perplexity and bits per byte of a text, read from its start to its end in one go.

    Memory does not grow with the text. Ctrl-C tells the score of what was read so far.
    """
    model = model_or_advice(model, "receptance score")
    if file is None:
        raise InputError(f"`receptance score MODEL FILE` needs a model and a text, and {model!r} is only one of them")
    from ..evaluation import open_text, text_pieces
    from ..evaluation import score as run
    from ..language_model import load

    with ExitStack() as stack:
        # Opened first: that a text is missing is better known before a model is loaded.
        source = _stdin() if file == STDIN else stack.enter_context(open_text(file))
        kind = dtype.torch if dtype else None
        lm = load(model, dtype=kind, device=device, tokenizer=tokenizer, quant=quant, adapter=adapter)
        size, update = _size(source), stack.enter_context(progress(in_bytes=True))

        def on_progress(found: Score) -> None:
            words = f"{found.tokens_per_second:,.0f} tokens/s, perplexity {found.perplexity:.4g}"
            update(found.num_bytes, size, words, _so_far(found))

        found = run(
            lm.model, lm.known_tokenizer(), text_pieces(source, "stdin" if file == STDIN else file), on_progress, piece
        )
    if as_json:
        print(json.dumps(_values(found), indent=2))
    else:
        _print(found)


def _stdin() -> BinaryIO:
    # None where the shell closed it.
    if sys.stdin is None:
        raise DataError("stdin is closed; give a file")
    return sys.stdin.buffer


def _size(source: BinaryIO) -> int | None:
    """Bytes of a file; None where nobody knows before the end, as of a pipe."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None


def _so_far(found: Score) -> str:
    figures = f"perplexity {found.perplexity:.4f}, bits per byte {found.bits_per_byte:.4f}"
    return f"the first {found.tokens:,} tokens: {figures}"


def _values(found: Score) -> dict[str, Any]:
    # JSON has no infinity.
    perplexity = found.perplexity if math.isfinite(found.perplexity) else None
    return {
        "perplexity": perplexity,
        "bits_per_byte": found.bits_per_byte,
        "tokens": found.tokens,
        "bytes": found.num_bytes,
        "nats": found.nats,
        "seconds": found.seconds,
        "tokens_per_second": found.tokens_per_second,
    }


def _print(found: Score) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for title, value in {
        "perplexity": f"{found.perplexity:.4f} a token",
        "bits per byte": f"{found.bits_per_byte:.4f}",
        "text": f"{found.tokens:,} tokens, {found.num_bytes:,} bytes",
        "loss": f"{found.nats:,.2f} nats in all, {found.nats / found.tokens:.4f} a token",
        "speed": f"{found.tokens_per_second:,.0f} tokens/s, {found.seconds:,.1f} s",
    }.items():
        table.add_row(f"[bold]{title}[/]", value)
    console().print(table, highlight=False)
