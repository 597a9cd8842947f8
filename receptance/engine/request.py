"""What is asked of the engine, and what it tells while it answers.  Token ids only: texts belong to whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from ..errors import ReceptanceError
from ..generation import Sampling
from ..state import State

# Why a sequence ended: its listener said so; `max_tokens`; `cancel`; its deadline; an error.
EndReason = Literal["stop", "length", "cancelled", "deadline", "error"]


class BusyError(ReceptanceError):
    """The engine has as much to do as it takes.

    retry_after     seconds after which another try makes sense
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EndingError(BusyError):
    """The engine ends, and takes nothing more."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One token of an answer.

    logprob     by the model itself, before penalties and filters; 0.0 where no logprobs were asked for
    top         the likeliest tokens there and their logarithms, as many as were asked for
    """

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Listener(Protocol):
    """Who is told what becomes of a request.  All calls come from the engine's thread and must return at once."""

    def read(self, num_cached: int) -> None:
        """The prompt has been read, its first `num_cached` tokens out of the cache."""

    def chosen(self, chosen: Chosen) -> bool:
        """The next token; returns whether the answer goes on."""

    def ended(self, reason: EndReason, state: State | None, error: str = "") -> None:
        """The last call.  `state` [one row] has read all but the last token, where the request asked for it."""


class Constraint(Protocol):
    """What may come next, as a grammar says it."""

    def allowed(self) -> Tensor:
        """[vocab_size] bool: the tokens that may be chosen now; at least one."""

    def push(self, token: int) -> None:
        """This one was chosen."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Tokens to be read, and how they are to be continued.

    tokens          what is read first; at least one
    sampling        how tokens are chosen; its seed decides the noise, together with `noise`
    noise           the number that tells requests with one seed apart
    marks           places in `tokens`, as numbers of tokens before them, up to which other requests may begin alike:
                    the end of the system text, of each turn.  There the reading is cut, and the state is kept
    start           what was read before `tokens`, one row; None: nothing, or the tuned state of the lane
    lane            which of the engine's models answers: "" for the plain one, or an adapter's name
    num_logprobs    None: no logprobs; else how many likeliest tokens beside the chosen one's
    constraint      None: anything may come
    cached          whether states that are kept may serve, and whether those of this request are kept
    speculate       whether tokens may be guessed from the text and confirmed several at a time
    keeps_state     whether the listener wants the state in the end
    owner           who asks: owners take turns when slots are few
    priority        the higher, the sooner it begins
    deadline        seconds from the submission to its end; None: as long as it takes
    """

    tokens: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 256
    noise: int = 0
    marks: Sequence[int] = ()
    start: State | None = None
    lane: str = ""
    num_logprobs: int | None = None
    constraint: Constraint | None = None
    cached: bool = True
    speculate: bool = False
    keeps_state: bool = False
    owner: str = ""
    priority: int = 0
    deadline: float | None = None

