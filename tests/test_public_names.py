"""What is public is listed, exists, and costs nothing until it is used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import typing

import receptance

from .conftest import ROOT


def _constants_classes_functions(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_all_is_sorted_and_has_no_repeats() -> None:
    names = receptance.__all__
    assert names == sorted(set(names), key=_constants_classes_functions)


def test_every_public_name_can_be_had_and_says_what_it_is() -> None:
    for name in receptance.__all__:
        value = getattr(receptance, name)
        assert name == "__version__" or value.__doc__, f"{name} has no docstring"
        assert name in dir(receptance)


def test_the_homes_table_is_complete() -> None:
    assert {*receptance._HOME_OF, "__version__"} == set(receptance.__all__)


def test_type_checkers_see_the_same_names() -> None:
    source = (ROOT / "receptance" / "__init__.py").read_text("utf-8")
    [block] = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {node.module: tuple(name.name for name in node.names) for node in imports} == receptance._HOMES


def test_the_documented_errors_are_the_public_ones() -> None:
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    paragraph = page.partition("\n## Errors\n\n")[2].partition("\n\n")[0]
    documented = re.findall(r"`(?:receptance\.)?(\w+)`", paragraph.partition("A call of the model")[0])
    assert sorted(documented) == sorted(name for name in receptance.__all__ if name.endswith("Error"))


def test_star_import() -> None:
    namespace: dict[str, object] = {}
    exec("from receptance import *", namespace)
    assert set(receptance.__all__) <= set(namespace)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(receptance, "transformer")


def test_the_version_is_the_one_in_pyproject_and_citation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == receptance.__version__
    assert f"\nversion: {receptance.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import receptance, receptance.config, receptance.errors, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "numba", "rich", "typer", "transformers"} & set(loaded)


def test_config_annotations_resolve() -> None:
    assert "version" in typing.get_type_hints(receptance.Config)
