"""Files that are no tokenizer are refused in one sentence, and the right one is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receptance.errors import CheckpointError, InputError, MissingExtraError, ReceptanceError
from receptance.tokenizers import PileTokenizer, WorldTokenizer, open_tokenizer, tokenizer_for, vocabulary
from receptance.tokenizers.vocabulary import FILE_NAME, PACKAGES, installed_file, is_official, read_vocabulary

from .small_pile import content, write

GOOD = ["1 'a' 1", "2 'ab' 2", r"5 b'\xff' 1", "7 'é' 2"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "a line is an id, a Python literal and its length in bytes"),
        ("3 'x'", "a line is"),
        ("three 'x' 1", "a line is"),
        ("3 x 1", "a line is"),
        ("3 ['x'] 1", "a line is"),
        ("3 '" + "x" * 9000 + "' 9000", "a line is"),
        ("3 'x' * 2 + 'y' 3", "no literal"),
        ("3 'x', 'y' 2", "no literal"),
        ("3 'x'y' 3", "no literal"),
        ("3 f'{1}' 1", "a line is"),
        (r"3 '\ud800' 3", "no literal"),
        ("3 b'é' 2", "no literal"),
        ("3 '' 0", "a line is"),
        ("3 'é' 1", "it says 1 bytes and has 2"),
        ("0 'x' 1", "ids go from 1"),
        ("99999999 'x' 1", "ids go from 1"),
        ("2 'x' 1", "id 2 stands there for the second time"),
        ("3 'ab' 2", "its text is that of id 2 already"),
    ],
)
def test_a_wrong_line_of_a_vocabulary(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join([*GOOD, line, "9 'z' 1"]) + "\n", "utf-8")
    with pytest.raises(CheckpointError, match=rf"line 5 of .*vocabulary\.txt is wrong: .*{reason}"):
        WorldTokenizer(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"\x00" * 100, b"{}\n"])
def test_what_is_no_vocabulary(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"vocabulary\.txt is"):
        WorldTokenizer(path)


def test_a_vocabulary_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*: no such file"):
        WorldTokenizer(tmp_path / "vocabulary.txt")
    with pytest.raises(CheckpointError, match=r"cannot read .*: is a directory"):
        WorldTokenizer(tmp_path)
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="too large"):
        WorldTokenizer(tmp_path / "huge.txt")


def test_a_vocabulary_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes("\r\n".join(GOOD).encode())
    tokenizer = WorldTokenizer(path)
    assert tokenizer.vocab_size == 8
    assert tokenizer.encode("aabaé") == [1, 2, 1, 7]
    assert tokenizer.encode_bytes(b"ab\xff") == [2, 5]
    assert tokenizer.decode([1, 0, 3, 7]) == "aé"
    with pytest.raises(InputError, match="no token for byte 0x62"):
        tokenizer.encode("b")


def test_the_official_vocabulary() -> None:
    copies = [path for path in map(installed_file, PACKAGES) if path is not None]
    assert copies and all(map(is_official, copies))
    words = read_vocabulary(copies[0])
    assert len(words.ids) == 65529 and words.longest == 128 and len(words.tokens) == 65530
    # The same content under another name is not read again, and copies of another system are the same content.
    assert read_vocabulary(copies[0]) is words
    assert all(read_vocabulary(copy).ids == words.ids for copy in copies)


def test_a_copy_beside_the_checkpoint(tmp_path: Path, world: WorldTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(filter(None, map(installed_file, PACKAGES)))
    (tmp_path / FILE_NAME).write_bytes(source.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    monkeypatch.setattr(vocabulary, "PACKAGES", ())
    found = tokenizer_for(tmp_path / "model.pth", 65536)
    assert isinstance(found, WorldTokenizer) and found.vocab_size == 65536
    assert found.encode("Hello world") == [33155, 40213]


def test_no_vocabulary_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "PACKAGES", ("no_such_package",))
    with pytest.raises(MissingExtraError, match="pip install rwkv"):
        tokenizer_for(tmp_path, 65536)


def without_a_byte() -> dict[str, Any]:
    model = content()["model"]
    words = {word: token for word, token in model["vocab"].items() if word != "b"}
    return {"model": {**model, "vocab": words, "merges": []}}


def with_a_large_id() -> dict[str, Any]:
    model = content()["model"]
    return {"model": {**model, "vocab": {**model["vocab"], "the": 2**31}}}


def with_additions(**changed: object) -> dict[str, Any]:
    return {"added_tokens": [{**entry, **changed} for entry in content()["added_tokens"]]}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "?"}}, "not byte-level BPE"),
        ({"pre_tokenizer": None}, "not byte-level BPE"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "splits text in another way"),
        ({"normalizer": {"type": "Lowercase"}}, "changes the text"),
        ({"model": {**content()["model"], "dropout": 0.5}}, "other options"),
        ({"model": {**content()["model"], "merges": ["no such"]}}, "no tokenizer of the Pile models"),
        ({"model": {**content()["model"], "vocab": 5}}, "no tokenizer of the Pile models"),
        ({"added_tokens": None}, "added tokens of another kind"),
        (with_additions(lstrip=True), "added tokens of another kind"),
        (with_additions(content="two words"), "added tokens of another kind"),
        (with_additions(content="ending"), "has no special token <.endoftext.>"),
        (without_a_byte(), "no token for some bytes"),
        (with_a_large_id(), "its ids are too large"),
        ({"version": "9.9"}, "no tokenizer of the Pile models"),
    ],
)
def test_a_tokenizer_of_another_kind(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=reason) as found:
        PileTokenizer(write(tmp_path / "tokenizer.json", changed))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", "{", "[" * 100_000, '{"model": {"type": "BPE"}}', "\x00"])
def test_what_is_no_tokenizer(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match="no tokenizer of the Pile models"):
        PileTokenizer(path)


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*: no such file"):
        PileTokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "other.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match="not JSON"):
        PileTokenizer(tmp_path / "other.json")


def test_length_limits_of_a_file_do_not_count(tmp_path: Path) -> None:
    """Files of the hub cut and pad as it suits a trainer of short texts."""
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padding |= {"pad_type_id": 0, "pad_token": "<|padding|>"}
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path = write(tmp_path / "tokenizer.json", {"padding": padding, "truncation": truncation})
    assert PileTokenizer(path).decode(PileTokenizer(path).encode("the cat sat")) == "the cat sat"
    assert len(PileTokenizer(path).encode("x")) == 1


def test_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tokenizer.json")
    asked = []

    def download(repo: str, file: str) -> Path:
        asked.append((repo, file))
        return path

    monkeypatch.setattr("receptance.hub.download", download)
    assert [open_tokenizer(name).name for name in ("world", "pile", "bytes")] == ["world", "pile", "bytes"]
    assert asked == [("EleutherAI/gpt-neox-20b", "tokenizer.json")]
    assert open_tokenizer(path).name == open_tokenizer(str(path)).name == "pile"
    (tmp_path / "words.txt").write_text("1 'a' 1")
    assert open_tokenizer(tmp_path / "words.txt").vocab_size == 2
    with pytest.raises(InputError, match=r"no tokenizer is called 'word'.*did you mean world"):
        open_tokenizer("word")
    with pytest.raises(InputError, match="there are world, pile, bytes"):
        open_tokenizer(tmp_path)


def test_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "model.pth"
    assert getattr(tokenizer_for(checkpoint, 65536), "name", None) == "world"
    assert getattr(tokenizer_for(checkpoint, 256), "name", None) == "bytes"
    assert tokenizer_for(checkpoint, 60) is None

    def unreachable(repo: str, file: str) -> Path:
        raise CheckpointError("the hub cannot be reached")

    monkeypatch.setattr("receptance.hub.download", unreachable)
    with pytest.raises(ReceptanceError, match="cannot be reached"):
        tokenizer_for(checkpoint, 50277)
    write(tmp_path / "20B_tokenizer.json")
    for size in (50277, 50304):
        assert getattr(tokenizer_for(checkpoint, size), "name", None) == "pile"
        assert getattr(tokenizer_for(tmp_path, size), "name", None) == "pile"


@pytest.mark.parametrize(
    ("make", "size", "name"),
    [(write, 1000, "pile"), (write, 100, None), (lambda path: path.write_text("{}"), 1000, None)],
)
def test_of_a_model_of_another_size(
    make: Callable[[Path], object], size: int, name: str | None, tmp_path: Path
) -> None:
    make(tmp_path / "tokenizer.json")
    assert getattr(tokenizer_for(tmp_path, size), "name", None) == name
