"""A conversation from Python: ask, take back, try again, go two ways, save and go on later.

    python examples/conversation.py [MODEL]

All of these are quick however much was said, because the memory of a conversation is a state of fixed size: to take
something back is to use the state of before, and to fork is to use the same state twice.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import which_model

from receptance.generation import PRESETS, Chat


def ask(chat: Chat, message: str) -> None:
    """Says something and shows the answer while it comes."""
    print(f"  > {message}\n    ", end="")
    for piece in chat.stream(message):
        print(piece.text, end="", flush=True)
    print()


def main() -> None:
    lm = which_model.load()
    chat = lm.chat(sampling=PRESETS["greedy"], max_tokens=100)

    print("Told in one message, asked for in another; in between there is only the state:")
    ask(chat, "my name is Ada")
    ask(chat, "what is 17 + 8?")
    ask(chat, "what is my name?")
    assert chat.state is not None and chat.reply is not None
    print(f"The state takes {chat.state.num_bytes:,} bytes; {chat.reply.tokens_per_second:,.0f} tokens/s.\n")

    print("Taken back, as if it had never been said:")
    while chat.messages:
        question, _ = chat.undo()
        print(f"  undone: {question.content}")
    ask(chat, "what is my name?")

    print("\nTried again, with other noise:")
    chat.sampling = PRESETS["creative"]
    print("   ", "".join(piece.text for piece in chat.retry()))

    print("\nForked: two conversations with the same past.")
    chat.sampling = PRESETS["greedy"]
    ask(chat, "spell plum")
    other = chat.fork()
    ask(chat, "my name is Bob")
    ask(other, "my name is Eve")
    for each in (chat, other):
        ask(each, "who am I?")

    print("\nSaved, and gone on with later:")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "chat.safetensors")
        chat.save(path)
        print(f"  {path.stat().st_size:,} bytes on disk")
        later = lm.chat(sampling=PRESETS["greedy"], max_tokens=100)
        later.load(path)
    ask(later, "what is my name?")
    later.undo()
    print("  The past was saved too: it can still be taken back,", len(later.messages), "messages are left.")


if __name__ == "__main__":
    main()
