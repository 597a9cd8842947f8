"""How many replicas there are and what each of them has; and what is said where that cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from receptance.cli import app
from receptance.errors import InputError

pytest.importorskip("ray.serve")

from receptance.many import Replicas
from receptance.many.serving import resources_of


@pytest.mark.parametrize(("text", "least", "most"), [("1", 1, 1), ("4", 4, 4), ("2:8", 2, 8), ("3:3", 3, 3)])
def test_replicas_are_a_number_or_a_range(text: str, least: int, most: int) -> None:
    assert Replicas.of(text) == Replicas(least, most)


@pytest.mark.parametrize("text", ["", "0", "-1", "a", "1:", ":2", "3:2", "0:2", "1:2:3", "1.5", "1-2"])
def test_anything_else_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match="as 4, or the least and the most of them, as 2:8"):
        Replicas.of(text)


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


def test_cores_are_divided_among_replicas(caplog: pytest.LogCaptureFixture) -> None:
    assert resources_of([node(CPU=8)], Replicas()) == {"num_cpus": 8}
    assert resources_of([node(CPU=8)], Replicas(1, 3)) == {"num_cpus": 2}
    assert resources_of([node(CPU=8), node(CPU=4), node(alive=False, CPU=64)], Replicas(3, 3)) == {"num_cpus": 4}
    assert not caplog.messages
    assert resources_of([node(CPU=2)], Replicas(5, 9)) == resources_of([], Replicas()) == {"num_cpus": 1}
    assert caplog.messages[0] == "the cluster has room for 2 of 5 replicas; the others wait for machines"


def test_a_gpu_goes_to_each_replica_unless_another_device_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [node(CPU=8), node(CPU=8, GPU=2)]
    two = Replicas(2, 2)
    assert resources_of(nodes, two) == resources_of(nodes, two, "cuda") == {"num_gpus": 1}
    assert resources_of(nodes, two, "cpu") == {"num_cpus": 8}
    assert resources_of([node(CPU=8)], two, "cuda") == {"num_cpus": 4}
    assert not caplog.messages
    assert resources_of(nodes, Replicas(3, 3)) == {"num_gpus": 1} and caplog.messages


def test_replicas_without_ray_are_refused() -> None:
    result = CliRunner().invoke(app, ["serve", "model.pth", "--replicas", "2"])
    assert result.exit_code == 2 and "--replicas goes with --ray" in result.output


def test_without_ray_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from receptance.__main__ import main; main()"
    command = [sys.executable, "-c", code, "serve", "model.pth", "--ray", "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    said = "receptance: work on many machines needs ray; install it with: pip install 'receptance[ray]'\n"
    assert (result.returncode, result.stderr) == (2, said)
