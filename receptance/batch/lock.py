"""One run at a time for a file of results.

    with path.open("ab") as file:
        lock(file, path)                # until the file is closed

The lock is the system's own and not a file, so that a run that was killed leaves none behind.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError

if sys.platform == "win32":
    import msvcrt

    # Windows keeps everybody from reading what is locked; so it is a byte that no file gets to.
    UNREACHED = 2**40

    def _lock(file: BinaryIO) -> None:
        file.seek(UNREACHED)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock(file: BinaryIO, path: Path) -> None:
    """Keep every other run away from an open file.  Raises InputError where one has it."""
    # Some network drives know no locks; there, two runs are the user's to keep apart.
    with suppress(OSError):
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise busy(path) from None


def busy(path: Path) -> InputError:
    """What to say of a file that another run writes to, or has written to since we read it."""
    return InputError(f"another run is writing to {path}; wait until it has ended, or name another file")
