"""`receptance models`: every known model once, within 80 columns, and what is here is marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from receptance.catalogue import KNOWN
from receptance.cli import app
from receptance.cli.models import COLUMNS

HERE = KNOWN["rwkv4-pile-169m"]


@pytest.fixture(autouse=True)
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub in which one model lies."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    path = tmp_path / f"models--{HERE.repo.replace('/', '--')}" / "snapshots" / "0123" / HERE.file
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def test_every_model_has_a_row_within_80_columns() -> None:
    lines = run().stdout.splitlines()
    for known in KNOWN.values():
        (line,) = (line for line in lines if line.split()[:1] == [known.name])
        assert known.repo in line and f"{known.download_bytes / 1e9:.1f} GB" in line
        assert ("yes" in line.split()) == (known is HERE)
        assert f"{known.about} ({known.precision})" in lines
    assert sum(COLUMNS.values()) + 2 * (len(COLUMNS) - 1) <= 80


def test_json_has_everything(downloaded: Path) -> None:
    values = {entry["name"]: entry for entry in json.loads(run("--json").stdout)}
    assert values.keys() == KNOWN.keys()
    assert values[HERE.name]["here"] == str(downloaded)
    assert values["rwkv7-g1-1.5b"]["here"] is None
    assert values["rwkv7-g1-1.5b"]["repo"] == "BlinkDL/rwkv7-g1"
    assert values["rwkv7-g1-1.5b"]["download_bytes"] == KNOWN["rwkv7-g1-1.5b"].download_bytes


def test_one_model(downloaded: Path) -> None:
    said = run(HERE.name.upper()).stdout
    for value in (HERE.file, HERE.repo, f"{HERE.parameters:,}", HERE.precision, str(downloaded)):
        assert value in said
    assert json.loads(run(HERE.name, "--json").stdout)["file"] == HERE.file
    assert "or a newer one of the repository, where none is here yet" in run("rwkv7-g1-1.5b").stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [("rwkv7-g1-1.6b", "did you mean rwkv7-g1-1.5b?"), ("llama", "`receptance models` lists them")],
)
def test_an_unknown_name(name: str, words: str) -> None:
    result = run(name)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1
