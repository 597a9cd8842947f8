"""The tokenizer of the Pile models: byte-level BPE, from a file of the `tokenizers` library.

PileTokenizer("20B_tokenizer.json").encode("Hello world")  # [12092, 1533]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .tokenizer import Tokenizer, utf8

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Encoder

REPOSITORY, FILE_NAME = "EleutherAI/gpt-neox-20b", "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"
MOST_BYTES = 2**26
MOST_IDS = 2**20

# The last place of a text where it can be cut: before white space that follows none, and between the punctuation of
# Chinese and Japanese and a letter of theirs, as they write without spaces.  No token reaches over such a place, and no
# character is composed with the one before it there.
_STOPS = r"\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
_LETTERS = r"\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5"
_CUT = re.compile(rf"(?s:.*)(?:(?<=\S)(?=[ \t\r\n])|(?<=[{_STOPS}])(?=[{_LETTERS}]))")


class PileTokenizer(Tokenizer):
    """Byte-level byte pair encoding, as of GPT-NeoX-20B.

    The text is brought to Unicode's composed form (NFC) before it is encoded, so what comes back is the text in that
    form.  `<|endoftext|>` in a text is the end of a document, id 0, and decodes to nothing, as does `<|padding|>`.  A
    stream can be cut before white space and after Chinese and Japanese punctuation.
    """

    name = "pile"

    def __init__(self, path: str | Path) -> None:
        """Read a `20B_tokenizer.json`, or another tokenizer that is built in the same way.

        Raises CheckpointError where the file cannot be read or is no such tokenizer.
        """
        self._encoder = _open(Path(path))
        vocabulary = self._encoder.get_vocab(with_added_tokens=True)
        special = {token.content for token in self._encoder.get_added_tokens_decoder().values() if token.special}
        if END_OF_TEXT not in special:
            raise _foreign(path, f"it has no special token {END_OF_TEXT}")
        if any(letter not in vocabulary for letter, byte in _BYTE_OF.items() if byte not in _NEVER_IN_UTF8):
            raise _foreign(path, "it has no token for some bytes")
        if max(vocabulary.values()) >= MOST_IDS:
            raise _foreign(path, "its ids are too large")
        self._table = _table(self._encoder)
        self.end_of_text = vocabulary[END_OF_TEXT]
        self.vocab_size = len(self._table)

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        utf8(text)
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def _settled(self, text: str) -> tuple[list[int], str]:
        match = _CUT.match(text)
        cut = match.end() if match else 0
        return self.encode(text[:cut]), text[cut:]


def _foreign(path: str | Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is no tokenizer of the Pile models: {reason}; give their 20B_tokenizer.json")


def _open(path: Path) -> Encoder:
    from tokenizers import Tokenizer as Encoder

    text = _read(path)
    try:
        encoder = Encoder.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    # The library is in Rust, and what it has not foreseen is no Exception.
    except BaseException as error:
        raise _foreign(path, " ".join(str(error).split()) or type(error).__name__) from error
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _read(path: Path) -> str:
    """The text of a tokenizer file in which every part is known here."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _foreign(path, "it is too large")
        text = path.read_text("utf-8")
        content = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError):
        raise _foreign(path, "it is not JSON") from None
    reason = _unknown(content)
    if reason is not None:
        raise _foreign(path, reason)
    return text


def _unknown(content: Any) -> str | None:
    """What a tokenizer file has that this module does not know how to stream or to decode."""
    if not isinstance(content, Mapping):
        return "it is no JSON object"
    model, splitting = _mapping(content, "model"), _mapping(content, "pre_tokenizer")
    if model.get("type") != "BPE" or splitting.get("type") != "ByteLevel":
        return "it is not byte-level BPE"
    if splitting.get("add_prefix_space") or splitting.get("use_regex") is False:
        return "it splits text in another way"
    if any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")):
        return "it has other options of BPE"
    if content.get("normalizer") is not None and _mapping(content, "normalizer").get("type") != "NFC":
        return "it changes the text before it encodes"
    added = content.get("added_tokens")
    if not isinstance(added, list) or not all(map(_known_addition, added)):
        return "it has added tokens of another kind"
    return None


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def _known_addition(token: Any) -> bool:
    """Whether this is a run of spaces, or a word that takes no part of the text around it."""
    if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
        return False
    text = token["content"]
    alone = not any(token.get(key) for key in ("single_word", "lstrip", "rstrip"))
    # Letters beyond ASCII could be composed with what is beside them.
    one_word = text.isascii() and re.search(r"\s", text) is None
    return alone and bool(text) and (one_word or text.strip(" ") == "")


def _byte_of() -> dict[str, int]:
    """The byte that each letter of GPT-2's alphabet stands for.

    A byte that Latin-1 prints stands for itself; the others have the letters from U+0100 on, in order.
    """
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_of()
_NEVER_IN_UTF8 = (0xC0, 0xC1, *range(0xF5, 0x100))


def _table(encoder: Encoder) -> list[bytes]:
    """The bytes of each id; added tokens are written as they are, and special ones stand for nothing."""
    by_id = {token: _bytes(text) for text, token in encoder.get_vocab(with_added_tokens=False).items()}
    for token, added in encoder.get_added_tokens_decoder().items():
        by_id[token] = b"" if added.special else added.content.encode("utf-8")
    return [by_id.get(token, b"") for token in range(max(by_id) + 1)]


def _bytes(text: str) -> bytes:
    # Other letters are only in entries that no text encodes to, or that an added token replaces.
    return bytes(_BYTE_OF[letter] for letter in text if letter in _BYTE_OF)
