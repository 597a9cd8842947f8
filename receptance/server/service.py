"""What a server serves: models, with their adapters and tuned states, behind one worker.

    service = Service(lm, "rwkv7-g1-1.5b")
    offer = service.offer("rwkv7-g1-1.5b")
    answering = service.answer(service.asked(offer, request, [rendered], "ada"))
    for index, event in await answering.mailbox.take(): ...
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..adapters import adapted
from ..engine import Engine, Limits, Request, StateCache, StateStore, Worker
from ..errors import InputError, ReceptanceError
from ..generation import Sampling, uncounted_tokens
from ..interpret import LayerMemory, memory
from ..language_model import LanguageModel
from ..models import RWKV
from ..state import State
from .answers import AnswerListener
from .constraints import Constraints
from .mailbox import Mailbox
from .rendering import Defaults, Rendered
from .schemas import GenerationRequest
from .stored import Conversations

log = logging.getLogger(__name__)
# Sequences that one HTTP request may ask for.
MOST_ANSWERS = 128
# Tokens of a text on which the half-lives of a layer are measured.
LOOKED_AT = 128


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is served.

    adapters, states    folders of adapters and files of tuned states, by the names that they are asked for
    slots, waiting      requests that are served at a time, and that may wait
    cache_bytes         memory for states of what was read
    store               a folder for states and conversations that outlive the server; None: there is none
    store_bytes         how large its states may grow
    shares_store        whether other processes have the same store: of its states, each has its own
    think, sampling     what holds where a request says nothing
    """

    adapters: Mapping[str, Path] | None = None
    states: Mapping[str, Path] | None = None
    slots: int = 32
    waiting: int = 1024
    cache_bytes: int = 2**30
    store: Path | None = None
    store_bytes: int = 2**34
    shares_store: bool = False
    think: str | None = None
    sampling: Sampling | None = None
    most_prompt_tokens: int = 2**17
    most_new_tokens: int = 2**14


@dataclass(frozen=True)
class Offer:
    """A model as it can be asked for: by `id`, in a lane of the worker, after a tuned state perhaps."""

    id: str
    lane: str
    start: State | None = None


# A prompt, and what the engine is asked for it.
Asked = tuple[Rendered, Request]


@dataclass
class Answering:
    """Answers that are being given, and what cancels them."""

    worker: Worker
    mailbox: Mailbox
    tickets: list[tuple[str, int]]
    begun: float

    def cancel(self) -> None:
        """Ends those that have not ended."""
        for ticket in self.tickets:
            self.worker.cancel(ticket)


