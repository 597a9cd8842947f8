"""Every kind of file gives its documents in order; what is damaged is named with its place, and refused or left out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receptance.data import documents
from receptance.data.sources import Bad
from receptance.errors import DataError, MissingExtraError

TEXTS = ["one", "zwei\nDrei", "四", "🙂 five"]


def texts(source: str | Path, **options: Any) -> list[str]:
    return [document.text for document in documents(source, **options)]


def write_jsonl(path: Path) -> None:
    path.write_text("\n\n".join(json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)) + "\n")


def write_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": range(4), "text": TEXTS}), path)


@pytest.mark.parametrize(("ending", "write"), [("jsonl", write_jsonl), ("parquet", write_parquet)])
def test_a_record_is_a_document(ending: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    write(path)
    found = list(documents(path))
    assert [document.text for document in found] == TEXTS
    # The bytes add up to about the file's size, so that a progress bar can be trusted.
    assert 0.5 * path.stat().st_size < sum(document.num_bytes for document in found) <= path.stat().st_size
    write(tmp_path / f"X.{ending.upper()}")
    assert texts(tmp_path / f"X.{ending.upper()}") == TEXTS


def test_a_plain_file_is_a_document_and_a_folder_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "b" / "deep" / "c.md").write_text("second")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    write_jsonl(tmp_path / "c.jsonl")
    assert texts(tmp_path) == ["first\n", "second", *TEXTS]


BAD_LINES = {
    '{"text": "cut of': "this is no JSON",
    "[" * 100_000: "this is no JSON",
    "\udcff": "this is no JSON",
    '{"texts": "x"}': "there is no 'text' but texts (--column names another)",
    '["text"]': "there is no 'text'",
    '{"text": null}': "'text' is no text",
    '{"text": ["a"]}': "'text' is no text",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_named_with_its_number_and_refused_or_left_out(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(f'{{"text": "good"}}\n{line}\n{{"text": "too"}}'.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=f"x.jsonl, line 2: {re.escape(BAD_LINES[line])}; mend it") as caught:
        texts(path)
    assert "\n" not in str(caught.value)
    bad: list[Bad] = []
    assert texts(path, on_bad=bad.append) == ["good", "too"]
    assert bad == [Bad(f"{path}, line 2", BAD_LINES[line])]


def test_a_plain_file_that_is_no_utf8_is_named_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(DataError, match=r"a\.txt: byte 3 is no UTF-8"):
        texts(tmp_path)


def test_another_column_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"content": "a"}\n')
    assert texts(tmp_path / "x.jsonl", column="content") == ["a"]


def test_a_parquet_file_without_the_column_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="there is no 'words' but id, text "):
        texts(tmp_path / "x.parquet", column="words")
    with pytest.raises(DataError, match="row 1: 'id' is no text"):
        texts(tmp_path / "x.parquet", column="id")
    (tmp_path / "x.parquet").write_bytes(b"PAR1" * 10)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        texts(tmp_path / "x.parquet")


def test_what_is_missing_or_of_no_known_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        texts(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"has no file that ends in \.jsonl"):
        texts(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="of no known kind"):
        texts(tmp_path / "x.zip")


@pytest.mark.parametrize(("source", "module"), [("x.parquet", "pyarrow"), ("hub:some/thing", "datasets")])
def test_a_missing_library_is_named(
    source: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'receptance\[data\]'"):
        texts(source if source.startswith("hub:") else tmp_path / source)


def test_a_data_set_of_the_hub_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return iter([{"text": "a"}, {"text": 3}, {"text": "b"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    bad: list[Bad] = []
    assert texts("hub:some/thing:small:test", on_bad=bad.append) == ["a", "b"]
    assert asked == [(("some/thing", "small"), {"split": "test", "streaming": True})]
    assert bad == [Bad("hub:some/thing:small:test, row 2", "'text' is no text")]
    texts("hub:some/thing", on_bad=bad.append)
    assert asked[1] == (("some/thing",), {"split": "train", "streaming": True})


def test_a_data_set_that_cannot_be_had_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def fail(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="the data set some/thing cannot be read: no network"):
        texts("hub:some/thing")
