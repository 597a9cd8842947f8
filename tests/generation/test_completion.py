"""Completions and streams: stops, ends, limits, logprobs, and that a stream is the completion in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from receptance import InputError
from receptance.generation import Completion, Continuation, Prompt, Sampling, Stream, complete
from receptance.tokenizers import ByteTokenizer, WorldTokenizer

from ..models.cases import used
from .models import scripted, small

BYTES = ByteTokenizer()
GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.3, seed=3)


def said(text: str, **options: object) -> Completion:
    """The completion of a model that says `text` and then ends."""
    model = scripted(small(), [*text.encode(), 0])
    [completion] = complete(model, BYTES, [Prompt("x", GREEDY, **options)])  # type: ignore[arg-type]
    return completion


def test_the_end_of_the_text_ends_it() -> None:
    completion = said("all of it")
    assert (completion.text, completion.finish_reason, completion.tokens[-1]) == ("all of it", "stop", 0)
    assert completion.num_prompt_tokens == 2  # the start of a text, and x


def test_a_limit_ends_it() -> None:
    completion = said("all of it", max_tokens=3)
    assert (completion.text, completion.finish_reason, len(completion.tokens)) == ("all", "length", 3)


@pytest.mark.parametrize(
    ("stops", "text"), [(("\n\nUser:",), "Hi."), (("\nUser:", "zzz"), "Hi.\n"), (("\n\nUser:", "User:"), "Hi.")]
)
def test_a_stop_is_found_across_tokens(stops: tuple[str, ...], text: str) -> None:
    completion = said("Hi.\n\nUser: and then", stops=stops)
    assert (completion.text, completion.finish_reason) == (text, "stop")


def test_what_only_looks_like_a_stop_is_text() -> None:
    assert said("a\n\nUsers", stops=("\n\nUser:",)).text == "a\n\nUsers"
    assert said("a\n\nUse", stops=("\n\nUser:",)).text == "a\n\nUse"


def test_half_a_character_at_the_limit() -> None:
    assert said("aé", max_tokens=2).text == "a\ufffd"
    assert said("aé", max_tokens=3).text == "aé"


def test_a_stop_inside_a_token() -> None:
    world = WorldTokenizer()
    model = scripted(small(vocab_size=65536, dtype=torch.float32), [*world.encode("好。\n\nUser"), 0])
    assert 28329 in world.encode("好。\n\nUser")
    [completion] = complete(model, world, [Prompt("x", GREEDY, stops=("\n\n",))])
    assert (completion.text, completion.finish_reason) == ("好。", "stop")


def test_a_stream_is_the_completion_in_pieces() -> None:
    model = small()
    [completion] = complete(model, BYTES, [Prompt("abc", WARM, 60)])
    stream = Stream(model, BYTES, Prompt("abc", WARM, 60))
    assert "".join(stream) == completion.text
    assert stream.completion == completion


def test_a_stream_that_is_closed() -> None:
    stream = Stream(small(), BYTES, Prompt("abc", WARM, 60))
    piece = next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.completion.text.startswith(piece) and stream.completion.finish_reason == "cancelled"


def test_the_seed_that_was_drawn_gives_it_again() -> None:
    model = small()
    [first] = complete(model, BYTES, [Prompt("abc", Sampling(temperature=1.5), 30)])
    [again] = complete(model, BYTES, [Prompt("abc", Sampling(temperature=1.5, seed=first.seed), 30)])
    assert first == again
    [other] = complete(model, BYTES, [Prompt("abc", Sampling(temperature=1.5, seed=first.seed + 1), 30)])
    assert other.tokens != first.tokens


def test_logprobs_are_the_models_own() -> None:
    model = small()
    [completion] = complete(model, BYTES, [Prompt("abc", WARM, 12)], num_logprobs=3)
    tokens = [0, *b"abc", *completion.tokens]
    logits, _ = model(torch.tensor([tokens]))
    own = torch.log_softmax(logits[0].float(), -1)
    assert len(completion.logprobs) == 12
    for place, told in enumerate(completion.logprobs, start=3):
        assert told.token == tokens[place + 1]
        assert told.logprob == pytest.approx(float(own[place, told.token]), abs=1e-5)
        assert [token for token, _ in told.top] == own[place].topk(3).indices.tolist()
        assert all(a >= b for (_, a), (_, b) in pairwise(told.top))


def test_settings_and_states_are_the_rows_own() -> None:
    model = small()
    warm, cold = complete(model, BYTES, [Prompt("abc", WARM, 20), Prompt("abc", GREEDY, 30)])
    assert [warm] == complete(model, BYTES, [Prompt("abc", WARM, 20)])
    assert cold.tokens == complete(model, BYTES, [Prompt("abc", GREEDY, 30)])[0].tokens
    state = used(model, 1)
    [after] = complete(model, BYTES, [Prompt("abc", GREEDY, 30)], state=state)
    assert after.tokens != cold.tokens and after.num_prompt_tokens == 3


@pytest.mark.parametrize("stops", [[""], ["a", ""]])
def test_an_empty_stop_is_refused(stops: list[str]) -> None:
    with pytest.raises(InputError, match="stop"):
        Continuation(BYTES, stops)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="max_tokens"):
        complete(small(), BYTES, [Prompt("a", max_tokens=0)])


def test_progress_is_told() -> None:
    counts: list[int] = []
    lasting = Sampling(banned=(0,))
    complete(small(), BYTES, [Prompt("a", lasting, 4), Prompt("b", lasting, 2)], on_step=counts.append)
    assert counts == [2, 2, 1, 1]
