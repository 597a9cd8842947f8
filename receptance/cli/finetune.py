"""`receptance finetune MODEL DATA`: a model learns from texts or conversations of yours."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import MODEL_HELP, Quant, named
from .train import RUNS, Out, Resume, Settings, start

if TYPE_CHECKING:
    from ..training import Recipe

# Learning rates that suit: PEFT's for low ranks, the official ones for states and whole models.
RATES = {"lora": 2e-4, "dora": 2e-4, "pissa": 1e-4, "state": 1.0, "full": 1e-5}
ENDS = {"state": 0.01}
# With less text than this, none is held out: what is there is all to be learnt from.
ENOUGH = 200_000


class Method(StrEnum):
    """What `--method` accepts."""

    lora = "lora"
    dora = "dora"
    pissa = "pissa"
    state = "state"
    full = "full"


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=named)],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Conversations or texts: files, folders, hub:NAME. Of conversations the assistant's words are learnt.",
        ),
    ],
    method: Annotated[
        Method, typer.Option(help="Low-rank additions (lora, dora, pissa), the first state, or the full model.")
    ] = Method.lora,
    out: Out = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; what suits the method if not given.")] = None,
    epochs: Annotated[float, typer.Option(min=0.001, help="How often all is read.")] = 3.0,
    rows: Annotated[int, typer.Option(min=1, help="Sequences of a step.")] = 8,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")] = 512,
    rank: Annotated[int, typer.Option(min=1, help="Of low-rank additions.")] = 16,
    quant: Annotated[Quant | None, typer.Option(help="Keep what is not learnt in this precision.")] = None,
    template: Annotated[
        str | None, typer.Option(help="How conversations are written; the model's own way if not given.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="The model's own if not given.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what is damaged, and say how much.")] = False,
    settings: Settings = None,
    resume: Resume = False,
) -> None:
    """Let a model learn from texts or conversations of yours.

    A conversation is a line of JSON: {"messages": [{"role": "user",
    "content": "..."}, {"role": "assistant", "content": "..."}]}.

    What is learnt is then given to chat, generate and score: --adapter for
    low-rank additions, --state for a state; a full model is one by itself.
    """
    from ..training import Recipe, parse_changes

    about = {
        "template": template,
        "tokenizer": tokenizer,
        "train": data,
        "conversations": _are_conversations(data),
        "held_out_one_in": 20 if _is_enough(data) else 0,
        "skip_bad": skip_bad,
    }
    sections: dict[str, Any] = {
        "name": f"{method.value}-{_plain_name(model)}",
        "model": {"start": model},
        "data": {name: value for name, value in about.items() if value is not None},
        "batch": {
            "rows": rows,
            "length": length,
            "order": "documents" if method == Method.state else "packed",
            "apart": method != Method.state,
        },
        "optim": {"lr": RATES[method.value] if lr is None else lr, "weight_decay": 0.0},
        "schedule": {"epochs": epochs, "end": ENDS.get(method.value, 0.1), "warmup_steps": 3},
        "watch": {"held_out_every": 50},
        "finetune": {"method": method.value, "rank": rank, "quant": quant.value if quant else None},
    }
    recipe = Recipe.of(sections, parse_changes(settings or []))
    folder = out or RUNS / recipe.name
    if start(recipe, folder, resume) is not None:
        _tell_use(recipe, folder)


def _plain_name(model: str) -> str:
    """What a model is called, as a name for a folder."""
    name = re.split(r"[/\\:]", model)[-1]
    return re.sub(r"[^\w.-]", "-", re.sub(r"\.(pth|safetensors|gguf|st)$", "", name))


def _are_conversations(sources: list[str]) -> bool:
    """Whether the first record is one."""
    from ..data.conversations import is_conversation
    from ..data.sources import records

    first = next((record for source in sources for record in records(source, lambda bad: None)), None)
    return first is not None and is_conversation(first.value)


def _is_enough(sources: list[str]) -> bool:
    from ..data import files_of

    return sum(file.stat().st_size for source in sources for file in files_of(source)) >= ENOUGH


def _tell_use(recipe: Recipe, folder: Path) -> None:
    """How to go on."""
    given = {"full": "", "state": f" --state {folder / 'state.pth'}"}
    option = given.get(recipe.finetune.method, f" --adapter {folder / 'adapter'}")
    model = folder / "model.pth" if recipe.finetune.method == "full" else recipe.model.start
    command = f"receptance chat {model}" if recipe.data.conversations else f'receptance generate "..." -m {model}'
    print(f"use it: {command}{option}")
