"""A template of one's own: a Jinja file that decides how a conversation is written for the model.

    python examples/own_template.py [MODEL]
    receptance chat --template examples/own_template.jinja MODEL

The one here turns a system message, facts about the user, into a message and an answer such as the model has learned
to understand.
"""

from __future__ import annotations

from pathlib import Path

import which_model

from receptance.generation import PRESETS, Chat
from receptance.templates import Message, open_template

PROFILE = "name: Ada"


def main() -> None:
    lm = which_model.load()
    assert lm.tokenizer is not None
    template = open_template(Path(__file__).with_name("own_template.jinja"))

    print("What the model reads:\n")
    print(template.prompt([Message("system", PROFILE), Message("user", "what is my name?")]), "\n")

    # `receptance.load(path, template=...)` does the same for everything that is done with the model.
    greedy = PRESETS["greedy"]
    chat = Chat(lm.model, lm.tokenizer, template, system=PROFILE, sampling=greedy, max_tokens=60)
    for question in ("who am I?", "what is 7 + 5?", "what is my name?"):
        print(f"> {question}\n  {chat.ask(question).text}")


if __name__ == "__main__":
    main()
