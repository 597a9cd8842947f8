"""Rows of a batch are what they are alone; settings, seeds, bans, logprobs; what cannot be sampled is a sentence."""

from __future__ import annotations

import math
import pickle
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from receptance import InputError
from receptance.generation import PRESETS, Choice, Sampler, Sampling, preset_for
from receptance.generation.noise import uniform
from receptance.generation.presets import SUITABLE
from receptance.templates import TEMPLATES

VOCAB = 3000

ROWS = [
    Sampling(seed=1),
    Sampling(temperature=0, presence_penalty=1.0, seed=2),
    Sampling(top_p=0.6, presence_penalty=0.5, frequency_penalty=0.5, seed=3),
    Sampling(top_p=0.9, temperature=1.5, top_k=50, order="usual", seed=4),
    Sampling(min_p=0.02, order="usual", logit_bias={7: 5.0, 8: -5.0}, banned=(0, 9), seed=5),
    Sampling(temperature=2.5, top_p=0.995, order="usual", frequency_penalty=-0.2, seed=6),
    Sampling(temperature=0.4, seed=7),
]


def steps(number: int, rows: int = len(ROWS), seed: int = 0) -> Tensor:
    """Logits of a bfloat16 model, [steps, rows, VOCAB]: many are equal."""
    return (3 * torch.randn(number, rows, VOCAB, generator=torch.Generator().manual_seed(seed))).bfloat16()


