"""What an answer has to look like, as a grammar of all that a model generates: thought, answer, stop.

    grammar = Grammar((Form("json", '{"type": "object"}'),), opening=" <think")
    grammar.text()                              # for llguidance

A model begins an answer with a space, and one that thinks ends its thought first.  So the grammar begins where the
prompt ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from llguidance import regex_to_lark

from ..templates.replies import BEGIN, END

# A model that finds nothing to say in JSON would go on with white space: a line break and an indentation are enough.
JSON_SPACE = r"\n? {0,32}"
# What may stand before an answer; those who read it do not see it.
LEAD = r"[ \n]{1,2}"


@dataclass(frozen=True)
class Form:
    """One thing that an answer may be: a value of a schema, or a text of a grammar, between two given texts.

    text    a JSON schema, a regular expression, or a Lark grammar whose rule `start` is the answer
    """

    kind: Literal["json", "regex", "lark"]
    text: str
    before: str = ""
    after: str = ""

    def entry(self) -> dict[str, Any]:
        """As one of llguidance's grammars."""
        if self.kind == "json":
            guidance = {"whitespace_pattern": JSON_SPACE}
            return {"json_schema": {**json.loads(self.text), "x-guidance": guidance}}
        return {"lark_grammar": f"start: /{regex_to_lark(self.text)}/" if self.kind == "regex" else self.text}


@dataclass(frozen=True)
class Grammar:
    """All that a model may generate.

    forms       the answer is of one of them
    opening     what of the answer the prompt ends with, as `Template.opening`; None where a text is continued
    stops       texts that may follow the answer; the end of the text always may
    """

    forms: tuple[Form, ...]
    opening: str | None = None
    stops: tuple[str, ...] = ()

    def text(self) -> str:
        """For llguidance."""
        forms = " | ".join(
            f"{_quoted(form.before)} @form{number} {_quoted(form.after)}" for number, form in enumerate(self.forms)
        )
        rules = [f"start: {_before_answer(self.opening)} ({forms}) {'stop?' if self.stops else ''}"]
        rules += [f"lead: /{LEAD}/", f'thought[suffix="{END}"]: /(?s:.*)/']
        if self.stops:
            rules.append(f"stop: {' | '.join(map(_quoted, self.stops))}")
        grammars = [{"lark_grammar": "\n".join(rules)}]
        grammars += [{"name": f"form{number}", **form.entry()} for number, form in enumerate(self.forms)]
        return json.dumps({"grammars": grammars})


@dataclass(frozen=True)
class Budget:
    """The most tokens of a thought; `half_open`: whether the answer has to close the mark that begins it."""

    num_tokens: int
    half_open: bool


def opens_thought(opening: str | None) -> bool:
    """Whether an answer with this opening begins with a thought that is not over yet."""
    return BEGIN[:-1] in (opening or "") and END[:-1] not in (opening or "")


def is_half_open(opening: str | None) -> bool:
    """Whether the answer has to close the mark that its opening ends with."""
    return (opening or "").endswith((BEGIN[:-1], END[:-1]))


def _before_answer(opening: str | None) -> str:
    if opening is None:
        return ""
    return f"{_quoted('>') if is_half_open(opening) else ''} {'thought' if opens_thought(opening) else ''} lead?"


def _quoted(text: str) -> str:
    return json.dumps(text) if text else ""
