"""Guesses change the time and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from receptance.engine import Engine, Limits, Request, StateCache
from receptance.engine.draft import Draft
from receptance.engine.slots import Slots
from receptance.engine.speculation import FIRST, LONGEST_PAUSE, MOST, Guesses, LookUp
from receptance.errors import InputError
from receptance.generation import Sampling

from .listening import Heard, alone, engine_of, model_of, serve
from .test_engine import VOCAB, Only, requests


def test_what_followed_before() -> None:
    look = LookUp([1, 2, 3, 4, 5, 9, 2, 3])
    # [2, 3, 4] stood there, and what followed it.
    assert look.guess([4], 3) == [5, 9, 2]
    assert look.guess([4, 7], 3) == []
    assert look.guess([4, 7, 8, 4, 7], 4) == [8, 4, 7, 8]
    assert LookUp([]).guess([1], 4) == [] and LookUp([5]).guess([5], 4) == []
    # A repetition goes on for ever.
    assert LookUp([1, 1, 1]).guess([1], 5) == [1] * 5


def test_lengths_follow_success() -> None:
    class Ones:
        def guess(self, tokens: Sequence[int], most: int) -> list[int]:
            return [1] * most

    guesses = Guesses(Ones())
    lengths = []
    for _ in range(6):
        lengths.append(len(guesses.next([0], 1000)))
        guesses.confirmed(lengths[-1], lengths[-1])
    assert lengths == [FIRST, 2 * FIRST, 4 * FIRST, MOST, MOST, MOST]
    guesses.confirmed(MOST, 3)
    assert len(guesses.next([0], 1000)) == FIRST and len(guesses.next([0], 5)) == 5 and guesses.next([0], 0) == []
    pauses = []
    for _ in range(7):
        guesses.confirmed(FIRST, 0)
        pause = 0
        while not guesses.next([0], 1000):
            pause += 1
        pauses.append(pause)
    assert pauses == [2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def drafted() -> Engine:
    """The draft is the model itself with other noise on it."""
    draft = model_of()
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.mul_(1.01)
    return Engine(model_of(), StateCache(2**24), Limits(4, 100, 8, 16), draft=draft)


@pytest.mark.parametrize("make", [engine_of, drafted], ids=["look-up", "draft"])
def test_the_same_tokens(make: type) -> None:
    """Greedy and by chance, with penalties and constraints, among others; the numbers agree to rounding."""
    asked = [replace(request, max_tokens=40, num_logprobs=0) for request in requests(12, seed=2)]
    asked[3] = replace(asked[3], tokens=[1, 2, 3, 4] * 6)
    asked[0] = replace(asked[0], tokens=[5, 6, 7] * 6)
    plain = serve(engine_of(), asked)
    engine = make()
    guessed = serve(engine, [replace(request, speculate=place % 3 != 1) for place, request in enumerate(asked)])
    for one, other in zip(guessed, plain, strict=True):
        assert one.tokens == other.tokens and one.reason == other.reason == "length"
        for told, want in zip(one.told, other.told, strict=True):
            assert told.logprob == pytest.approx(want.logprob, abs=1e-3)
    assert 0 < engine.stats.tokens_confirmed < engine.stats.tokens_guessed


def test_a_constraint_and_an_end_within_a_guess() -> None:
    """The state in the end is that of the tokens that were handed on, wherever a guess was cut off."""
    tokens = [1, 2, 3, 4, 5, 6, 7, 8] * 3
    constraint = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4]
    for last in range(2, 12):
        engine = engine_of()
        heard = Heard(lambda chosen, last=last: len(chosen) < last)
        asked = Request(
            tokens=tokens, speculate=True, keeps_state=True, constraint=Only(*constraint), sampling=Sampling(seed=1)
        )
        engine.submit(asked, heard)
        while engine.step():
            pass
        assert heard.tokens == constraint[:last] and heard.reason == "stop"
        with torch.no_grad():
            _, want = model_of()(torch.tensor([[*tokens, *constraint[: last - 1]]]))
        assert heard.state is not None
        torch.testing.assert_close(heard.state.wkv, want.wkv, rtol=1e-3, atol=1e-3)
        [longer] = serve(engine, [Request(tokens=[*tokens, *heard.tokens, 9], marks=[24], max_tokens=1)])
        assert longer.num_cached == 24 + last - 1
    assert engine.stats.tokens_confirmed > 0


def test_alone_and_in_a_crowd() -> None:
    one = Request(tokens=[0], max_tokens=30, speculate=True, num_logprobs=0, sampling=Sampling(seed=1))
    asked = [replace(one, tokens=[n, 1, 2, n] * 5, noise=n) for n in range(5)]
    together = serve(engine_of(slots=5), asked, [0, 3, 3, 7, 9])
    assert [heard.told for heard in together] == [alone(engine_of, request).told for request in asked]


def test_the_distribution_is_the_model_s() -> None:
    """Chi-square over the second token, which is guessed: 200 draws against the model's own probabilities."""
    model = model_of()
    tokens = [1, 2, 3, 4] * 3
    engine = Engine(model, StateCache(2**24), Limits(32, 5000, 8, 64))

    class First(Only):
        def __init__(self) -> None:
            super().__init__(1, 2)

    asked = [
        Request(tokens=tokens, max_tokens=5, speculate=True, noise=n, constraint=First(), sampling=Sampling(seed=5))
        for n in range(200)
    ]
    heard = serve(engine, asked)
    assert engine.stats.tokens_confirmed >= 200
    with torch.no_grad():
        logits, _ = model(torch.tensor([[*tokens, 1, 2]]))
    expected = logits[0, -1].double().softmax(0).numpy() * len(asked)
    counts = np.bincount([h.tokens[2] for h in heard], minlength=VOCAB)
    kept = expected >= 4
    chi_square = float((((counts - expected) ** 2) / expected)[kept].sum())
    # The mean is the number of classes less one, the standard deviation the root of twice that.
    freedom = int(kept.sum()) - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_a_draft_reads_what_is_certain() -> None:
    model = model_of()
    draft = Draft(model, Slots(model, 1), [1, 2, 3])
    greedy = alone(engine_of, Request(tokens=[1, 2, 3], max_tokens=12, sampling=Sampling(temperature=0))).tokens
    assert draft.guess(greedy[:1], 5) == greedy[1:6]
    assert draft.guess(greedy[:4], 3) == greedy[4:7]
    with pytest.raises(InputError, match="another vocabulary"):
        from receptance import Config, build

        other = build(Config(version="7", vocab_size=40, num_layers=2, dim=16, head_size=8))
        Engine(model, StateCache(0), draft=other)
