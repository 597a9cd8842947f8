"""`receptance chat MODEL`: a conversation in the terminal, or line by line through pipes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..display import printable
from ..errors import InputError, ReceptanceError
from .chat_commands import MARK, answer, perform, tell_loaded
from .chat_screen import Interrupts, PipeScreen, Screen, TerminalScreen, leave_on_signals, unechoed
from .chat_session import Session
from .guard import is_out_of_memory, sentence
from .options import (
    GUESS,
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
    model_or_advice,
    named,
    settings_of,
)
from .terminal import loading

if TYPE_CHECKING:
    from ..generation import Chat, Sampling
    from ..language_model import LanguageModel


def chat(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=named)] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    think: Annotated[
        str | None, typer.Option(help="off, fast, on, a bit, some or a lot, where the template has it.")
    ] = None,
    state: Annotated[str | None, typer.Option(metavar="FILE", help="A tuned or saved state to start from.")] = None,
    load: Annotated[str | None, typer.Option(metavar="FILE", help="A conversation that /save wrote.")] = None,
    template: TemplateOption = None,
    tokenizer: TokenizerOption = None,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
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
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    quant: QuantOption = None,
    adapter: AdapterOption = None,
) -> None:
    """Talk with a model. Ctrl-C stops an answer, /help lists the commands, Ctrl-D leaves.

    Without a terminal, every line of the input is a message or a command; answers go to stdout, all else to stderr.
    """
    # The seed is the whole conversation's, not a setting of single answers.
    changes = settings_of(locals() | {"seed": None})
    if load is not None and state is not None:
        raise InputError("--state does not go with --load: a saved conversation brings the state that it started from")
    wanted = model_or_advice(model, "receptance chat")
    options = {"system": system, "think": think, "max_tokens": max_tokens, "stop": stop, **changes}
    options["sampling"] = _preset(preset, changes)
    leave_on_signals()
    with unechoed(), loading(wanted, quant):
        from ..language_model import load as load_model

        kind = dtype.torch if dtype else None
        lm = load_model(wanted, kind, device, tokenizer=tokenizer, template=template, quant=quant, adapter=adapter)
        session = Session(_chat(lm, state, options))
        if load is not None:
            session.load(load)
            session.take_over(system, think, None if template is None else lm.chat_template)
        if seed is not None:
            session.chat.seed = seed
    screen = _screen(session)
    screen.say(_header(lm, session, is_guess=lm.template is None and load is None))
    if load is not None:
        tell_loaded(session, screen)
    converse(session, screen)


def converse(session: Session, screen: Screen) -> None:
    """Answer and obey until the end of the input."""
    while not session.ended:
        try:
            line = screen.read()
        except KeyboardInterrupt:
            screen.say("Ctrl-D or /exit leaves")
            continue
        if line is None:
            return
        try:
            _take(line, session, screen)
        except Exception as error:
            if not (isinstance(error, ReceptanceError) or is_out_of_memory(error)):
                raise
            screen.complain(sentence(error))


def _take(line: str, session: Session, screen: Screen) -> None:
    if not line.strip():
        return
    if line.startswith(MARK) and not line.startswith(MARK * 2):
        perform(line, session, screen)
    else:
        answer(session, screen, session.stream(line[1:] if line.startswith(MARK) else line))


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _preset(name: str | None, changes: dict[str, Any]) -> Sampling | None:
    """The preset of this name; None: what suits.  Checks the changes too, for a model takes long to load."""
    from ..generation import Sampling
    from ..generation.presets import sampling_of

    Sampling(**changes)
    return None if name is None else sampling_of(name, {})


def _chat(lm: LanguageModel, state: str | None, options: dict[str, Any]) -> Chat:
    options = {name: value for name, value in options.items() if value is not None}
    if state is not None:
        start = lm.load_state(state)
        if start.num_rows != 1:
            raise InputError(f"{state} holds {start.num_rows} states; a conversation starts from one")
        options["state"] = start
    return lm.chat(**options)


def _screen(session: Session) -> Screen:
    if not _is_terminal():
        if sys.stdin is not None:
            # Wrong bytes are met where a message is read, and told in a sentence.  Some programs on Windows begin every
            # text with a mark.
            encoding = None if sys.stdin.isatty() else "utf-8-sig"
            sys.stdin.reconfigure(encoding=encoding, errors="surrogateescape")  # type: ignore[union-attr]
        return PipeScreen()
    from .chat_prompt import Prompt

    interrupts = Interrupts()
    interrupts.install()
    return TerminalScreen(Prompt(session).read, interrupts)


def _header(lm: LanguageModel, session: Session, is_guess: bool) -> str:
    """What we talk with, in which form, and how to get help."""
    from ..devices import dtype_name

    weight = lm.model.emb.weight
    template = session.chat.template.name + (f" ({GUESS})" if is_guess else "")
    return (
        f"{printable(lm.name)}: RWKV-{lm.config.version}, {dtype_name(weight.dtype)} on {weight.device}\n"
        f"template {template}, think {session.chat.think}; /help lists the commands"
    )
