"""The commands of training: they train, go on, plan, list, draw, and tell in a sentence what cannot be."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import receptance
from receptance.checkpoints import save_checkpoint
from receptance.cli import app
from receptance.cli.finetune import _plain_name
from receptance.training import Recipe, bits, read_metrics, shipped_recipes

SMALL = """
[model]
version = "7"
vocab_size = 256
num_layers = 1
dim = 32
head_size = 32

[data]
train = "python:json"
tokenizer = "bytes"
held_out_one_in = 3

[batch]
rows = 2
length = 16

[schedule]
steps = 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with small.toml, in which commands are run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


def receptance_(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_recipe_is_trained_and_gone_on_with(folder: Path) -> None:
    first = receptance_("train", "small.toml")
    assert first.exit_code == 0 and "wrote runs/small/model.pth" in first.stdout
    assert receptance.load(folder / "runs/small/model.pth").config.dim == 32
    again = receptance_("train", "small.toml")
    assert again.exit_code == 2 and "has a training in it; give --resume" in again.stderr
    more = receptance_("train", "small.toml", "--resume", "--set", "schedule.steps=6")
    assert more.exit_code == 0 and "step     5" in more.stdout and "step     3" not in more.stdout
    converted = receptance_("convert", "runs/small/checkpoints/step-0000006", "out.safetensors")
    assert converted.exit_code == 0
    assert receptance.load("out.safetensors").config == receptance.load("runs/small/model.pth").config
    shutil.copytree("runs/small", "other/small")
    for end in ("png", "svg"):
        drawn = receptance_("plot", "runs/small", "other/small", "--out", f"x.{end}")
        assert drawn.exit_code == 0 and (folder / f"x.{end}").stat().st_size > 1000
    # Text is drawn as shapes, of which each has its letter in a comment.
    drawing = (folder / "x.svg").read_text()
    assert "<!-- runs/small -->" in drawing and "<!-- other/small -->" in drawing
    wrong = receptance_("plot", "runs/small", "--out", "x.txt")
    assert wrong.exit_code == 2 and "x.txt is no name for a picture" in wrong.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_terminal_shows_where_a_training_stands(folder: Path) -> None:
    import pexpect

    command = ["-m", "receptance", "train", "small.toml", "--set", "schedule.steps=6", "--set", "watch.sample_every=3"]
    terminal = pexpect.spawn(sys.executable, command, timeout=120, dimensions=(40, 100), encoding="utf-8")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.read())
    terminal.close()
    assert terminal.exitstatus == 0
    last = read_metrics(folder / "runs" / "small")[-1]
    assert f"{last['smooth_loss']:.3f} ({bits(last['smooth_loss']):.2f} bits/byte)" in shown
    assert f"{last['held_out']:.3f} ({bits(last['held_out']):.2f} bits/byte)" in shown
    for name in ("100%", "0 s left", "tokens/s", "learning rate", "gradient", "memory"):
        assert name in shown, name


def test_recipes_are_listed_and_printed() -> None:
    listed = receptance_("recipes")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(shipped_recipes())
    printed = receptance_("recipes", "quickstart")
    assert printed.stdout == shipped_recipes()["quickstart"]
    wrong = receptance_("recipes", "quikstart")
    assert wrong.exit_code == 2 and "did you mean quickstart?" in wrong.stderr


def test_a_plan_starts_nothing(folder: Path) -> None:
    sizes = ["--set", "model.num_layers=61", "--set", "model.dim=4096"]
    plain = receptance_("train", "pretrain-v7", "--plan", "--gpus", "64", *sizes)
    assert plain.exit_code == 0 and "it does not fit into the memory of one; try" in plain.stdout
    assert "compute.parallel=fsdp" in plain.stdout and "1,498,226,207" in plain.stdout
    assert not (folder / "runs").exists()
    wrong = receptance_("train", "pretrain-v7", "--plan", "--gpu", "abacus")
    assert wrong.exit_code == 2 and "no GPU is known as 'abacus'" in wrong.stderr
    alone = receptance_("train", "small.toml", "--gpus", "2")
    assert alone.exit_code == 2 and "--gpus is of a plan; add --plan" in alone.stderr
    assert not (folder / "runs").exists()


TALK = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Yes."}]}


