"""`make acceptance PART=quickstart`: the main job at full size, and what it must reach on two CPU cores."""

from __future__ import annotations

import time
from pathlib import Path

from receptance.quickstart import quickstart


def test_quickstart_learns_and_is_quick(tmp_path: Path) -> None:
    start = time.perf_counter()
    summary = quickstart(tmp_path)
    took = time.perf_counter() - start
    print(f"\n{summary.held_out_bits:.3f} bits per byte, {took:.0f} s in all")
    assert summary.held_out_bits < 2.35
    assert took < 240
    assert summary.model_path.is_file()
    assert summary.plot_path is not None and summary.plot_path.is_file()
