"""Documents out of files: plain text, lines of JSON, Parquet, and data sets of the Hugging Face hub.

    for document in documents(Path("talks.jsonl")):
        document.text

A folder stands for all its files of known kinds, in the order of their names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, MissingExtraError

HUB = "hub:"
TEXT_ENDINGS = (".txt", ".md", ".py", ".rst", ".html")


class Document(NamedTuple):
    """A text, and how many bytes of its file were read for it (0 where nobody knows)."""

    text: str
    num_bytes: int = 0


class Bad(NamedTuple):
    """What stands where a document should be: its place, and what is wrong."""

    place: str
    reason: str


OnBad = Callable[[Bad], None]


def refuse(bad: Bad) -> None:
    """Raises DataError: what `documents` does by default with what is no document."""
    raise DataError(f"{bad.place}: {bad.reason}; mend it, or leave out what is damaged (--skip-bad)")


def documents(source: str | Path, column: str = "text", on_bad: OnBad = refuse) -> Iterator[Document]:
    """The documents of a file, a folder, or with "hub:NAME", "hub:NAME:SPLIT" or "hub:NAME:CONFIG:SPLIT" of the hub.

    column    where lines of JSON, Parquet and data sets have the text
    on_bad    is told of each record that is none; the default raises DataError

    Raises DataError for a file that is missing, empty of documents or of no known kind, MissingExtraError where what
    reads it is not installed.
    """
    if str(source).startswith(HUB):
        yield from _hub(str(source).removeprefix(HUB), column, on_bad)
        return
    for path in files_of(Path(source)):
        yield from READERS[path.suffix.lower()](path, column, on_bad)


def files_of(source: Path) -> list[Path]:
    """The files that a path stands for.  Raises DataError where there are none of a known kind."""
    if not source.exists():
        raise DataError(f"there is no file or folder {source}; give text, lines of JSON or Parquet")
    known = ", ".join(READERS)
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in READERS and path.is_file())
        if not found:
            raise DataError(f"{source} has no file that ends in {known}")
        return found
    if source.suffix.lower() not in READERS:
        raise DataError(f"{source} is of no known kind; give a file that ends in {known}")
    return [source]


def _plain(path: Path, column: str, on_bad: OnBad) -> Iterator[Document]:
    """A file is a document."""
    raw = path.read_bytes()
    try:
        yield Document(raw.decode(), len(raw))
    except UnicodeDecodeError as error:
        on_bad(Bad(str(path), f"byte {error.start} is no UTF-8"))


def _json_lines(path: Path, column: str, on_bad: OnBad) -> Iterator[Document]:
    """A line is a document, `{"text": ...}`; empty lines do not count."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                on_bad(Bad(f"{path}, line {number}", "this is no JSON"))
                continue
            yield from _checked(record, column, len(line), f"{path}, line {number}", on_bad)


def _parquet(path: Path, column: str, on_bad: OnBad) -> Iterator[Document]:
    """A row is a document."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow; install it: pip install 'receptance[data]'") from error
    try:
        file = parquet.ParquetFile(path)
        if column not in file.schema_arrow.names:
            raise DataError(f"{path} has no column {column!r}, but {', '.join(file.schema_arrow.names)}; give --column")
        share = path.stat().st_size / max(1, file.metadata.num_rows)
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield from _checked({column: value}, column, int(share), f"{path}, row {number}", on_bad)
    except ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _hub(name: str, column: str, on_bad: OnBad) -> Iterator[Document]:
    """A row of a data set, which is read as it comes and not stored."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("data sets need `datasets`; install it: pip install 'receptance[data]'") from error
    path, *rest = name.split(":")
    split = rest.pop() if rest else "train"
    try:
        rows: Iterable[Any] = load_dataset(path, *rest, split=split, streaming=True)
        for number, row in enumerate(rows, 1):
            yield from _checked(row, column, 0, f"{HUB}{name}, row {number}", on_bad)
    except DataError:
        raise
    except Exception as error:
        # Whatever the network and dozens of formats can raise.
        raise DataError(f"the data set {name} cannot be read: {' '.join(str(error).split())}") from error


def _checked(record: Any, column: str, num_bytes: int, place: str, on_bad: OnBad) -> Iterator[Document]:
    """The document of a record, if it is one."""
    if not isinstance(record, dict) or column not in record:
        on_bad(Bad(place, f"there is no {column!r}"))
    elif not isinstance(record[column], str):
        on_bad(Bad(place, f"{column!r} is no text"))
    else:
        yield Document(record[column], num_bytes)


READERS: dict[str, Callable[[Path, str, OnBad], Iterator[Document]]] = {
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    **dict.fromkeys(TEXT_ENDINGS, _plain),
}
