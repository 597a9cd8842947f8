"""Who may import whom, read off the source; docs/architecture.md shows the same table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

PACKAGE = ROOT / "receptance"

# A module imports from lower rows only, and from its own package.
ROWS = (
    {"display", "errors", "replacing"},
    {"config", "devices", "hub"},
    {"ops", "tokenizers", "templates", "catalogue"},
    {"state", "data"},
    {"models"},
    {"checkpoints", "baselines"},
    {"quant"},
    {"runtime", "adapters"},
    {"generation", "plots", "describe", "official"},
    {"training", "engine", "language_model"},
    {"experiment", "evaluation", "interpret", "verify", "batch"},
    {"server", "quickstart"},
    {"many"},
    {"cli"},
    {"__main__"},
)
ROW = {part: number for number, parts in enumerate(ROWS) for part in parts}

# Libraries that only some files may import, wherever the import stands.
ONLY = {
    "triton": ("ops/triton/",),
    "numba": ("ops/cpu/",),
    "matplotlib": ("plots.py",),
    "pyarrow": ("data/",),
    "datasets": ("data/",),
    "peft": ("adapters.py",),
    "tensorboard": ("training/",),
    "rwkv": ("official.py",),
    "transformers": ("hf.py",),
    "typer": ("cli/",),
    "fastapi": ("server/",),
    "uvicorn": ("server/",),
    "prometheus_client": ("server/",),
    "llguidance": ("server/",),
    "ray": ("many/",),
}

# What must load without PyTorch: nothing here imports it at the top, itself or through others.
TORCH_FREE = (
    "__init__",
    "__main__",
    "catalogue",
    "cli",
    "config",
    "display",
    "errors",
    "hub",
    "replacing",
    "templates",
    "tokenizers",
)

FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]


def part_of(path: Path) -> str:
    """The row's entry that a file belongs to: its top folder, or its own name."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, everywhere: bool) -> Iterator[tuple[str, int]]:
    """Absolute names of all modules that a file imports, with the line; without `everywhere` only at import time."""
    package = ("receptance", *path.relative_to(PACKAGE).parent.parts)
    for node in _nodes(ast.parse(path.read_text("utf-8")), everywhere):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
            # `from . import config` imports a module, `from .config import Config` a name out of one.
            yield from ((base if node.module else f"{base}.{alias.name}", node.lineno) for alias in node.names)


def _nodes(tree: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if not everywhere and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        yield from _nodes(node, everywhere)


def own_parts(path: Path, everywhere: bool) -> Iterator[tuple[str, int]]:
    """The parts of this package that a file imports."""
    for name, line in imports(path, everywhere):
        pieces = name.split(".")
        if pieces[0] == "receptance" and len(pieces) > 1 and pieces[1] != "__version__":
            yield pieces[1], line


def test_every_part_has_a_row() -> None:
    parts = {part_of(path) for path in FILES} - {"__init__"}
    assert not parts - ROW.keys(), "give the new part a row here and in docs/architecture.md"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_downwards(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return  # the public face, whose imports wait for their first use
    for other, line in own_parts(path, everywhere=True):
        assert other == part or ROW[other] < ROW[part], f"{path}:{line}: {part} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_libraries_stay_where_they_belong(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    for name, line in imports(path, everywhere=True):
        allowed = ONLY.get(name.split(".")[0])
        assert allowed is None or place.startswith(allowed), f"{path}:{line}: {name} belongs in {', '.join(allowed)}"


def test_torch_free_parts_import_no_torch() -> None:
    heavy = {
        part
        for path in FILES
        for part in [part_of(path)]
        if any(name.split(".")[0] in ("torch", "numpy", "numba") for name, _ in imports(path, everywhere=False))
    }
    for path in FILES:
        if part_of(path) in TORCH_FREE:
            assert part_of(path) not in heavy, f"{path} imports PyTorch or numpy at its top"
            loaded = {other for other, _ in own_parts(path, everywhere=False)}
            assert not loaded & heavy, f"{path} loads PyTorch through {loaded & heavy}"


# Names that must not occur in a part: ops are mathematics on tensors, and a model file contains a model.
FOREIGN = {
    "ops": {"Config", "Module", "Parameter", "optim", "environ"},
    "models": {"Path", "open", "print", "optim", "environ", "logging", "distributed"},
    "tokenizers": {"torch"},
    "templates": {"torch"},
}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_parts_know_only_their_own_business(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
        foreign = name in FOREIGN.get(part_of(path), set())
        assert not foreign, f"{path}:{getattr(node, 'lineno', '?')}: {name} is no business of {part_of(path)}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_stay_readable(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 500, f"{path} has {len(lines)} lines; does it hold one subject?"
    assert not lines or ast.get_docstring(ast.parse("\n".join(lines))), f"{path} does not say what it is"


@pytest.mark.parametrize("name", ["utils", "util", "common", "helpers", "misc"])
def test_no_drawer_for_odds_and_ends(name: str) -> None:
    assert not [path for path in FILES if name in (path.stem, path.parent.name)]


def test_the_documented_table_is_this_one() -> None:
    """docs/architecture.md lists every part of every row that exists."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = {}
    for line in page.splitlines():
        number, _, parts = line.strip().partition("  ")
        if number.isdigit():
            rows[int(number)] = set(parts.split())
    existing = {part_of(path) for path in FILES} - {"__init__"}
    for number, parts in enumerate(ROWS):
        assert rows.get(number, set()) == parts & existing, f"row {number} of docs/architecture.md"
