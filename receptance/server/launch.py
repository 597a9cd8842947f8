"""A server as a process: a socket, uvicorn, and an end in order.

    run(service, settings, host="127.0.0.1", port=8000, drain_seconds=30)

On SIGTERM and on Ctrl-C no more is taken, what is being served is finished, and what is to be kept is written.  What
takes longer than it may is told so.  A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from ..errors import InputError
from .app import create_app
from .face import Settings
from .service import Service

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
# Connections that wait to be taken.
BACKLOG = 2048
# Seconds in which those whose time is over are told so.
LAST_WORDS = 5


class Server(uvicorn.Server):
    """uvicorn's, whose end begins with that of the worker."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: int) -> None:
        super().__init__(config)
        self._service, self._drain_seconds = service, drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal; the second one ends at once, whatever is being waited for."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        # Not uvicorn's own, which would have the process end by the signal.
        self.should_exit = True
        self._service.worker.begin_draining()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for what is being served, and ends in order what takes too long: streams say that they were stopped."""
        ending = asyncio.create_task(self._end_late())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end_late(self) -> None:
        await asyncio.sleep(self._drain_seconds)
        await asyncio.to_thread(self._service.close)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A socket to listen at; port 0 is any free one.  Raises InputError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen at {host}, port {port}: {reason}; give another --host or --port") from error
    except UnicodeError as error:
        raise InputError(f"{host!r} is no address to listen at; give another --host") from error
    except OverflowError as error:
        raise InputError(f"a port is a number from 0 to 65535, got {port}") from error


def log_to_stderr() -> None:
    """One line a request, and what goes wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("receptance", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)


def run(
    service: Service,
    settings: Settings,
    listening: socket.socket,
    drain_seconds: int = 30,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal comes.  `on_start` is called before the first request is taken."""
    config = uvicorn.Config(
        create_app(service, settings),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        # Whatever else is installed: it bounds the headers.
        http="h11",
        timeout_graceful_shutdown=drain_seconds + LAST_WORDS,
        timeout_keep_alive=30,
    )
    on_start()
    Server(config, service, drain_seconds).run([listening])
