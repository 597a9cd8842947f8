"""What `receptance.load` returns: a model with everything that belongs to it.

lm = receptance.load("model.pth")
lm.generate("Once upon a time", max_tokens=50).text
for piece in lm.stream("Once upon a time"): ...
chat = lm.chat(system="You are brief.")
logits, state = lm.model(tokens)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import torch

from .adapters import load_adapter, merge_adapter
from .checkpoints import find, load_model, open_checkpoint, read_state_tensors
from .config import Config
from .devices import as_device, as_dtype, default_device, multiplies
from .errors import InputError
from .generation import Chat, Completion, Prompt, Sampling, Stream, complete
from .generation.continuation import as_stops
from .generation.decoding import check_rows
from .generation.presets import sampling_of
from .generation.settings import Order
from .models import RWKV
from .quant import is_quantised_file, open_quantised, quantised
from .state import State, is_saved_state
from .templates import TEMPLATES, Template, open_template, template_for
from .tokenizers import Tokenizer, open_tokenizer, tokenizer_for

# What a conversation is led in where nothing tells: plain `User: ` and `Assistant: `, which most RWKV models have seen.
USUAL_TEMPLATE = "g1"


class Settings(TypedDict, total=False):
    """The fields of `Sampling`, each of which may be given by itself."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    penalty_decay: float
    order: Order
    logit_bias: Mapping[int, float]
    banned: tuple[int, ...]
    seed: int | None


