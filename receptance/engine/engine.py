"""Many sequences continued together by one model, each as if it were alone.

    engine = Engine(model, StateCache(2**30))
    engine.submit(Request(tokens=[0, 24281]), listener)
    while engine.step():
        ...

A step reads some pieces of prompts, then one token of every running sequence, and chooses the next ones.  A prompt is
always cut at the same places and read one row at a time, the one-token step computes each row in the same order
whatever is beside it, and the noise of a token is a function of its request: so nobody's answer depends on the crowd.
(Where `is_exact` is false, as on a GPU, matrix products may round differently in another batch.)
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from ..errors import InputError, ReceptanceError
from ..models import RWKV
from ..state import State, fingerprint
from .cache import NAME_BYTES, Cuts, Place, StateCache
from .choosing import Choosing, Outcome, choose
from .draft import Draft
from .request import BusyError, EndReason, Listener, Request
from .scheduler import Scheduler
from .slots import Slots
from .speculation import Drafter, Guesses, LookUp
from .task import Task

log = logging.getLogger(__name__)
# Tokens that are read at once on a CPU and on a GPU, and at most in one step beside running sequences.
PIECE = {"cpu": 128, "cuda": 512}
BUDGET = {"cpu": 256, "cuda": 4096}
# Places that are kept in the cache although no mark stands there.
KEPT_EVERY = 1024


@dataclass(frozen=True)
class Limits:
    """How much an engine takes on.

    slots           sequences that are read and continued at a time
    waiting         sequences that may wait for a slot
    piece           tokens of a prompt that are read at once
    budget          tokens of prompts that are read in one step
    """

    slots: int = 32
    waiting: int = 1024
    piece: int = PIECE["cpu"]
    budget: int = BUDGET["cpu"]

    @classmethod
    def of(cls, model: RWKV, slots: int = 32, waiting: int = 1024) -> Limits:
        """What suits a model's device."""
        device = model.emb.weight.device.type
        return cls(slots, waiting, PIECE.get(device, PIECE["cuda"]), BUDGET.get(device, BUDGET["cuda"]))


@dataclass
class Stats:
    """What an engine has done, and does.

    tokens_read, tokens_chosen          of prompts, without those out of the cache; of answers
    tokens_guessed, tokens_confirmed    of those that speculate
    steps                               in which something was done
    since                               when the present step began, by `time.monotonic`; None between steps
    ended                               how many requests ended in which way
    usual_seconds                       from the submission of a request to its end, the latest weighing most
    """

    tokens_read: int = 0
    tokens_chosen: int = 0
    tokens_guessed: int = 0
    tokens_confirmed: int = 0
    steps: int = 0
    since: float | None = None
    ended: Counter[EndReason] = field(default_factory=Counter)
    usual_seconds: float = 1.0

    def end(self, reason: EndReason, seconds: float) -> None:
        """A request has ended."""
        self.ended[reason] += 1
        self.usual_seconds += 0.1 * (seconds - self.usual_seconds)


