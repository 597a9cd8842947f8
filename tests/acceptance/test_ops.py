"""`make acceptance PART=ops`: how much faster than the time loop the ops must be, forward and backward.

The benchmark's own size; all forms take turns in one process, so that only their ratios matter.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

Speeds = dict[tuple[str, str], float]
PEER = ROOT.parent / "shared" / "sketches" / "chunked_wkv7.py"


@pytest.fixture(scope="module")
def speeds(tmp_path_factory: pytest.TempPathFactory) -> Speeds:
    """How many times the loop's speed each form has, by op and form."""
    out = tmp_path_factory.mktemp("ops") / "ops.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "ops.py"), "--rounds", "3", "--out", str(out)]
    subprocess.run(command, cwd=out.parent, check=True)
    return {(row["op"], row["form"]): row["times the loop's speed"] for row in json.loads(out.read_text())["rows"]}


@pytest.mark.parametrize(("op", "times"), [("wkv7", 8), ("wkv6", 5), ("wkv4", 4)])
def test_the_chunked_form_is_faster_than_the_loop(op: str, times: float, speeds: Speeds) -> None:
    assert speeds[op, "chunked"] >= times


@pytest.mark.skipif(not PEER.is_file(), reason="needs ../shared/sketches, which is not part of the repository")
def test_wkv7_is_no_slower_than_its_peer(speeds: Speeds) -> None:
    assert speeds["wkv7", "chunked"] >= speeds["wkv7", PEER.stem]
