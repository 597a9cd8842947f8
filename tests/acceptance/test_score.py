"""`make acceptance PART=score`: scoring a text of 5 MB takes no more memory at its end than after a fifth."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.evaluation.test_perplexity import MOST_GROWN, growth


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_does_not_grow_with_five_megabytes(tmp_path: Path) -> None:
    said = growth(tmp_path / "text.txt", 5_000_000, "world")
    print(said)
    assert said["bytes"] > 4_900_000
    assert max(said["grown"], said["resident"]) < MOST_GROWN