@pytest.mark.parametrize(
    ("method", "made", "use"),
    [
        ("lora", "adapter", "--adapter runs/lora-base/adapter"),
        ("state", "state.pth", "--state runs/state-base/state.pth"),
        ("full", "model.pth", "receptance chat runs/full-base/model.pth"),
    ],
)
def test_a_model_learns_from_conversations(folder: Path, method: str, made: str, use: str) -> None:
    config = receptance.Config(version="7", vocab_size=256, num_layers=1, dim=32, head_size=32)
    save_checkpoint(receptance.build(config), "base.pth")
    (folder / "talks.jsonl").write_text(f"{json.dumps(TALK)}\n" * 30)
    done = receptance_("finetune", "base.pth", "talks.jsonl", "--method", method, "--length", "32", "--epochs", "0.3")
    assert done.exit_code == 0, done.stderr
    assert f"wrote runs/{method}-base/{made}" in done.stdout and use in done.stdout
    recipe = Recipe.read(folder / f"runs/{method}-base/recipe.toml")
    assert recipe.data.conversations and recipe.data.held_out_one_in == 0
    option = {"lora": ["--adapter", f"runs/lora-base/{made}"], "state": ["--state", f"runs/state-base/{made}"]}
    model = "base.pth" if method != "full" else f"runs/full-base/{made}"
    said = receptance_("generate", "One?", "--chat", "-m", model, "-n", "3", *option.get(method, []))
    assert said.exit_code == 0, said.stderr


@pytest.mark.parametrize(
    ("model", "name"),
    [("rwkv7-g1-0.1b", "rwkv7-g1-0.1b"), ("user/repo:my model.pth", "my-model"), ("a/b.int8.safetensors", "b.int8")],
)
def test_a_folder_has_the_name_of_the_model(model: str, name: str) -> None:
    assert _plain_name(model) == name


def test_texts_are_learnt_from_as_they_are(folder: Path) -> None:
    save_checkpoint(receptance.build(receptance.Config(version="4", vocab_size=256, num_layers=1, dim=32)), "base.pth")
    (folder / "book.txt").write_text("It was a dark and stormy night. " * 40)
    done = receptance_("finetune", "base.pth", "book.txt", "--length", "32", "--epochs", "0.2", "--rank", "2")
    assert done.exit_code == 0, done.stderr
    assert 'receptance generate "..." -m base.pth --adapter runs/lora-base/adapter' in done.stdout
    merged = receptance_("convert", "base.pth", "merged.pth", "--adapter", "runs/lora-base/adapter")
    assert merged.exit_code == 0 and receptance.load("merged.pth").config.version == "4"


BAD = {
    "no recipe": (["train", "nothing.toml"], "there is no recipe nothing.toml"),
    "a change that is none": (["train", "small.toml", "--set", "steps"], "write it as section.key=value"),
    "a misspelt key": (["train", "small.toml", "--set", "optim.lrr=3"], "has no 'lrr'; did you mean lr?"),
    "no model": (["finetune", "no.pth", "book.txt"], "no.pth"),
    "no data": (["finetune", "small.toml", "none.jsonl"], "there is no file or folder none.jsonl"),
    "data of no kind": (["finetune", "small.toml", "small.toml"], "small.toml is of no known kind"),
    "no run": (["plot", "runs/none"], "give the folder of a training"),
    "an adapter that is none": (["generate", "x", "-m", "base.pth", "--adapter", "."], "is no folder of an adapter"),
    "a checkpoint that is none": (["convert", "runs/none/checkpoints/step-0000001", "x.pth"], "step-0000001"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_is_told_in_one_sentence(kind: str, folder: Path) -> None:
    save_checkpoint(receptance.build(receptance.Config(version="4", vocab_size=256, num_layers=1, dim=32)), "base.pth")
    (folder / "book.txt").write_text("It was a dark and stormy night. " * 40)
    arguments, words = BAD[kind]
    result = receptance_(*arguments)
    assert result.exit_code == 2 and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="sends an interrupt")
def test_ctrl_c_saves_and_says_how_to_go_on(folder: Path) -> None:
    command = [sys.executable, "-m", "receptance", "train", "small.toml", "--set", "schedule.steps=1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = folder / "runs/small/metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < 5):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "stopped by hand; go on with --resume --out runs/small" in out and "wrote runs/small/model.pth" in out


def test_torchrun_trains_as_one_process_does(folder: Path) -> None:
    """As on a machine with two GPUs, here with two processes on the CPU."""
    precise = ["--set", "compute.precision=float32", "--set", "compute.device=cpu"]
    assert receptance_("train", "small.toml", "--out", "one", *precise).exit_code == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    chosen = [*precise, "--set", "compute.parallel=fsdp"]
    command = [*torchrun, "-m", "receptance", "train", "small.toml", "--out", "two", *chosen]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert result.returncode == 0, result.stderr
    # One of them speaks.
    assert result.stdout.count("wrote two/model.pth") == 1
    losses = {
        name: [json.loads(line)["loss"] for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    }
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)
