"""The model that an example trains answers well: `make acceptance PART=chat_model` (about ten minutes on two cores)."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

import receptance

from ..conftest import ROOT

# Shares of right answers on what was not in the training.
WANTED = {
    "greet": 0.99,
    "larger": 0.9,
    "spell": 0.9,
    "backwards": 0.9,
    "tell": 0.9,
    "recall": 0.9,
    "unknown": 0.9,
    "sum": 0.7,  # the last to be learned, and at another time in every run
}


def test_the_trained_model_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    training = import_module("train_a_chat_model")
    path = tmp_path / "model.pth"
    training.main(path)
    lm = receptance.load(path)
    right = training.accuracy(lm, count=1000, seed=2)
    shares = {kind: sum(found) / len(found) for kind, found in right.items()}
    assert shares.keys() == WANTED.keys()
    assert not {kind: share for kind, share in shares.items() if share < WANTED[kind]}

    chat = lm.chat()
    chat.ask("my name is Ada")
    chat.ask("spell plum")
    assert chat.ask("what is my name?").text == "Your name is Ada."
    chat.reset()
    assert chat.ask("what is my name?").text == "I do not know."
