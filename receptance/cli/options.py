"""What several commands take: a model, how it is loaded, how tokens are chosen, where a text stops.

Each name stands for one option, `None` unless it is given:

    def generate(temperature: Temperature = None, stop: Stop = None) -> None: ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..catalogue import HOUSE
from ..errors import CheckpointError, InputError

if TYPE_CHECKING:
    import torch


MODEL_HELP = "A file, a folder, a hub id, `repo:file`, or a name that `receptance models` lists."
# What a newcomer is told to take: small enough for any machine, large enough to make sense.
ADVISED_MODEL = "rwkv7-g1-0.4b"
LARGEST_SEED = 2**63 - 1
# The options that are settings of `Sampling`, by the names of the parameters.
SETTINGS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "penalty_decay",
    "order",
    "seed",
)
# What is said where a template is used that nothing tells to be the model's.
GUESS = "a guess, for the model's name tells none; --template names another"
# Headings of the help pages.
CHOOSING, LOADING = "How tokens are chosen", "How the model is loaded"
ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def named(model: str | None) -> str | None:
    """The MODEL as given.  Raises CheckpointError for an empty one, which as a path would be the current folder."""
    if model is not None and not model.strip():
        raise CheckpointError("the name of the model is empty; give a file, a folder or a hub id")
    return model


def model_or_advice(model: str | None, command: str) -> str:
    """The MODEL as given.  Raises InputError where none was, which says how to go on.

    command    what to type before a model's name: "receptance chat"
    """
    if model is None:
        raise InputError(
            f"no model was named; take a small one with `{command} {ADVISED_MODEL}`, or another that "
            f"`receptance models` lists (the one that comes with receptance, `{HOUSE}`, knows Python source alone)"
        )
    return model


class Dtype(StrEnum):
    """What `--dtype` accepts; the help page must not load PyTorch to know it."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"

    @property
    def torch(self) -> torch.dtype:
        import torch

        dtype: torch.dtype = getattr(torch, self.value)
        return dtype


class Quant(StrEnum):
    """What `--quant` and `--to` accept."""

    int8 = "int8"
    int4 = "int4"


class Orders(StrEnum):
    """What `--order` accepts."""

    official = "official"
    usual = "usual"


def unescaped(stop: str) -> str:
    r"""A stop as it was meant: \n is a line break, \t a tab, \\ a backslash; any other backslash is itself."""
    return re.sub(r"\\[nt\\]", lambda found: ESCAPES[found[0]], stop)


def _stops(stops: Sequence[str] | None) -> list[str] | None:
    return None if stops is None else [unescaped(stop) for stop in stops]


DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", rich_help_panel=LOADING, help="What to compute in; as stored if not given.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", rich_help_panel=LOADING, help="As cpu, cuda, cuda:1 or mps; chosen if not given."),
]
QuantOption = Annotated[
    Quant | None,
    typer.Option(
        "--quant",
        rich_help_panel=LOADING,
        help="Weights of this precision, made at the first time and kept beside the model.",
    ),
]
AdapterOption = Annotated[
    Path | None,
    typer.Option(
        "--adapter",
        metavar="FOLDER",
        rich_help_panel=LOADING,
        help="Low-rank additions that `receptance finetune` learnt.",
    ),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", rich_help_panel=LOADING, help="world, pile, bytes or a file; the model's own if not given."
    ),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        rich_help_panel=LOADING,
        help="world, raven, g1, flower, markdown or a Jinja file; the model's own if not given.",
    ),
]

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        rich_help_panel=CHOOSING,
        help="official, greedy, creative, factual, g1-think, ...; what suits the model if not given.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", "-t", rich_help_panel=CHOOSING, help="0 takes the likeliest token always."),
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", rich_help_panel=CHOOSING, help="Keep the likeliest tokens of this much probability."),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", rich_help_panel=CHOOSING, help="Keep this many of the likeliest tokens; 0: all."),
]
MinP = Annotated[
    float | None,
    typer.Option("--min-p", rich_help_panel=CHOOSING, help="Drop tokens below this part of the largest probability."),
]
PresencePenalty = Annotated[
    float | None,
    typer.Option("--presence-penalty", rich_help_panel=CHOOSING, help="Taken off a token that has been chosen before."),
]
FrequencyPenalty = Annotated[
    float | None,
    typer.Option(
        "--frequency-penalty", rich_help_panel=CHOOSING, help="Taken off a token for each time it was chosen."
    ),
]
PenaltyDecay = Annotated[
    float | None,
    typer.Option("--penalty-decay", rich_help_panel=CHOOSING, help="What is left of those times after each token."),
]
Order = Annotated[
    Orders | None,
    typer.Option(
        "--order",
        rich_help_panel=CHOOSING,
        help="The filters as the official runtime applies them, or the temperature first as most others do.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=LARGEST_SEED,
        rich_help_panel=CHOOSING,
        help="The same seed gives the same text again; drawn if not given.",
    ),
]

Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        callback=_stops,
        help=r"A text that ends the answer, and may be given several times; \n is a line break, \ a backslash.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", "-n", min=1, help="The most tokens to generate: 256 for a text, 2048 for an answer."),
]


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a command that were given and are settings of `Sampling`.

    options     `locals()` at the start of the command, when nothing else is in it
    """
    given = {name: options[name] for name in SETTINGS if options[name] is not None}
    return {name: value.value if isinstance(value, Orders) else value for name, value in given.items()}
