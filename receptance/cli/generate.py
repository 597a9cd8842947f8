"""`receptance generate PROMPT`: a text goes on, or a message is answered, as it comes; or many of them, from a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..catalogue import HOUSE
from ..errors import InputError
from .generate_batch import answer_all
from .generate_text import Wish, answer
from .options import (
    MODEL_HELP,
    AdapterOption,
    DeviceOption,
    DtypeOption,
    FrequencyPenalty,
    MaxTokens,
    MinP,
    Order,
    PenaltyDecay,
    PresencePenalty,
    Preset,
    QuantOption,
    Seed,
    Stop,
    Temperature,
    TemplateOption,
    TokenizerOption,
    TopK,
    TopP,
    named,
    settings_of,
)

STDIN = "-"
DEFAULT_BATCH = 16
# A whole library of books; memory must not depend on what somebody pipes in.
LONGEST_PROMPT = 2**26


def generate(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The text to go on with; - reads it from stdin.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help=MODEL_HELP, callback=named)] = None,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    chat: Annotated[bool, typer.Option("--chat", help="PROMPT is a message, which the model answers.")] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: instructions that come first.")] = None,
    think: Annotated[str | None, typer.Option(help="With messages: off, fast, on, 'a bit', some or 'a lot'.")] = None,
    template: TemplateOption = None,
    preset: Preset = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    penalty_decay: PenaltyDecay = None,
    order: Order = None,
    seed: Seed = None,
    state: Annotated[
        Path | None, typer.Option(help="A saved or tuned state, which was read before.", metavar="FILE")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with the tokens, at the end.")
    ] = False,
    logprobs: Annotated[
        int | None, typer.Option(min=0, help="With --json: this many of the likeliest tokens at each place.")
    ] = None,
    batch: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="IN OUT", help="Answer each line of IN, a JSON object, with a line of OUT."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="With --batch: lines at a time, 16.")] = None,
    tokenizer: TokenizerOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    quant: QuantOption = None,
    adapter: AdapterOption = None,
) -> None:
    """Go on with a text, and print what comes as it comes.

    The text goes to stdout, the figures to stderr. Without PROMPT it is read
    from a pipe, less the last line break. Ctrl-C ends the text.

    With --batch, a line of IN is {"prompt": "..."}, or
    {"messages": [{"role": "user", "content": "..."}]}, and may have an "id"
    and settings of its own, such as "max_tokens", "stop", "temperature".
    The same command again does only what is missing in OUT.
    """
    settings = settings_of(locals())
    _refuse("needs --chat", system=system, when=not chat)
    _refuse("needs --chat or --batch", think=think, template=template, when=not chat and batch is None)
    _refuse("needs --batch", batch_size=batch_size, when=batch is None)
    _refuse("needs --json", logprobs=logprobs, when=not as_json)
    _refuse("does not go with --batch", PROMPT=prompt, chat=chat or None, logprobs=logprobs, when=batch is not None)
    if model is None:
        # A line to a person, who may not know that there are others; programs name one.
        print("with the little model that comes along, which knows Python; -m takes any other", file=sys.stderr)
        model = HOUSE
    wish = Wish(
        model=model,
        dtype=dtype,
        device=device,
        quant=quant,
        adapter=adapter,
        tokenizer=tokenizer,
        template=template,
        state=state,
        preset=preset,
        settings=settings,
        max_tokens=max_tokens,
        stops=tuple(stop or ()),
        think=think,
    )
    if batch is not None:
        answer_all(wish, *batch, batch_size or DEFAULT_BATCH, as_json)
        return
    text = _read(prompt)
    # What came through a pipe may be long, and whoever sent it knows it.
    echo = "" if chat or prompt in (None, STDIN) else text
    answer(wish, _messages(text, system) if chat else {"prompt": text}, echo, as_json, logprobs)


def _messages(text: str, system: str | None) -> dict[str, Any]:
    before = [] if system is None else [{"role": "system", "content": _whole(system, "the system text")}]
    return {"messages": [*before, {"role": "user", "content": text}]}


def _refuse(reason: str, *, when: bool, **options: object) -> None:
    """Raise for an option that would do nothing."""
    for name, value in options.items():
        if when and value is not None:
            raise typer.BadParameter(reason, param_hint=name if name.isupper() else f"--{name.replace('_', '-')}")


def _read(prompt: str | None) -> str:
    """The prompt that was given, or what comes through the pipe."""
    if prompt is not None and prompt != STDIN:
        return _whole(prompt, "the prompt")
    if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
        raise InputError(
            'there is no prompt; write it behind the command, as `receptance generate "..."`, or pipe it in'
        )
    given = sys.stdin.buffer.read(LONGEST_PROMPT + 1)
    if not given and prompt is None:
        raise InputError('there is no prompt: nothing came through the pipe; `receptance generate ""` begins a text')
    if len(given) > LONGEST_PROMPT:
        raise InputError(f"the prompt is longer than {LONGEST_PROMPT:,} bytes; give the end of it")
    try:
        # Some programs on Windows begin every text with a mark.
        text = given.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt is no UTF-8 from byte {error.start + 1} on; convert it first") from error
    # What echo and every editor put behind the last line.
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def _whole(text: str, what: str) -> str:
    """The text as it was typed.  Python gives bytes that are no UTF-8 as halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is no UTF-8 from character {error.start + 1} on; convert it first") from error
    return text
