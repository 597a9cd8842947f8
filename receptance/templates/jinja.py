"""Templates that a user brings: Jinja files as Hugging Face's tokenizers write them.

    {# stops: ["\\n\\nUser:"] #}
    {%- for message in messages -%}
    {{ message.role | capitalize }}: {{ message.content }}{{ "\\n\\n" }}
    {%- endfor -%}
    {{ "Assistant:" + (" <think" if think == "on" else "") }}

The texts that end an answer stand in a comment at the top, as a JSON list.  A file sees what Hugging Face gives it:
`messages` (each with `role`, `content` and `raw`), `tools`, `documents`, `add_generation_prompt`, `bos_token` and
`eos_token` (both empty: the end-of-text token is added as a token), `raise_exception(message)`, `strftime_now(format)`;
and besides them `think`, one of THINK_MODES, and `enable_thinking`, whether it is one that thinks.  A file that uses
neither has no think modes.

`message.raw` is the exact text of a turn after its heading, or none where nobody fixed it.  A file that repeats it lets
a conversation go on from the model's state:

    Assistant:{{ message.raw if message.raw is not none else " " + message.content }}

With one that does not, as above, the whole conversation is read again at every turn, for the new prompt does not
begin with what the model has read.

A template is a program.  This one runs in Jinja's sandbox, reaches no file and no other template, and is stopped when
it takes too many steps or writes too much; that guards against mistakes and not against every malice.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import ext, meta, nodes, parser, runtime, sandbox, visitor

from ..errors import InputError
from .template import THINK_MODES, Message, Template, check_messages
from .tools import functions_of

LARGEST_FILE = 2**20
MOST_CHARACTERS = 10_000_000
# One turn of a loop is a step; a call takes as long as this many.
MOST_STEPS = 2_000_000
CALL_STEPS = 20
# Characters or items of one value, and binary digits of a number.
LARGEST_VALUE = 10_000_000
LARGEST_NUMBER = 10_000
# What a text is filled up to; a greater one is refused before the text is made.
LARGEST_WIDTH = 99_999

_STOPS = re.compile(r"\s*\{#-?\s*stops:(.*?)-?#\}", re.DOTALL)
# What a prompt may end with that belongs to the answer: a mark that is whole or lacks its ">".
_OPENING = re.compile(r"[ \t]*<think(>\s*(</think(>\s*)?)?)?$")

# Text methods and filters that are given a width, or a number of things to make; and what has it in its text.
_WIDTHS = frozenset({"batch", "center", "expandtabs", "indent", "ljust", "rjust", "round", "slice", "tojson", "zfill"})
_FORMATS = frozenset({"%", "format", "format_map"})
# "%-100000s", "%(name)100000d", "{:>100000}".
_WIDE = re.compile(r"%(\(\w*\))?[-#0 +.\d]*\d{6}|\{[^{}:]*:[^{}]*\d{6}")

_steps: ContextVar[int] = ContextVar("steps", default=0)


class _TooMuchError(Exception):
    """A template that is stopped."""


class JinjaTemplate(Template):
    """A template from a file.

    Raises InputError, with the line, for a file that cannot be read, is no template, or has stops that are no list.
    """

    default_think = "off"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        source = _read(self.path)
        self.stops = _stops(self.path, source)
        environment = _Sandbox()
        try:
            tree = environment.parse(source, str(self.path))
            variables = meta.find_undeclared_variables(tree)
            code = environment.compile(_Counted().visit(tree), str(self.path), str(self.path))
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{path}, line {error.lineno}: {error.message}; correct the template") from error
        except (RecursionError, SyntaxError) as error:
            raise InputError(f"{path} is nested too deeply for a template") from error
        self._template = jinja2.Template.from_code(environment, code, environment.globals)
        self.think_modes = THINK_MODES if "think" in variables else ("off",)
        if "enable_thinking" in variables and "think" not in variables:
            self.think_modes = ("off", "on")

    def prompt(
        self,
        messages: Sequence[Message],
        think: str = "off",
        tools: Sequence[Mapping[str, Any]] = (),
        call: bool = True,
    ) -> str:
        check_messages(messages)
        self._check_think(think)
        functions_of(tools)
        variables = {
            "messages": [{"role": m.role, "content": m.content, "raw": m.raw} for m in messages],
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": True,
            "bos_token": "",
            "eos_token": "",
            "think": think,
            "enable_thinking": think not in ("off", "fast"),
        }
        _steps.set(MOST_STEPS)
        try:
            return "".join(_limited(self._template.generate(variables)))
        except Exception as error:  # whatever a program may do wrong
            raise InputError(self._complaint(error)) from error

    def opening(self, think: str = "off", tools: Sequence[Mapping[str, Any]] = (), call: bool = True) -> str:
        """The mark of a thought that this file ends a short conversation with."""
        found = _OPENING.search(self.prompt([Message("user", "Hello")], think, tools, call))
        return found[0] if found else ""

    def _complaint(self, error: Exception) -> str:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self.path)
        ]
        place = f"{self.path}, line {lines[-1]}" if lines else str(self.path)
        said = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _RefusedError):
            return f"{place} refuses this conversation: {said}"
        return f"{place}: {said}; correct the template"


class _RefusedError(Exception):
    """What `raise_exception` of a template said."""


class _PassThrough(ext.Extension):
    """`{% generation %}`: marks, for training, what an assistant said; here it writes what is inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a count of steps and a bound on the size of values."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, _PassThrough])
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        self.filters["tojson"] = _to_json
        self.filters = {name: _measured(name, function) for name, function in self.filters.items()}
        self.filters[_ITEMS] = _items
        self.filters[_BOUNDED] = _bounded

    def call(__self, __context: runtime.Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        _spend(CALL_STEPS)
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `format`
        _check_width(getattr(method, "__name__", ""), getattr(method, "__self__", None), [*args, *kwargs.values()])
        return _bounded(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for number, value in ((left, right), (right, left)):
                if isinstance(number, int) and hasattr(value, "__len__"):
                    _check_size(number * len(value), LARGEST_VALUE)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_size(left.bit_length() * right, LARGEST_NUMBER)
        _check_width(operator, left, ())
        return _bounded(super().call_binop(context, operator, left, right))


# Filters of our own; a file cannot write these names, which are no identifiers.
_ITEMS, _BOUNDED = "items of a loop", "bounded"


class _Counted(visitor.NodeTransformer):
    """The same program, in which loops count their steps and joined texts are measured."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _ITEMS, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(node, _BOUNDED, [], [], None, None, lineno=node.lineno)


def _items(values: Any) -> list[Any]:
    items = list(values)
    _spend(len(items))
    return items


def _spend(steps: int) -> None:
    left = _steps.get() - steps
    _steps.set(left)
    if left < 0:
        raise _TooMuchError(f"it takes more than {MOST_STEPS:,} steps")


def _bounded(value: Any) -> Any:
    if isinstance(value, int):
        _check_size(value.bit_length(), LARGEST_NUMBER)
    elif hasattr(value, "__len__"):
        _check_size(len(value), LARGEST_VALUE)
    return value


def _measured(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same filter, whose widths and results are bounded."""

    # `wraps` keeps the marks by which Jinja knows what to pass.
    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        _check_width(name, args[0], [*args[1:], *kwargs.values()])
        return _bounded(function(*args, **kwargs))

    return measured


def _check_width(name: str, value: Any, arguments: Iterable[Any]) -> None:
    numbers = [it for it in arguments if isinstance(it, int)] if name in _WIDTHS else []
    written = name in _FORMATS and isinstance(value, str) and _WIDE.search(value)
    if written or any(number > LARGEST_WIDTH for number in numbers):
        raise _TooMuchError(f"it asks for a width of more than {LARGEST_WIDTH:,}")


def _check_size(size: int, largest: int) -> None:
    if size > largest:
        raise _TooMuchError("it makes a value that is too large")


def _limited(parts: Iterator[str]) -> Iterator[str]:
    written = 0
    for part in parts:
        written += len(part)
        if written > MOST_CHARACTERS:
            raise _TooMuchError(f"it writes more than {MOST_CHARACTERS:,} characters")
        yield part


def _refuse(message: str) -> None:
    raise _RefusedError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Jinja's own filter escapes HTML, which has no place in a prompt.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _read(path: Path) -> str:
    try:
        # Some editors begin a file with a byte order mark, which is no part of the template.
        with path.open(encoding="utf-8-sig") as file:
            source = file.read(LARGEST_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a template: {error}") from error
    if len(source) > LARGEST_FILE:
        raise InputError(f"{path} is larger than {LARGEST_FILE:,} characters and cannot be a template")
    return source


def _stops(path: Path, source: str) -> tuple[str, ...]:
    found = _STOPS.match(source)
    if not found:
        return ()
    try:
        stops = json.loads(found[1])
    except ValueError:
        stops = None
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InputError(f'the stops of {path} are no list of texts; write for example {{# stops: ["\\n\\nUser:"] #}}')
    return tuple(stops)
