"""`make acceptance PART=processors`: the kernels on a bare processor, with bounds checked, and on threads of Numba."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numba")

from tests.under import run_tests

TESTS = ("tests/runtime/test_step.py", "tests/ops/cpu/test_products.py", "tests/ops/cpu/test_recurrences.py",
         "tests/ops/cpu/test_blocks.py", "tests/ops/test_fused.py", "tests/quant")  # fmt: skip
SETTINGS = {
    "a bare processor": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    "bounds checked": {"NUMBA_BOUNDSCHECK": "1"},
    "Numba's threads": {"NUMBA_THREADING_LAYER": "workqueue"},
}


@pytest.mark.parametrize("path", TESTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_kernels(setting: str, path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path(tmp_path_factory.getbasetemp()) / setting.replace(" ", "-")
    passed = run_tests(path, timeout=1800, **SETTINGS[setting], NUMBA_CACHE_DIR=str(folder))
    print(f"\n{path} with {setting}: {passed} passed")
