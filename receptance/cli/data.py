"""`receptance data`: text to tokens on disk, and a look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..display import printable
from ..errors import DataError
from .convert import refuse_existing
from .terminal import console, progress

# Of the damaged records, how many are named one by one.
NAMED = 5


def to_binidx(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files or folders of .jsonl, .parquet or plain text, hub:NAME[:SPLIT] for a data set of the hub, or "
            "python:[PACKAGE] for the source of Python or of a package.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="NAME", help="Writes NAME.bin and NAME.idx.")],
    tokenizer: Annotated[str, typer.Option(help="world, pile, bytes or a file.")] = "world",
    column: Annotated[str, typer.Option(help="Where lines of JSON, Parquet and data sets have the text.")] = "text",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what is no document, and say how much it was.")
    ] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="One for each core if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace NAME where it exists.")] = False,
) -> None:
    """Make tokens of documents, in the format of the official trainer."""
    from itertools import chain

    from ..data import documents, files_of, pair, prepare
    from ..data.sources import HUB, Bad, refuse

    for path in pair(out):
        refuse_existing(path, force)
    bad: list[Bad] = []
    on_bad = bad.append if skip_bad else refuse
    known = [file for source in sources for file in files_of(source)]
    total = sum(file.stat().st_size for file in known) if not any(s.startswith(HUB) for s in sources) else None
    texts = chain.from_iterable(documents(source, column, on_bad) for source in sources)
    with progress(in_bytes=True) as update:

        def show(num_bytes: int, num_documents: int) -> None:
            update(num_bytes, total, f"{num_documents:,} documents", "")

        made = prepare(texts, tokenizer, out, processes, show)
    print(f"wrote {printable(str(out))}: {made.num_documents:,} documents, {made.num_tokens:,} tokens")
    if bad:
        print(f"left out {len(bad):,} that were no documents:")
        for place, reason in bad[:NAMED]:
            print(printable(f"  {place}: {reason}"))


def data_info(
    path: Annotated[Path, typer.Argument(metavar="NAME", help="A .bin with its .idx, or a folder of such pairs.")],
    length: Annotated[int, typer.Option(min=1, help="The context of a training, in tokens.")] = 512,
) -> None:
    """Say what a data set has in it, and how a training could read it."""
    import numpy as np
    from rich.table import Table

    from ..data import MagicPrime, Tokens

    tokens = Tokens.open(path)
    sizes = np.diff(tokens.starts)
    rows = {
        "tokens": f"{tokens.num_tokens:,}",
        "documents": f"{tokens.num_documents:,}",
        "tokens of a document": f"{sizes.min():,} to {sizes.max():,}, {int(np.median(sizes)):,} in the middle",
        "largest token": f"{tokens.largest():,}",
        f"pieces of {length}": f"{(tokens.num_tokens - 1) // length:,}",
    }
    try:
        rows["magic prime"] = f"{MagicPrime(tokens.starts, length).prime:,}"
    except DataError:
        rows["magic prime"] = "none, the data set is too small for the official order"
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console().print(table)
