"""`receptance info`: what a checkpoint is, what a machine has, which form serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from receptance import Config, build, ops
from receptance.cli import app
from receptance.config import VERSIONS
from receptance.describe import describe, forms, machine, readable_bytes
from receptance.devices import multiplies

Write = Callable[[str], Path]


def info(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["info", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def info_json(*arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(info(*arguments, "--json"))
    return answer


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_is_described_as_it_is(version: str, small_checkpoint: Write) -> None:
    path = small_checkpoint(version)
    answer = info_json(str(path))["model"]
    stored = torch.load(path, weights_only=True)
    config = Config(**answer["config"])
    assert config.version == version
    assert answer["parameters"] == sum(tensor.numel() for tensor in stored.values())
    assert answer["file_bytes"] == path.stat().st_size
    assert answer["dtypes"] == {"float32": len(stored)}
    assert answer["state_bytes"] == build(config).zero_state(1).num_bytes
    # Every matrix but the embedding's is a product; the recurrence adds to that, but less than doubles it.
    matrices = sum(t.numel() for name, t in stored.items() if t.dim() == 2 and name != "emb.weight")
    assert 2 * matrices * 0.9 < answer["flops_per_token"] < 4 * matrices


def test_the_table_says_the_same(small_checkpoint: Write) -> None:
    path = small_checkpoint("7")
    values = info_json(str(path))["model"]
    printed = info(str(path))
    assert "RWKV-7" in printed and f"{values['parameters']:,}" in printed and "4 of size 16" in printed


def test_tensors_are_listed(small_checkpoint: Write) -> None:
    path = small_checkpoint("7")
    tensors = info_json(str(path), "--tensors")["model"]["tensors"]
    assert tensors["emb.weight"] == {"shape": [60, 64], "dtype": "float32"}
    printed = info(str(path), "--tensors")
    assert all(name in printed for name in tensors)


def test_what_the_model_does_not_use_is_named(small_checkpoint: Write, tmp_path: Path) -> None:
    path = small_checkpoint("7")
    assert info_json(str(path))["model"]["unused"] == [] and "unused" not in info(str(path))
    weights = torch.load(path, weights_only=True)
    extra = [f"blocks.0.att.{name}" for name in ("v0", "v1", "v2")]
    weights.update({name: weights[name.replace("blocks.0", "blocks.1")].clone() for name in extra})
    torch.save(weights, tmp_path / "official.pth")
    assert info_json(str(tmp_path / "official.pth"))["model"]["unused"] == extra
    assert ", ".join(extra) in info(str(tmp_path / "official.pth"))


def test_no_weight_is_read_and_nothing_is_allocated(small_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from receptance.checkpoints import Checkpoint

    def forbidden(*_: object) -> None:
        raise AssertionError("info must not read a weight")

    monkeypatch.setattr(Checkpoint, "tensor", forbidden)
    assert describe(small_checkpoint("7")).config.dim == 64


def test_this_machine() -> None:
    answer = info_json()["machine"]
    assert answer["libraries"]["torch"] == torch.__version__
    assert answer["threads"] == torch.get_num_threads()
    assert answer["bf16_products"] is multiplies(torch.bfloat16)
    printed = info()
    assert torch.__version__ in printed and ("has bfloat16" in printed or "no bfloat16" in printed)


def test_a_library_that_is_missing_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receptance.describe.LIBRARIES", ("receptance-of-another-world",))
    assert machine().libraries == {"receptance-of-another-world": None}
    assert "not installed" in info()


def test_ops_show_which_form_serves_and_why_not_the_others() -> None:
    table = forms(length=512)
    assert set(table) == set(ops.FORMS) > {"token_shift", "wkv4", "wkv6", "wkv7", "lerps", "cross_entropy"}
    assert "for GPUs" in dict(table["wkv7"])["triton"] or dict(table["wkv7"])["triton"] is None
    for rows in table.values():
        assert [reason for _, reason in rows].count(None) == 1
    assert info_json("--ops")["ops"] == {op: dict(rows) for op, rows in table.items()}
    assert info_json("--ops", "--length", "1")["ops"]["wkv7"]["numba"] is None
    assert forms(length=1)["wkv7"] != table["wkv7"]
    printed = info("--ops", "--length", "300")
    assert "serves" in printed and "a call of 300 tokens" in printed
    assert "a call of one token" in info("--ops", "--length", "1")


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (614_400_000, "614.4 MB"), (51 * 10**11, "5,100.0 GB")],
)
def test_bytes_as_people_say_them(count: int, said: str) -> None:
    assert readable_bytes(count) == said


def test_tensors_need_a_model() -> None:
    result = CliRunner().invoke(app, ["info", "--tensors"])
    assert result.exit_code == 2 and "MODEL" in result.stderr
