"""make acceptance PART=resume: killed 20 times at random moments, a training is the one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..training import killing


@pytest.mark.parametrize("order", ["shuffled", "in-order"])
def test_twenty_kills_change_nothing(order: str, tmp_path: Path) -> None:
    killing.check(tmp_path, kills=20, steps=120, order=order, seed=1)