class Service:
    """One language model, and all under which it is known."""

    def __init__(
        self, lm: LanguageModel, name: str, options: Options | None = None, draft: RWKV | None = None
    ) -> None:
        """`draft`: a smaller model whose guesses are confirmed where a request speculates.

        Raises InputError where no tokenizer is known, CheckpointError and StateError for adapters and states that do
        not fit.
        """
        self.lm, self.name, self.options = lm, name, options or Options()
        self.created = int(time.time())
        self.defaults = Defaults.of(
            lm,
            think=self.options.think,
            sampling=self.options.sampling,
            most_prompt_tokens=self.options.most_prompt_tokens,
            most_new_tokens=self.options.most_new_tokens,
        )
        self.constraints = Constraints(self.defaults.tokenizer, lm.config.vocab_size)
        models = {"": lm.model}
        for adapter, folder in (self.options.adapters or {}).items():
            models[adapter] = adapted(lm.model, folder)
        self.offers = {name: Offer(name, "")}
        self.offers |= {f"{name}:{lane}": Offer(f"{name}:{lane}", lane) for lane in models if lane}
        for tuned, file in (self.options.states or {}).items():
            if f"{name}:{tuned}" in self.offers:
                raise InputError(f"an adapter and a state are both called {tuned}; give one of them another name")
            self.offers[f"{name}:{tuned}"] = Offer(f"{name}:{tuned}", "", _one_row(lm.load_state(file), file))
        self.worker = self._worker(models, draft)
        by_id = {offer.id: models[offer.lane] for offer in self.offers.values()}
        kept = None if self.options.store is None else self.options.store / "conversations"
        self.conversations = Conversations(by_id, folder=kept)
        self.is_ready = threading.Event()

    def offer(self, model: str) -> Offer | None:
        """What is asked for by a name; None where there is no such thing."""
        return self.offers.get(model)

    def warm_up(self) -> None:
        """Reads and says a little, so that the first who asks need not wait for kernels; then it is ready."""
        try:
            for lane in self.worker.engines:
                done: Future[None] = Future()
                self.worker.submit(Request(tokens=[0] * 130, max_tokens=2, lane=lane, cached=False), _Waits(done))
                done.result()
        except ReceptanceError as error:
            # The end may come early.
            if not self.worker.is_draining:
                log.error("the model cannot answer, so the server does not get ready: %s", error)
        else:
            self.is_ready.set()

    def asked(
        self, offer: Offer, request: GenerationRequest, rendered: Sequence[Rendered], owner: str
    ) -> list[Asked]:
        """What the engine is to be asked: `request.n` answers to each prompt.  Grammars are compiled, which takes time.

        owner   who asks: owners take turns when slots are few

        Raises InputError for what cannot be served.
        """
        n = request.n or 1
        if len(rendered) * n > MOST_ANSWERS:
            asked_for = f"{len(rendered)} prompts with n = {n}"
            raise InputError(f"{asked_for} are more than {MOST_ANSWERS} answers; ask for fewer")
        return [
            (prompt, self._asked(offer, request, prompt, owner, choice)) for prompt in rendered for choice in range(n)
        ]

    def answer(self, asked: Sequence[Asked]) -> Answering:
        """Has answers given; to be called in the loop that will listen.

        Raises InputError for what cannot be served, BusyError where there is too much to do.
        """
        mailbox = Mailbox(asyncio.get_running_loop())
        answering = Answering(self.worker, mailbox, [], time.monotonic())
        try:
            for number, (prompt, request) in enumerate(asked):
                listener = AnswerListener(prompt, self.defaults.tokenizer, partial(mailbox.put, number))
                answering.tickets.append(self.worker.submit(request, listener))
        except Exception:
            answering.cancel()
            raise
        return answering

    def state_after(self, offer: Offer, tokens: Sequence[int], marks: Sequence[int], owner: str) -> Future[State]:
        """The state after a text, which is read in turn with all others."""
        future: Future[State] = Future()
        start = offer.start
        asked = Request(
            tokens=tokens, marks=marks, max_tokens=1, keeps_state=True, lane=offer.lane, owner=owner, start=start
        )
        self.worker.submit(asked, _KeepsState(future))
        return future

    def look(
        self, offer: Offer, tokens: Sequence[int], before: State | None, since: State | None
    ) -> Future[list[LayerMemory]]:
        """What the layers do with a text after a state, and what has changed since another one.

        None stands for where everything begins.
        """
        model = self.worker.engines[offer.lane].model
        start = offer.start or model.zero_state(1)
        return self.worker.call(lambda: memory(model, tokens, before or start, since or start))

    def close(self) -> None:
        """Ends what is left, and writes what is to be kept."""
        self.worker.close()

    def _asked(
        self, offer: Offer, request: GenerationRequest, prompt: Rendered, owner: str, choice: int
    ) -> Request:
        return Request(
            tokens=prompt.tokens,
            sampling=prompt.sampling,
            max_tokens=prompt.max_tokens,
            noise=choice,
            marks=prompt.marks,
            start=offer.start if prompt.start is None else prompt.start,
            lane=offer.lane,
            num_logprobs=prompt.num_logprobs,
            constraint=self.constraints.of(prompt.grammar, prompt.budget),
            cached=request.cache is not False,
            speculate=bool(request.speculate),
            keeps_state=request.save_state is not None,
            owner=owner,
            priority=request.priority or 0,
            deadline=request.timeout,
        )

    def _worker(self, models: Mapping[str, RWKV], draft: RWKV | None) -> Worker:
        options = self.options
        open_store = StateStore.beside_others if options.shares_store else StateStore
        store = None if options.store is None else open_store(options.store / "states", options.store_bytes)
        cache = StateCache(options.cache_bytes, store)
        uncounted = uncounted_tokens(self.defaults.tokenizer)
        return Worker(
            {
                lane: Engine(
                    model,
                    cache,
                    Limits.of(model, options.slots, options.waiting),
                    uncounted=uncounted,
                    draft=draft,
                    variant=lane,
                )
                for lane, model in models.items()
            }
        )


def _one_row(state: State, file: Path) -> State:
    if state.num_rows != 1:
        raise InputError(f"{file} holds {state.num_rows} states; give a file with one")
    return state


class _Waits:
    """A listener for which only the end matters."""

    def __init__(self, done: Future[None]) -> None:
        self._done = done

    def read(self, num_cached: int) -> None:
        pass

    def chosen(self, chosen: object) -> bool:
        return True

    def ended(self, reason: str, state: State | None, error: str = "") -> None:
        if reason == "error":
            self._done.set_exception(ReceptanceError(error))
        else:
            self._done.set_result(None)


class _KeepsState:
    """A listener for whom the state is all."""

    def __init__(self, future: Future[State]) -> None:
        self._future = future

    def read(self, num_cached: int) -> None:
        pass

    def chosen(self, chosen: object) -> bool:
        return False

    def ended(self, reason: str, state: State | None, error: str = "") -> None:
        if state is None:
            self._future.set_exception(ReceptanceError(error or "the text was not read"))
        else:
            self._future.set_result(state)
