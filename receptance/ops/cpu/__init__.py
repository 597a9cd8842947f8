"""CPU kernels in Numba: Python that LLVM compiles for the processor it runs on, cached on disk.

Nothing here is imported, compiled or probed before a kernel is asked for; `refusal()` says why none can be had.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["announce", "compiling", "refusal"]

_announcements: list[Callable[[], None]] = []
_refusals: list[str | None] = []


def refusal() -> str | None:
    """Why no kernel of this package can serve on this machine, as a sentence; None where they can."""
    # Not `functools.cache`, of which torch.compile warns that it does not see it.
    if not _refusals:
        try:
            import numba  # noqa: F401

            _refusals.append(None)
        except ImportError as error:
            _refusals.append(f"Numba cannot be imported ({error}); pip install numba")
    return _refusals[0]


def announce(compiling: Callable[[], None]) -> None:
    """Have `compiling()` called, once, before the first kernel that is not in the cache is compiled."""
    _announcements[:] = [compiling]


def compiling() -> None:
    """A kernel is about to be compiled."""
    while _announcements:
        _announcements.pop()()
