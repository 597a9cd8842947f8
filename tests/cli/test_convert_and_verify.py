"""The commands `convert` and `verify` end to end; what they rest on has tests of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from receptance.cli import app
from receptance.verify import BOUNDS

Write = Callable[[str], Path]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def test_convert_there_and_back_is_exact(small_checkpoint: Write, tmp_path: Path) -> None:
    source, there, back = small_checkpoint("6"), tmp_path / "a.safetensors", tmp_path / "b.pth"
    assert run("convert", source, there)[:2] == (0, f"wrote {there}\n")
    assert run("convert", there, back)[0] == 0
    first, last = (torch.load(path, weights_only=True) for path in (source, back))
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert not list(tmp_path.rglob("*.partial"))


def test_convert_changes_the_dtype_when_asked(small_checkpoint: Write, tmp_path: Path) -> None:
    target = tmp_path / "half.pth"
    assert run("convert", small_checkpoint("7"), target, "--dtype", "bfloat16")[0] == 0
    assert {tensor.dtype for tensor in torch.load(target, weights_only=True).values()} == {torch.bfloat16}


def test_convert_keeps_what_exists(small_checkpoint: Write, tmp_path: Path) -> None:
    target = tmp_path / "precious.pth"
    target.write_bytes(b"precious")
    code, _, said = run("convert", small_checkpoint("7"), target)
    assert (code, said) == (2, f"receptance: {target} exists; give --force to replace it\n")
    assert target.read_bytes() == b"precious"
    assert run("convert", small_checkpoint("7"), target, "--force")[0] == 0
    assert torch.load(target, weights_only=True)


def test_convert_names_what_is_left_out(small_checkpoint: Write, tmp_path: Path) -> None:
    weights = torch.load(small_checkpoint("7"), weights_only=True)
    for name in ("v0", "v1", "v2"):
        weights[f"blocks.0.att.{name}"] = weights[f"blocks.1.att.{name}"].clone()
    source = tmp_path / "official.pth"
    torch.save(weights, source)
    code, said, _ = run("convert", source, tmp_path / "folder")
    assert code == 0
    for name in ("v0", "v1", "v2"):
        assert f"blocks.0.att.{name}" in said


def test_verify_passes(small_checkpoint: Write) -> None:
    code, said, _ = run("verify", small_checkpoint("5.2"), "--length", "20", "--no-official")
    assert code == 0 and "pass" in said and "FAIL" not in said and "token by token" in said
    assert "not compared with the official runtime: not asked for" in said


def test_verify_fails_with_exit_code_1(small_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BOUNDS, torch.float32, -1.0)
    code, said, _ = run("verify", small_checkpoint("5.2"), "--length", "20", "--no-official")
    assert code == 1 and "FAIL" in said
