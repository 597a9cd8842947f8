"""Trains a small model that answers, from nothing, in about five minutes on two CPU cores.

    python examples/train_a_chat_model.py                # writes little-chat/model.pth
    receptance chat little-chat/model.pth

Its tokens are bytes, and what it learns from are conversations of made_up_conversations.py.  In some of them a name is
told in one message and asked for in a later one.  That kind is the point: between two messages nothing is kept but the
state, so an answer that is right shows that the state is a memory.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from made_up_conversations import Exchange, as_text, conversation
from rich.console import Console

import receptance
from receptance.data import Tokens
from receptance.training import Batching, LiveProgress, Optim, Schedule, Trainer, Training

MODEL = Path("little-chat/model.pth")
CONFIG = receptance.Config(version="7", vocab_size=256, num_layers=3, dim=128, head_size=32)
# A piece of text begins where a conversation does: in the middle of one, the name would be missing.
RECIPE = Training(
    batch=Batching(rows=4, length=256, order="packed"),
    optim=Optim(lr=4e-3),
    schedule=Schedule(tokens=4_000_000, end=0.025),
)


def training_text(num_bytes: int, seed: int = 0) -> Tokens:
    """Conversations with byte 0, the end of a text, after each."""
    draw, texts, size = random.Random(seed), list[bytes](), 0
    while size < num_bytes:
        texts.append(as_text(list(conversation(draw))).encode() + b"\0")
        size += len(texts[-1])
    return Tokens.of([np.frombuffer(text, np.uint8) for text in texts])


def accuracy(lm: receptance.LanguageModel, count: int, seed: int = 1) -> dict[str, list[bool]]:
    """Which answers are right, by kind, in held-out conversations, each after its true past."""
    draw, prompts, wanted = random.Random(seed), [], list[Exchange]()
    while len(wanted) < count:
        exchanges = list(conversation(draw, held_out=True))
        prompts += [as_text(exchanges[:i]) + f"User: {now.message}\n\nAssistant:" for i, now in enumerate(exchanges)]
        wanted += exchanges
    answers = lm.generate(prompts, max_tokens=80, stop="\n\n", temperature=0, batch_size=100)
    right: dict[str, list[bool]] = {}
    for answer, exchange in zip(answers, wanted, strict=True):
        right.setdefault(exchange.kind, []).append(answer.text.strip() == exchange.answer)
    return right


def main(
    path: Path = MODEL,
    config: receptance.Config = CONFIG,
    recipe: Training = RECIPE,
    num_bytes: int = 5_000_000,
    num_questions: int = 1000,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    torch.manual_seed(recipe.batch.seed)
    model, text = receptance.build(config), training_text(num_bytes)
    console.print(f"{text.num_documents:,} conversations, {text.num_tokens:,} bytes, such as:\n")
    console.print(bytes(text.window(0, int(text.starts[1]) - 1).tolist()).decode(), markup=False)
    with LiveProgress(console, "Training", bytes_per_token=1.0) as live:
        Trainer(model, text, recipe, on_step=live).train(save_to=path)
    console.print("Answers that are right, of numbers and words that were not in the training:")
    for kind, right in accuracy(receptance.load(path), num_questions).items():
        console.print(f"  {kind:10} {sum(right) / len(right):6.1%} of {len(right)}")
    console.print(f"\nTalk to it:\n  receptance chat {path}")


if __name__ == "__main__":
    main()
