"""Every string and id that other implementations gave, and all of LAMBADA by its digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from receptance.tokenizers import PileTokenizer, Tokenizer, WorldTokenizer


@pytest.fixture(scope="module")
def expected(fixtures: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures / "tokenizer" / "expected_ids.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def both(world: WorldTokenizer, pile: PileTokenizer) -> dict[str, Tokenizer]:
    return {"world": world, "pile20b": pile}


@pytest.mark.parametrize("name", ["world", "pile20b"])
def test_strings(name: str, expected: dict[str, Any], both: dict[str, Tokenizer]) -> None:
    strings = [entry for key, entry in expected.items() if key != "_digests"]
    assert len(strings) == 15
    for entry in strings:
        assert both[name].encode(entry["text"]) == entry[name]


@pytest.mark.parametrize("name", ["world", "pile20b"])
def test_lambada(name: str, fixtures: Path, expected: dict[str, Any], both: dict[str, Tokenizer]) -> None:
    (digests,) = expected["_digests"].values()
    records = (fixtures / "data" / "lambada_test.jsonl").read_text("utf-8").splitlines()
    ids = [both[name].encode(json.loads(record)["text"]) for record in records]
    assert sum(map(len, ids)) == digests[f"{name}_tokens"]
    lines = "".join(" ".join(map(str, row)) + "\n" for row in ids)
    assert hashlib.sha256(lines.encode()).hexdigest() == digests[name]


def test_ids_of_other_projects(world: WorldTokenizer) -> None:
    ids = {
        "\n": [11],
        "\n\n": [261],
        "User": [24281],
        "Assistant": [5585, 41693],
        " Assistant": [58683],
        " <think": [295, 35762],
        "></": [5439],
        "✿": [10060],
        "Hello world": [33155, 40213],
        "你好": [10464, 11685],
        " 42": [3515],
        "。\n\n": [28329, 11],
    }
    assert {text: world.encode(text) for text in ids} == ids
