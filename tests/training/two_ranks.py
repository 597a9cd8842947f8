"""What one of two processes does: `python -m tests.training.two_ranks FOLDER`, with RANK and WORLD_SIZE set.

    losses = run_alone(folder, name)             # the same by one process
    start(folder)                                # and by two
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from receptance import Config, build
from receptance.adapters import add_adapter
from receptance.data import Tokens
from receptance.training import InitialState, Ranks, Run, Step, Trainer, Training

from ..conftest import ROOT

STEPS = 20
SECTIONS: dict[str, dict[str, Any]] = {
    "batch": {"rows": 4, "length": 16},
    "optim": {"lr": 5e-3},
    "schedule": {"steps": STEPS, "warmup_steps": 3},
    "compute": {"precision": "float32", "device": "cpu"},
    "watch": {"held_out_every": 10, "held_out_tokens": 200},
}
# By name: what is changed, and what two processes do in place of one.
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "ddp": {},
    "fsdp": {"compute": {"parallel": "fsdp"}},
    "ddp in parts": {"batch": {"rows_at_once": 1}},
    "fsdp in two groups": {"compute": {"parallel": "fsdp", "replicas": 2}},
    "fsdp in parts, recomputed": {"batch": {"rows_at_once": 1}, "compute": {"parallel": "fsdp", "recompute": True}},
    "ddp, texts that go on": {"batch": {"order": "in-order", "apart": True}},
    "fsdp, texts that go on": {"batch": {"order": "in-order"}, "compute": {"parallel": "fsdp"}},
    "ddp, documents": {"batch": {"order": "documents", "rows_at_once": 1}},
    "fsdp, documents": {"batch": {"order": "documents"}, "compute": {"parallel": "fsdp"}},
    "ddp, a tuned state": {"optim": {"lr": 0.1}},
    "fsdp, a tuned state": {"optim": {"lr": 0.1}, "compute": {"parallel": "fsdp"}},
    "ddp, adapters": {},
    "fsdp, adapters": {"compute": {"parallel": "fsdp"}},
    "fsdp in bfloat16": {"compute": {"parallel": "fsdp", "precision": "bfloat16"}},
}
# Saved by two and gone on with by one, and the other way round.
RESUMED = ("ddp", "fsdp", "fsdp, texts that go on")


def recipe(name: str, alone: bool) -> Training:
    sections = {section: {**values, **CASES[name].get(section, {})} for section, values in SECTIONS.items()}
    if alone:
        sections["compute"] = {k: v for k, v in sections["compute"].items() if k not in ("parallel", "replicas")}
    return Training(**sections)


def text(seed: int) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(4, 30, (40,), generator=draw).tolist()
    return Tokens.of([[*torch.randint(1, 32, (size,), generator=draw).tolist(), 0] for size in sizes])


def train(name: str, ranks: Ranks, alone: bool, folder: Path | None = None, stop: int = STEPS) -> list[float]:
    """The losses of the training, or of its first steps; `folder` is where it is kept and gone on with."""
    torch.manual_seed(0)
    model = build(Config(version="7", vocab_size=32, num_layers=2, dim=32, head_size=16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    initial = InitialState(model.requires_grad_(False)) if name.endswith("state") else None
    if name.endswith("adapters"):
        add_adapter(model, "lora", rank=4)
    chosen, steps = recipe(name, alone), list[Step]()

    keeper = None if folder is None else Run(folder, chosen)
    trainer = Trainer(
        model, text(1), chosen, steps.append, held_out=text(2), keeper=keeper, ranks=ranks, initial=initial
    )
    if stop < STEPS:
        # As when somebody presses Ctrl-C in one of them: all finish the step, save, and end.
        trainer.on_step = lambda step: signal.raise_signal(signal.SIGINT) if step.number + 1 == stop else None
    trainer.train()
    return [loss for step in steps for loss in (step.loss, step.held_out) if loss is not None]


def start(folder: Path) -> None:
    """Two processes that do all cases, and write what came of it into the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.two_ranks", str(folder)]
    running = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, **shared, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    told = [process.communicate(timeout=300)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(told)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with Ranks.join(recipe("ddp", alone=False).compute) as ranks:
        found = {name: train(name, ranks, alone=False) for name in CASES}
        for name in RESUMED:
            train(name, ranks, False, folder / "two first" / name, stop=STEPS // 2)
            if (folder / "one first" / name).exists():
                found[f"{name}, resumed"] = train(name, ranks, False, folder / "one first" / name)
        if ranks.is_first:
            (folder / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
