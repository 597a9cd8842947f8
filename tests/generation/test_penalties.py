"""The official runtime's loop and ours, token for token with the same noise; and which tokens count."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from receptance.generation import PRESETS, Sampler, Sampling, uncounted_tokens
from receptance.generation import sampling as module
from receptance.tokenizers import ByteTokenizer, PileTokenizer, WorldTokenizer

VOCAB = 4096
NUM_STEPS = 1000

SETTINGS = {
    "official": PRESETS["official"],
    "g1-think": PRESETS["g1-think"],
    "hot": Sampling(
        temperature=1.4, top_p=0.97, presence_penalty=0.3, frequency_penalty=1.5, penalty_decay=0.9, banned=(3, 4000)
    ),
    "greedy": Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.4),
}


class Pipeline:
    """The official one, with random logits for a model, which notes the tokens that it samples."""

    def __init__(self, logits: Tensor) -> None:
        utils = pytest.importorskip("rwkv.utils", reason="needs the official runtime: pip install 'receptance[oracle]'")
        with contextlib.redirect_stdout(io.StringIO()):
            self.pipeline = utils.PIPELINE(self, "rwkv_vocab_v20230424")
        self.arguments = utils.PIPELINE_ARGS
        self.logits, self.tokens = logits, list[int]()
        choose = self.pipeline.sample_logits

        def sample_logits(*args: Any, **kwargs: Any) -> int:
            self.tokens.append(choose(*args, **kwargs))
            return self.tokens[-1]

        self.pipeline.sample_logits = sample_logits

    def forward(self, tokens: list[int], state: int | None) -> tuple[Tensor, int]:
        step = state or 0
        return self.logits[step].clone(), step + 1

    def generate(self, sampling: Sampling, num_steps: int) -> list[int]:
        self.tokens.clear()
        arguments = self.arguments(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            alpha_presence=sampling.presence_penalty,
            alpha_frequency=sampling.frequency_penalty,
            alpha_decay=sampling.penalty_decay,
            token_ban=list(sampling.banned),
        )
        self.pipeline.generate("a", num_steps, arguments)
        return self.tokens


@pytest.fixture(scope="module")
def official() -> Pipeline:
    # A few tokens are likely all the time, digits among them, so that their penalties grow.
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(NUM_STEPS, VOCAB, generator=generator)
    logits[:, torch.randperm(VOCAB, generator=generator)[:30]] += 6
    logits[:, 33:58] += 4
    return Pipeline(logits)


@pytest.fixture(scope="module")
def world() -> WorldTokenizer:
    return WorldTokenizer()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_official_tokens(
    name: str, official: Pipeline, world: WorldTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy's own noise, from its seed: the official loop takes one number of it a step."""
    if name == "hot":
        # Its float32 sums over a thousand tokens are off by 1e-5, which at one of the steps keeps one token more.
        monkeypatch.setattr(np, "cumsum", partial(np.cumsum, dtype=np.float64))
    np.random.seed(11)
    expected = official.generate(SETTINGS[name], NUM_STEPS)
    noise = np.random.RandomState(11).random_sample(NUM_STEPS)
    monkeypatch.setattr(module, "uniform", lambda seed, request, position: float(noise[position]))
    sampler = Sampler([SETTINGS[name]], VOCAB, uncounted=uncounted_tokens(world))
    tokens = [int(sampler.choose(official.logits[step, None]).tokens) for step in range(NUM_STEPS)]
    assert len(expected) == NUM_STEPS
    assert tokens == expected
    assert 20 < len(set(tokens)) < NUM_STEPS, "some tokens come again"


def test_each_part_of_the_penalty_matters(official: Pipeline, world: WorldTokenizer) -> None:
    """What the comparison above could miss if the logits were too even: every setting changes the tokens."""
    base: dict[str, Any] = {"top_p": 0.85, "presence_penalty": 0.2, "frequency_penalty": 0.2, "seed": 4}

    def tokens(uncounted: Tensor | None, **changes: float) -> list[int]:
        sampler = Sampler([Sampling(**{**base, **changes})], VOCAB, uncounted=uncounted)
        return [int(sampler.choose(row[None]).tokens) for row in official.logits[:200]]

    known = uncounted_tokens(world)
    results = [
        tokens(known),
        tokens(None),
        tokens(known, presence_penalty=0.0),
        tokens(known, frequency_penalty=0.0),
        tokens(known, penalty_decay=0.5),
    ]
    assert len(set(map(tuple, results))) == len(results)


def test_uncounted_tokens_of_the_world_vocabulary(official: Pipeline, world: WorldTokenizer) -> None:
    """Every id, as the official loop decides it from the text of the token alone."""
    decode = official.pipeline.decode
    expected = [decode([token]) in " \t0123456789" for token in range(world.vocab_size)]
    assert uncounted_tokens(world).tolist() == expected
    assert sum(expected) > 10


def test_uncounted_tokens_of_the_pile(fixtures: Path) -> None:
    """`<|endoftext|>` and `<|padding|>` have no text; the official loop takes that for uncounted, but they end it."""
    tokenizers = pytest.importorskip("tokenizers")
    path = fixtures / "tokenizer" / "20B_tokenizer.json"
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), PileTokenizer(path)
    expected = [theirs.decode([token]) in " \t0123456789" for token in range(ours.vocab_size)]
    differ = [token for token, known in enumerate(uncounted_tokens(ours).tolist()) if known != expected[token]]
    assert differ == [token for token in range(ours.vocab_size) if ours.token_bytes(token) == b""] == [0, 1]


def test_uncounted_bytes() -> None:
    found = uncounted_tokens(ByteTokenizer())
    assert found.nonzero()[:, 0].tolist() == sorted(b" \t0123456789")
    assert uncounted_tokens(ByteTokenizer()).dtype == torch.bool


@pytest.mark.parametrize("length", [2, 5, 9])
def test_a_table_of_another_length_than_the_vocabulary(length: int) -> None:
    """Vocabularies are padded: what the tokenizer does not know is counted."""
    uncounted = torch.zeros(length, dtype=torch.bool)
    uncounted[1] = True
    sampling = Sampling(temperature=0, frequency_penalty=1.0, penalty_decay=1.0)
    sampler = Sampler([sampling], 5, uncounted=uncounted)
    logits = torch.tensor([[0.0, 2.6, 0.0, 0.0, 3.0]])
    # Token 4 is counted and soon less likely than 1, which is not counted and so stays.
    assert [int(sampler.choose(logits).tokens) for _ in range(4)] == [4, 1, 1, 1]
