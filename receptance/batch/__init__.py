"""Many prompts from a file: one JSON object a line in, one a line out, taken up again where it stopped.

    summary = run(lm, "in.jsonl", "out.jsonl", max_tokens=100, temperature=0.7)

`requests` says what a line may hold, `results` what comes out, `answering` is the step between them, and `job` does all
of it for a file.  A request that is in no file is made ready and answered, or its answer taken apart, in the same way:

    request = request_of(Line(prompt="Hello"), Defaults.of(lm, has_state=False, max_tokens=100, ...))
    [answer] = answers(lm, [request])
    parts = answer_parts(text, request.opening)
"""

from .answering import answers
from .job import Summary, check_files, run
from .requests import Defaults, Line, Request, line_of, request_of
from .results import Result, answer_parts

__all__ = [
    "Defaults",
    "Line",
    "Request",
    "Result",
    "Summary",
    "answer_parts",
    "answers",
    "check_files",
    "line_of",
    "request_of",
    "run",
]
