"""The recurrences under other settings of Numba: its own threads, a bare processor, bounds that are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numba")

from tests.under import run_module

from .recurrences_alone import at_once

PROGRAM = "tests.ops.cpu.recurrences_alone"


def test_two_threads_at_once() -> None:
    assert at_once(200)


def test_two_threads_at_once_on_threads_of_numba() -> None:
    assert run_module(PROGRAM, NUMBA_THREADING_LAYER="workqueue").startswith("workqueue")


def test_a_processor_that_is_only_its_baseline() -> None:
    assert "generic" in run_module(PROGRAM, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")


def test_no_index_is_out_of_bounds(tmp_path: Path) -> None:
    """With a cache of its own: what is cached was compiled without checks."""
    assert run_module(PROGRAM, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)).split()[-1] == "1"
