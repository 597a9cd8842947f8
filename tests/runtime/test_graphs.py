"""The step that a GPU records: the model's own call on a pool of states.  Without a GPU it is called, not recorded."""

from __future__ import annotations

import pytest
import torch

from receptance import InputError, State, runtime
from receptance.errors import StateError
from receptance.generation import Sampling
from receptance.generation.decoding import Decoding, _InSlots
from tests.models.cases import CONFIGS, noisy, used

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("name", ["4", "5.2", "6", "7"])
def test_rows_in_any_slots_are_the_model_s_own(name: str) -> None:
    """Three rows are filled up to four; a slot that is not named keeps its state."""
    model = noisy(CONFIGS[name]).to(DEVICE)
    state = used(model, 5)
    step = runtime.record(model, slots=5)
    step.write(range(5), state)
    for slots in ([4, 0, 2], [1], [3, 1, 0, 4, 2], [2, 3]):
        tokens = torch.randint(31, (len(slots),), device=DEVICE)
        with torch.no_grad():
            want, after = model(tokens[:, None], state.rows(slots))
        got = step(tokens, slots)
        torch.testing.assert_close(got, want[:, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(step.read(slots).wkv, after.wkv, rtol=1e-4, atol=1e-4)
        state.shift[:, :, slots], state.wkv[:, slots] = after.shift, after.wkv
        for part, kept in zip(step.read(range(5)), state, strict=True):
            torch.testing.assert_close(part, kept, rtol=1e-4, atol=1e-4)


def test_decoding_is_the_same_by_it() -> None:
    model = noisy(CONFIGS["7"]).to(DEVICE)
    chosen = []
    for recorded in (False, True):
        decoding = Decoding(model, [[1, 2, 3], [4, 5], [6]], [Sampling(temperature=0)] * 3)
        if recorded:
            decoding._stepper = _InSlots(runtime.record(model, 3), decoding.state)
        chosen.append([decoding.step().tokens.tolist() for _ in range(6)])
        decoding.keep([2, 0])
        chosen[-1] += [decoding.step().tokens.tolist() for _ in range(4)]
    assert chosen[0] == chosen[1]


def test_what_cannot_be_is_a_sentence() -> None:
    model = noisy(CONFIGS["7"]).to(DEVICE)
    step = runtime.record(model, slots=2)
    for tokens, slots in (([1, 2], [0, 0]), ([1], [2]), ([1], [-1]), ([1, 2], [0]), ([], [])):
        with pytest.raises(InputError, match=r"slots must be different|tokens must be \[B\]"):
            step(torch.tensor(tokens, dtype=torch.int64, device=DEVICE), slots)
    other = State.zeros(CONFIGS["6"], 1)
    with pytest.raises(StateError):
        step.write([0], State(other.shift, other.wkv[:, :, :1]))