def run(sampler: Sampler, logits: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
    choices = [sampler.choose(step[rows], 0) for step in logits]
    return torch.stack([choice.tokens for choice in choices]), torch.stack([choice.logprobs for choice in choices])


def test_each_row_is_what_it_is_alone() -> None:
    logits, everyone = steps(40), list(range(len(ROWS)))
    tokens, logprobs = run(Sampler(ROWS, VOCAB), logits, everyone)
    for row in everyone:
        alone, alone_logprobs = run(Sampler([ROWS[row]], VOCAB, [row]), logits, [row])
        assert torch.equal(alone[:, 0], tokens[:, row])
        assert torch.equal(alone_logprobs[:, 0], logprobs[:, row])
    backwards, _ = run(Sampler(ROWS[::-1], VOCAB, everyone[::-1]), logits, everyone[::-1])
    assert torch.equal(backwards.flip(1), tokens)


def test_rows_that_are_kept_go_on() -> None:
    logits = steps(30)
    tokens, _ = run(Sampler(ROWS, VOCAB), logits, list(range(len(ROWS))))
    sampler, rows = Sampler(ROWS, VOCAB), list(range(len(ROWS)))
    for start, places in ((0, [0, 1, 2, 3, 4, 5, 6]), (10, [6, 1, 2, 4]), (20, [2, 3])):
        sampler.keep(places)
        rows = [rows[place] for place in places]
        some, _ = run(sampler, logits[start : start + 10], rows)
        assert torch.equal(some, tokens[start : start + 10, rows])
    assert sampler.seeds == [ROWS[row].seed for row in rows] == [3, 5]
    sampler.keep([])
    assert sampler.choose(torch.zeros(0, VOCAB), 2).tokens.tolist() == sampler.seeds == []


def test_requests_and_seeds_decide_the_noise() -> None:
    logits, one = steps(20, 1).expand(-1, 4, -1), Sampling(seed=1)
    tokens, _ = run(Sampler([one, one, replace(one, seed=2), one], VOCAB, [0, 1, 0, 0]), logits, [0, 1, 2, 3])
    assert len({tuple(column.tolist()) for column in tokens.T}) == 3
    assert torch.equal(tokens[:, 0], tokens[:, 3])


def test_rows_that_join_are_what_they_are_alone() -> None:
    logits = steps(12)
    alone = [run(Sampler([row], VOCAB, [number]), logits, [number])[0][:, 0] for number, row in enumerate(ROWS)]
    sampler, rows = Sampler(ROWS[:1], VOCAB, [0]), [0]
    said: dict[int, list[int]] = {number: [] for number in range(len(ROWS))}
    for step in range(3 * len(ROWS) + 12):
        if step % 3 == 0 and (new := step // 3 + 1) < len(ROWS):
            sampler.join(Sampler([ROWS[new]], VOCAB, [new]))
            rows.append(new)
        chosen = sampler.choose(torch.stack([logits[len(said[row]), row] for row in rows])).tokens.tolist()
        for row, token in zip(rows, chosen, strict=True):
            said[row].append(token)
        going = [place for place, row in enumerate(rows) if len(said[row]) < 12]
        sampler.keep(going)
        rows = [rows[place] for place in going]
        if not rows:
            break
    assert said == {number: tokens.tolist() for number, tokens in enumerate(alone)}


def test_only_allowed_tokens_are_chosen() -> None:
    logits = steps(8)
    allowed = torch.zeros(len(ROWS), VOCAB, dtype=torch.bool)
    allowed[:, [3, 40, 77]] = True
    sampler = Sampler(ROWS, VOCAB)
    for step in logits:
        assert set(sampler.choose(step, allowed=allowed).tokens.tolist()) <= {3, 40, 77}
    with pytest.raises(InputError, match="banned"):
        sampler.choose(logits[0], allowed=torch.zeros_like(allowed))


def test_the_noise_of_a_place_is_its_own() -> None:
    """A draw by hand: the first token at which the sum of probabilities is beyond the noise."""
    logits = steps(5, 1).float()
    sampler = Sampler([Sampling(seed=9)], VOCAB, [4])
    for position, step in enumerate(logits):
        sums = np.cumsum(step[0].double().softmax(0).numpy())
        expected = int(np.searchsorted(sums, uniform(9, 4, position) * sums[-1], side="right"))
        assert int(sampler.choose(step).tokens) == expected
    assert sampler.positions == [5]


def test_a_drawn_seed_gives_the_same_again() -> None:
    logits = steps(20, 2)
    sampler = Sampler([Sampling(), Sampling(top_p=0.5)], VOCAB)
    tokens, _ = run(sampler, logits, [0, 1])
    first, second = sampler.seeds
    assert first != second and max(first, second) < 2**53
    again, _ = run(Sampler([Sampling(seed=first), Sampling(top_p=0.5, seed=second)], VOCAB), logits, [0, 1])
    assert torch.equal(again, tokens)


def test_greedy_takes_the_lowest_of_the_likeliest() -> None:
    logits = torch.zeros(2, VOCAB)
    logits[0, [5, 70, 700]] = 3.0
    logits[1, [9, 8]] = torch.tensor([4.0, 3.0])
    sampler = Sampler([Sampling(temperature=0), Sampling(temperature=0, banned=(9,))], VOCAB)
    assert sampler.choose(logits).tokens.tolist() == [5, 8]


def test_biases_and_bans() -> None:
    logits = torch.zeros(1, 10)
    plain = torch.bincount(many(logits, Sampling(banned=(0, 3))), minlength=10)
    assert plain[[0, 3]].tolist() == [0, 0] and plain.sum() == 2000 and (plain > 0).sum() == 8
    biased = torch.bincount(many(logits, Sampling(logit_bias={4: math.log(9), 5: -100}, banned=(4,))), minlength=10)
    assert biased[4] == 0 and biased[5] == 0, "a ban is stronger than a bias"
    half = torch.bincount(many(logits, Sampling(logit_bias={4: math.log(9)})), minlength=10)
    assert 0.45 < half[4] / 2000 < 0.55


def many(logits: Tensor, sampling: Sampling) -> Tensor:
    """Tokens of 2,000 requests."""
    sampler = Sampler([replace(sampling, seed=3)] * 2000, logits.shape[1])
    return sampler.choose(logits.expand(2000, -1)).tokens


@pytest.mark.parametrize("num_logprobs", [1, 5, VOCAB])
def test_logprobs_are_the_models_own(num_logprobs: int) -> None:
    """Before biases, penalties and filters, which move this sampler far away from them."""
    sampling = Sampling(temperature=0.5, top_k=3, logit_bias={7: 50.0}, banned=(1,), presence_penalty=2.0, seed=1)
    sampler, logits = Sampler([sampling], VOCAB), steps(3, 1)
    for step in logits:
        choice = sampler.choose(step, num_logprobs)
        expected = step.float().log_softmax(1)
        assert choice.logprobs.dtype == torch.float32 and choice.tokens.dtype == torch.int64
        torch.testing.assert_close(choice.logprobs, expected[0, choice.tokens])
        assert choice.top is not None
        order = sorted(range(VOCAB), key=lambda token: (-step[0, token].item(), token))[:num_logprobs]
        assert choice.top.ids[0].tolist() == order
        torch.testing.assert_close(choice.top.logprobs[0], expected[0, order])
    assert sampler.choose(logits[0], 0).top is None and sampler.choose(logits[0]).logprobs is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_logits_of_any_dtype_and_layout(dtype: torch.dtype) -> None:
    logits = steps(1)[0].to(dtype)
    tokens = Sampler(ROWS, VOCAB).choose(logits).tokens
    assert torch.equal(tokens, Sampler(ROWS, VOCAB).choose(logits.float()).tokens)
    wide = torch.stack([logits, logits], dim=2)[..., 0]
    before = wide.clone()
    assert torch.equal(tokens, Sampler(ROWS, VOCAB).choose(wide).tokens)
    assert torch.equal(wide, before), "the model's logits are its own"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_chooses_the_same() -> None:
    logits, everyone = steps(40), list(range(len(ROWS)))
    there = Sampler(ROWS, VOCAB, device="cuda")
    tokens, logprobs = run(there, logits.cuda(), everyone)
    expected, expected_logprobs = run(Sampler(ROWS, VOCAB), logits, everyone)
    assert tokens.device.type == "cuda"
    assert torch.equal(tokens.cpu(), expected)
    torch.testing.assert_close(logprobs.cpu(), expected_logprobs)
    top = there.choose(logits[0].cuda(), 5).top
    known: Choice = Sampler(ROWS, VOCAB).choose(logits[0], 5)
    assert top is not None and known.top is not None and torch.equal(top.ids.cpu(), known.top.ids)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2000, VOCAB - 1])
