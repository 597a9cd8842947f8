"""Documents become tokens in their order, whatever number of processes; the command says what it wrote and left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from receptance.cli import app
from receptance.data import Document, Tokens, documents, prepare
from receptance.errors import DataError
from receptance.tokenizers import open_tokenizer

TEXTS = [f"Document {n}: " + "wörter, words, 言葉. " * (n % 7) for n in range(50)]


def lines(path: Path, texts: list[str] = TEXTS) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.mark.parametrize("tokenizer", ["bytes", "world"])
def test_documents_become_tokens_with_an_end_each(tokenizer: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = prepare(
        documents(lines(tmp_path / "x.jsonl")), tokenizer, tmp_path / "x", progress=lambda *so_far: seen.append(so_far)
    )
    known = open_tokenizer(tokenizer)
    expected = [token for text in TEXTS for token in [*known.encode(text), 0]]
    tokens = Tokens.open(tmp_path / "x")
    assert tokens.window(0, tokens.num_tokens).tolist() == expected
    assert made == (50, len(expected)) == (tokens.num_documents, tokens.num_tokens)
    assert seen[-1] == ((tmp_path / "x.jsonl").stat().st_size, 50)


def test_the_files_do_not_depend_on_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receptance.data.preparation.BATCH", 100)
    for number in (1, 3):
        prepare(documents(lines(tmp_path / "x.jsonl")), "bytes", tmp_path / str(number), processes=number)
    for ending in ("bin", "idx"):
        assert (tmp_path / f"1.{ending}").read_bytes() == (tmp_path / f"3.{ending}").read_bytes()


def test_a_wide_vocabulary_takes_wide_numbers(tmp_path: Path) -> None:
    prepare([Document("ab")], "bytes", tmp_path / "x")
    assert (tmp_path / "x.bin").stat().st_size == 2 * 3
    vocabulary = tmp_path / "wide.txt"
    vocabulary.write_text("".join(f"{n + 1} {bytes([n])!r} 1\n" for n in range(256)) + "70000 'ab' 2\n")
    prepare([Document("abc")], str(vocabulary), tmp_path / "y")
    assert Tokens.open(tmp_path / "y").window(0, 3).tolist() == [70000, 100, 0]


def test_nothing_is_written_where_there_is_no_document_or_one_is_bad(tmp_path: Path) -> None:
    def failing() -> Iterator[Document]:
        yield Document("good")
        raise DataError("line 2 is bad")

    with pytest.raises(DataError, match="no document"):
        prepare([Document("")], "bytes", tmp_path / "x")
    with pytest.raises(DataError, match="line 2 is bad"):
        prepare(failing(), "bytes", tmp_path / "x")
    with pytest.raises(DataError, match="cannot be made tokens of"):
        prepare([Document("\ud800")], "bytes", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_writes_and_describes_a_data_set(tmp_path: Path) -> None:
    code, said, _ = run("data", "to-binidx", lines(tmp_path / "x.jsonl"), "-o", tmp_path / "x", "--tokenizer", "bytes")
    tokens = Tokens.open(tmp_path / "x")
    assert code == 0 and f"50 documents, {tokens.num_tokens:,} tokens" in said
    code, said, _ = run("data", "info", tmp_path / "x.idx", "--length", 16)
    assert code == 0
    shown = dict(line.split("  ", 1) for line in said.splitlines())
    assert shown["tokens"].strip() == f"{tokens.num_tokens:,}"
    assert shown["documents"].strip() == "50" and shown["magic prime"].strip().isdigit()
    sizes = np.diff(tokens.starts)
    assert f"{sizes.min():,} to {sizes.max():,}" in shown["tokens of a document"]


def test_the_command_refuses_a_bad_line_or_leaves_it_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl")
    path.write_text(path.read_text() + "{bad\n" * 7)
    code, said, wrong = run("data", "to-binidx", path, "-o", tmp_path / "x", "--tokenizer", "bytes")
    assert code == 2 and "line 51: this is no JSON" in wrong and not said
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"]
    code, said, _ = run("data", "to-binidx", path, "-o", tmp_path / "x", "--tokenizer", "bytes", "--skip-bad")
    assert code == 0 and "left out 7" in said and "line 51" in said and "line 56" not in said
    code, _, wrong = run("data", "to-binidx", path, "-o", tmp_path / "x", "--tokenizer", "bytes", "--skip-bad")
    assert code == 2 and "exists; give --force" in wrong


def test_the_fixtures_lines_become_the_tokens_of_the_tokenizer(tmp_path: Path, fixtures: Path) -> None:
    source = fixtures / "data" / "demo.jsonl"
    made = prepare(documents(source), "world", tmp_path / "demo")
    texts = [json.loads(line)["text"] for line in source.read_text().splitlines()]
    known, tokens = open_tokenizer("world"), Tokens.open(tmp_path / "demo")
    assert made.num_documents == len(texts)
    for text, start, stop in zip(texts, tokens.starts, tokens.starts[1:], strict=False):
        assert tokens.window(int(start), int(stop - start)).tolist() == [*known.encode(text), 0]
