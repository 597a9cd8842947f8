"""A small tokenizer file that is built as the Pile models' is, for tests that need no foreign file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from receptance.tokenizers.pile import _BYTE_OF

MERGES = [
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("Ġ", "a"),
    ("Ċ", "Ċ"),
    ("a", "b"),
    ("ab", "ab"),
    ("'", "s"),
    ("Ġ", "Ġ"),
]


def content() -> dict[str, Any]:
    """The file as JSON."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spaces = {**special, "normalized": True, "special": False}
    names = ["<|endoftext|>", "<|padding|>", *_BYTE_OF, *map("".join, MERGES)]
    vocabulary = {name: token for token, name in enumerate(names)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 0, "content": "<|endoftext|>", **special},
            {"id": 1, "content": "<|padding|>", **special},
            *({"id": len(names) + n, "content": " " * (4 - n), **spaces} for n in range(3)),
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "vocab": vocabulary,
            "merges": [" ".join(pair) for pair in MERGES],
        },
    }


def write(path: Path, changed: dict[str, Any] | None = None) -> Path:
    """Write the file, with some of its entries changed."""
    path.write_text(json.dumps({**content(), **(changed or {})}), "utf-8")
    return path
