"""Makes compiled kernels be compiled anew when any file of this package changes.

Numba's cache looks at the file of the function that was called alone, and most of a kernel's code comes from the
functions it calls, in other files: without this, an upgrade could leave old machine code in use.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import caching

HERE = Path(__file__).parent


@cache
def package_stamp() -> str:
    """A digest of all sources of the kernels."""
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stamp_kernels() -> None:
    """From now on Numba's cache takes the sources of this package for one."""
    # The one place of Numba that is not public; a version without it keeps its own ways.
    found: Any = getattr(caching, "_SourceFileBackedLocatorMixin", None)
    if found is None:
        return
    stamp_of = found.get_source_stamp

    def get_source_stamp(locator: Any) -> Any:
        own = stamp_of(locator)
        return (own, package_stamp()) if Path(locator._py_file).parent == HERE else own

    found.get_source_stamp = get_source_stamp
