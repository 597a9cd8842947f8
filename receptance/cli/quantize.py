"""`receptance quantize MODEL`: int8 or int4 weights in a file of their own, and what they cost in quality."""

from __future__ import annotations

import json
import pydoc_data.topics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..display import printable
from .convert import refuse_existing
from .options import MODEL_HELP, Quant, TokenizerOption, named
from .terminal import console, progress

if TYPE_CHECKING:
    from ..evaluation import Agreement
    from ..language_model import LanguageModel
    from ..quant import MatrixReport

# What is read where no text is named: the beginning of Python's own reference, which every machine has.
REFERENCE_CHARACTERS = 50_000


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=named)],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="NAME.safetensors; beside MODEL if not given.")
    ] = None,
    to: Annotated[Quant, typer.Option(help="The precision of the weights.")] = Quant.int8,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Tensors that stay as they are, as 'blocks.0.*'; may be given several times."
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Compare with the original on a text, and list the matrices.")
    ] = False,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --report: a UTF-8 text; Python's reference if not given.")
    ] = None,
    tokenizer: TokenizerOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --report: print JSON instead of tables.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")] = False,
) -> None:
    """Turn the matrices of MODEL into int8 or int4, block by block, so that a model of any size fits.

    A matrix that would suffer keeps a higher precision. What is written runs in every command.
    """
    for name, given in (("--text", text), ("--json", as_json or None), ("--tokenizer", tokenizer)):
        if given is not None and not report:
            raise typer.BadParameter("needs --report", param_hint=name)
    from ..checkpoints import open_checkpoint
    from ..quant import quantize_checkpoint
    from ..quant.cache import bar, place_of

    checkpoint = open_checkpoint(model)
    if out is None:
        out = place_of(checkpoint.path, to, beside=checkpoint.path == Path(model).expanduser())
    refuse_existing(out, force)
    # What the report needs is better missed now than after all the work.
    original = _original(model, text, tokenizer) if report else None
    with bar(f"quantising {checkpoint.path.name}") as update:
        stored = quantize_checkpoint(checkpoint, out, to, tuple(keep or ()), progress=update)
    if not as_json:
        print(f"wrote {printable(str(out))}: {len(stored)} matrices")
    if original is not None:
        _report(original, out, text, as_json)


def _original(model: str, text: Path | None, tokenizer: str | None) -> LanguageModel:
    """The model itself, left in its file; raises for a text that cannot be read and where no tokenizer is known."""
    from ..evaluation import open_text
    from ..language_model import load

    if text is not None:
        open_text(text).close()
    original = load(model, mmap=True, tokenizer=tokenizer)
    original.known_tokenizer()
    return original


def _report(original: LanguageModel, out: Path, text: Path | None, as_json: bool) -> None:
    from ..checkpoints import open_checkpoint
    from ..evaluation import compare
    from ..language_model import load
    from ..quant import matrix_reports

    other = load(out, tokenizer=original.known_tokenizer())
    source: Any = [pydoc_text()] if text is None else text
    with progress() as update:

        def on_progress(found: Agreement) -> None:
            words = f"{found.top_agreement:.1%} the same, divergence {found.divergence:.4f}"
            update(found.before.tokens, None, words, "")

        found = compare(original.model, other.model, original.known_tokenizer(), source, on_progress)
    matrices = list(matrix_reports(open_checkpoint(original.path), other.model))
    if as_json:
        print(json.dumps({"file": str(out), **_values(found), "matrices": [asdict(entry) for entry in matrices]}))
    else:
        _print(found, matrices)


def pydoc_text() -> str:
    """English prose about Python, of a fixed length."""
    return "\n\n".join(pydoc_data.topics.topics.values())[:REFERENCE_CHARACTERS]


def _values(found: Agreement) -> dict[str, Any]:
    return {
        "tokens": found.before.tokens,
        "divergence": found.divergence,
        "top_agreement": found.top_agreement,
        "bits_per_byte": {"original": found.before.bits_per_byte, "quantised": found.after.bits_per_byte},
        "perplexity": {"original": found.before.perplexity, "quantised": found.after.perplexity},
    }


def _print(found: Agreement, matrices: list[MatrixReport]) -> None:
    from rich.table import Table

    screen = console()
    table = Table("matrix", "format", *(_right(title) for title in ("bits", "error of weights", "of outputs")))
    for entry in matrices:
        output = "" if entry.output_error is None else f"{entry.output_error:.2e}"
        error = f"{entry.weight_error:.2e}" if output else ""
        table.add_row(printable(entry.name), entry.format, f"{entry.bits:.2f}", error, output)
    screen.print(table)
    num_weights = sum(entry.num_weights for entry in matrices)
    bits = sum(entry.num_weights * entry.bits for entry in matrices) / num_weights
    grid = Table.grid(padding=(0, 2))
    before, after = found.before, found.after
    for title, value in {
        "weights": f"{num_weights:,} in matrices, {bits:.2f} bits each",
        "text": f"{before.tokens:,} tokens, {before.num_bytes:,} bytes",
        "same likeliest token": f"{found.top_agreement:.2%}",
        "divergence": f"{found.divergence:.5f} nats a token",
        "bits per byte": f"{before.bits_per_byte:.4f} before, {after.bits_per_byte:.4f} now ({found.more_bits:+.3%})",
        "perplexity": f"{before.perplexity:.4f} before, {after.perplexity:.4f} now",
    }.items():
        grid.add_row(f"[bold]{title}[/]", value)
    screen.print(grid, highlight=False)


def _right(title: str) -> Any:
    from rich.table import Column

    return Column(title, justify="right")
