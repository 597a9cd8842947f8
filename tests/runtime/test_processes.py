"""The compiled step on other processors, with other numbers of threads, and in forked processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from receptance import runtime
from tests.models.cases import noisy
from tests.under import run_tests

from .test_step import WIDE, follow

STEPS = Path(__file__).with_name("test_step.py")


def test_a_processor_without_extensions(tmp_path: Path) -> None:
    chosen = "model_file_does and (7-int8 or 7-int4 or 4-bfloat16 or 6-float32)"
    assert run_tests(STEPS, chosen, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=str(tmp_path)) >= 4


def test_numbas_own_threads_and_two_models_at_once() -> None:
    assert run_tests(STEPS, "two_threads", NUMBA_THREADING_LAYER="workqueue") == 1


@pytest.mark.parametrize("num_threads", [1, 2, 8])
def test_the_number_of_threads_changes_no_bit(num_threads: int) -> None:
    model = noisy(WIDE["7"])
    want, _ = follow(model, runtime.compile(model, slots=2), [0, 1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads)
        got, _ = follow(model, runtime.compile(model, slots=2), [0, 1])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system starts processes in another way")
def test_a_forked_process_decodes() -> None:
    model = noisy(WIDE["7"])
    step = runtime.compile(model, slots=2)
    tokens = torch.tensor([3, 5])
    want = step(tokens).clone().numpy()
    step.write([0, 1], model.zero_state(2))
    child = os.fork()
    if child == 0:
        # NumPy compares: PyTorch's own threads are gone in the child.  Nothing of the test runner may run twice.
        try:
            os._exit(0 if (step(tokens).numpy() == want).all() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
