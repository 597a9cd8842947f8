"""Every kind of bad file gives one sentence, from Python and from the command line, and leaves nothing behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from receptance import CheckpointError
from receptance.checkpoints import convert, load_model, open_checkpoint
from receptance.cli import app

from .bad_files import BAD_FILES
from .weights import CONFIGS, official_weights


def opening_fails(open_it: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as refusal:
        open_it()
    return str(refusal.value)


@pytest.mark.parametrize("kind", BAD_FILES)
def test_python_says_one_sentence(kind: str, tmp_path: Path) -> None:
    bad = BAD_FILES[kind]
    path = bad.make(tmp_path)
    message = opening_fails(lambda: load_model(path) if bad.needs_numbers else open_checkpoint(path))
    assert bad.says in message
    assert "\n" not in message and len(message) < 400 and ". " not in message.replace(str(path), "")
    target = tmp_path / "converted.pth"
    assert bad.says in opening_fails(lambda: convert(path, target))
    assert not target.exists() and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("kind", BAD_FILES)
def test_the_command_line_says_it_and_exits_with_2(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = BAD_FILES[kind]
    path = str(bad.make(tmp_path))
    arguments = ["convert", path, str(tmp_path / "converted.pth")] if bad.needs_numbers else ["info", path]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    # A progress bar that is taken back may leave an empty line where there is no terminal.
    sentence = result.stderr.strip()
    assert sentence.startswith("receptance: ") and bad.says in sentence and "\n" not in sentence


def test_there_are_twenty_kinds() -> None:
    assert len(BAD_FILES) >= 20


def test_damage_anywhere_is_a_sentence_or_harmless(tmp_path: Path) -> None:
    """Bytes overwritten at random, mostly in headers: the file opens, or is refused; nothing else happens."""
    rng = random.Random(0)
    weights = official_weights(CONFIGS["4"])
    for name in ("model.pth", "model.safetensors", "old.pth"):
        path = tmp_path / name
        torch.save(weights, path, _use_new_zipfile_serialization=name != "old.pth")
        if name.endswith(".safetensors"):
            path.unlink()
            torch.save(weights, tmp_path / "source.pth")
            convert(tmp_path / "source.pth", path)
        content = path.read_bytes()
        for _ in range(40):
            broken = bytearray(content)
            for _ in range(rng.choice((1, 4, 40))):
                near_the_ends = rng.choice((0, len(content) - 4000)) + rng.randrange(4000)
                broken[rng.choice((rng.randrange(len(content)), near_the_ends))] = rng.randrange(256)
            path.write_bytes(broken)
            try:
                load_model(path)
            except CheckpointError as error:
                assert "\n" not in str(error)


def test_a_name_that_is_no_string_is_refused(tmp_path: Path) -> None:
    torch.save({3: torch.zeros(3)}, tmp_path / "model.pth")
    assert "which is no tensor" in opening_fails(lambda: open_checkpoint(tmp_path / "model.pth"))


def test_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Touches:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (Path("code-was-run"),)

    for old in (False, True):
        torch.save({"emb.weight": Touches()}, "model.pth", _use_new_zipfile_serialization=not old)
        opening_fails(lambda: open_checkpoint("model.pth"))
        assert not Path("code-was-run").exists()


def test_numbers_too_large_for_a_dtype_are_refused(tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["4"])
    weights["head.weight"][3, 5] = 1e6
    torch.save(weights, tmp_path / "model.pth")
    for go in (
        lambda: load_model(tmp_path / "model.pth", dtype=torch.float16),
        lambda: convert(tmp_path / "model.pth", tmp_path / "half.pth", dtype=torch.float16),
    ):
        assert "too large for float16" in opening_fails(go)
    assert not (tmp_path / "half.pth").exists()
    assert load_model(tmp_path / "model.pth", dtype=torch.bfloat16).head.weight.isfinite().all()
