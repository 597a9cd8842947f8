"""Everything that decides a training, as values that can be read from a file, checked and written back.

    recipe = Recipe.read("pretrain-v7", {"optim.lr": 3e-4})          # a shipped recipe by its name, or a TOML file
    recipe = Training(batch=Batching(rows=8, length=256), schedule=Schedule(tokens=10_000_000))

The sections are those of the file: `[optim]` is `recipe.optim`.  The values that nobody gives are the official ones.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..config import Config
from ..data import ORDERS
from ..errors import ConfigError
from .schedule import Schedule
from .section import Section, suggested

BUDGETS = {f"schedule.{name}" for name in ("tokens", "steps", "epochs", "seconds")}
SHIPPED = resources.files("receptance") / "recipes"


class ModelChoice(Section):
    """`[model]`: what is trained.

    start         a checkpoint to go on from: a file, a folder, or a name of `receptance models`; None: a new one
    preset        the shape of a released model, such as "rwkv7-0.1b"
    version, vocab_size, num_layers, dim, head_size
                  the shape, where there is neither
    seed          of its initial values
    """

    section = "model"
    start: str | None = None
    preset: str | None = None
    version: str | None = None
    vocab_size: int | None = Field(default=None, ge=1)
    num_layers: int | None = Field(default=None, ge=1)
    dim: int | None = Field(default=None, ge=1)
    head_size: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def sizes(self) -> dict[str, Any]:
        """What was said of the shape."""
        names = ("version", "vocab_size", "num_layers", "dim", "head_size")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.start is not None and (self.sizes or self.preset is not None):
            other = "preset" if self.preset is not None else next(iter(self.sizes))
            raise ValueError(f"model.start has a shape of its own; leave model.{other} out")
        return self

    def config(self) -> Config:
        """The shape of a new model.  Raises ConfigError where it is not complete, or cannot be."""
        if self.preset is not None:
            return Config.preset(self.preset).replace(**self.sizes)
        if missing := [name for name in ("version", "vocab_size", "num_layers", "dim") if name not in self.sizes]:
            raise ConfigError(
                f"[model] says nothing of {', '.join(missing)}; give them, or a preset, or a checkpoint to start from"
            )
        return Config(**self.sizes)


class DataChoice(Section):
    """`[data]`: what is learnt from.

    train         sources of documents as `receptance data to-binidx` takes them, or one data set that it made
    held_out      the same, to measure on; None: see `held_out_one_in`
    held_out_one_in
                  one document in so many is kept from `train` to measure on, by the hash of its name; 0: none
    tokenizer     "world", "pile", "bytes" or a file; "auto": what belongs to the model to start from
    column        where records have their text
    conversations whether records are conversations, of which the assistant's words are learnt and the others read
    template      how conversations are written: "auto": as the model to start from knows them
    skip_bad      whether damaged records are left out and counted
    """

    section = "data"
    train: str | tuple[str, ...]
    held_out: str | tuple[str, ...] | None = None
    held_out_one_in: int = Field(default=0, ge=0)
    tokenizer: str = "auto"
    column: str = "text"
    conversations: bool = False
    template: str = "auto"
    skip_bad: bool = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.held_out and self.held_out_one_in:
            raise ValueError("data.held_out says what is measured on; leave data.held_out_one_in out")
        return self


class Batching(Section):
    """`[batch]`: what a step reads.

    rows          sequences of a step, over all devices
    length        tokens of each
    rows_at_once  of which a device computes so many at a time and adds up their gradients; 0: all of its own
    order         one of data.ORDERS: "random", "shuffled", "packed", "documents", "in-order", "magic-prime"
    apart         whether the state starts anew where a document begins
    seed          of the order, and of whatever chance a step needs
    """

    section = "batch"
    rows: int = Field(default=16, ge=1)
    length: int = Field(default=512, ge=1)
    rows_at_once: int = Field(default=0, ge=0)
    order: str = "shuffled"
    apart: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.order not in ORDERS:
            raise ValueError(f"batch.order is {self.order!r}; {suggested(self.order, ORDERS, 'give one of')}")
        if self.rows_at_once and self.rows % self.rows_at_once:
            raise ValueError(f"batch.rows_at_once is {self.rows_at_once}; it must divide batch.rows, {self.rows}")
        return self


class Optim(Section):
    """`[optim]`: how a gradient becomes a step.

    lr            learning rate after the warm-up; the model's own multiples of it apply (`RWKV.param_groups`)
    weight_decay  of the matrices
    betas, eps    of AdamW.  1e-18 is far below float32's resolution beside any gradient that matters: a parameter whose
                  gradients are tiny still moves by the learning rate, as RWKV's small initial values need
    clip          largest norm of the whole gradient
    l2wrap        strength of L2Wrap, see `ops.cross_entropy`
    explodes      a step whose gradient is so many times longer than usual is skipped; 0: none is for that
    patience      so many steps skipped in a row end the training
    """

    section = "optim"
    lr: float = Field(default=6e-4, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = Field(default=1e-18, gt=0)
    clip: float = Field(default=1.0, gt=0)
    l2wrap: float = Field(default=1e-4, ge=0)
    explodes: float = Field(default=100.0, ge=0)
    patience: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _betas_are_shares(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas is {list(self.betas)}; both are shares, 0 or more and below 1")
        return self


class Compute(Section):
    """`[compute]`: on what, and in what precision.

    device        "auto", "cpu", "cuda", ...
    precision     of the matrix products: "bfloat16" (the weights that are learnt stay float32), "float32", or "auto",
                  which is bfloat16 where the machine multiplies in it
    recompute     whether a layer's intermediate values are computed again for the backward pass instead of being kept
    parallel      how several devices share the work (`torchrun`): "ddp", each has the whole model; "fsdp", each has a
                  part of every layer; "auto": ddp where there are several
    replicas      with fsdp: so many groups of devices, each of which has the whole model among them
    """

    section = "compute"
    device: str = "auto"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    recompute: bool = False
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    replicas: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.replicas > 1 and self.parallel != "fsdp":
            raise ValueError("compute.replicas are groups of devices that share a model; set compute.parallel to fsdp")
        return self


class Checkpoints(Section):
    """`[checkpoints]`: what is kept of a training.

    every_steps, every_minutes
                  how often it is saved, beside at its end; 0: not for that
    keep          the last so many are kept, and the one with the least loss on what is held out
    """

    section = "checkpoints"
    every_steps: int = Field(default=0, ge=0)
    every_minutes: float = Field(default=10.0, ge=0)
    keep: int = Field(default=2, ge=1)


class Watching(Section):
    """`[watch]`: what is told of a training.

    held_out_every   steps between two measurements on what is held out; 0: at the end only
    held_out_tokens  on how many tokens; 0: all
    sample_every     steps between two samples of text; 0: none
    prompt           how samples begin
    sample_tokens    how long they are
    tensorboard      whether the metrics are written for TensorBoard too
    """

    section = "watch"
    held_out_every: int = Field(default=0, ge=0)
    held_out_tokens: int = Field(default=100_000, ge=0)
    sample_every: int = Field(default=0, ge=0)
    prompt: str = ""
    sample_tokens: int = Field(default=80, ge=1)
    tensorboard: bool = False


class Finetuning(Section):
    """`[finetune]`: which numbers of a model are learnt.

    method     "full": all; "lora", "dora", "pissa": low-rank additions to its matrices; "state": the initial state
    rank       of the additions
    alpha      they are multiplied by alpha / rank; 0: twice the rank
    dropout    share of their inputs that is left out by chance
    targets    the ends of the names of the matrices: "att.receptance", "ffn.key", ...; none: all in the layers
    quant      "int8" or "int4": the matrices that are not learnt are kept so
    """

    section = "finetune"
    method: Literal["full", "lora", "dora", "pissa", "state"] = "full"
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=0.0, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
    quant: Literal["int8", "int4"] | None = None


NO_TUNING = Finetuning()
# What only some methods take.
OF_LOW_RANK = ("rank", "alpha", "dropout", "targets")


class Training(Section):
    """How any model is trained on any text: what `Trainer` needs to know."""

    schedule: Schedule
    batch: Batching = Batching()
    optim: Optim = Optim()
    compute: Compute = Compute()
    checkpoints: Checkpoints = Checkpoints()
    watch: Watching = Watching()


class Recipe(Training):
    """A whole training: what a recipe's file says.

    name       of the folder that the training is kept in, under `runs`
    """

    name: str = Field(default="", pattern=r"^[\w.-]*$")
    model: ModelChoice = ModelChoice()
    data: DataChoice
    finetune: Finetuning = Finetuning()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        how, batch = self.finetune, self.batch
        low_rank = how.method not in ("full", "state")
        if not low_rank and (given := [name for name in OF_LOW_RANK if getattr(how, name) != getattr(NO_TUNING, name)]):
            raise ValueError(f"finetune.{given[0]} is of low-rank additions, and {how.method!r} has none; leave it out")
        if how.method != "full" and self.model.start is None:
            raise ValueError(f"finetune.method is {how.method!r}; name the checkpoint to start from in model.start")
        if how.method == "full" and how.quant:
            raise ValueError("finetune.quant keeps matrices that are not learnt, and with 'full' all are; take lora")
        if how.method == "state" and (batch.order != "documents" or batch.apart):
            raise ValueError("a state is learnt at the start of rows; set batch.order to documents and apart to false")
        if how.method == "state" and self.watch.sample_every and not self.watch.prompt:
            raise ValueError("watch.prompt is empty, and a text after a tuned state needs a beginning; give one")
        if self.watch.sample_every and self.compute.parallel == "fsdp":
            raise ValueError("watch.sample_every needs a whole model on one device, and fsdp has none; set it to 0")
        return self

    @classmethod
    def read(cls, name_or_path: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
        """A file, or a shipped recipe by name (with or without "recipes/" and ".toml"), with some values changed.

        changes    "section.key" -> value

        Raises ConfigError where there is no such recipe, it is no TOML, or a value cannot be.
        """
        path = Path(name_or_path)
        text, name = (_read(path), path.stem) if path.is_file() else _shipped(str(name_or_path))
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{name_or_path} is no TOML: {str(error)[:1].lower()}{str(error)[1:]}") from error
        return cls.of({"name": re.sub(r"[^\w.-]", "-", name)} | values, changes or {})

    @classmethod
    def of(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
        """Sections as a file has them, with some values changed.  Raises ConfigError where a value cannot be."""
        changed = copy.deepcopy(dict(values))
        for key, value in changes.items():
            _set(changed, key, value)
            if key in BUDGETS:
                # How long it takes is said in one way: the new one takes the place of the recipe's.
                for other in BUDGETS - {key}:
                    changed["schedule"].pop(other.removeprefix("schedule."), None)
        return cls(**changed)

    def to_toml(self) -> str:
        """All values, those that nobody gave too: what reading gives this recipe again."""
        values = self.model_dump(exclude_none=True)
        tables = [
            "\n".join([f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values[name].items())])
            for name in ("model", "data", "batch", "optim", "schedule", "finetune", "compute", "checkpoints", "watch")
        ]
        return "\n\n".join([f"name = {_toml(self.name)}", *tables]) + "\n"


def shipped_recipes() -> dict[str, str]:
    """The recipes that the package brings: name -> text."""
    files = sorted((file for file in SHIPPED.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in files}


def parse_changes(settings: list[str]) -> dict[str, Any]:
    """`["optim.lr=3e-4", "data.train=books"]` as changes to a recipe.

    A value is TOML; what is none is a text.  Raises ConfigError where one is no "key=value".
    """
    changes = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{setting!r} sets nothing; write it as section.key=value, such as optim.lr=3e-4")
        try:
            changes[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[key.strip()] = value.strip()
    return changes


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no recipe, which is a text in UTF-8") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def _shipped(name: str) -> tuple[str, str]:
    """The text of a shipped recipe, and its name."""
    known, wanted = shipped_recipes(), name.removeprefix("recipes/").removesuffix(".toml")
    if wanted not in known:
        raise ConfigError(f"there is no recipe {name}; {suggested(wanted, known, 'give a file, or one of')}")
    return known[wanted], wanted


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Change what stands at "section.key"."""
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key} is no place in a recipe: {section} is no section")
    values[last] = value


def _toml(value: Any) -> str:
    """A value as TOML spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{"".join(map(_escaped, value))}"'


def _escaped(letter: str) -> str:
    return ESCAPED.get(letter, letter if letter.isprintable() else f"\\U{ord(letter):08x}")


ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
