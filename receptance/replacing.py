"""A file, or a folder of weights, written whole or not at all.

with replacing(path) as partial:        # `path` appears when the block ends well, or not at all
    partial.write_bytes(...)
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The names under which a Hugging Face folder holds weights.  Nothing else in a folder is ours to delete.
WEIGHTS = re.compile(
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|pytorch_model(-\d{5}-of-\d{5})?\.bin|pytorch_model\.bin\.index\.json"
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new name to write a file or folder to, which becomes `path` when the block ends without an error.

    A folder that exists keeps its other files; its weights are replaced.  A link stays, and what it leads to is
    replaced.  An OSError from the block names `path` where it names no file.
    """
    target = Path(os.path.realpath(path))
    # In the folder itself where there is one: what is beside it can be another disk.
    place = target if target.is_dir() else target.parent
    # A fresh folder, and the file within it: so nobody's file is in the way, and permissions are the ordinary ones.
    start = f"{target.name[:40]}."
    try:
        place.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=start, suffix=".partial", dir=place))
        try:
            partial = scratch / target.name
            yield partial
            if partial.is_dir() and target.is_dir():
                _replace_within(partial, target)
            else:
                os.replace(partial, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if error.filename is None or str(error.filename).startswith(str(place / start)):
            error.filename, error.filename2 = str(path), None
        raise


def _replace_within(partial: Path, folder: Path) -> None:
    new = {file.name for file in partial.iterdir()}
    for name in new:
        os.replace(partial / name, folder / name)
    for file in list(folder.iterdir()):
        if file.name not in new and WEIGHTS.fullmatch(file.name) and not file.is_dir():
            file.unlink()
