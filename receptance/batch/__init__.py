"""Many prompts from a file: one JSON object a line in, one a line out, taken up again where it stopped.

    summary = run(lm, "in.jsonl", "out.jsonl", max_tokens=100, temperature=0.7)

`requests` says what a line may hold, `results` what comes out, `job` does the work.
"""

from .job import Summary, run
from .requests import Request
from .results import Result

__all__ = ["Request", "Result", "Summary", "run"]
