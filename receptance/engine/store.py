"""States on the disk, behind a cache: a file each, written beside and renamed, checked when it is read.

    store = StateStore(Path("states"), max_bytes=2**34)
    store.write(place)                                  # returns at once; a thread of its own writes
    place = store.read(name)                            # None where there is none, or where it is damaged

Files are named by what was read, in hashes only: no text stands in them.  What is used least goes first.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import StateError
from ..replacing import replacing
from ..state import State

if TYPE_CHECKING:
    from .cache import Place

log = logging.getLogger(__name__)
FORMAT = "receptance-place-1"
ENDING = ".place"
# States that wait for the disk.  Where it is slower than the reading of texts, the rest is not written.
MOST_WAITING = 64


class InUseError(StateError):
    """Another process has the folder."""


class StateStore:
    """A folder of places, at most `max_bytes` of them, for one process at a time.

    num_bytes       what the files take
    num_dropped     places that were not written because the disk was too slow
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises StateError where the folder cannot be used, or is in use by another process."""
        self.folder, self.max_bytes, self.num_dropped = folder, max_bytes, 0
        self._guard = FileLock(folder / ".lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._guard.acquire(timeout=0)
        except Timeout:
            raise InUseError(f"another process keeps its states in {folder}; name another folder") from None
        except OSError as error:
            raise StateError(f"{folder} cannot hold states: {(error.strerror or str(error)).lower()}") from error
        for left in folder.glob("*.partial"):
            # Of a process that was killed while it wrote.
            shutil.rmtree(left, ignore_errors=True)
        # Those that were used least first.
        found = sorted((stat.st_mtime_ns, path.name, stat.st_size) for path, stat in self._files())
        self._sizes = OrderedDict((name, size) for _, name, size in found)
        self.num_bytes = sum(self._sizes.values())
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Place | None] = queue.Queue(MOST_WAITING)
        self._writer = threading.Thread(target=self._write_all, name="states to disk", daemon=True)
        self._writer.start()

    @classmethod
    def beside_others(cls, folder: Path, max_bytes: int) -> StateStore:
        """In the first of the folder's own folders 0, 1, ... that no other process has."""
        for number in count():
            with suppress(InUseError):
                return cls(folder / str(number), max_bytes)
        raise AssertionError("there is no last number")

    def __len__(self) -> int:
        return len(self._sizes)

    def write(self, place: Place) -> None:
        """Have it written soon, unless it is here already."""
        if _file_name(place.name) in self._sizes:
            return
        try:
            self._waiting.put_nowait(place)
        except queue.Full:
            self.num_dropped += 1

    def read(self, name: bytes) -> Place | None:
        """A place by its name; None where it is not here.  A damaged file is taken away."""
        from .cache import Place

        path = self.folder / _file_name(name)
        with self._lock:
            if path.name not in self._sizes:
                return None
            self._sizes.move_to_end(path.name)
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                about = file.metadata() or {}
            if about.get("checksum") != _checksum(tensors):
                raise ValueError("it is damaged")
            os.utime(path)
            state = State(tensors["shift"], tensors["wkv"])
            return Place(name, int(about["length"]), state, tensors.get("x"), _answer(about))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            log.warning("the stored state %s is left out: %s", path.name, error)
            self._forget(path)
            return None

    def answers(self) -> Iterator[tuple[bytes, bytes, int]]:
        """The ends of answers that are here: the name of each, that of the place where it begins, and its length."""
        for name in list(self._sizes):
            with (
                suppress(OSError, SafetensorError, KeyError, ValueError),
                safe_open(self.folder / name, framework="pt") as file,
            ):
                if (answer := _answer(file.metadata() or {})) is not None:
                    yield bytes.fromhex(name.removesuffix(ENDING)), *answer

    def close(self) -> None:
        """Waits until everything is written, and lets others have the folder."""
        self._waiting.put(None)
        self._writer.join()
        self._guard.release()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob(f"*{ENDING}"):
            with suppress(OSError):
                yield path, path.stat()

    def _write_all(self) -> None:
        while (place := self._waiting.get()) is not None:
            try:
                self._write(place)
            except OSError as error:
                log.warning("a state is not kept on the disk: %s", (error.strerror or str(error)).lower())

    def _write(self, place: Place) -> None:
        tensors = {"shift": place.state.shift.contiguous(), "wkv": place.state.wkv.contiguous()}
        if place.x is not None:
            tensors["x"] = place.x.contiguous()
        about = {"format": FORMAT, "length": str(place.length), "checksum": _checksum(tensors)}
        if place.answer is not None:
            before, length = place.answer
            about |= {"answer_to": before.hex(), "answer_length": str(length)}
        data = save(tensors, about)
        path = self.folder / _file_name(place.name)
        with replacing(path) as partial:
            partial.write_bytes(data)
        with self._lock:
            self.num_bytes += len(data) - self._sizes.get(path.name, 0)
            self._sizes[path.name] = len(data)
        while self.num_bytes > self.max_bytes and self._sizes:
            self._forget(self.folder / next(iter(self._sizes)))

    def _forget(self, path: Path) -> None:
        with self._lock:
            self.num_bytes -= self._sizes.pop(path.name, 0)
        with suppress(OSError):
            path.unlink()


def _answer(about: dict[str, str]) -> tuple[bytes, int] | None:
    """What a file says of the answer that it is the end of."""
    if "answer_to" not in about:
        return None
    return bytes.fromhex(about["answer_to"]), int(about["answer_length"])


def _file_name(name: bytes) -> str:
    return name.hex() + ENDING


def _checksum(tensors: dict[str, Tensor]) -> str:
    """Of names, shapes, dtypes and numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
