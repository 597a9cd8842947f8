"""From requests to answers: what is computed together, taken apart again.

answers(lm, [request])        # [{"text": ..., "finish_reason": "stop", "num_prompt_tokens": 5, "num_tokens": 20}]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError
from ..generation import Prompt, complete
from ..language_model import LanguageModel
from ..state import State
from .requests import Request
from .results import answer_parts


def answers(
    lm: LanguageModel,
    batch: Sequence[Request],
    state: State | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """The fields of a `Result` that are the answer, for each request; one without a seed is drawn one.

    A request that cannot be computed does not take the others with it: its answer is an error.  `on_step` is called
    with the number of rows that got a token, whether or not that comes to an answer.
    """
    tokenizer = lm.known_tokenizer()
    prompts = [Prompt(asked.prompt, asked.sampling, asked.max_tokens, asked.stops, asked.noise) for asked in batch]
    try:
        completions = complete(lm.model, tokenizer, prompts, state=state, on_step=on_step)
    except InputError as error:
        if len(batch) > 1:
            return [answer for request in batch for answer in answers(lm, [request], state, on_step)]
        return [{"finish_reason": "error", "error": str(error)}]
    return [
        {
            **answer_parts(completion.text, request.opening),
            "finish_reason": completion.finish_reason,
            "num_prompt_tokens": completion.num_prompt_tokens,
            "num_tokens": len(completion.tokens),
        }
        for request, completion in zip(batch, completions, strict=True)
    ]
