"""`make acceptance PART=parity`: 50 steps of the official setting, shrunk, beside a plain loop in float64."""

from __future__ import annotations

import pytest

from tests.training.test_parity import check


@pytest.mark.parametrize("version", ["4", "7"])
def test_parity(version: str) -> None:
    found = check(version, num_layers=4, dim=256, num_steps=50)
    worst = max(abs(ours / truth - 1) for ours, truth in found)
    print(f"\nRWKV-{version}: loss {found[0][0]:.4f} to {found[-1][0]:.4f}, at most {worst:.1e} from the plain loop")
