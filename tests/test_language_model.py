"""`receptance.load`: the module, in evaluation mode, in a dtype that this machine can compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import receptance
from receptance import CheckpointError, InputError, devices
from receptance.checkpoints import save_checkpoint


@pytest.mark.parametrize("version", ["4", "6", "7"])
def test_load(small_checkpoint: Callable[[str], Path], version: str) -> None:
    path = small_checkpoint(version)
    lm = receptance.load(path)
    assert lm.config.version == version
    assert lm.path == path
    assert not lm.model.training
    logits, state = lm.model(torch.tensor([[1, 2, 3]]))
    again, _ = lm.model(torch.tensor([[4]]), state)
    assert logits.shape == (1, 3, 60)
    assert again.shape == (1, 1, 60)
    assert receptance.load(path, dtype=torch.float64).model.head.weight.dtype == torch.float64


def test_stored_dtype_where_the_machine_multiplies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = receptance.build(receptance.Config(version="7", vocab_size=20, num_layers=1, dim=64), dtype=torch.bfloat16)
    save_checkpoint(model, tmp_path / "m.pth")
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able}, raising=False)
        assert devices.multiplies(torch.bfloat16) is able
        assert receptance.load(tmp_path / "m.pth", device="cpu").model.head.weight.dtype == dtype
    forced = receptance.load(tmp_path / "m.pth", dtype=torch.bfloat16, device="cpu")
    assert forced.model.head.weight.dtype == torch.bfloat16


def test_load_state(small_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    lm = receptance.load(small_checkpoint("7"), dtype=torch.bfloat16, device="cpu")
    _, state = lm.model(torch.tensor([[1, 2, 3]]))
    state.save(tmp_path / "s.safetensors", lm.model)
    again = lm.load_state(tmp_path / "s.safetensors")
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(again, state, strict=True))

    tuned = {f"blocks.{layer}.att.time_state": torch.randn(4, 16, 16) for layer in range(2)}
    torch.save(tuned, tmp_path / "tuned.pth")
    start = lm.load_state(tmp_path / "tuned.pth")
    assert torch.equal(start.wkv[1, 0], tuned["blocks.1.att.time_state"])
    lm.model(torch.tensor([[1]]), start)

    with pytest.raises(CheckpointError, match=r"missing\.pth"):
        lm.load_state(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="holds no state"):
        lm.load_state(lm.path)


def test_dtypes_and_devices_by_name(small_checkpoint: Callable[[str], Path]) -> None:
    path = small_checkpoint("7")
    assert receptance.load(path, dtype="bfloat16", device="cpu").model.head.weight.dtype == torch.bfloat16
    config = receptance.load(path).config
    assert receptance.build(config, dtype="float64").head.weight.dtype == torch.float64
    for wrong in ("int8", torch.int8, torch.complex64, "half a byte"):
        with pytest.raises(InputError, match="choose float64, float32, bfloat16, float16"):
            receptance.load(path, dtype=wrong)
    with pytest.raises(InputError, match="cannot compute on 'abacus'"):
        receptance.load(path, device="abacus")
    with pytest.raises(InputError, match=r"Config\.preset"):
        receptance.build("rwkv7-0.1b")


def test_overrides_and_refusals(small_checkpoint: Callable[[str], Path]) -> None:
    path = small_checkpoint("7")
    assert receptance.load(path, group_norm_eps=1e-5).config.group_norm_eps == 1e-5
    with pytest.raises(CheckpointError, match="missing"):
        receptance.load(path.with_name("missing.pth"))
