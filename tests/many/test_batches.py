"""Answers to a data set: each row's what it would be in a file, or alone, wherever it is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from receptance import InputError, load
from receptance.batch import run
from receptance.language_model import LanguageModel
from receptance.server import Recipe

pytest.importorskip("ray.data")

from receptance.many.batches import _Answerer, generate

LINES: list[dict[str, Any]] = [
    {"prompt": "Once upon a time"},
    {"prompt": "x", "id": "second", "max_tokens": 3},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]},
    {"prompt": "y", "seed": 5, "temperature": 1.5, "order": "usual"},
    {"messages": [{"role": "user", "content": "Think."}], "think": "on", "max_tokens": 5},
    {"prompt": "é", "banned": [0, 10], "stop": ["q"]},
]
SAME = ("text", "finish_reason", "num_prompt_tokens", "num_tokens", "seed", "request")


@pytest.fixture(scope="module")
def lm(recipe: Recipe) -> LanguageModel:
    return load(recipe.model, **recipe.loading)


def answered(recipe: Recipe, rows: list[dict[str, Any]], workers: int = 1, **given: Any) -> list[dict[str, Any]]:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    return generate(dataset, recipe.model, loading=recipe.loading, workers=workers, batch_size=2, **given).take_all()


def test_two_workers_answer_as_one_file_is_answered(
    cluster: None, recipe: Recipe, lm: LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("\n".join(map(json.dumps, LINES)))
    run(lm, tmp_path / "in", tmp_path / "out", seed=3, max_tokens=8, batch_size=3)
    expected = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    rows = [{"messages": None, **line, "request": number, "label": number} for number, line in enumerate(LINES)]
    # Rows have the same columns.
    names = {name for row in rows for name in row}
    found = answered(recipe, [dict.fromkeys(names) | row for row in rows], workers=2, seed=3, max_tokens=8)
    assert sorted(row["label"] for row in found) == list(range(len(LINES)))
    for row in found:
        result = expected[row["label"]]
        assert {name: row[name] for name in SAME} == {name: result[name] for name in SAME}
        assert row["thought"] == (result.get("thought") or "") and row["error"] == ""


def alone(recipe: Recipe, rows: list[dict[str, Any]], **given: Any) -> list[dict[str, Any]]:
    """What one worker makes of a table."""
    pyarrow = pytest.importorskip("pyarrow")
    defaults = {"sampling": None, "changes": {}, "max_tokens": 4, "stops": (), "think": None}
    found = _Answerer(recipe.model, recipe.loading, defaults | given, 7)(pyarrow.Table.from_pylist(rows))
    return list(found.to_pylist())


def test_the_same_row_gets_the_same_answer_anywhere(recipe: Recipe, lm: LanguageModel) -> None:
    said = (("x", None), ("y", None), ("x", None), ("x", "named"))
    first, other, again, named = alone(recipe, [{"prompt": prompt, "id": name} for prompt, name in said])
    assert first["request"] == again["request"] and first["text"] == again["text"]
    assert len({first["request"], other["request"], named["request"]}) == 3
    for row in (first, other, named):
        assert row["text"] == lm.generate(row["prompt"], 4, seed=row["seed"], request=row["request"]).text


def test_a_row_that_cannot_be_answered_takes_no_other_with_it(recipe: Recipe) -> None:
    rows = [
        {"prompt": "x", "temperature": -1.0, "request": 0},
        {"prompt": None, "temperature": 1.0, "request": 1},
        {"prompt": "y", "temperature": 1.0, "request": -2},
        {"prompt": "z", "temperature": 1.0, "request": 3},
    ]
    *bad, good = alone(recipe, rows)
    assert [row["finish_reason"] for row in bad] == ["error"] * 3
    wanted = ["temperature", "needs either a prompt or messages", "request is a whole number"]
    assert all(words in row["error"] for row, words in zip(bad, wanted, strict=True))
    assert good["error"] == "" and good["num_tokens"] == 4


def test_other_columns_pass_and_earlier_answers_give_way(recipe: Recipe) -> None:
    [row] = alone(recipe, [{"prompt": "x", "label": [1, 2], "text": "an older answer", "seed": None}])
    assert row["label"] == [1, 2] and row["text"] != "an older answer" and row["seed"] == 7


def test_a_data_set_without_prompts_is_refused(recipe: Recipe) -> None:
    with pytest.raises(InputError, match="no column prompt and no column messages"):
        alone(recipe, [{"question": "x"}])
