"""`make acceptance PART=teach`: a small trained model learns a format, by LoRA and by its state (20 minutes).

What is learnt is less than a hundredth of the model; whether it was learnt is asked of numbers and words that were in
no training.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import receptance
from receptance.checkpoints import save_checkpoint
from receptance.data import Tokens
from receptance.experiment import run
from receptance.models import num_parameters
from receptance.official import logits
from receptance.training import Batching, LiveProgress, Optim, Recipe, Schedule, Trainer, Training

from ..conftest import ROOT

CONFIG = receptance.Config(version="7", vocab_size=256, num_layers=3, dim=192, head_size=16)
BASE = Training(
    batch=Batching(rows=4, length=256, order="packed"),
    optim=Optim(lr=3e-3),
    schedule=Schedule(tokens=3_000_000, end=0.03),
)
# In every conversation of the base's training the answers are dressed alike, and never as in the format: it has to
# know brackets and endings, and has never seen these two together.
BRACKETS, ENDINGS = ("", "[]", "()", "<>", "{}"), ("", " over", " out", " done", " end")
FORMAT = ("[]", " over")
OTHERS = [dress for dress in itertools.product(BRACKETS, ENDINGS) if dress != FORMAT]
FORMED = re.compile(r"\[[^\[\]]+\] over")
HOW: dict[str, dict[str, Any]] = {
    "lora": {"finetune.rank": 2, "finetune.targets": ["att.value", "att.output"], "optim.lr": 5e-3},
    "state": {"batch.order": "documents", "batch.apart": False, "optim.lr": 1.0, "schedule.end": 0.01},
}


@pytest.fixture(scope="module")
def examples() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "examples"))
    yield import_module("made_up_conversations")
    sys.path.pop(0)


def dressed(answer: str, dress: tuple[str, str]) -> str:
    brackets, ending = dress
    return f"{brackets[:1]}{answer}{brackets[1:]}{ending}"


@pytest.fixture(scope="module")
def base(examples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers, and has never seen the format."""
    draw, texts = random.Random(0), []
    while sum(map(len, texts)) < 4_000_000:
        dress = draw.choice(OTHERS)
        talk = [each._replace(answer=dressed(each.answer, dress)) for each in examples.conversation(draw)]
        texts.append(examples.as_text(talk).encode() + b"\0")
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("base") / "base.pth"
    with LiveProgress(Console(), "The base", bytes_per_token=1.0) as live:
        text = Tokens.of([np.frombuffer(text, np.uint8) for text in texts])
        Trainer(receptance.build(CONFIG), text, BASE, live).train(save_to=path)
    return path


@pytest.fixture(scope="module")
def talks(examples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations in the format."""
    path: Path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    draw = random.Random(5)
    with path.open("w") as file:
        for _ in range(1500):
            messages = []
            for _, message, answer in examples.conversation(draw):
                said = dressed(answer, FORMAT)
                messages += [{"role": "user", "content": message}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def asked(lm: receptance.LanguageModel, examples: Any, count: int = 300, **options: Any) -> tuple[float, float]:
    """The shares of held-out questions that are answered in the format, and rightly at that."""
    draw, wanted = random.Random(9), []
    while len(wanted) < count:
        wanted += [exchange for exchange in examples.conversation(draw, held_out=True) if exchange.kind != "recall"][:1]
    prompts = [f"User: {exchange.message}\n\nAssistant:" for exchange in wanted]
    found = lm.generate(prompts, 80, stop="\n\n", temperature=0, batch_size=100, **options)
    texts = [answer.text.strip() for answer in found]
    formed = sum(bool(FORMED.fullmatch(text)) for text in texts)
    right = sum(text == dressed(exchange.answer, FORMAT) for text, exchange in zip(texts, wanted, strict=True))
    return formed / count, right / count


@pytest.mark.parametrize("method", HOW)
def test_a_format_is_taught(method: str, base: Path, talks: Path, examples: Any, tmp_path: Path) -> None:
    lm = receptance.load(base)
    before, _ = asked(lm, examples)
    sections: dict[str, Any] = {
        "model": {"start": str(base)},
        "data": {"train": str(talks), "conversations": True, "template": "g1"},
        "batch": {"rows": 8, "length": 256, "order": "packed", "apart": True},
        "optim": {"weight_decay": 0.0},
        "schedule": {"epochs": 2},
        "finetune": {"method": method},
    }
    learnt = run(Recipe.of(sections, HOW[method]), tmp_path / "run", Console())
    if method == "state":
        state = lm.load_state(learnt.path)
        share = state.wkv.numel() / num_parameters(lm.model)
        after, right = asked(lm, examples, state=state)
    else:
        added = load_file(learnt.path / "adapter_model.safetensors")
        share = sum(tensor.numel() for tensor in added.values()) / num_parameters(lm.model)
        tuned = receptance.load(base, adapter=learnt.path)
        after, right = asked(tuned, examples)
        check_in_the_official_runtime(tuned, tmp_path)
    print(
        f"\n{method}: {share:.2%} of the parameters; in the format {before:.1%} before and {after:.1%} after, "
        f"rightly {right:.1%}"
    )
    assert share < 0.01 and before < 0.1 and after > 0.9


def check_in_the_official_runtime(lm: receptance.LanguageModel, folder: Path) -> None:
    """What is merged is an official checkpoint like any other."""
    save_checkpoint(lm.model.float(), folder / "merged.pth")
    tokens = list(b"User: 3 + 4?\n\nAssistant:")
    (theirs,) = logits(folder / "merged.pth", "7", [[tokens]])
    ours, _ = lm.model(torch.tensor([tokens]))
    torch.testing.assert_close(ours[0], theirs, rtol=1e-3, atol=1e-3)
