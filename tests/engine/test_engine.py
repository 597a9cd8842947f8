"""Nobody's answer depends on the crowd; what ends, ends; one request's failure is not the others'."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from receptance.engine import BusyError, Chosen, Engine, Limits, Request, StateCache
from receptance.errors import InputError, StateError
from receptance.generation import Decoding, Sampling
from receptance.quant import quantize
from receptance.state import State

from .listening import Heard, alone, engine_of, model_of, serve

VOCAB = 31
SETTINGS = [
    Sampling(temperature=0),
    Sampling(seed=1),
    Sampling(temperature=0.7, top_p=0.8, seed=2),
    Sampling(top_k=5, presence_penalty=1.0, frequency_penalty=0.5, seed=3),
    Sampling(min_p=0.1, order="usual", temperature=1.3, seed=4),
    Sampling(seed=5, logit_bias={3: 4.0}, banned=(1, 2)),
]
SEEDED = Sampling(seed=11)


def requests(number: int, seed: int = 0, longest: int = 40) -> list[Request]:
    """Of all kinds: some begin alike, some are of one token."""
    chance = random.Random(seed)
    common = [chance.randrange(VOCAB) for _ in range(21)]
    made = []
    for place in range(number):
        own = [chance.randrange(VOCAB) for _ in range(chance.choice([1, 3, longest // 2, longest]))]
        shares = chance.random() < 0.4
        made.append(
            Request(
                tokens=[*common, *own] if shares else own,
                marks=[len(common)] if shares else [],
                sampling=SETTINGS[place % len(SETTINGS)],
                max_tokens=chance.choice([1, 2, 9, 17]),
                noise=place,
                num_logprobs=chance.choice([None, 0, 3]),
                priority=chance.randrange(2),
                owner=chance.choice("ab"),
            )
        )
    return made


@pytest.mark.parametrize("name", ["4", "5.2", "6", "7"])
def test_alone_and_in_any_crowd_to_the_bit(name: str) -> None:
    asked = requests(33)
    quiet = engine_of(name)
    apart = [serve(quiet, [replace(request, cached=False)])[0] for request in asked]
    chance = random.Random(7)
    for slots in (1, 7, 32):
        arrivals = [chance.randrange(12) for _ in asked]
        engine = engine_of(name, slots=slots)
        assert engine.is_exact
        for one, other, request in zip(serve(engine, asked, arrivals), apart, asked, strict=True):
            assert one.told == other.told, (slots, request)
            assert one.reason == other.reason == "length" and len(one.tokens) == request.max_tokens


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_quantised_models_too(form: str) -> None:
    model = model_of("7")
    quantize(model, form)
    asked = requests(12, seed=3)

    def made(slots: int = 7) -> Engine:
        return Engine(model, StateCache(2**24), Limits(slots, 100, 8, 16))

    together = serve(made(), asked, list(range(12)))
    quiet = made()
    assert [heard.told for heard in together] == [serve(quiet, [request])[0].told for request in asked]


def test_it_says_what_generation_says() -> None:
    """The same model, seeds and numbers: the tokens of `Decoding`, whose prompt is read in one piece."""
    asked = [replace(request, max_tokens=12) for request in requests(9, seed=5)]
    heard = serve(engine_of("7"), asked)
    decoding = Decoding(
        model_of("7"), [r.tokens for r in asked], [r.sampling for r in asked], [r.noise for r in asked]
    )
    said = torch.stack([decoding.step().tokens for _ in range(12)], 1).tolist()
    assert [h.tokens for h in heard] == said


def test_a_prompt_is_not_read_twice() -> None:
    """Twenty arrive at once with the same beginning; it is read once, and the numbers are those of reading it."""
    common = list(range(1, 30))
    one = Request(tokens=common, sampling=SEEDED, marks=[29], max_tokens=4, num_logprobs=2)
    asked = [replace(one, tokens=[*common, n], noise=n) for n in range(20)]
    quiet = engine_of()
    apart = [serve(quiet, [replace(request, cached=False)])[0] for request in asked]
    engine = engine_of(slots=20)
    together = serve(engine, asked)
    assert [h.told for h in together] == [h.told for h in apart]
    assert engine.stats.tokens_read == 29 + 20
    # They take turns, so that each may have read a part of it.
    assert sum(h.num_cached or 0 for h in together) == engine.cache.counts.saved_tokens == 19 * 29


def test_what_is_not_to_be_kept_is_not() -> None:
    engine = engine_of()
    request = Request(tokens=list(range(1, 20)), sampling=SEEDED, max_tokens=3, cached=False, noise=1)
    [first], [second] = serve(engine, [request]), serve(engine, [request])
    assert first.told == second.told and first.num_cached == second.num_cached == 0
    assert len(engine.cache) == 0 and engine.stats.tokens_read == 2 * 19


def test_the_same_again_is_not_read_at_all() -> None:
    """Where the text ends, the cache has what the next token is chosen from: a retry costs no reading."""
    engine = engine_of()
    request = Request(tokens=list(range(1, 20)), sampling=SEEDED, max_tokens=3, num_logprobs=1)
    [first], [second] = serve(engine, [request]), serve(engine, [request])
    assert second.num_cached == 19 and engine.stats.tokens_read == 19
    assert first.told == second.told


def test_a_conversation_goes_on_from_the_answer() -> None:
    """The next turn's text holds the answer: only what is new is read, with the numbers of reading all, to rounding."""
    engine = engine_of()
    tokens = list(range(1, 12))
    [first] = serve(engine, [Request(tokens=tokens, max_tokens=9, sampling=Sampling(temperature=0))])
    longer = [*tokens, *first.tokens, 5, 6, 7]
    asked = Request(tokens=longer, sampling=SEEDED, marks=[len(tokens)], max_tokens=6, num_logprobs=0)
    [second] = serve(engine, [asked])
    # The last token of the answer was chosen and never read.
    assert second.num_cached == len(tokens) + 8
    apart = alone(engine_of, asked)
    assert second.tokens == apart.tokens
    for one, other in zip(second.told, apart.told, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_limits_stops_and_states() -> None:
    engine = engine_of()
    heard = [Heard(lambda tokens: len(tokens) < 3), Heard(), Heard()]
    request = Request(tokens=[4, 5, 6], max_tokens=5, keeps_state=True, sampling=Sampling(temperature=0))
    engine.submit(request, heard[0])
    engine.submit(replace(request, keeps_state=False), heard[1])
    engine.submit(replace(request, max_tokens=1), heard[2])
    while engine.step():
        pass
    assert [h.reason for h in heard] == ["stop", "length", "length"]
    assert [len(h.tokens) for h in heard] == [3, 5, 1]
    assert heard[1].state is None
    model = model_of()
    for place, num_read in ((0, 2), (2, 0)):
        read = torch.tensor([[4, 5, 6, *heard[place].tokens[:num_read]]])
        with torch.no_grad():
            _, want = model(read)
        state = heard[place].state
        assert state is not None
        for part, wanted in zip(state, want, strict=True):
            torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-4)


