"""Text after a prompt: all at once, as a stream, for several prompts together, and with how likely each token was.

python examples/generate.py [MODEL]
"""

from __future__ import annotations

import math

import which_model

from receptance import LanguageModel
from receptance.generation import PRESETS

# In the form of a conversation, which the model of train_a_chat_model.py and the World models have learned.
PROMPT = "User: what is 17 + 8?\n\nAssistant:"
STOP = "\n\n"


def whole(lm: LanguageModel) -> None:
    """One call; everything about how tokens are chosen is a setting."""
    done = lm.generate(PROMPT, max_tokens=40, stop=STOP, temperature=0)
    print(f"The likeliest answer: {done.text.strip()!r} ({done.finish_reason}, {len(done.tokens)} tokens)")
    drawn = [lm.generate(PROMPT, 40, stop=STOP, sampling=PRESETS["creative"], seed=seed).text for seed in range(4)]
    print("Four drawn by chance:", ", ".join(repr(text.strip()) for text in drawn), "\n")


def streamed(lm: LanguageModel) -> None:
    """The same as it comes, without a stop: the model goes on with a conversation of its own."""
    stream = lm.stream(PROMPT, max_tokens=200, temperature=0.8, top_p=0.9, seed=1)
    for piece in stream:
        print(piece, end="", flush=True)
    print(f"\n({len(stream.completion.tokens)} tokens, ended by {stream.completion.finish_reason})\n")


def several(lm: LanguageModel) -> None:
    """Prompts of any lengths are one batch; none of them notices the others."""
    questions = ("hi", "spell plum", "which is larger, 3 or 14?", "say stone backwards")
    prompts = [f"User: {question}\n\nAssistant:" for question in questions]
    answers = lm.generate(prompts, max_tokens=80, stop=STOP, temperature=0)
    for question, answer in zip(questions, answers, strict=True):
        print(f"{question:28} {answer.text.strip()}")
    alone = lm.generate(prompts[1], max_tokens=80, stop=STOP, temperature=0)
    print(f"The second one alone: {alone.text.strip()}\n")


def likelihoods(lm: LanguageModel) -> None:
    """What the model thought of each token that it chose, and of the runners-up."""
    tokenizer = lm.tokenizer
    assert tokenizer is not None
    done = lm.generate(PROMPT, max_tokens=8, stop=STOP, temperature=0, logprobs=3)
    print("token      chance   the likeliest")
    for place in done.logprobs:
        likeliest = "  ".join(f"{tokenizer.decode([token])!r} {math.exp(log):.0%}" for token, log in place.top)
        print(f"{tokenizer.decode([place.token])!r:8} {math.exp(place.logprob):8.1%}   {likeliest}")


def main() -> None:
    lm = which_model.load()
    whole(lm)
    streamed(lm)
    several(lm)
    likelihoods(lm)


if __name__ == "__main__":
    main()
