"""Conversations that are kept by name, with the states that they led to: saved, forked, sent and received as files."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from ..errors import InputError, ReceptanceError, StateError
from ..generation import Moment
from ..generation.transcript import load_moments, save_moments
from ..models import RWKV

log = logging.getLogger(__name__)
ENDING = ".safetensors"
# In the name of a file, before the model's own name where it is not the plain one.
MARK = "@"
# Of what is said about a file; it may quote it.
LONGEST_COMPLAINT = 300


@dataclass(frozen=True)
class Stored:
    """One of them.

    model       the id of the model that it belongs to
    created     seconds since 1970
    """

    name: str
    model: str
    created: int
    moment: Moment
    about: dict[str, str]

    @property
    def num_bytes(self) -> int:
        """Of its state."""
        return 0 if self.moment.state is None else self.moment.state.num_bytes


class UnknownError(InputError):
    """There is nothing of that name."""


class _Kept(NamedTuple):
    """One in memory, and the version of the file that it was read from, where there is one."""

    stored: Stored
    version: tuple[int, ...] | None


class Conversations:
    """Those of one server, apart for each owner; in a folder where there is one, which several servers may share.

    May be used by several threads.  What the folder holds is what counts: memory saves the reading of it.
    """

    def __init__(
        self, models: Mapping[str, RWKV], most: int = 256, most_bytes: int = 2**32, folder: Path | None = None
    ) -> None:
        """`models` by their ids, the plain one first: NAME, NAME:ADAPTER and so on.

        most        of one owner
        most_bytes  of states in memory, of all owners; where there is a folder, the others are read when asked for
        """
        self._models, self._most, self._most_bytes, self._folder = models, most, most_bytes, folder
        self._plain = next(iter(models))
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock = threading.RLock()

    def names(self, owner: str) -> list[str]:
        """Of all that an owner has."""
        if self._folder is not None:
            return sorted(self._files(owner))
        with self._lock:
            return sorted(name for who, name in self._kept if who == owner)

    def all(self, owner: str) -> list[Stored]:
        """All that an owner has and that can be read."""
        found = []
        for name in self.names(owner):
            try:
                found.append(self.get(owner, name))
            except ReceptanceError as error:
                log.warning("a stored conversation is left out: %s", error)
        return found

    def get(self, owner: str, name: str) -> Stored:
        """One by its name.  Raises UnknownError where there is none, StateError where its file is of no use."""
        with self._lock:
            file = self._files(owner).get(name)
            version = None if file is None else _version(file)
            kept = self._kept.pop((owner, name), None)
            if kept is not None and kept.version == version:
                self._kept[owner, name] = kept
                return kept.stored
            if file is None:
                raise _unknown(name)
            model = self._model_of(file)
            if model not in self._models:
                raise StateError(f"the stored conversation {name} was led with {model}, which is not served now")
            found = self._read(file, name, model, f"the stored conversation {name}")
            self._keep(owner, found, version)
            return found

    def check_room(self, owner: str, name: str) -> None:
        """Raises InputError where one more is too many."""
        names = self.names(owner)
        if name in names:
            return
        if len(names) >= self._most:
            raise InputError(f"{self._most} conversations are stored already; delete one first")
        if self._folder is None and self._num_bytes >= self._most_bytes:
            raise InputError("the stored conversations take all the memory that they may; delete one first")

    def put(self, owner: str, stored: Stored) -> Stored:
        """Keeps one, in the place of another of its name.  Raises InputError where there are too many."""
        state = stored.moment.state
        moment = stored.moment if state is None else replace(stored.moment, state=state.to("cpu"))
        stored = replace(stored, moment=moment)
        with self._lock:
            self.check_room(owner, stored.name)
            before = self._files(owner).get(stored.name)
            if (folder := self._folder_of(owner)) is not None:
                file = folder / self._file_name(stored)
                self._write(file, stored)
                if before is not None and before != file:
                    before.unlink(missing_ok=True)
            else:
                self._keep(owner, stored, None)
        return stored

    def delete(self, owner: str, name: str) -> None:
        """Forgets one.  Raises UnknownError where there is none."""
        with self._lock:
            if name not in self.names(owner):
                raise _unknown(name)
            self._kept.pop((owner, name), None)
            if (file := self._files(owner).get(name)) is not None:
                file.unlink(missing_ok=True)

    def to_file(self, stored: Stored) -> bytes:
        """As `receptance chat` saves a conversation."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state"
            self._write(path, stored)
            return path.read_bytes()

    def from_file(self, data: bytes, name: str, model: str) -> Stored:
        """What was saved, by whomever.  Raises StateError where it is no conversation of this model."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state"
            path.write_bytes(data)
            return self._read(path, name, model, "the file")

    @property
    def _num_bytes(self) -> int:
        return sum(kept.stored.num_bytes for kept in self._kept.values())

    def _keep(self, owner: str, stored: Stored, version: tuple[int, ...] | None) -> None:
        self._kept[owner, stored.name] = _Kept(stored, version)
        self._kept.move_to_end((owner, stored.name))
        while self._folder is not None and len(self._kept) > 1 and self._num_bytes > self._most_bytes:
            self._kept.popitem(last=False)

    def _write(self, path: Path, stored: Stored) -> None:
        notes = {**stored.about, "system": None, "seed": 0}
        try:
            save_moments(path, self._models[stored.model], [stored.moment], None, notes)
        except StateError as error:
            # Nothing that whoever asks can mend.
            raise ReceptanceError(_told(error, path, f"the conversation {stored.name}")) from error

    def _read(self, path: Path, name: str, model: str, what: str) -> Stored:
        try:
            moments, _, about = load_moments(path, self._models[model])
        except StateError as error:
            raise StateError(_told(error, path, what)) from error
        notes = {"template": about.template, "think": about.think}
        return Stored(name, model, int(path.stat().st_mtime), moments[-1], notes)

    def _file_name(self, stored: Stored) -> str:
        """With the model's own name, for several may read the same state; without the server's, which may change."""
        own = stored.model.removeprefix(self._plain).removeprefix(":")
        return f"{stored.name}{MARK if own else ''}{quote(own, safe='')}{ENDING}"

    def _model_of(self, file: Path) -> str:
        own = unquote(file.stem.partition(MARK)[2])
        return f"{self._plain}:{own}" if own else self._plain

    def _files(self, owner: str) -> dict[str, Path]:
        """Those in the folder, by the names of what they hold."""
        folder = self._folder_of(owner)
        files = [] if folder is None or not folder.is_dir() else sorted(folder.glob(f"*{ENDING}"))
        return {file.stem.partition(MARK)[0]: file for file in files}

    def _folder_of(self, owner: str) -> Path | None:
        """Apart for each owner, whose name may be anything."""
        if self._folder is None:
            return None
        return self._folder / (hashlib.sha256(owner.encode()).hexdigest()[:16] if owner else "all")


def _version(file: Path) -> tuple[int, ...] | None:
    """Another one wherever somebody has written the file since; None where somebody has taken it away."""
    try:
        about = file.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def _unknown(name: str) -> UnknownError:
    return UnknownError(f"there is no stored conversation {name!r}; /v1/states lists those that there are")


def _told(error: StateError, path: Path, what: str) -> str:
    """Of a file whose place is nobody's business."""
    return str(error).replace(str(path), what)[:LONGEST_COMPLAINT]


def new(name: str, model: str, moment: Moment, template: str, think: str) -> Stored:
    """One that is made now."""
    return Stored(name, model, int(time.time()), moment, {"template": template, "think": think})
