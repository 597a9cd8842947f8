"""The quantised form beside a checkpoint: made once, made anew when the checkpoint changes, elsewhere where it must."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import receptance
from receptance.checkpoints import save_checkpoint
from receptance.errors import InputError
from receptance.quant import cache, quantised, quantize

from .models import logits_of, model_of, saved


def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path)
    lm = receptance.load(source, quant="int8")
    assert (tmp_path / "model.int8.safetensors").is_file() and lm.path == source
    assert torch.equal(logits_of(lm.model), logits_of(quantize(model_of("7"), "int8")))
    monkeypatch.setattr(cache, "quantize_checkpoint", None)
    again = receptance.load(source, quant="int8")
    assert torch.equal(logits_of(again.model), logits_of(lm.model))
    assert capsys.readouterr() == ("", "")


def test_it_is_made_anew_for_a_changed_checkpoint_and_where_it_is_damaged(tmp_path: Path) -> None:
    source = saved(tmp_path)
    place = quantised(source, "int4").path
    written = place.stat().st_mtime_ns
    assert quantised(source, "int4").path.stat().st_mtime_ns == written
    changed = model_of("7")
    with torch.no_grad():
        changed.head.weight.mul_(-1)
    save_checkpoint(changed, source)
    os.utime(source, ns=(written, written + 10**9))
    expected = logits_of(quantize(changed, "int4"))
    assert torch.equal(logits_of(receptance.load(source, quant="int4").model), expected)
    place.write_bytes(place.read_bytes()[:-100])
    assert torch.equal(logits_of(receptance.load(source, quant="int4").model), expected)


def test_a_folder_that_cannot_be_written_to_and_the_hub_s_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, home = saved(tmp_path), tmp_path / "home"
    monkeypatch.setattr(cache, "cache_folder", lambda: home)
    assert quantised(source, "int8", beside=False).path.parent == home
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "model.pth: its int8 weights are kept as" in said
    # Root may write anywhere.
    monkeypatch.setattr(cache.os, "access", lambda *_: False)
    assert quantised(source, "int4").path.parent == home
    other = saved(tmp_path / "other", name="model.pth") if (tmp_path / "other").mkdir() is None else source
    assert quantised(other, "int4").path != quantised(source, "int4").path
    assert {path.name for path in tmp_path.iterdir()} == {"model.pth", "home", "other"}


def test_a_folder_s_quantised_form_lies_beside_it(tmp_path: Path) -> None:
    save_checkpoint(model_of("7"), tmp_path / "folder")
    assert quantised(tmp_path / "folder", "int8").path == tmp_path / "folder.int8.safetensors"


def test_the_user_s_folder_follows_the_system_s_customs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "receptance" / "quantised"


def test_wrong_wishes_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path)
    with pytest.raises(InputError, match="choose int8 or int4"):
        receptance.load(source, quant="int2")
    with pytest.raises(InputError, match="quantised already"):
        receptance.load(quantised(source, "int8").path, quant="int4")