def test_it_begins_with_a_state() -> None:
    """A tuned one of the engine's, or one of the request's."""
    model = model_of()
    with torch.no_grad():
        _, state = model(torch.tensor([[7, 8, 9]]))
    request = Request(tokens=[1, 2], max_tokens=6, sampling=Sampling(temperature=0), num_logprobs=0)
    tuned = Engine(model, StateCache(2**24), Limits(4, 10, 8, 16), start=state)
    [by_engine] = serve(tuned, [request])
    engine = engine_of()
    [by_request, plain] = serve(engine, [replace(request, start=state), request])
    assert by_engine.told == by_request.told != plain.told
    whole = alone(engine_of, replace(request, tokens=[7, 8, 9, 1, 2]))
    assert whole.tokens == by_request.tokens
    [again] = serve(engine, [replace(request, start=state)])
    assert again.num_cached == 2 and again.told == by_request.told


def test_cancelling_and_deadlines_free_the_slots() -> None:
    engine = engine_of(slots=2)
    heard = [Heard() for _ in range(6)]
    asked = Request(tokens=[1, 2, 3], max_tokens=1000)
    numbers = [engine.submit(asked, listener) for listener in heard[:5]]
    for _ in range(3):
        engine.step()
    assert (engine.num_active, engine.num_waiting) == (2, 3)
    engine.cancel(numbers[0])
    engine.cancel(numbers[3])
    engine.cancel(10**6)
    engine.step()
    assert heard[0].reason == heard[3].reason == "cancelled" and (engine.num_active, engine.num_waiting) == (2, 1)
    engine.submit(replace(asked, deadline=0.0), heard[5])
    engine.step()
    assert heard[5].reason == "deadline" and heard[5].tokens == []
    for number in numbers:
        engine.cancel(number)
    engine.step()
    assert not engine.step() and engine.num_active == 0
    assert [h.reason for h in heard[:5]] == ["cancelled"] * 5
    engine.cancel(numbers[0])
    assert engine.stats.ended == {"cancelled": 5, "deadline": 1}