def test_broken_logits_are_one_sentence(value: float, place: int) -> None:
    logits = steps(1)[0].float()
    logits[2, place] = value
    with pytest.raises(InputError, match=r"^the model's logits of row 2 are not finite; load it in float32"):
        Sampler(ROWS, VOCAB).choose(logits)


def test_tokens_that_the_model_rules_out() -> None:
    logits = torch.full((1, VOCAB), float("-inf"))
    with pytest.raises(InputError, match="logits of row 0 are not finite"):
        Sampler([Sampling()], VOCAB).choose(logits)
    logits[0, 5:8] = 1.0
    for sampling in (Sampling(), Sampling(top_p=0.999, min_p=0.01), Sampling(temperature=0), Sampling(top_k=VOCAB - 1)):
        assert int(Sampler([sampling], VOCAB).choose(logits).tokens) in (5, 6, 7)
    with pytest.raises(InputError, match="every token that the model allows in row 0 is banned"):
        Sampler([Sampling(banned=(5, 6, 7))], VOCAB).choose(logits)


def test_shapes_are_checked() -> None:
    sampler = Sampler(ROWS, VOCAB)
    for logits in (torch.zeros(VOCAB), torch.zeros(2, VOCAB), torch.zeros(len(ROWS), VOCAB + 1)):
        with pytest.raises(InputError, match=rf"logits must be \[{len(ROWS)}, {VOCAB}\]"):
            sampler.choose(logits)
    for number in (-1, VOCAB + 1):
        with pytest.raises(InputError, match="logprobs can be told of 0 to 3000 tokens"):
            sampler.choose(torch.zeros(len(ROWS), VOCAB), number)


