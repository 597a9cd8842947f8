"""How well a model foretells a text, in bits per byte, beside what a good compressor makes of it.

    python examples/score_a_text.py [MODEL [FILE...]]

The bits are the size that the text would have if it were packed with the help of the model.  Files may be of any
length: the text is read in pieces, and only the state goes from one to the next.
"""

from __future__ import annotations

import lzma
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import which_model

from receptance.evaluation import score

# One text that a chat model has learned the like of, and one that has the same letters in no order.
CONVERSATION = "".join(
    f"User: which is larger, {a} or {b}?\n\nAssistant: {max(a, b)}\n\n" for a in range(1, 20, 2) for b in (4, 10, 16)
)
NO_ORDER = "".join(random.Random(0).sample(CONVERSATION, len(CONVERSATION)))


def texts() -> Iterable[tuple[str, str | Path]]:
    """Names, and the text or the path of a file."""
    files = [Path(name) for name in sys.argv[2:]]
    if files:
        return [(path.name, path) for path in files]
    return [("a conversation", CONVERSATION), ("its letters, shuffled", NO_ORDER), ("this script", Path(__file__))]


def main() -> None:
    lm = which_model.load()
    assert lm.tokenizer is not None
    print(f"{'text':24}{'bytes':>10}{'bits per byte':>16}{'perplexity':>12}{'lzma':>8}{'tokens/s':>10}")
    for name, text in texts():
        data = text.read_bytes() if isinstance(text, Path) else text.encode()
        found = score(lm.model, lm.tokenizer, text if isinstance(text, Path) else [text])
        packed = 8 * len(lzma.compress(data)) / len(data)
        print(
            f"{name:24}{found.num_bytes:10,}{found.bits_per_byte:16.3f}{found.perplexity:12.2f}{packed:8.2f}"
            f"{found.tokens_per_second:10,.0f}"
        )


if __name__ == "__main__":
    main()
