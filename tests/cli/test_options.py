"""Facts that the commands repeat, as their help must not load PyTorch: they are those of the parts that do the work."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

from receptance.cli.chat_session import OWN, SETTINGS
from receptance.cli.options import LARGEST_SEED, Dtype, Orders, Preset, TemplateOption
from receptance.cli.options import SETTINGS as OPTIONS
from receptance.devices import DTYPES
from receptance.generation import PRESETS, Sampling
from receptance.generation.noise import LIMIT
from receptance.generation.settings import INTEGERS, NUMBERS, ORDERS
from receptance.templates import TEMPLATES


def named_in_help(option: Any) -> list[str]:
    """The names that the help of an option begins with."""
    return str(get_args(option)[1].help).partition(";")[0].replace(" or a ", ", ").split(", ")


def test_ranges_and_choices() -> None:
    assert LARGEST_SEED == LIMIT - 1 == INTEGERS["seed"][1]
    assert [order.value for order in Orders] == list(ORDERS)
    assert {dtype.torch for dtype in Dtype} == set(DTYPES)


def test_every_setting_can_be_chosen() -> None:
    """But those that are tables of tokens."""
    settings = {field.name for field in fields(Sampling)} - {"logit_bias", "banned"}
    assert set(OPTIONS) == {*NUMBERS, *INTEGERS, "order"} == settings
    assert set(SETTINGS) == settings | set(OWN)
    assert {name for name, read in SETTINGS.items() if read is float} == set(NUMBERS)


def test_names_in_the_help() -> None:
    *templates, file = named_in_help(TemplateOption)
    assert sorted(templates) == sorted(TEMPLATES) and file == "Jinja file"
    *presets, more = named_in_help(Preset)
    assert presets and set(presets) < set(PRESETS) and more == "..."
