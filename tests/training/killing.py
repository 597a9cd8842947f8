"""A training that is killed at random moments, and goes on each time: the same losses as without, to the last bit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

RECIPE = """
[model]
version = "7"
vocab_size = 256
num_layers = 2
dim = 64

[data]
train = "python:json"
tokenizer = "bytes"
held_out_one_in = 3

[batch]
rows = 4
length = 64
rows_at_once = 2
order = "{order}"

[schedule]
steps = {steps}

[checkpoints]
every_steps = 2

[watch]
held_out_every = 9
held_out_tokens = 500
"""


def train(folder: Path) -> subprocess.Popen[bytes]:
    """The command, as a user starts it, in a folder with recipe.toml."""
    command = [sys.executable, "-m", "receptance", "train", "recipe.toml", "--out", "run", "--resume"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def losses(folder: Path) -> list[tuple[float, float | None]]:
    """Of every step, with what was measured on the held-out text."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["number"] for step in steps] == list(range(len(steps)))
    return [(step["loss"], step["held_out"]) for step in steps]


def num_lines(folder: Path) -> int:
    path = folder / "run" / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def prepare(folder: Path, steps: int, order: str) -> Path:
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE.format(steps=steps, order=order))
    return folder


def check(tmp_path: Path, kills: int, steps: int, order: str = "shuffled", seed: int = 0) -> None:
    """Kill a training so often, and compare it with one that nobody disturbed."""
    calm = prepare(tmp_path / "calm", steps, order)
    finish(train(calm))
    killed, draw = prepare(tmp_path / "killed", steps, order), random.Random(seed)
    for number in range(kills):
        process, before = train(killed), num_lines(killed)
        # Where it stands when it dies is spread over the training.
        goal = before + draw.randint(0, 2 * max(1, (steps - before) // (kills - number + 1)))
        while process.poll() is None and num_lines(killed) < min(goal, steps - 2):
            time.sleep(0.005)
        time.sleep(draw.random() * 0.05)
        process.kill()
        process.communicate()
        check_whole(killed)
    finish(train(killed))
    check_whole(killed)
    assert losses(killed) == losses(calm) and len(losses(calm)) == steps
    ends = [(folder / "run" / "model.pth").read_bytes() for folder in (calm, killed)]
    assert ends[0] == ends[1]
    left = {path.name for path in (killed / "run" / "checkpoints").iterdir()}
    assert left == {path.name for path in (calm / "run" / "checkpoints").iterdir()}


def check_whole(folder: Path) -> None:
    """Nothing under a good name is half-written."""
    for path in (folder / "run" / "checkpoints").glob("step-*"):
        assert json.loads((path / "training.json").read_text())["position"]["steps"] == int(path.name[5:])
        assert list(path.glob("*.safetensors"))
    best = folder / "run" / "best.json"
    if best.exists():
        assert (folder / "run" / "checkpoints" / json.loads(best.read_text())["checkpoint"]).is_dir()
