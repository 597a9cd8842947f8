"""Compiled kernels are those of the sources that lie here."""

from __future__ import annotations

from pathlib import Path

from numba.core import caching

from receptance.ops.cpu import elementwise, stamp


def test_a_kernel_is_stamped_with_all_sources(tmp_path: Path) -> None:
    def stamp_of(path: Path) -> object:
        locator = caching.InTreeCacheLocator(elementwise.add.py_func, str(path))
        return locator.get_source_stamp()

    assert stamp.package_stamp() in str(stamp_of(Path(elementwise.__file__)))
    elsewhere = tmp_path / "kernel.py"
    elsewhere.write_text("x = 1\n")
    assert stamp.package_stamp() not in str(stamp_of(elsewhere))


def test_the_stamp_depends_on_every_source(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n")
    found = set()
    original, stamp.HERE = stamp.HERE, tmp_path
    try:
        for text in ("x = 1\n", "x = 2\n"):
            (tmp_path / "b.py").write_text(text)
            stamp.package_stamp.cache_clear()
            found.add(stamp.package_stamp())
    finally:
        stamp.HERE = original
        stamp.package_stamp.cache_clear()
    assert len(found) == 2
