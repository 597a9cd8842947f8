"""The templates of the published families, and which checkpoint has which.

    template_for("rwkv7-g1h-7.2b-20260710-ctx10240.pth").name     # "flower"
    open_template("my_template.jinja")

Sources: "world" and its introduction from ChatRWKV `API_DEMO_CHAT.py`; "raven" from ChatRWKV `README.md` and
`v2/chat.py`; "g1" from RWKV-LM `RWKV-v7/RWKV7-G1x-templates.txt`; "flower" from Albatross
`faster3a_2605/eval_gpqa_diamond.py`, its further turns from transformers-rwkv, whose template "markdown" is.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from ..errors import InputError
from .template import Template
from .tools import JSON, MARKDOWN
from .turns import Thinking, TurnTemplate

_LENGTHS = {mode: f" (think{length})" for mode, length in (("a bit", " a bit"), ("some", ""), ("a lot", " a lot"))}

_COLON = {"system": "System: ", "user": "User: ", "assistant": "Assistant: "}

WORLD = TurnTemplate(
    name="world",
    headings=_COLON,
    # These models end an answer with a blank line and would go on as the user.  So that one never stands inside of an
    # answer, it may not stand in what they have read either.
    stops=("\n\n",),
    squeezed=frozenset({"system", "user", "assistant"}),
    intro=(
        "User: hi\n\nAssistant: Hi. I am your assistant and I will provide expert full response in full details. "
        "Please feel free to ask any question and I will always answer it.\n\n"
    ),
)

RAVEN = TurnTemplate(
    name="raven",
    # A system text is the narrator's and has no name in front; the official prompts begin with a line break.
    headings={"system": "\n", "user": "Bob: ", "assistant": "Alice: "},
    stops=("\n\n",),
    squeezed=frozenset({"system", "user", "assistant"}),
)

G1 = TurnTemplate(
    name="g1",
    headings={**_COLON, "tool": "User: "},
    # The official evaluation stops at "\nUser:"; the longer one is here so that no line break of it stays behind.
    stops=("\n\nUser:", "\nUser:"),
    thinking={
        "off": Thinking(),
        "fast": Thinking(" <think>\n</think"),
        "on": Thinking(" <think"),
        **{mode: Thinking(" <think", suffix) for mode, suffix in _LENGTHS.items()},
    },
    tools=JSON,
)

FLOWER = TurnTemplate(
    name="flower",
    headings={"system": "System✿", "user": "User✿", "assistant": "Bot✿"},
    stops=("✿",),
    closing="✿\n",
    # The flower ends a turn, so blank lines may stay and a flower that somebody writes may not.
    squeezed=frozenset(),
    reserved={"✿": "❀"},
    thinking={
        "off": Thinking(),
        "fast": Thinking("<think></think"),
        "on": Thinking("<think"),
        **{mode: Thinking("<think", suffix) for mode, suffix in _LENGTHS.items()},
    },
    default_think="fast",
    tool_template=G1,
)

MARKDOWN_TEMPLATE = TurnTemplate(
    name="markdown",
    headings={
        "system": "### System\n",
        "user": "### User\n",
        "assistant": "### Assistant\n",
        "tool": "### Tool Output\n",
    },
    stops=("\n### User",),
    closing="\n",
    squeezed=frozenset({"user"}),
    thinking={"off": Thinking(), "fast": Thinking("<think></think"), "on": Thinking("<think")},
    default_think="fast",
    tools=MARKDOWN,
)

TEMPLATES: dict[str, Template] = {template.name: template for template in (WORLD, RAVEN, G1, FLOWER, MARKDOWN_TEMPLATE)}

# Of one part of a path or repository, in lower case; the first that is found decides.  The letter behind G1 counts
# the versions of the training data, and from h on (July 2026) the flower is in it.
_FAMILIES: tuple[tuple[str, Template | None], ...] = (
    (r"rwkv.*(?<![a-z])(pile|novel|midi|abc|music)", None),
    (r"rwkv.*raven", RAVEN),
    (r"rwkv.*(?<![a-z0-9])g(1[h-z]|[2-9][a-z]?)(?![a-z])", FLOWER),
    (r"rwkv.*(?<![a-z0-9])g[01][a-g]?(?![a-z])", G1),
    (r"rwkv.*(world|eagle|finch)|v5-eagle|v6-finch", WORLD),
)


def template_for(name: str) -> Template | None:
    """The template of a checkpoint, by the name of its file, folder or repository.

    The last part of a path decides; one that says nothing leaves it to the folder or repository that it is in.  None
    for a base model, which only goes on with a text, and for a name that says nothing.
    """
    for part in reversed(re.split(r"[/\\:]", name.lower())):
        for pattern, template in _FAMILIES:
            if re.search(pattern, part):
                return template
    return None


def open_template(name_or_path: str | Path) -> Template:
    """A template by its name in TEMPLATES, or a Jinja file as Hugging Face writes them (`jinja` says how).

    Raises InputError for a name that does not exist, and for a file that is missing or no template.
    """
    name = str(name_or_path)
    if name in TEMPLATES:
        return TEMPLATES[name]
    # `Path.expanduser` fails where there is no such user.
    path = Path(os.path.expanduser(name))
    if path.is_file():
        from .jinja import JinjaTemplate

        return JinjaTemplate(path)
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"the template {name} does not exist; give a Jinja file or one of: {', '.join(TEMPLATES)}")
    close = difflib.get_close_matches(name, TEMPLATES, 1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of: {', '.join(TEMPLATES)}, or give a Jinja file"
    raise InputError(f"no template is called {name!r}; {hint}")
