"""A recipe from its file to a trained model: text made tokens of, a model made or loaded, the training, what it leaves.

    outcome = run(Recipe.read("quickstart"), Path("runs/quickstart"), console)

    RUN/tokens/            the text as tokens, where it was not that before
    RUN/model.pth          the trained model, RUN/adapter the additions, or RUN/state.pth the tuned state
    and what `training.run` keeps
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from .adapters import add_adapter, save_adapter, save_principal
from .checkpoints import save_checkpoint
from .config import Config
from .data import Document, HeldOut, Tokens, conversations, documents, files_of, pair, prepare
from .data.sources import Bad, refuse
from .display import printable
from .errors import CheckpointError, ConfigError
from .generation import Prompt, Sampling, complete
from .language_model import LanguageModel, load
from .models import RWKV, build, num_parameters
from .models.rwkv import flops_per_token
from .quant import dequantize
from .replacing import replacing
from .templates import Template, open_template
from .tokenizers import Tokenizer, open_tokenizer, tokenizer_for
from .training import InitialState, LiveProgress, Outcome, Ranks, Recipe, Run, Trainer, read_weights
from .training.checkpoint import read_about
from .training.plan import GPUS

# What a method leaves; the others leave an adapter.
LEAVES = {"full": "model.pth", "state": "state.pth"}
# The text of which the bytes of a token are counted.
COUNTED = 50_000
# What shows bytes and documents while text becomes tokens.
Progress = Callable[[], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a recipe's training leaves: the outcome, and the file or folder to use it by."""

    outcome: Outcome
    path: Path


def run(
    recipe: Recipe, folder: Path, console: Console | None = None, progress: Progress | None = None, fresh: bool = False
) -> Learnt:
    """Train as the recipe says in a folder, and go on where an earlier run of it stopped.

    progress   makes what shows bytes and documents while text becomes tokens
    fresh      whether the folder must not have a training yet

    Raises ReceptanceError, in one sentence, for whatever cannot be.
    """
    keeper = Run(folder, recipe)
    if fresh and keeper.found():
        raise ConfigError(f"{folder} has a training in it; give --resume to go on with it, or another --out")
    with Ranks.join(recipe.compute) as ranks, keeper.locked() if ranks.is_first else nullcontext():
        quiet = (console or Console()) if ranks.is_first else Console(quiet=True)
        # What is shared is cut into parts on its way to the device, which need not hold all of it.
        device = torch.device("cpu") if recipe.compute.parallel == "fsdp" else ranks.device
        base = _base(recipe, device)
        tokenizer = _tokenizer(recipe, base)
        texts = prepare_text(recipe, folder / "tokens", tokenizer, _template(recipe, base), ranks, quiet, progress)
        model, initial = _learner(recipe, base, folder, device, ranks)
        outcome = _trained(recipe, model, initial, texts, tokenizer, keeper, ranks, quiet)
        path = folder / LEAVES.get(recipe.finetune.method, "adapter")
        if ranks.is_first:
            export(recipe, keeper.found()[-1], path)
    return Learnt(outcome, path)


def prepare_text(
    recipe: Recipe,
    folder: Path,
    tokenizer: Tokenizer | None,
    template: Template | None,
    ranks: Ranks,
    console: Console,
    progress: Progress | None = None,
) -> tuple[Tokens, Tokens | None]:
    """What is learnt from and what is held out, as tokens; they are made in `folder` where they are none yet.

    Raises DataError and InputError for what cannot be read.
    """
    data = recipe.data
    sources = (data.train,) if isinstance(data.train, str) else data.train
    if len(sources) == 1 and _is_tokens(sources[0]):
        if data.held_out_one_in or isinstance(data.held_out, tuple):
            raise ConfigError(f"{sources[0]} is tokens already; name one more such data set in data.held_out, or none")
        return Tokens.open(sources[0]), Tokens.open(data.held_out) if data.held_out else None
    if tokenizer is None:
        raise ConfigError("it is not known which tokenizer fits the model; name it in data.tokenizer")
    held_out = () if data.held_out is None else (data.held_out,) if isinstance(data.held_out, str) else data.held_out
    wanted = _fingerprint(recipe, (*sources, *held_out), tokenizer, template)
    if ranks.is_first and _read_fingerprint(folder) != wanted:
        # Until all is made anew, what is there is of no recipe.
        (folder / "sources.json").unlink(missing_ok=True)
        bad: list[Bad] = []

        def read(each: tuple[str, ...]) -> Iterator[Document]:
            on_bad = bad.append if data.skip_bad else refuse
            if template is not None:
                return chain.from_iterable(conversations(source, template, on_bad) for source in each)
            return chain.from_iterable(documents(source, data.column, on_bad) for source in each)

        apart = HeldOut(folder / "held-out", data.held_out_one_in) if data.held_out_one_in and not held_out else None
        with (progress or _unseen)() as show:
            made = prepare(read(sources), tokenizer.name, folder / "train", progress=show, held_out=apart)
            if held_out:
                prepare(read(held_out), tokenizer.name, folder / "held-out", progress=show)
        with replacing(folder / "sources.json") as partial:
            partial.write_text(json.dumps(wanted, indent=1) + "\n")
        console.print(f"{made.num_documents:,} documents, {made.num_tokens:,} tokens in {folder}", highlight=False)
        if bad:
            place, reason = bad[0]
            console.print(f"left out {len(bad):,} that were no documents: {printable(place)}, {reason}", markup=False)
    ranks.wait()
    has_held_out = held_out or data.held_out_one_in
    return Tokens.open(folder / "train"), Tokens.open(folder / "held-out") if has_held_out else None


