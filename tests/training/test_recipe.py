"""Recipes: read, changed, checked; what is wrong with one is told in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from receptance.config import Config
from receptance.errors import ConfigError
from receptance.training import Batching, Optim, Recipe, Schedule, Training, parse_changes, shipped_recipes

GOOD = """
[model]
version = "7"
vocab_size = 256
num_layers = 2
dim = 64

[data]
train = "books"

[schedule]
steps = 10
"""


def read(tmp_path: Path, text: str = GOOD, **changes: Any) -> Recipe:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return Recipe.read(path, {key.replace("__", "."): value for key, value in changes.items()})


def test_a_recipe_is_read_with_the_official_values(tmp_path: Path) -> None:
    recipe = read(tmp_path)
    assert recipe.name == "mine" and recipe.model.config().num_layers == 2
    optim = recipe.optim
    assert (optim.betas, optim.eps, optim.clip, optim.l2wrap) == ((0.9, 0.99), 1e-18, 1.0, 1e-4)
    assert recipe.schedule.warmup_steps == 10 and recipe.schedule.warmup_from == 0.01


def test_values_can_be_changed_and_a_new_length_takes_the_place_of_the_old(tmp_path: Path) -> None:
    recipe = read(tmp_path, optim__lr=3e-4, schedule__tokens=5000, name="other")
    assert (recipe.optim.lr, recipe.schedule.tokens, recipe.schedule.steps, recipe.name) == (3e-4, 5000, None, "other")


def test_changes_are_told_as_on_the_command_line() -> None:
    given = ["optim.lr=3e-4", "data.train=books", "batch.apart = true", "optim.betas=[0.9, 0.95]", 'name="a=b"']
    assert parse_changes(given) == {
        "optim.lr": 3e-4,
        "data.train": "books",
        "batch.apart": True,
        "optim.betas": [0.9, 0.95],
        "name": "a=b",
    }


@pytest.mark.parametrize("name", shipped_recipes())
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    recipe = Recipe.read(name)
    (tmp_path / "again.toml").write_text(recipe.to_toml(), "utf-8")
    assert Recipe.read(tmp_path / "again.toml") == recipe
    assert Recipe.read(f"recipes/{name}.toml") == recipe


def test_strange_letters_survive(tmp_path: Path) -> None:
    recipe = read(tmp_path, watch__prompt='a "b"\\\n\t\x00é\u2028😀')
    (tmp_path / "again.toml").write_text(recipe.to_toml(), "utf-8")
    assert Recipe.read(tmp_path / "again.toml").watch.prompt == recipe.watch.prompt


def test_the_shipped_world_recipe_is_the_official_setting() -> None:
    recipe = Recipe.read("pretrain-v7")
    assert recipe.model.config() == Config(version="7", vocab_size=65536, num_layers=12, dim=768)
    assert (recipe.batch.rows, recipe.batch.length, recipe.batch.order) == (16, 512, "magic-prime")
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.eps) == (6e-4, 0.001, 1e-18)
    assert recipe.optim.lr * recipe.schedule.end == pytest.approx(6e-5)
    assert (recipe.schedule.tokens, recipe.schedule.shape) == (1_498_226_207, "cosine")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"optim__learning_rate": 1}, r"\[optim\] has no 'learning_rate'"),
    "misspelt key": ({"optim__weight_deca": 1}, r"has no 'weight_deca'; did you mean weight_decay\?"),
    "misspelt section": ({"optimm__lr": 1}, r"a recipe has no 'optimm'; did you mean optim\?"),
    "text for a number": ({"batch__rows": "many"}, "batch.rows is 'many'; it should be a valid integer"),
    "negative rate": ({"optim__lr": -1.0}, "optim.lr is -1.0; it should be greater than 0"),
    "no rows": ({"batch__rows": 0}, "batch.rows is 0; it should be greater than or equal to 1"),
    "rows that do not divide": ({"batch__rows_at_once": 3}, "it must divide batch.rows, 16"),
    "unknown order": ({"batch__order": "suffled"}, "batch.order is 'suffled'; did you mean shuffled"),
    "unknown shape": ({"schedule__shape": "step"}, "schedule.shape is 'step'"),
    "two lengths": ({"schedule": {"steps": 3, "tokens": 5}}, "schedule has tokens and steps; give exactly one"),
    "betas beyond 1": ({"optim__betas": [0.9, 1.5]}, "optim.betas is .*; both are shares"),
    "three betas": ({"optim__betas": [0.9, 0.9, 0.9]}, "optim.betas"),
    "infinity": ({"optim__lr": float("inf")}, "optim.lr is inf; it should be a finite number"),
    "unknown precision": ({"compute__precision": "float16"}, "compute.precision is 'float16'; it should be 'auto'"),
    "unknown method": ({"finetune__method": "qlora"}, "finetune.method is 'qlora'; it should be 'full'"),
    "no section": ({"optim": 3}, "optim is 3; it should be a valid dictionary"),
    "a name with a slash": ({"name": "a/b"}, "name is 'a/b'; it should match pattern"),
    "a section within a value": ({"data__train__x": 1}, "data.train.x is no place in a recipe: train is no section"),
    "no data": ({"data": {}}, "a recipe needs data.train; give it a value"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_told_in_one_sentence(kind: str, tmp_path: Path) -> None:
    changes, words = BAD[kind]
    with pytest.raises(ConfigError, match=words) as caught:
        read(tmp_path, **changes)
    assert "\n" not in str(caught.value)


MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "incomplete": ({"model": {"version": "7"}}, r"\[model\] says nothing of vocab_size, num_layers, dim"),
    "unknown version": ({"model__version": "9"}, "RWKV version '9' is not one of"),
    "heads that do not fit": ({"model__head_size": 48}, "cannot be cut into heads of 48"),
    "unknown preset": ({"model__preset": "rwkv7-1b"}, "no preset is called 'rwkv7-1b'; did you mean"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_that_cannot_be_are_told(kind: str, tmp_path: Path) -> None:
    changes, words = MODELS[kind]
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, **changes).model.config()


FILES: dict[str, tuple[bytes, str]] = {
    "no TOML": (b"[model\n", r"is no TOML: .*line 1"),
    "a value twice": (b"name = 'a'\nname = 'b'\n", "is no TOML"),
    "no text": (b"\xff\xfe\x00", "is no recipe, which is a text in UTF-8"),
    "nothing": (b"", "a recipe needs"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_recipe_are_told(kind: str, tmp_path: Path) -> None:
    content, words = FILES[kind]
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        Recipe.read(tmp_path / "x.toml")
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"there is no recipe quikstart; did you mean quickstart\?"):
        Recipe.read("quikstart")
    with pytest.raises(ConfigError, match=r"there is no recipe no/such\.toml; give a file, or one of chat,"):
        Recipe.read("no/such.toml")


@pytest.mark.parametrize("given", ["optim.lr", "=3", ""])
def test_a_change_that_is_none_is_told(given: str) -> None:
    with pytest.raises(ConfigError, match=r"sets nothing; write it as section\.key=value"):
        parse_changes([given])


def test_sections_are_values_that_cannot_be_changed_in_place() -> None:
    plan = Training(schedule=Schedule(steps=3), batch=Batching(rows=2))
    with pytest.raises(ConfigError, match="did you mean lr"):
        Optim(lrr=3)
    other = plan.changed(batch={"rows": 4})
    assert (plan.batch.rows, other.batch.rows, other.schedule) == (2, 4, plan.schedule)