class Engine:
    """One model, and all that it is asked to continue.

    `submit`, `cancel` and `stats` may be called by any thread, `step` by one only.
    is_exact    whether an answer is the same, to the bit, alone and in any crowd
    """

    def __init__(
        self,
        model: RWKV,
        cache: StateCache,
        limits: Limits | None = None,
        *,
        start: State | None = None,
        uncounted: Tensor | None = None,
        draft: RWKV | None = None,
        variant: str = "",
    ) -> None:
        """`start` is a tuned state, one row, that everything begins with; `uncounted`: see `Sampler`.

        draft   a smaller model of the same vocabulary, whose guesses are confirmed where a request speculates
        variant tells models apart that one cache serves and that have the same fingerprint, as an adapter's name

        Raises InputError where the draft has another vocabulary, StateError where the state does not fit.
        """
        self.model, self.cache, self.limits = model, cache, limits or Limits.of(model)
        if draft is not None and draft.config.vocab_size != model.config.vocab_size:
            raise InputError("the draft model has another vocabulary; take one of the same family")
        self.draft = draft
        self.stats = Stats()
        self._start = model.zero_state(1) if start is None else start.to(model.emb.weight.device)
        self._start.check(model.config, 1)
        # Other weights, another precision and other cuts give other numbers.
        self._name = f"{fingerprint(model)} {model.emb.weight.dtype} {self.limits.piece} {variant}".encode()
        self._root = self._root_of(self._start)
        self._choosing = Choosing(model.config.vocab_size, self._device, uncounted)
        self._slots = Slots(model, self.limits.slots)
        self._draft_slots = None if draft is None else Slots(draft, 1)
        self._scheduler: Scheduler[Task] = Scheduler(self.limits.slots, self.limits.budget)
        self._inbox: deque[Task] = deque()
        self._tasks: dict[int, Task] = {}
        self._numbers = count()
        self._lock = threading.Lock()

    @property
    def is_exact(self) -> bool:
        return self._slots.is_exact

    @property
    def num_waiting(self) -> int:
        """Requests without a slot."""
        return len(self._inbox) + len(self._scheduler.waiting)

    @property
    def num_active(self) -> int:
        """Requests with a slot."""
        return self._scheduler.num_active

    def submit(self, request: Request, listener: Listener) -> int:
        """Takes a request on; returns its number.

        Raises InputError for one that cannot be served, StateError where its state does not fit, BusyError where
        enough are waiting.
        """
        self._check(request)
        root = self._root if request.start is None else self._root_of(request.start)
        cuts = Cuts(sorted(set(request.marks)), len(request.tokens), self.limits.piece)
        with self._lock:
            if self.num_waiting >= self.limits.waiting:
                raise BusyError(f"{self.num_waiting} requests are waiting already; try again soon", self._wait())
            task = Task(next(self._numbers), request, listener, root, cuts)
            self._tasks[task.number] = task
            self._inbox.append(task)
        return task.number

    def _wait(self) -> float:
        """Seconds until somebody who waits now may be served."""
        return max(1.0, self.stats.usual_seconds * self.num_waiting / self.limits.slots)

    def cancel(self, number: int) -> None:
        """Ends a request before the next step; nothing happens where it has ended."""
        if (task := self._tasks.get(number)) is not None:
            task.is_cancelled = True

    @torch.no_grad()
    def step(self) -> bool:
        """Reads some, continues all, chooses; False where there is nothing to do."""
        self._take_in()
        if not len(self._scheduler):
            return False
        self.stats.since, self.stats.steps = time.monotonic(), self.stats.steps + 1
        try:
            self._sweep()
            self._scheduler.admit()
            for task in self._scheduler.turns():
                self._read(task)
            self._continue()
        finally:
            self.stats.since = None
        return True

    def fail(self, error: str) -> None:
        """Ends everything with an error."""
        self._take_in()
        for task in list(self._scheduler):
            task.over, task.error = "error", error
            self._end_if_over(task)

    def _take_in(self) -> None:
        while self._inbox:
            self._scheduler.waiting.append(self._inbox.popleft())

    def _sweep(self) -> None:
        """Ends what was cancelled, and what has taken too long."""
        for task in list(self._scheduler):
            if task.is_cancelled or task.is_late:
                task.over = "cancelled" if task.is_cancelled else "deadline"
                self._end_if_over(task)

    def _read(self, task: Task) -> None:
        """The next piece of a prompt; in the end it is ready to be continued."""
        num_read = 0
        try:
            self._look_up(task)
            if task.place.length < task.cuts.end:
                num_read = self._read_piece(task)
            is_done = task.place.length == task.cuts.end
            if is_done:
                self._begin(task)
        except Exception as error:
            self._blame(task, error)
            self._end_if_over(task)
            return
        self.stats.tokens_read += num_read
        self._scheduler.read(task, num_read, is_done)

    def _look_up(self, task: Task) -> None:
        """Goes to the furthest place that is known, also between pieces: others may just have read the same."""
        if task.request.cached:
            before, task.place = task.place, self.cache.find(task.place, task.request.tokens, task.cuts)
            task.num_cached += task.place.length - before.length

    def _read_piece(self, task: Task) -> int:
        before, cuts, request = task.place, task.cuts, task.request
        cut = cuts.after(before.length)
        piece = request.tokens[before.length : cut]
        x, state = self._features(piece, before.state)
        task.place = self.cache.after(before, piece, state, x[-1])
        if request.cached and (cut in cuts.marks or cut == cuts.end or cut % KEPT_EVERY < len(piece)):
            self.cache.keep(task.place)
        return len(piece)

    def _begin(self, task: Task) -> None:
        """From here on it runs."""
        assert task.place.x is not None
        task.logits = self.model.head(task.place.x.to(self._device)[None])
        if task.request.speculate:
            task.guesses, task.sampler = Guesses(self._drafter(task)), self._choosing.sampler_of([task])
        task.slot = self._slots.take(task.place.state)
        self.cache.count(task.num_cached)
        task.listener.read(task.num_cached)

    def _drafter(self, task: Task) -> Drafter:
        if self.draft is None or self._draft_slots is None:
            return LookUp(task.request.tokens)
        return Draft(self.draft, self._draft_slots, task.request.tokens)

    def _continue(self) -> None:
        """The next token of all that run, or the next ones where guesses come true."""
        stepping = [task for task in self._scheduler.running if not self._confirm(task)]
        if not stepping:
            return
        logits = self._next_logits(stepping)
        shared = [row for row, task in enumerate(stepping) if task.sampler is None]
        tasks = [stepping[row] for row in shared]
        outcomes = self._choosing.together(tasks, logits if len(shared) == len(stepping) else logits[shared])
        for row, task in enumerate(stepping):
            if task.sampler is not None:
                tasks.append(task)
                outcomes += choose(task.sampler, [task], logits[row : row + 1])
        for task, outcome in zip(tasks, outcomes, strict=True):
            self._deliver(task, outcome)
            self._end_if_over(task)

    def _next_logits(self, tasks: list[Task]) -> Tensor:
        """What the next tokens are chosen from, [B, V]; those that begin stand behind the others."""
        old = [task for task in tasks if task.tokens]
        new = [task.logits for task in tasks[len(old) :] if task.logits is not None]
        if not old:
            return torch.cat(new)
        slots = [task.slot for task in old if task.slot is not None]
        logits = self._slots.step([task.tokens[-1] for task in old], slots)
        return torch.cat([logits, *new]) if new else logits

    def _confirm(self, task: Task) -> bool:
        """Guesses, and takes what of it the model would have chosen; False where there is no guess."""
        if task.guesses is None or task.sampler is None or task.slot is None or not task.tokens:
            return False
        most = task.request.max_tokens - len(task.tokens) - 1
        if not (guess := task.guesses.next(task.tokens, most)):
            return False
        before, unread = self._slots.read(task.slot), task.tokens[-1]
        x, after = self._features([unread, *guess], before)
        num_chosen = 0
        for row, guessed in zip(self.model.head(x).split(1), [*guess, None], strict=True):
            [outcome] = choose(task.sampler, [task], row)
            self._deliver(task, outcome)
            num_chosen += 1
            if task.over is not None or task.tokens[-1] != guessed:
                break
        self._move_on(task, [unread, *guess][:num_chosen], before, after if num_chosen > len(guess) else None)
        task.guesses.confirmed(len(guess), num_chosen - 1)
        self.stats.tokens_guessed += len(guess)
        self.stats.tokens_confirmed += num_chosen - 1
        self._end_if_over(task)
        return True

    def _move_on(self, task: Task, tokens: list[int], before: State, after: State | None) -> None:
        """Puts the state after these tokens into a task's slot: back to the older one, and on from there."""
        assert task.slot is not None
        if after is None and len(tokens) == 1:
            self._slots.step(tokens, [task.slot])
            return
        self._slots.write(task.slot, self._features(tokens, before)[1] if after is None else after)

    def _deliver(self, task: Task, outcome: Outcome) -> None:
        """Hands on a token, and sees whether it was the last one."""
        if isinstance(outcome, InputError):
            task.over, task.error = "error", str(outcome)
            return
        task.tokens.append(outcome.token)
        self.stats.tokens_chosen += 1
        try:
            if task.request.constraint is not None:
                task.request.constraint.push(outcome.token)
            if not task.listener.chosen(outcome):
                task.over = "stop"
            elif len(task.tokens) >= task.request.max_tokens:
                task.over = "length"
        except Exception as error:
            self._blame(task, error)

    def _blame(self, task: Task, error: Exception) -> None:
        """One request's failure is not the others'."""
        task.over, task.error = "error", str(error)
        if not isinstance(error, ReceptanceError):
            log.exception("request %d failed", task.number)

    def _end_if_over(self, task: Task) -> None:
        if task.over is None:
            return
        self._scheduler.remove(task)
        self._tasks.pop(task.number, None)
        self.stats.end(task.over, time.monotonic() - task.submitted)
        state = None
        if task.slot is not None:
            state = self._state_of(task)
            self._slots.give_back(task.slot)
            task.slot = None
        try:
            task.listener.ended(task.over, state if task.request.keeps_state else None, task.error)
        except Exception:
            log.exception("nobody heard that request %d has ended", task.number)

    def _state_of(self, task: Task) -> State | None:
        """What a task that ends has read, where somebody may want it; it stays in the cache."""
        assert task.slot is not None
        keeps = task.request.cached and len(task.tokens) > 1 and task.over != "error"
        if not (keeps or task.request.keeps_state):
            return None
        state = self._slots.read(task.slot)
        if keeps:
            self.cache.keep(self.cache.after(task.place, task.tokens[:-1], state, None))
        return state

    def _features(self, tokens: Sequence[int], state: State) -> tuple[Tensor, State]:
        """What the head is applied to after each token, [T, C], and the state; one row."""
        x, state = self.model.features(torch.tensor([list(tokens)], device=self._device), state.to(self._device))
        return x[0], state

    def _check(self, request: Request) -> None:
        """Raises for what no engine could serve."""
        vocab_size = self.model.config.vocab_size
        if not request.tokens:
            raise InputError("there is nothing to read; a request needs at least one token")
        if max(request.tokens) >= vocab_size or min(request.tokens) < 0:
            raise InputError(f"tokens must lie between 0 and {vocab_size - 1}; give the model's own tokenizer")
        if request.max_tokens < 1:
            raise InputError(f"max_tokens must be at least 1, got {request.max_tokens}")
        if any(not 0 < mark <= len(request.tokens) for mark in request.marks):
            raise InputError(f"marks must lie within the {len(request.tokens)} tokens, got {list(request.marks)}")
        if request.num_logprobs is not None and not 0 <= request.num_logprobs <= vocab_size:
            raise InputError(f"logprobs can be told of 0 to {vocab_size} tokens, got {request.num_logprobs}")
        request.sampling.check(vocab_size)
        if request.start is not None:
            request.start.check(self.model.config, 1)

    def _root_of(self, start: State) -> Place:
        """The beginning of texts after a state, named by the model and by how it computes."""
        digest = hashlib.blake2b(self._name, digest_size=NAME_BYTES)
        for tensor in start:
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return Place(digest.digest(), 0, start)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.model.emb.weight.device
        return device
