"""A training on disk: its recipe, its metrics, its checkpoints.

    run = Run(Path("runs/mine"), recipe)
    Trainer(model, text, recipe, keeper=run).train()              # goes on from the last checkpoint, if there is one

    recipe.toml                       all values of the recipe
    metrics.jsonl                     a line for each step
    samples.jsonl                     texts that the model wrote meanwhile
    checkpoints/step-0001000/         what `checkpoint.py` writes
    best.json                         which of them had the least loss on what is held out

Everything is written beside and then renamed.  A training that was ended at any moment goes on from its last checkpoint
and takes the same steps as if nothing had happened; metrics of steps after that checkpoint are dropped and come anew.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..errors import TrainingError
from ..replacing import replacing
from .checkpoint import Saving, distributed_checkpoints, load
from .recipe import Training
from .step import Step

if TYPE_CHECKING:
    from .trainer import Trainer

NAME = re.compile(r"step-(\d+)")


class Run:
    """The folder of one training.

    sample     what to call for a text that the model writes, where the recipe wants some
    on_sample  who is told of such a text
    """

    def __init__(self, folder: Path, recipe: Training) -> None:
        self._folder, self.recipe = folder, recipe
        self.sample: Callable[[], str] | None = None
        self.on_sample: Callable[[str], None] | None = None
        self.checkpoints = folder / "checkpoints"
        self.metrics = folder / "metrics.jsonl"
        self._saving: Saving | None = None
        self._saves_best = False
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._board: Any = None
        # Whoever holds it may take it again.
        self._lock = FileLock(folder / ".lock")

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self._folder

    @contextmanager
    def opened(self, trainer: Trainer) -> Iterator[None]:
        """Go on from the last checkpoint, if there is one; meanwhile nobody else trains in this folder.

        Raises TrainingError where somebody does, CheckpointError where the checkpoint is damaged or of another model.
        """
        distributed_checkpoints()
        is_first = trainer.ranks.is_first
        with self.locked() if is_first else nullcontext():
            if is_first:
                self._tidy()
            trainer.ranks.wait()
            self._resume(trainer)
            if is_first:
                self._drop_metrics(trainer.position.steps)
                self._open_board(trainer.position.tokens)
            try:
                yield
            finally:
                if self._board is not None:
                    self._board.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in this folder.  Raises TrainingError where somebody does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise TrainingError(f"another process trains in {self.folder}; wait, or give another folder") from None
        with self._lock:
            self._lock.release()
            yield

    def found(self) -> list[Path]:
        """The checkpoints, the oldest first."""
        folders = self.checkpoints.glob("step-*") if self.checkpoints.is_dir() else ()
        return sorted((path for path in folders if NAME.fullmatch(path.name)), key=_number)

    def best(self) -> Path | None:
        """The checkpoint with the least loss on what is held out."""
        try:
            name = json.loads((self.folder / "best.json").read_text())["checkpoint"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        path = self.checkpoints / str(name)
        return path if NAME.fullmatch(path.name) and path.is_dir() else None

    def after(self, trainer: Trainer, step: Step) -> None:
        """Write the metrics of a step, and a checkpoint where it is time for one."""
        ranks, position = trainer.ranks, trainer.position
        is_best = step.held_out is not None and (position.best is None or step.held_out < position.best)
        if is_best:
            position.best = step.held_out
        if ranks.is_first:
            self._write(step)
            self._sample(step)
        plan = self.recipe.checkpoints
        is_time = plan.every_steps and position.steps % plan.every_steps == 0
        is_late = plan.every_minutes and time.monotonic() - self._saved_at >= 60 * plan.every_minutes
        if ranks.any(bool(is_time or is_late or is_best)):
            self._save(trainer, is_best)
        elif self._saving is not None and ranks.all(self._saving.is_done()):
            self._settle()

    def finish(self, trainer: Trainer) -> None:
        """Write a checkpoint of the end, and wait until everything is on disk."""
        if trainer.position.steps != self._saved_step:
            self._save(trainer, is_best=False)
        self._settle()

    def _resume(self, trainer: Trainer) -> None:
        if found := self.found():
            load(found[-1], trainer)
            self._saved_step = trainer.position.steps

    def _save(self, trainer: Trainer, is_best: bool) -> None:
        self._settle()
        self._saving = Saving(self.checkpoints / f"step-{trainer.position.steps:07d}", trainer)
        self._saves_best, self._saved_at, self._saved_step = is_best, time.monotonic(), trainer.position.steps

    def _settle(self) -> None:
        """Wait for the checkpoint that is being written, note the best one, and remove the old ones.

        Raises CheckpointError where it cannot be written.
        """
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        saving.finish()
        if not saving.is_first:
            return
        if self._saves_best:
            with replacing(self.folder / "best.json") as partial:
                partial.write_text(json.dumps({"checkpoint": saving.path.name}) + "\n")
        kept = {*self.found()[-self.recipe.checkpoints.keep :], self.best()}
        for old in self.found():
            if old not in kept:
                # Renamed first: half a checkpoint must not look like one.
                doomed = old.with_name(f".{old.name}.old")
                old.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove what an interrupted save or removal left."""
        if self.checkpoints.is_dir():
            for path in self.checkpoints.glob(".step-*"):
                shutil.rmtree(path, ignore_errors=True)

    def _drop_metrics(self, steps: int) -> None:
        """Keep the metrics of the steps before this one only; a line that was cut off is none."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.folder / name
            if not path.exists():
                continue
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if _is_before(line, steps)]
            with replacing(path) as partial:
                partial.write_bytes(b"".join(kept))

    def _write(self, step: Step) -> None:
        values = step.to_dict()
        _append(self.metrics, values)
        if self._board is not None:
            for name in ("loss", "held_out", "learning_rate", "gradient_norm", "tokens_per_second", "memory"):
                if values[name] is not None:
                    self._board.add_scalar(name, values[name], step.tokens)

    def _sample(self, step: Step) -> None:
        every = self.recipe.watch.sample_every
        if self.sample is not None and every and (step.number + 1) % every == 0:
            text = self.sample()
            _append(self.folder / "samples.jsonl", {"number": step.number, "text": text})
            if self.on_sample is not None:
                self.on_sample(text)

    def _open_board(self, tokens: int) -> None:
        if self.recipe.watch.tensorboard:
            self._board = _summary_writer(self.folder / "tensorboard", tokens)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a training, a mapping for each step.  Raises TrainingError where there are none."""
    path = folder / "metrics.jsonl" if folder.is_dir() else folder
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TrainingError(f"cannot read {path}: {reason}; give the folder of a training, as runs/NAME") from error
    steps = [step for step in map(_parsed, lines) if step is not None]
    if not steps:
        raise TrainingError(f"{path} has no step of a training in it; give the folder of a training, as runs/NAME")
    return steps


def _append(path: Path, values: dict[str, Any]) -> None:
    # Line by line in one write: who reads meanwhile sees whole lines.
    with path.open("ab", buffering=0) as file:
        file.write((json.dumps(values) + "\n").encode())


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        step = json.loads(line)
    except ValueError:
        return None
    return step if isinstance(step, dict) and isinstance(step.get("number"), int) else None


def _is_before(line: bytes, steps: int) -> bool:
    step = _parsed(line)
    return step is not None and line.endswith(b"\n") and step["number"] < steps


def _number(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    assert found
    return int(found[1])


def _summary_writer(folder: Path, tokens: int) -> Any:
    """What is written so far of later places than `tokens` does not count."""
    from ..errors import MissingExtraError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "watch.tensorboard needs tensorboard; install it: pip install 'receptance[train]', or leave it out"
        ) from error
    return SummaryWriter(str(folder), purge_step=tokens + 1)