def test_too_many_are_refused() -> None:
    engine = engine_of(slots=1, waiting=3)
    for _ in range(3):
        engine.submit(Request(tokens=[1], max_tokens=2), Heard())
    with pytest.raises(BusyError, match="3 requests are waiting") as refused:
        engine.submit(Request(tokens=[1]), Heard())
    assert refused.value.retry_after >= 1
    while engine.step():
        pass
    engine.submit(Request(tokens=[1]), Heard())


def test_wrong_requests_are_refused_at_once() -> None:
    engine = engine_of()
    other = model_of("6").zero_state(1)
    for request, said in (
        (Request(tokens=[]), "at least one token"),
        (Request(tokens=[VOCAB]), "between 0 and 30"),
        (Request(tokens=[-1]), "between 0 and 30"),
        (Request(tokens=[1], max_tokens=0), "max_tokens"),
        (Request(tokens=[1], marks=[2]), "marks"),
        (Request(tokens=[1], marks=[0]), "marks"),
        (Request(tokens=[1], num_logprobs=40), "logprobs"),
        (Request(tokens=[1], sampling=Sampling(logit_bias={99: 1.0})), "99"),
        (Request(tokens=[1], sampling=Sampling(banned=tuple(range(VOCAB)))), "banned"),
        (Request(tokens=[1], start=State(other.shift[:, :, :0], other.wkv[:, :0])), "does not fit"),
    ):
        with pytest.raises((InputError, StateError), match=said):
            engine.submit(request, Heard())
    assert not engine.step()


class Only:
    """A constraint: the tokens in turn, then anything."""

    def __init__(self, *tokens: int, fails: bool = False) -> None:
        self.tokens, self.fails = list(tokens), fails

    def allowed(self) -> Tensor:
        mask = torch.ones(VOCAB, dtype=torch.bool)
        if self.tokens:
            mask[:] = False
            mask[self.tokens[0]] = True
        return mask

    def push(self, token: int) -> None:
        if self.fails:
            raise RuntimeError("this constraint is broken")
        self.tokens = self.tokens[1:]


def test_constraints() -> None:
    asked = Request(tokens=[1, 2, 3], max_tokens=5, sampling=Sampling(temperature=0))
    [plain, bound] = serve(engine_of(), [asked, replace(asked, constraint=Only(30, 0, 12))])
    assert bound.tokens[:3] == [30, 0, 12]
    assert plain.told == alone(engine_of, asked).told


class Nothing(Only):
    def allowed(self) -> Tensor:
        return torch.zeros(VOCAB, dtype=torch.bool)


class Lost(Only):
    def allowed(self) -> Tensor:
        raise InputError("this grammar has grown too difficult")


class Deaf(Heard):
    def chosen(self, chosen: Chosen) -> bool:
        super().chosen(chosen)
        raise RuntimeError("nobody is there")


def test_one_failure_is_not_the_others(caplog: pytest.LogCaptureFixture) -> None:
    asked = Request(tokens=[1, 2, 3], max_tokens=6, sampling=Sampling(temperature=0), num_logprobs=0)
    want = alone(engine_of, asked).told
    engine = engine_of(slots=6)
    heard: list[Heard] = [Heard(), Heard(), Deaf(), Heard(), Heard(), Heard()]
    constraints = [None, Nothing(), None, Only(5, fails=True), None, Lost()]
    for listener, constraint in zip(heard, constraints, strict=True):
        engine.submit(replace(asked, constraint=constraint), listener)
    while engine.step():
        pass
    assert [h.reason for h in heard] == ["length", "error", "error", "error", "length", "error"]
    assert "too difficult" in heard[5].error
    assert heard[0].told == heard[4].told == want
    assert "banned" in heard[1].error and heard[2].error == "nobody is there"
    assert engine.num_active == 0
    [after] = serve(engine, [asked])
    assert after.told == want


def test_a_model_that_breaks_down_is_said() -> None:
    """Weights that overflow: the request ends with a sentence, and the engine lives."""
    model = model_of()
    with torch.no_grad():
        model.head.weight[3] = float("nan")
    engine = Engine(model, StateCache(2**24), Limits(4, 10, 8, 16))
    [heard] = serve(engine, [Request(tokens=[1, 2])])
    assert heard.reason == "error" and "not finite" in heard.error


def test_many_more_than_slots_and_rows() -> None:
    """Seventy at a time, more than the compiled step takes at once."""
    asked = [Request(tokens=[n % VOCAB, 1], sampling=SEEDED, max_tokens=5, noise=n, num_logprobs=0) for n in range(70)]
    together = serve(engine_of(slots=70), asked)
    for place in (0, 31, 32, 64, 69):
        assert together[place].told == alone(engine_of, asked[place]).told
