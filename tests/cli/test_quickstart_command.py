"""`receptance quickstart` hands its options over; the job itself is tested in tests/test_quickstart.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from receptance.cli import app


def test_options_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, float]] = []
    monkeypatch.setattr("receptance.quickstart.quickstart", lambda out, seconds: calls.append((out, seconds)))
    assert CliRunner().invoke(app, ["quickstart"]).exit_code == 0
    assert CliRunner().invoke(app, ["quickstart", "--out", "there", "--seconds", "5"]).exit_code == 0
    assert CliRunner().invoke(app, ["quickstart", "--seconds", "0"]).exit_code == 2
    assert calls == [(Path("quickstart"), 90.0), (Path("there"), 5.0)]
