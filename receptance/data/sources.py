"""Documents out of files: plain text, lines of JSON, Parquet, data sets of the hub, and Python's own source.

    for document in documents(Path("talks.jsonl")):
        document.text

A folder stands for all its files of known kinds, in the order of their names.
"""

from __future__ import annotations

import importlib.util
import json
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, MissingExtraError

HUB, PYTHON = "hub:", "python:"
# In Python's sources, tests repeat themselves and outweigh all the rest; `encodings` and `pydoc_data` are tables and
# prose.
LEFT_OUT = frozenset(
    ("test", "tests", "testing", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data")
)
TEXT_ENDINGS = (".txt", ".md", ".py", ".rst", ".html")


class Document(NamedTuple):
    """A text.

    num_bytes  how many bytes of its file were read for it; 0 where nobody knows
    name       what it is called, wherever its folder stands: a relative path, the number of a line or row after it
    learnt     which letters of it are to be learnt, from - to; None: all
    """

    text: str
    num_bytes: int = 0
    name: str = ""
    learnt: tuple[tuple[int, int], ...] | None = None


class Bad(NamedTuple):
    """What stands where a document should be: its place, and what is wrong."""

    place: str
    reason: str


class Record(NamedTuple):
    """One record of a file, whatever is in it: a document has a text among its values."""

    value: Any
    num_bytes: int
    name: str
    place: str


OnBad = Callable[[Bad], None]


def refuse(bad: Bad) -> None:
    """Raises DataError: what `documents` does by default with what is no document."""
    raise DataError(f"{bad.place}: {bad.reason}; mend it, or leave out what is damaged (--skip-bad)")


def documents(source: str | Path, column: str = "text", on_bad: OnBad = refuse) -> Iterator[Document]:
    """The documents of a source.

    source    a file, a folder; "hub:NAME", "hub:NAME:SPLIT" or "hub:NAME:CONFIG:SPLIT", a data set of the hub;
              "python:", the source of Python's standard library, or "python:NAME", that of an installed package
    column    where lines of JSON, Parquet and data sets have the text
    on_bad    is told of each record that is none; the default raises DataError

    Raises DataError for a file that is missing, empty of documents or of no known kind, MissingExtraError where what
    reads it is not installed.
    """
    for record in records(source, on_bad):
        value = {column: record.value} if isinstance(record.value, str) else record.value
        if not isinstance(value, dict):
            on_bad(Bad(record.place, f"there is no {column!r}"))
        elif column not in value:
            known = ", ".join(map(str, value)) or "nothing"
            on_bad(Bad(record.place, f"there is no {column!r} but {known:.100} (--column names another)"))
        elif not isinstance(value[column], str):
            on_bad(Bad(record.place, f"{column!r} is no text"))
        else:
            yield Document(value[column], record.num_bytes, record.name)


def records(source: str | Path, on_bad: OnBad = refuse) -> Iterator[Record]:
    """The records of a source: of a plain file its text, else mappings.  Raises as `documents`."""
    if str(source).startswith(HUB):
        yield from _hub(str(source).removeprefix(HUB))
        return
    is_python = str(source).startswith(PYTHON)
    root, files = _python(str(source).removeprefix(PYTHON)) if is_python else _root(Path(source))
    for path in files:
        name = path.relative_to(root).as_posix()
        for record in READERS[path.suffix.lower()](path, on_bad):
            yield record._replace(name=name + record.name)


def files_of(source: str | Path) -> list[Path]:
    """The files that a source stands for; none for one of the hub.  Raises DataError as `documents`."""
    if str(source).startswith(HUB):
        return []
    if str(source).startswith(PYTHON):
        return _python(str(source).removeprefix(PYTHON))[1]
    return _root(Path(source))[1]


def _root(source: Path) -> tuple[Path, list[Path]]:
    """The folder from which the files of a path have their names, and the files."""
    return (source if source.is_dir() else source.parent), _found(source)


def _python(package: str) -> tuple[Path, list[Path]]:
    """The same for Python's own source, or an installed package's."""
    if not package:
        root = start = Path(sysconfig.get_path("stdlib"))
    else:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise DataError(f"no package {package!r} is installed; give the name by which a program imports it")
        start = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        root = start.parent
    paths = sorted(start.rglob("*.py")) if start.is_dir() else [start]
    files = [path for path in paths if LEFT_OUT.isdisjoint(path.relative_to(root).parts[:-1])]
    if not files or files[0].suffix != ".py":
        raise DataError(f"{start} has no source in Python; give another package")
    return root, files


def _found(source: Path) -> list[Path]:
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


def _plain(path: Path, on_bad: OnBad) -> Iterator[Record]:
    """A file is a record."""
    raw = path.read_bytes()
    try:
        yield Record(raw.decode(), len(raw), "", str(path))
    except UnicodeDecodeError as error:
        on_bad(Bad(str(path), f"byte {error.start} is no UTF-8"))


def _json_lines(path: Path, on_bad: OnBad) -> Iterator[Record]:
    """A line is a record, `{"text": ...}`; empty lines do not count."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                on_bad(Bad(place, "this is no JSON"))
                continue
            # A text by itself is no record with a text.
            yield Record(value if isinstance(value, dict) else None, len(line), f":{number}", place)


def _parquet(path: Path, on_bad: OnBad) -> Iterator[Record]:
    """A row is a record."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow; install it: pip install 'receptance[data]'") from error
    try:
        file = parquet.ParquetFile(path)
        share = path.stat().st_size // max(1, file.metadata.num_rows)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                number += 1
                yield Record(value, share, f":{number}", f"{path}, row {number}")
    except ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _hub(name: str) -> Iterator[Record]:
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
            yield Record(row, 0, f":{number}", f"{HUB}{name}, row {number}")
    except Exception as error:
        # Whatever the network and dozens of formats can raise.
        raise DataError(f"the data set {name} cannot be read: {' '.join(str(error).split())}") from error


READERS: dict[str, Callable[[Path, OnBad], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    **dict.fromkeys(TEXT_ENDINGS, _plain),
}
