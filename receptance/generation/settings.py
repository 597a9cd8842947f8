"""How tokens are chosen: one value for one request.

    Sampling()                                   # as the model says, nothing filtered
    Sampling(temperature=0.8, top_p=0.5, seed=1)
    Sampling(temperature=0)                      # the likeliest token, always

`presets.py` has what the families of models were published with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

import numpy as np

from ..errors import InputError
from .noise import LIMIT

Order = Literal["official", "usual"]
ORDERS: tuple[Order, ...] = ("official", "usual")

# The ranges of the numbers, both ends included.
NUMBERS = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
    "penalty_decay": (0, 1),
}
INTEGERS = {"top_k": (0, 2**31 - 1), "seed": (0, LIMIT - 1)}
BIAS = (-100, 100)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of one request; the defaults leave the model's distribution alone.

    temperature        probabilities are raised to the power of 1 / temperature; 0: the likeliest token, and of several
                       the lowest id
    top_k              only the k likeliest tokens, and of equally likely ones the lowest ids; 0: all
    top_p              only the likeliest tokens that together have this probability; 1: all
    min_p              only tokens at least this likely, as a part of the likeliest one's probability; 0: all
    presence_penalty   is taken off the logit of each token that was generated before
    frequency_penalty  is taken off it as often as the token was generated
    penalty_decay      each step multiplies these counts by it; what was long ago weighs less
    order              which filter sees what: "official" as the official runtime, "usual" as most others; see `filters`
    logit_bias         is added to the logits of these tokens
    banned             tokens that are never chosen
    seed               the same seed gives the same tokens; None: another one each time

    Raises InputError for a value that is out of its range or no number.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_decay: float = 0.996
    order: Order = "official"
    # A mapping cannot be hashed; two settings that differ in it alone are still unequal.
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    banned: tuple[int, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {name: _number(name, getattr(self, name), *ends) for name, ends in NUMBERS.items()}
        checked["top_k"] = _integer("top_k", self.top_k, *INTEGERS["top_k"])
        if self.seed is not None:
            checked["seed"] = _integer("seed", self.seed, *INTEGERS["seed"])
        if self.order not in ORDERS:
            raise InputError(f"order must be {' or '.join(ORDERS)}, got {self.order!r}")
        checked["logit_bias"] = _biases(self.logit_bias)
        checked["banned"] = _tokens(self.banned)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def check(self, vocab_size: int) -> None:
        """Raise InputError for a token that a vocabulary of this size lacks, and where all of its tokens are banned."""
        for name, tokens in (("logit_bias", self.logit_bias), ("banned", self.banned)):
            if tokens and max(tokens) >= vocab_size:
                raise InputError(f"{name} names token {max(tokens)}, and the vocabulary ends at {vocab_size - 1}")
        if len(self.banned) == vocab_size:
            raise InputError(f"all {vocab_size} tokens of the vocabulary are banned; leave at least one")

    @property
    def is_penalised(self) -> bool:
        """Whether the tokens generated so far matter."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0


def _number(name: str, value: object, low: float, high: float) -> float:
    # NaN is in no range.
    if (_is_whole(value) or isinstance(value, float | np.floating)) and low <= value <= high:
        return float(value)
    raise InputError(f"{name} must be a number from {low} to {high}, got {value!r}")


def _integer(name: str, value: object, low: int, high: int) -> int:
    if _is_whole(value) and low <= value <= high:
        return int(value)
    raise InputError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def _biases(biases: object) -> dict[int, float]:
    if not isinstance(biases, Mapping):
        raise InputError(f"logit_bias must give a number for each of some tokens, as {{11: -2.5}}, got {biases!r}")
    return {
        _token("logit_bias", token): _number(f"logit_bias of token {token}", value, *BIAS)
        for token, value in biases.items()
    }


def _tokens(banned: object) -> tuple[int, ...]:
    if not isinstance(banned, tuple | list | set | frozenset | range):
        raise InputError(f"banned must be a list of tokens, got {banned!r}")
    return tuple(sorted({_token("banned", token) for token in banned}))


def _token(name: str, token: object) -> int:
    if _is_whole(token) and token >= 0:
        return int(token)
    raise InputError(f"{name} must name tokens by their ids, whole numbers from 0, got {token!r}")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
