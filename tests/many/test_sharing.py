"""What several servers share without knowing of each other: conversations in a folder, states beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from receptance import Message
from receptance.engine import StateStore
from receptance.engine.store import InUseError
from receptance.generation import Moment
from receptance.models import RWKV
from receptance.server.metrics import merged
from receptance.server.stored import Conversations, Stored, UnknownError, new

from ..models.cases import small


def led(model: RWKV, words: str, name: str = "ours") -> Stored:
    tokens = [ord(letter) % model.config.vocab_size for letter in words]
    with torch.no_grad():
        _, state = model(torch.tensor([tokens]))
    return new(name, "m", Moment((Message("user", words),), words, "", state, len(tokens)), "g1", "off")


def test_what_one_server_stores_the_other_has(tmp_path: Path) -> None:
    model = small("7")
    here, there = (Conversations({"m": model}, folder=tmp_path) for _ in range(2))
    here.put("", led(model, "one"))
    assert there.get("", "ours").moment.text == "one"
    # Both have it in memory now.
    assert here.get("", "ours") is here.get("", "ours")
    there.put("", led(model, "another"))
    newer = here.get("", "ours").moment
    assert newer.text == "another" and newer.state is not None
    expected = led(model, "another").moment.state
    assert expected is not None and all(map(torch.equal, newer.state, expected))
    there.put("", led(model, "x", name="second"))
    assert here.names("") == ["ours", "second"]
    there.delete("", "ours")
    assert here.names("") == ["second"]
    with pytest.raises(UnknownError):
        here.get("", "ours")


def test_states_of_several_processes_stand_beside_each_other(tmp_path: Path) -> None:
    first, second = (StateStore.beside_others(tmp_path, 2**20) for _ in range(2))
    assert [first.folder.name, second.folder.name] == ["0", "1"]
    with pytest.raises(InUseError, match="another process keeps its states"):
        StateStore(first.folder, 2**20)
    first.close()
    # Whoever comes next goes on with what is there.
    third = StateStore.beside_others(tmp_path, 2**20)
    assert third.folder == first.folder
    second.close()
    third.close()


def test_metrics_of_several_servers_are_one_page() -> None:
    page = '# HELP steps_total Steps.\n# TYPE steps_total counter\nsteps_total{model="m"} 3.0\n'
    assert merged({"a": page, "b": page.replace("3.0", "4.0")}, "replica").decode() == (
        "# HELP steps_total Steps.\n# TYPE steps_total counter\n"
        'steps_total{model="m",replica="a"} 3.0\nsteps_total{model="m",replica="b"} 4.0\n'
    )
