"""Settings that models were published with, by name.

    PRESETS["g1-think"]
    preset_for("g1", think="on")                 # the same one

Sources of the numbers:

    official    the default of `PIPELINE_ARGS`, pip package rwkv
    api-demo    ChatRWKV `API_DEMO_CHAT.py`, which bans the end of a text
    runner      RWKV-Runner's default
    g1-think    BlinkDL's evaluation of G1 on GPQA (Albatross); lighteval-rwkv "open_think"
    g1-fast     lighteval-rwkv without thinking; the evaluation on MATH500
    lightning   rwkv_lightning's default behind its OpenAI-compatible face, which leaves the temperature alone
    creative    wiki.rwkv.com "decoding parameters": top_p 0.5 goes with temperature 1.2 (and 0.2 with 2)
    factual     the same page: top_p at most 0.2, temperature at most 1
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ..errors import InputError
from .settings import Sampling

PRESETS: dict[str, Sampling] = {
    "official": Sampling(top_p=0.85, presence_penalty=0.2, frequency_penalty=0.2),
    "api-demo": Sampling(top_p=0.3, presence_penalty=0.5, frequency_penalty=0.5, banned=(0,)),
    "runner": Sampling(top_p=0.3, frequency_penalty=1.0),
    "g1-think": Sampling(
        temperature=0.96, top_p=0.76, top_k=32, presence_penalty=1.0, frequency_penalty=0.1, penalty_decay=0.988
    ),
    "g1-fast": Sampling(top_p=0.28, top_k=32),
    "lightning": Sampling(top_p=0.6, top_k=20, presence_penalty=1.0, frequency_penalty=0.1),
    "creative": Sampling(temperature=1.2, top_p=0.5),
    "factual": Sampling(top_p=0.2),
    "greedy": Sampling(temperature=0),
}

# What suits the templates, with thinking and without: the two names are of presets.
SUITABLE: dict[str | None, tuple[str, str]] = {
    "world": ("api-demo", "api-demo"),
    "raven": ("api-demo", "api-demo"),
    "g1": ("g1-think", "g1-fast"),
    "flower": ("g1-think", "g1-fast"),
    "markdown": ("g1-think", "g1-fast"),
}
NO_THOUGHT = ("off", "fast")


def preset_for(template_name: str | None, think: str = "off") -> Sampling:
    """The preset for a family, named by its template, and a think mode; "official" where the family is not known."""
    thinking, plain = SUITABLE.get(template_name, ("official", "official"))
    return PRESETS[plain if think in NO_THOUGHT else thinking]


def sampling_of(sampling: Sampling | str, settings: Mapping[str, Any]) -> Sampling:
    """A sampling, or the preset of that name, with some of its fields changed.

    Raises InputError for a name that is none, of a preset or a field, and for a value that cannot be.
    """
    if isinstance(sampling, str):
        sampling = PRESETS[_known(sampling, list(PRESETS), "preset")]
    names = [field.name for field in fields(Sampling)]
    return replace(sampling, **{_known(name, names, "setting"): value for name, value in settings.items()})


def _known(name: str, names: list[str], kind: str) -> str:
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
    raise InputError(f"there is no {kind} {name!r}; {hint}")
