"""The state is a value: forked by reference, stacked, cut, saved and loaded; another model's is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from receptance import State, StateError
from receptance.state import fingerprint, is_saved_state, saved_notes
from tests.models.cases import CONFIGS, small, used


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_and_stack_are_inverse(name: str) -> None:
    state = used(small(name), 4)
    again = State.stack([state.rows([i]) for i in range(4)])
    assert all(torch.equal(a, b) for a, b in zip(again, state, strict=True))
    assert state.rows([2, 0, 2]).num_rows == 3
    assert torch.equal(state.rows(slice(1, 3)).wkv, state.wkv[:, 1:3])


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_fork_is_a_reference(name: str) -> None:
    """Going on from a state leaves it as it was, so any number of continuations start from one."""
    model = small(name)
    state = used(model, 1)
    before = state.clone()
    first = model(torch.tensor([[1, 2, 3]]), state)[0]
    model(torch.tensor([[4]]), state)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    assert torch.equal(model(torch.tensor([[1, 2, 3]]), state)[0], first)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_save_and_load(name: str, tmp_path: Path) -> None:
    model = small(name, torch.bfloat16)
    state = used(model, 2)
    state.save(tmp_path / "s.safetensors", model)
    again = State.load(tmp_path / "s.safetensors", model)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(again, state, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]
    wider = State.load(tmp_path / "s.safetensors", model.float())  # the same weights in another precision
    assert torch.equal(wider.wkv, state.wkv)


def test_notes_are_kept_with_a_state(tmp_path: Path) -> None:
    model, path = small("7"), tmp_path / "s.safetensors"
    used(model, 1).save(path, model, {"said": "hello", "format": "mine"})
    assert saved_notes(path)["said"] == "hello" and is_saved_state(path)
    assert saved_notes(tmp_path / "nothing") == {} and not is_saved_state(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_saved_state(tmp_path / "pipe")
    with pytest.raises(StateError, match="no ordinary file"):
        State.load(tmp_path / "pipe", small("7"))


def test_another_models_state_is_refused(tmp_path: Path) -> None:
    model = small("7")
    used(model, 1).save(tmp_path / "s.safetensors", model)
    with torch.no_grad():
        model.blocks[1].ln2.weight.add_(0.5)
    with pytest.raises(StateError, match=r"saved from another model \(RWKV-7\)"):
        State.load(tmp_path / "s.safetensors", model)
    with pytest.raises(StateError, match="another model"):
        State.load(tmp_path / "s.safetensors", small("6"))


def test_bad_files_are_one_sentence(tmp_path: Path) -> None:
    model = small("7")
    path = tmp_path / "s.safetensors"
    with pytest.raises(StateError, match="does not exist"):
        State.load(path, model)
    with pytest.raises(StateError, match="cannot be written"):
        used(model, 1).save(tmp_path, model)
    path.write_bytes(b"no state at all")
    with pytest.raises(StateError, match="no saved state"):
        State.load(path, model)
    save_file({"wkv": torch.zeros(1)}, path)
    with pytest.raises(StateError, match="not a saved state"):
        State.load(path, model)
    save_file({"wkv": torch.zeros(1)}, path, {"format": "receptance-state-1", "fingerprint": fingerprint(model)})
    with pytest.raises(StateError, match="no saved state"):
        State.load(path, model)
    state = used(model, 1)
    bad = {"wkv": state.wkv[:1].clone(), "shift": state.shift}
    save_file(bad, path, {"format": "receptance-state-1", "fingerprint": fingerprint(model)})
    with pytest.raises(StateError, match="does not fit"):
        State.load(path, model)


def test_tuned_states() -> None:
    """Official state files hold S[v, k] for every layer; a read of one token tells the orientation."""
    for name in ("5.2", "6", "7"):
        model = small(name)
        tensors = {f"blocks.{i}.att.time_state": torch.randn(2, 8, 8) for i in range(2)}
        state = State.from_tuned(tensors, model.config)
        assert torch.equal(state.wkv[1, 0].float(), tensors["blocks.1.att.time_state"])
        assert not state.shift.any()
        del tensors["blocks.1.att.time_state"]
        with pytest.raises(StateError, match=r"has no blocks\.1"):
            State.from_tuned(tensors, model.config)
        with pytest.raises(StateError, match="3 layers and the model 2"):
            State.from_tuned({f"blocks.{i}.att.time_state": torch.randn(2, 8, 8) for i in range(3)}, model.config)
        with pytest.raises(StateError, match="tuned for another model"):
            State.from_tuned({f"blocks.{i}.att.time_state": torch.randn(4, 4, 4) for i in range(2)}, model.config)


def test_devices_and_dtypes() -> None:
    state = used(small("7"), 1)
    half = state.to(dtype=torch.bfloat16)
    assert (half.shift.dtype, half.wkv.dtype) == (torch.bfloat16, torch.float32)
    assert state.to("cpu").shift.dtype == torch.float64
    assert half.num_bytes == half.shift.numel() * 2 + half.wkv.numel() * 4
    graded = State(state.shift.requires_grad_(), state.wkv)
    assert not graded.detach().shift.requires_grad
    with pytest.raises(StateError, match="different models"):
        State.stack([state, used(small("6 wide"), 1)])
    with pytest.raises(StateError, match="no state to stack"):
        State.stack([])