@contextmanager
def _unseen() -> Iterator[Callable[[int, int], None]]:
    yield lambda num_bytes, num_documents: None


def _is_tokens(source: str) -> bool:
    """Whether a source is a data set that was made before."""
    path = Path(source)
    return (bool(path.name) and pair(path)[1].is_file()) or (path.is_dir() and any(path.glob("*.idx")))


def _fingerprint(
    recipe: Recipe, sources: tuple[str, ...], tokenizer: Tokenizer, template: Template | None
) -> dict[str, Any]:
    """What tokens depend on: where it is the same, they need not be made again."""
    files = [file for source in sources for file in files_of(source)]
    return {
        "data": recipe.data.model_dump(mode="json"),
        "tokenizer": tokenizer.name,
        "template": None if template is None else template.name,
        "files": [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }


def _read_fingerprint(folder: Path) -> Any:
    try:
        return json.loads((folder / "sources.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _base(recipe: Recipe, device: torch.device) -> LanguageModel | Config:
    """The model to start from, or the shape of a new one."""
    if recipe.model.start is None:
        return recipe.model.config()
    whole = recipe.finetune.method == "full"
    # What is learnt is float32; what stays may be smaller.  Gradients of float16 would need to be scaled.
    dtype = torch.float32 if whole or recipe.compute.precision == "float32" else None
    base = load(recipe.model.start, dtype=dtype, device=device, quant=recipe.finetune.quant)
    if whole:
        dequantize(base.model)
    if base.model.emb.weight.dtype == torch.float16:
        base.model.float()
    return base


def _tokenizer(recipe: Recipe, base: LanguageModel | Config) -> Tokenizer | None:
    """Which one the recipe names, or what fits the model; None where nobody knows."""
    if recipe.data.tokenizer != "auto":
        return open_tokenizer(recipe.data.tokenizer)
    if isinstance(base, LanguageModel):
        return base.tokenizer
    return tokenizer_for(Path(), base.vocab_size)


def _template(recipe: Recipe, base: LanguageModel | Config) -> Template | None:
    """How conversations are written; None where the text has none."""
    if not recipe.data.conversations:
        return None
    if recipe.data.template != "auto":
        return open_template(recipe.data.template)
    return base.chat_template if isinstance(base, LanguageModel) else open_template("g1")


def _learner(
    recipe: Recipe, base: LanguageModel | Config, folder: Path, device: torch.device, ranks: Ranks
) -> tuple[RWKV, InitialState | None]:
    """The model with what is learnt of it set free, and the initial state where that is it."""
    if isinstance(base, Config):
        torch.manual_seed(recipe.model.seed)
        return build(base).to(device), None
    model, how = base.model, recipe.finetune
    if how.method == "full":
        return model, None
    if how.method == "state":
        return model.requires_grad_(False), InitialState(model)
    torch.manual_seed(recipe.model.seed)
    # Each process would begin elsewhere if each computed it, and so would a training that goes on.
    kept = folder / "begin.safetensors"
    if how.method == "pissa" and ranks.is_first:
        save_principal(model, how.rank, how.targets, kept)
    ranks.wait()
    add_adapter(model, how.method, how.rank, how.alpha, how.dropout, how.targets, kept)
    return model, None


def _trained(
    recipe: Recipe,
    model: RWKV,
    initial: InitialState | None,
    texts: tuple[Tokens, Tokens | None],
    tokenizer: Tokenizer | None,
    keeper: Run,
    ranks: Ranks,
    console: Console,
) -> Outcome:
    text, held_out = texts
    if ranks.is_first:
        with replacing(keeper.folder / "recipe.toml") as partial:
            partial.write_text(recipe.to_toml(), encoding="utf-8")
    console.print(_about(model, initial, text), highlight=False)
    live = LiveProgress(
        console,
        "Training",
        bytes_per_token=_bytes_per_token(tokenizer, text),
        flops_per_token=3.0 * flops_per_token(model) if recipe.finetune.method == "full" else 0.0,
        peak_flops=_peak(ranks),
    )
    if recipe.watch.sample_every and tokenizer is not None:
        keeper.sample = lambda: sample(model, initial, tokenizer, recipe)
        keeper.on_sample = live.show_sample
    with live:
        trainer = Trainer(model, text, recipe, live, held_out=held_out, keeper=keeper, ranks=ranks, initial=initial)
        return trainer.train()


def export(recipe: Recipe, checkpoint: Path, path: Path) -> None:
    """Write what a checkpoint holds as whoever uses the model wants it: a model, an adapter, or a tuned state."""
    if recipe.finetune.method == "full":
        save_checkpoint(model_of(checkpoint), path)
        return
    # Made again on this process alone: of the one that was trained it may have a part.
    alone = Ranks()
    model, initial = _learner(recipe, _base(recipe, alone.device), path.parent, alone.device, alone)
    if initial is not None:
        read_weights(checkpoint, {f"initial.{name}": p.detach() for name, p in initial.named_parameters()})
        initial.save(path)
    else:
        read_weights(checkpoint, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad})
        save_adapter(model, path)


def model_of(checkpoint: Path) -> RWKV:
    """The whole model in a checkpoint of a training, on the CPU.

    Raises CheckpointError where it holds none, as that of an adapter does.
    """
    told = read_about(checkpoint)
    if told["model"] is None or told["recipe"].get("finetune", {}).get("method", "full") != "full":
        raise CheckpointError(f"{checkpoint} holds no whole model; what it holds is beside it in its training's folder")
    model = RWKV(Config(**told["model"]))
    read_weights(checkpoint, {name: p.detach() for name, p in model.named_parameters()})
    return model.eval()


def sample(model: RWKV, initial: nn.Module | None, tokenizer: Tokenizer, recipe: Recipe) -> str:
    """A text that the model writes now."""
    watch, was_training = recipe.watch, model.training
    asked = Prompt(watch.prompt, Sampling(temperature=0.8, seed=recipe.batch.seed), watch.sample_tokens)
    model.eval()
    (written,) = complete(model, tokenizer, [asked], state=None if initial is None else initial(1).detach())
    model.train(was_training)
    return watch.prompt + written.text


def _about(model: RWKV, initial: InitialState | None, text: Tokens) -> str:
    """The training in a line."""
    learnt = sum(p.numel() for p in (initial or model).parameters() if p.requires_grad)
    whole = num_parameters(model)
    if initial is not None:
        part = f", and {learnt:,} of its initial state, which is learnt"
    else:
        part = f", of which {learnt:,} are learnt" if learnt < whole else ""
    return (
        f"RWKV-{model.config.version}, {whole / 1e6:.1f}M parameters{part}; "
        f"{text.num_tokens:,} tokens in {text.num_documents:,} documents"
    )


def _bytes_per_token(tokenizer: Tokenizer | None, text: Tokens) -> float | None:
    """How many bytes of text a token stands for."""
    if tokenizer is None:
        return None
    ids = text.window(0, min(COUNTED, text.num_tokens)).tolist()
    known = [token for token in ids if token < tokenizer.vocab_size]
    return len(tokenizer.decode_bytes(known)) / len(ids) or None


def _peak(ranks: Ranks) -> float:
    """Operations a second of all devices; 0 where their kind is not known."""
    if ranks.device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(ranks.device).lower().replace(" ", "").replace("-", "")
    return next((gpu.peak * ranks.count for kind, gpu in GPUS.items() if kind.partition("-")[0] in name), 0.0)
