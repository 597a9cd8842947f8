"""A long text is read once; any number of questions then go on from the state it left.

    python examples/state_is_memory.py [MODEL [TEXT.txt QUESTION...]]

A Transformer keeps every token of the text for this.  Here the memory has one size, whatever the length of the text,
and can be copied, kept on disk, and shared by questions that never meet.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
import which_model

from receptance.generation import read

QUESTIONS = ("what is my name?", "who am I?", "what is 6 + 7?", "say stone backwards")


def long_text(rounds: int = 10) -> str:
    """A conversation that begins with a name and goes on about other things for a while.

    What our little model has learned from was half as long; at twice this length it has forgotten the name.
    """
    exchanges = [("my name is Ada", "Your name is Ada.")]
    numbers = ((1 + 7 * turn % 20, 1 + 3 * turn % 20) for turn in range(rounds))
    exchanges += [(f"what is {a} + {b}?", str(a + b)) for a, b in numbers]
    return "".join(f"User: {message}\n\nAssistant: {answer}\n\n" for message, answer in exchanges)


def main() -> None:
    lm = which_model.load()
    text = Path(sys.argv[2]).read_text("utf-8") if len(sys.argv) > 2 else long_text()
    questions = sys.argv[3:] or [*QUESTIONS]
    assert lm.tokenizer is not None

    tokens = [lm.tokenizer.end_of_text, *lm.tokenizer.encode(text)]
    start = time.perf_counter()
    _, state = read(lm.model, [tokens])
    seconds = time.perf_counter() - start
    print(f"Read {len(tokens):,} tokens in {seconds:.2f} s; the state takes {state.num_bytes:,} bytes.")

    # Nothing changes a State in place, so all questions can begin with this one: as a batch, or one after the other.
    prompts = [f"User: {question}\n\nAssistant:" for question in questions]
    start = time.perf_counter()
    answers = lm.generate(prompts, max_tokens=60, stop="\n\n", temperature=0, state=state)
    print(f"Answered {len(questions)} questions in {time.perf_counter() - start:.2f} s:")
    for question, answer in zip(questions, answers, strict=True):
        print(f"  {question:24} {answer.text.strip()}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "read.safetensors")
        state.save(path, lm.model)
        kept = lm.load_state(path)
    again = lm.generate(prompts[0], max_tokens=60, stop="\n\n", temperature=0, state=kept)
    same = all(torch.equal(*pair) for pair in zip(state, kept, strict=True))
    print(f"From the state kept on disk: {again.text.strip()} ({'bit for bit' if same else 'NOT'} the same state)")

    short = [lm.tokenizer.end_of_text, *lm.tokenizer.encode(long_text(rounds=2))]
    print(f"After {len(short)} tokens it would have taken {read(lm.model, [short])[1].num_bytes:,} bytes, too.")


if __name__ == "__main__":
    main()
