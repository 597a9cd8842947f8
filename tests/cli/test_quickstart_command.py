"""`receptance quickstart` hands its options over; the job itself is tested in tests/test_quickstart.py."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from receptance.cli import app
from receptance.errors import ConfigError
from receptance.quickstart import Plan, quickstart


def test_options_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    forget("GOMP_SPINCOUNT", monkeypatch)
    calls: list[tuple[Path, float, str | None]] = []

    def told(out: Path, seconds: float, plan: Plan) -> None:
        calls.append((out, seconds, plan.start))

    monkeypatch.setattr("receptance.quickstart.quickstart", told)
    assert CliRunner().invoke(app, ["quickstart"]).exit_code == 0
    options = ["--out", "there", "--seconds", "5", "--start", "house"]
    assert CliRunner().invoke(app, ["quickstart", *options]).exit_code == 0
    assert CliRunner().invoke(app, ["quickstart", "--seconds", "0"]).exit_code == 2
    assert calls == [(Path("quickstart"), 90.0, None), (Path("there"), 5.0, "house")]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 0.0])
def test_a_time_that_is_none_costs_nothing(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"seconds is {seconds}"):
        quickstart(tmp_path / "out", seconds=seconds)
    assert not (tmp_path / "out").exists()


def forget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset a variable of the environment, also after the test, if it was unset before it."""
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)


IMPORTING = """
import os, sys
from receptance.cli import main
assert "torch" not in sys.modules
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.exit("GOMP_SPINCOUNT is " + os.environ.get("GOMP_SPINCOUNT", "unset"))
sys.meta_path.insert(0, Watch())
sys.argv = ["receptance", "quickstart"]
main()
"""


@pytest.mark.parametrize(("given", "found"), [(None, "1000"), ("ACTIVE", "ACTIVE")])
def test_threads_spin_briefly_from_the_moment_that_pytorch_is_loaded(
    given: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget("GOMP_SPINCOUNT", monkeypatch)
    if given:
        monkeypatch.setenv("GOMP_SPINCOUNT", given)
    result = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True)
    assert result.stderr == f"GOMP_SPINCOUNT is {found}\n"
