"""Rows of a batch are what they would be alone, however long their prompts are."""

from __future__ import annotations

import random

import pytest
import torch

from receptance import RWKV, InputError, StateError
from receptance.config import VERSIONS
from receptance.generation import Decoding, Sampling, read
from receptance.generation.decoding import PIECE

from ..models.cases import used
from .models import small

SETTINGS = Sampling(temperature=1.1, top_p=0.9, presence_penalty=0.3, frequency_penalty=0.2, seed=5)


def prompts_of(lengths: list[int]) -> list[list[int]]:
    draw = random.Random(1)
    return [[draw.randrange(256) for _ in range(length)] for length in lengths]


def continued(
    model: RWKV, prompts: list[list[int]], requests: list[int], steps: int
) -> dict[int, list[tuple[int, float]]]:
    """Tokens and logprobs by request; a row ends at a token divisible by 11, so that rows end at different times."""
    decoding = Decoding(model, prompts, [SETTINGS] * len(prompts), requests)
    said: dict[int, list[tuple[int, float]]] = {request: [] for request in requests}
    for _ in range(steps):
        choice = decoding.step(0)
        assert choice.logprobs is not None
        for row, token, logprob in zip(decoding.rows, choice.tokens.tolist(), choice.logprobs.tolist(), strict=True):
            said[requests[row]].append((token, logprob))
        decoding.keep([place for place, token in enumerate(choice.tokens.tolist()) if token % 11])
        if not decoding.rows:
            break
    return said


@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_ragged_rows_are_the_rows_alone(version: str) -> None:
    model = small(version)
    lengths = [1, 2, 3, 5, 17, 31, 32, 33, 64, 100, 129, 200, 255, 333, 499, 500]
    prompts = prompts_of(lengths)
    together = continued(model, prompts, list(range(len(prompts))), steps=12)
    assert len({len(said) for said in together.values()}) > 3, "rows should end at different times"
    for request, prompt in enumerate(prompts):
        alone = continued(model, [prompt], [request], steps=12)[request]
        assert [token for token, _ in alone] == [token for token, _ in together[request]]
        torch.testing.assert_close(
            torch.tensor([p for _, p in alone]), torch.tensor([p for _, p in together[request]]), rtol=0, atol=1e-6
        )


def test_long_prompts_are_read_in_pieces() -> None:
    model = small()
    prompts = prompts_of([PIECE, PIECE + 1, 3, 2 * PIECE + 7, 1])
    logits, state = read(model, prompts)
    for row, prompt in enumerate(prompts):
        whole, after = model(torch.tensor([prompt]))
        torch.testing.assert_close(logits[row], whole[0, -1], rtol=1e-9, atol=1e-9)
        for one, other in zip(state.rows([row]), after, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_prompt_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="token 256 of the prompt"):
        read(small(), [[1], [2, 256]])


def test_reading_goes_on_after_a_state() -> None:
    model, prompts = small(), prompts_of([5, 9])
    state = used(model, 1)
    logits, _ = read(model, prompts, state)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(logits[row], model(torch.tensor([prompt]), state)[0][0, -1], rtol=1e-9, atol=1e-9)
    with pytest.raises(StateError, match="3 rows for 2 prompts"):
        read(model, prompts, used(model, 3))
    with pytest.raises(StateError, match="does not fit"):
        read(model, prompts, used(small("4"), 1))


@pytest.mark.parametrize("prompts", [[], [[]], [[1], []]])
def test_nothing_to_read(prompts: list[list[int]]) -> None:
    with pytest.raises(InputError, match="at least one token"):
        read(small(), prompts)


def test_gradients_are_left_as_they_were() -> None:
    model = small()
    decoding = Decoding(model, [[1, 2]], [Sampling()])
    decoding.step()
    assert torch.is_grad_enabled() and not decoding.step().tokens.requires_grad


@pytest.mark.parametrize("version", VERSIONS)
def test_every_generation_decodes(version: str) -> None:
    choice = Decoding(small(version, dtype=torch.float32), [[1, 2, 3]], [Sampling(temperature=0)]).step()
    assert 0 <= int(choice.tokens[0]) < 256