BAD = [
    ({"temperature": -0.1}, "temperature must be a number from 0 to 100, got -0.1"),
    ({"temperature": float("nan")}, "temperature must be a number from 0 to 100, got nan"),
    ({"temperature": float("inf")}, "temperature must be a number from 0 to 100, got inf"),
    ({"temperature": "1"}, "temperature must be a number from 0 to 100, got '1'"),
    ({"temperature": True}, "temperature must be a number from 0 to 100, got True"),
    ({"temperature": None}, "temperature must be a number from 0 to 100, got None"),
    ({"top_p": 1.01}, "top_p must be a number from 0 to 1, got 1.01"),
    ({"min_p": -1}, "min_p must be a number from 0 to 1, got -1"),
    ({"top_k": -1}, "top_k must be a whole number from 0 to 2147483647, got -1"),
    ({"top_k": 2.0}, "top_k must be a whole number from 0 to 2147483647, got 2.0"),
    ({"presence_penalty": 101}, "presence_penalty must be a number from -100 to 100, got 101"),
    ({"frequency_penalty": 10**400}, "frequency_penalty must be a number from -100 to 100, got 1000"),
    ({"penalty_decay": 1.1}, "penalty_decay must be a number from 0 to 1, got 1.1"),
    ({"order": "random"}, "order must be official or usual, got 'random'"),
    ({"seed": -1}, "seed must be a whole number from 0 to 9223372036854775807, got -1"),
    ({"seed": 2**63}, "seed must be a whole number from 0 to 9223372036854775807, got 9223372036854775808"),
    ({"logit_bias": {5: float("nan")}}, "logit_bias of token 5 must be a number from -100 to 100, got nan"),
    ({"logit_bias": {-5: 1.0}}, "logit_bias must name tokens by their ids, whole numbers from 0, got -5"),
    ({"logit_bias": {"a": 1.0}}, "logit_bias must name tokens by their ids, whole numbers from 0, got 'a'"),
    ({"logit_bias": [5]}, r"logit_bias must give a number for each of some tokens, as {11: -2.5}, got \[5\]"),
    ({"banned": 5}, "banned must be a list of tokens, got 5"),
    ({"banned": "5"}, "banned must be a list of tokens, got '5'"),
    ({"banned": [True]}, "banned must name tokens by their ids, whole numbers from 0, got True"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD, ids=[str(settings)[:40] for settings, _ in BAD])
def test_settings_are_checked(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        Sampling(**settings)


def test_settings_are_a_value() -> None:
    settings = Sampling(
        temperature=np.float32(0.5),
        top_k=np.int64(4),  # type: ignore[arg-type]
        banned=[9, 3, 9],  # type: ignore[arg-type]
        logit_bias={np.int64(5): 1},  # type: ignore[dict-item]
    )
    assert (settings.temperature, settings.top_k, settings.banned) == (0.5, 4, (3, 9))
    assert type(settings.temperature) is float and type(settings.top_k) is int
    assert settings.logit_bias == {5: 1.0}
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings == Sampling(**asdict(settings)) and hash(again) == hash(settings)
    assert replace(settings, logit_bias={}) != settings


def test_samplers_are_checked() -> None:
    for sampling, sentence in (
        (Sampling(banned=(10,)), "banned names token 10, and the vocabulary ends at 9"),
        (Sampling(logit_bias={12: 1.0}), "logit_bias names token 12, and the vocabulary ends at 9"),
        (Sampling(banned=range(10)), "all 10 tokens of the vocabulary are banned; leave at least one"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=f"^{sentence}$"):
            Sampler([Sampling(), sampling], 10)
    with pytest.raises(InputError, match="the number of a request must be from 0 to 9223372036854775807, got -1"):
        Sampler([Sampling()], 10, [-1])
    with pytest.raises(InputError, match="give each row its settings and its request, got 1 and 2"):
        Sampler([Sampling()], 10, [0, 1])


def test_every_family_has_a_preset() -> None:
    assert set(SUITABLE) == set(TEMPLATES)
    for name, template in TEMPLATES.items():
        for think in template.think_modes:
            assert preset_for(name, think) in PRESETS.values()
    assert preset_for("g1", "on") is preset_for("flower", "a lot") is PRESETS["g1-think"]
    assert preset_for("g1") is preset_for("flower", "fast") is PRESETS["g1-fast"]
    assert preset_for("world") is preset_for("raven") is PRESETS["api-demo"]
    assert preset_for(None) is preset_for("my.jinja", "on") is PRESETS["official"]
    assert PRESETS["greedy"].temperature == 0


def test_the_defaults_leave_the_model_alone() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    for order in ("official", "usual"):
        counts = torch.bincount(many(logits, Sampling(order=order)), minlength=3)  # type: ignore[arg-type]
        torch.testing.assert_close(counts / 2000, logits[0].softmax(0), atol=0.03, rtol=0)
