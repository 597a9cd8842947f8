"""The server that most of these tests ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receptance.server import Settings

from .serving import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for all tests, known by its address alone; bodies may be a mebibyte and take a second to arrive."""
    with serving(Settings(hosts=("127.0.0.1",), most_bytes=2**20, body_seconds=1.0), slots=8, waiting=64) as running:
        yield running
