"""The quickstart at a size for the tests: `python -m tests.small_quickstart [FOLDER]`.

The documentation runs it in place of `make quickstart`; same code, same files, a smaller model and shorter contexts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from receptance import Config
from receptance.quickstart import Plan, quickstart

PLAN = Plan(
    config=Config(version="7", vocab_size=256, num_layers=2, dim=64),
    rows=2,
    length=64,
    measured_bytes=2_000,
    compared_tokens=130,
    spoken_bytes=20,
    contexts=(100, 200),
)

if __name__ == "__main__":
    quickstart(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"), seconds=1.0, plan=PLAN)
