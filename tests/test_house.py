"""The little model that the package brings: it is small, it is good, and it works where nothing else is at hand."""

from __future__ import annotations

import ast
import hashlib
import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import receptance
from receptance.catalogue import HOUSE_FILE
from receptance.cli import app
from receptance.data import Tokens, documents, is_held_out
from receptance.evaluation import score
from receptance.experiment import run
from receptance.models import num_parameters
from receptance.quant import dequantize
from receptance.training import Recipe, shipped_recipes

CARD = HOUSE_FILE.parent / "README.md"
PROMPT = "import os\n\ndef "


@pytest.fixture(scope="module")
def house() -> receptance.LanguageModel:
    return receptance.load("house", dtype="float32")


def test_it_is_small(house: receptance.LanguageModel) -> None:
    assert HOUSE_FILE.stat().st_size < 8e6
    assert sum(path.stat().st_size for path in HOUSE_FILE.parent.iterdir()) < 8e6


@pytest.mark.parametrize("seed", range(4))
def test_it_goes_on_with_python(seed: int, house: receptance.LanguageModel) -> None:
    """A function with a name, parameters that Python can read, and a body."""
    text = PROMPT + house.generate(PROMPT, 300, temperature=0.7, top_p=0.9, seed=seed).text
    assert re.match(r"import os\n\ndef [a-z_][a-zA-Z_0-9]*\(.*\)(?: -> .*)?:\n {4}\S", text), text
    header = text[: text.index(":\n", len(PROMPT)) + 1]
    assert len(ast.parse(header + "\n    pass").body) == 2, text


def test_it_serves_where_no_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a machine without a connection.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = CliRunner().invoke(app, ["generate", "def ", "-n", "20", "--temperature", "0"])
    assert result.exit_code == 0 and "with the little model that comes along" in result.stderr
    assert len(result.stdout) > 5
    told = CliRunner().invoke(app, ["chat"])
    assert told.exit_code == 2 and "receptance chat rwkv7-g1-0.4b" in told.stderr and "house" in told.stderr


def test_it_knows_files_that_it_has_not_learnt_from(house: receptance.LanguageModel) -> None:
    """A sample of `make acceptance PART=house`: held-out files of this machine's Python, whichever it is."""
    files = [document for document in documents("python:") if is_held_out(document.name, 20)]
    found = score(house.model, house.known_tokenizer(), [files[0].text[:6000]])
    assert found.bits_per_byte < 1.9
    nothing = receptance.build(house.config)
    assert score(nothing, house.known_tokenizer(), [files[0].text[:600]]).bits_per_byte > 7.5


def test_most_inputs_of_its_channel_mix_are_exactly_zero(house: receptance.LanguageModel) -> None:
    model = dequantize(receptance.load("house", dtype="float32").model)
    shares: list[float] = []
    for block in model.blocks:
        block.ffn.value.register_forward_hook(
            lambda module, inputs, output: shares.append(float((inputs[0] == 0).float().mean()))
        )
    text = Path(ast.__file__).read_bytes()[:1000]
    with torch.no_grad():
        model(torch.tensor([list(text)]))
    if not shares:
        pytest.skip("the channel mix is one operation here, and shows no inputs")
    assert len(shares) == len(model.blocks) and min(shares) > 0.4


def test_the_card_tells_the_truth(house: receptance.LanguageModel) -> None:
    card = CARD.read_text("utf-8")
    assert f"{num_parameters(dequantize(receptance.load('house').model)):,} parameters" in card
    assert hashlib.sha256(HOUSE_FILE.read_bytes()).hexdigest() in card
    told = re.search(r"\*\*([0-9.]+) bits per byte\*\*", card)
    assert told and float(told[1]) < 1.4
    listed = re.findall(r"^- `(.+\.py)`$", card, re.M)
    assert len(listed) > 50 and all(is_held_out(name, 20) for name in listed)
    assert "```toml\n" + shipped_recipes()["house"] + "```" in card


def test_training_goes_on_from_it(tmp_path: Path) -> None:
    changes = {
        "model.start": "house",
        "data.train": "python:json",
        "data.held_out_one_in": 0,
        "batch.rows": 2,
        "batch.length": 128,
        "schedule.steps": 2,
    }
    learnt = run(Recipe.read("continue", changes), tmp_path, Console(file=io.StringIO()))
    # Who knows Python begins low.
    assert learnt.outcome.steps[0].loss < 1.5 and receptance.load(learnt.path).config == receptance.load("house").config
    assert Tokens.open(tmp_path / "tokens" / "train").num_documents > 3
