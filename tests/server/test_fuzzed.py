"""A few requests made up out of /openapi.json; `make acceptance PART=serve` makes up 20,000."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis")

from .fuzzing import ask_everything, small_server


def test_whatever_is_asked_is_answered() -> None:
    with small_server() as server:
        answered = ask_everything(server, 100)
        assert answered.num_requests >= 100 and answered.statuses[200] > 0
        server.wait_for("batch", 0.0, 5)
        server.is_well()
