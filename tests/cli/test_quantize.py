"""`receptance quantize` and `--quant`: what is written, what is reported, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from receptance import Config
from receptance.checkpoints import save_checkpoint
from receptance.cli import app
from tests.models.cases import noisy

MATRICES = 27


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = Config(version="7", vocab_size=256, num_layers=2, dim=32, head_size=16)
    save_checkpoint(noisy(config, strength=0.1), tmp_path / "model.pth")
    (tmp_path / "text.txt").write_text("Some text. " * 30)
    return tmp_path / "model.pth"


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    # On stderr it may say that kernels are compiled.
    return result.stderr if code else result.stdout


def test_a_file_is_written_beside_the_model_and_runs(model: Path) -> None:
    written = model.with_name("model.int4.safetensors")
    assert run("quantize", model, "--to", "int4") == f"wrote {written}: {MATRICES} matrices\n"
    assert "int4" in run("info", written) and "bits a weight" in run("info", written)
    figures = run("score", written, model.with_name("text.txt"), "--json")
    at_load = run("score", model, model.with_name("text.txt"), "--json", "--quant", "int4")
    assert json.loads(figures)["nats"] == json.loads(at_load)["nats"]
    assert "exists; give --force" in run("quantize", model, "--to", "int4", code=2)
    run("quantize", model, "--to", "int4", "--force", "--keep", "head.weight", "--keep", "*.att.*")
    assert json.loads(run("info", written, "--json"))["model"]["dtypes"].get("int8") is None


def test_a_report_compares_with_the_original(model: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "small.safetensors", model.with_name("text.txt")
    said = run("quantize", model, out, "--to", "int8", "--report", "--text", text)
    assert "blocks.1.att.g2" in said and "divergence" in said and "330 tokens, 330 bytes" in said
    values = json.loads(run("quantize", model, out, "--to", "int8", "--report", "--json", "--force", "--text", text))
    assert values["tokens"] == 330 and 0 < values["divergence"] < 0.01 and values["top_agreement"] > 0.9
    assert len(values["matrices"]) == MATRICES
    head = next(entry for entry in values["matrices"] if entry["name"] == "head.weight")
    assert head["format"] == "int8" and head["bits"] == 8.5 and 1e-6 < head["weight_error"] < 1e-4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--to", "int3"), "int3"),
        (("--text", "text.txt"), "needs --report"),
        (("--json",), "needs --report"),
        (("--keep", "nothing"), "no tensor is called 'nothing'"),
        (("--report", "--text", "missing.txt"), "cannot read missing.txt"),
        (("out.pth",), "ends in .safetensors"),
    ],
)
def test_wrong_wishes_are_refused(model: Path, options: tuple[str, ...], says: str) -> None:
    assert says in run("quantize", model, *options, code=2)
    assert not list(model.parent.glob("*.safetensors"))


def test_other_commands_quantise_at_load(model: Path) -> None:
    said = run("generate", "Some", "--model", model, "--quant", "int8", "--max-tokens", 3, "--json")
    assert json.loads(said[said.index("{") :])["num_tokens"] == 3
    assert model.with_name("model.int8.safetensors").is_file()
