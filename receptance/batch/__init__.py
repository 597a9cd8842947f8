"""Many prompts from a file: one JSON object a line in, one a line out, taken up again where it stopped.

    summary = run(lm, "in.jsonl", "out.jsonl", max_tokens=100, temperature=0.7)

`requests` says what a line may hold, `results` what comes out, `job` does the work.  A single request is made ready and
its answer taken apart in the same way:

    request = request_of(Line(prompt="Hello"), Defaults.of(lm, has_state=False, max_tokens=100, ...))
    parts = answer_parts(text, request.opening)
"""

from .job import Summary, check_files, run
from .requests import Defaults, Line, Request, request_of
from .results import Result, answer_parts

__all__ = ["Defaults", "Line", "Request", "Result", "Summary", "answer_parts", "check_files", "request_of", "run"]