class GenerateOptions(Settings, total=False):
    """What `LanguageModel.generate` takes besides prompts and their length."""

    sampling: Sampling | str | None
    stop: str | Sequence[str] | None
    logprobs: int | None
    state: State | None
    request: int
    batch_size: int
    on_step: Callable[[int], None] | None


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded model.

    model      the `nn.Module`: `model(tokens, state) -> (logits, state)`, in evaluation mode
    path       the file or folder it came from
    name       what it was asked for by
    """

    model: RWKV
    path: Path
    name: str = ""
    given_tokenizer: Tokenizer | None = None
    given_template: Template | None = None

    @property
    def config(self) -> Config:
        """The model's shape."""
        return self.model.config

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Text to token ids and back; None where it is not known which one the model was trained with.

        Raises CheckpointError or InputError where it is known but cannot be had, as without a connection.
        """
        return self.given_tokenizer or tokenizer_for(self.path, self.config.vocab_size)

    def __post_init__(self) -> None:
        if self.given_tokenizer is not None:
            _check_fits(self.given_tokenizer, self.config.vocab_size)

    @cached_property
    def template(self) -> Template | None:
        """The form of a conversation, by the checkpoint's name; None where the name tells none."""
        return self.given_template or template_for(self.path.name) or template_for(self.name)

    @property
    def chat_template(self) -> Template:
        """The template, and where none is known, plain User and Assistant."""
        return self.template or TEMPLATES[USUAL_TEMPLATE]

    @overload
    def generate(self, prompt: str, max_tokens: int = ..., **options: Unpack[GenerateOptions]) -> Completion: ...

    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], max_tokens: int = ..., **options: Unpack[GenerateOptions]
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: str | list[str] | tuple[str, ...],
        max_tokens: int = 256,
        *,
        sampling: Sampling | str | None = None,
        stop: str | Sequence[str] | None = None,
        logprobs: int | None = None,
        state: State | None = None,
        request: int = 0,
        batch_size: int = 16,
        on_step: Callable[[int], None] | None = None,
        **settings: Unpack[Settings],
    ) -> Completion | list[Completion]:
        """What follows a prompt, or each of several, which are computed as batches of at most `batch_size`.

        sampling, settings  a `Sampling` or a preset's name, and changes to it: `temperature=0.7`; None: "official", the
                            official runtime's defaults
        stop                texts that end it; they are not part of the result
        logprobs            how many of the likeliest tokens to tell at each place, 0 for the chosen ones alone
        state               what was read before: one row for all prompts, or one for each
        request             number of the first prompt: with the seed it decides the noise, whatever the batch is
        on_step             is called with the number of rows that got a token

        Raises InputError for a setting or prompt that cannot be served, or where no tokenizer is known; StateError for
        another model's state.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        if state is not None:
            check_rows(state, len(prompts))
        chosen = sampling_of(sampling or "official", settings)
        stops, tokenizer = as_stops(stop), self.known_tokenizer()
        asked = [Prompt(text, chosen, max_tokens, stops, number) for number, text in enumerate(prompts, request)]
        completions: list[Completion] = []
        for start in range(0, len(asked), batch_size):
            rows = slice(start, start + batch_size)
            before = state if state is None or state.num_rows == 1 else state.rows(rows)
            completions += complete(
                self.model, tokenizer, asked[rows], num_logprobs=logprobs, state=before, on_step=on_step
            )
        return completions[0] if isinstance(prompt, str) else completions

    def stream(
        self,
        prompt: str,
        max_tokens: int = 256,
        *,
        sampling: Sampling | str | None = None,
        stop: str | Sequence[str] | None = None,
        state: State | None = None,
        request: int = 0,
        **settings: Unpack[Settings],
    ) -> Stream:
        """The same for one prompt, as an iterator of pieces of text; its `completion` tells the rest afterwards."""
        chosen = sampling_of(sampling or "official", settings)
        asked = Prompt(prompt, chosen, max_tokens, as_stops(stop), request)
        return Stream(self.model, self.known_tokenizer(), asked, state=state)

    def chat(self, **options: Any) -> Chat:
        """A conversation.  For the options see `Chat`; besides them all settings, as `temperature=0.7`."""
        settings = {name: options.pop(name) for name in Settings.__annotations__ if name != "seed" and name in options}
        return Chat(self.model, self.known_tokenizer(), self.chat_template, settings=settings, **options)

    def load_state(self, path: str | Path) -> State:
        """A state of one or more rows: what `State.save` wrote, or a state-tuned file of the official trainers.

        Raises StateError where it belongs to another model, CheckpointError where the file holds no state.
        """
        if is_saved_state(path):
            state = State.load(path, self.model)
        else:
            state = State.from_tuned(read_state_tensors(path), self.config)
        weight = self.model.emb.weight
        return state.to(weight.device, weight.dtype)

    def known_tokenizer(self) -> Tokenizer:
        """The tokenizer.  Raises InputError where none is known, and whatever `tokenizer` raises."""
        if self.tokenizer is None:
            raise InputError(
                f"no tokenizer is known for {self.path} (a vocabulary of {self.config.vocab_size}); "
                f"name it with tokenizer= or --tokenizer: world, pile, bytes or a file"
            )
        return self.tokenizer


def load(
    path_or_name: str | Path,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    mmap: bool = False,
    tokenizer: Tokenizer | str | Path | None = None,
    template: Template | str | Path | None = None,
    quant: str | None = None,
    adapter: str | Path | None = None,
    **overrides: Any,
) -> LanguageModel:
    """Load any checkpoint: a `.pth` or `.safetensors` file, a Hugging Face folder, a hub id, `user/repo:file`.

    A name that `receptance models` lists will do too, and so will a quantised file, whose weights always stay in it.

    dtype       `torch.bfloat16` or "bfloat16"; None: as stored, except that a CPU without products in that precision
                computes in float32
    device      None: the GPU where PyTorch finds one, else the CPU
    mmap        leave the weights in the file, as `checkpoints.load_model` says; DANGER: the file must not be written to
                while the model lives, which would end Python without a message
    tokenizer   "world", "pile", "bytes", or a vocabulary's file; None: what belongs to the checkpoint
    template    the name of one in `templates.TEMPLATES`, or a Jinja file; None: what the checkpoint's name says
    quant       "int8" or "int4": with weights of that precision, which are made at the first time and kept beside the
                checkpoint; None: as the file has them
    adapter     a folder of low-rank additions, which are added to the matrices (quantised ones keep them beside)
    overrides   `norm_eps`, `group_norm_eps`: what no tensor tells and no file says

    Raises CheckpointError in one sentence where that is not one whole model or the adapter is not of it, InputError for
    a dtype or device that is none, for a tokenizer or template that cannot be read, and for a `quant` that is none or
    meets a quantised file.
    """
    if isinstance(tokenizer, str | Path):
        tokenizer = open_tokenizer(tokenizer)
    if isinstance(template, str | Path):
        template = open_template(template)
    path = find(path_or_name)
    device = as_device(device) if device is not None else default_device()
    if quant is not None or is_quantised_file(path):
        # What `find` had to look for elsewhere is not ours to put files beside.
        is_own = path == Path(path_or_name).expanduser()
        file = open_quantised(path) if quant is None else quantised(path, quant, beside=is_own)
        model = file.load(**overrides).to(device, _computed_in(dtype, file.dtype, device))
    else:
        checkpoint = open_checkpoint(path)
        dtype = _computed_in(dtype, checkpoint.dtype, device)
        model = load_model(checkpoint, dtype=dtype, device=device, mmap=mmap, **overrides)
    if adapter is not None:
        model = merge_adapter(load_adapter(model, Path(adapter)))
    return LanguageModel(model.eval(), path, str(path_or_name), tokenizer, template)


def _computed_in(dtype: torch.dtype | str | None, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype that was asked for; None: the stored one where the device multiplies in it, else float32."""
    if dtype is None:
        return stored if multiplies(stored, device) else torch.float32
    return as_dtype(dtype)


def _check_fits(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raise InputError for a tokenizer whose tokens the model lacks, or that has far fewer than the model."""
    # Trainers pad a vocabulary, but not to twice its size.  Some ids of the World's vocabulary stand for nothing.
    unknown = any(map(tokenizer.token_bytes, range(vocab_size, tokenizer.vocab_size)))
    if unknown or 2 * tokenizer.vocab_size < vocab_size:
        raise InputError(
            f"the tokenizer {tokenizer.name!r} has {tokenizer.vocab_size:,} tokens and the model {vocab_size:,}; "
            f"give the one that the model was trained with"
        )
