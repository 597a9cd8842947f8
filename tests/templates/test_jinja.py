"""Templates that a user brings."""

from pathlib import Path
from typing import Any

import pytest

from receptance.errors import InputError
from receptance.templates import THINK_MODES, Message, Template, open_template

USER = [Message("user", "Hello")]

CHAT = """{# stops: ["\\n\\nUser:", "<end>"] #}
{%- for message in messages -%}
{{ message.role | capitalize }}: {{ message.content }}{{ "\\n\\n" }}
{%- endfor -%}
{{ "Assistant:" + (" <think" if think == "on" else " <think>\\n</think" if think == "fast" else "") }}
"""


def template(tmp_path: Path, source: str) -> Template:
    path = tmp_path / "chat.jinja"
    path.write_text(source, encoding="utf-8")
    return open_template(path)


def test_a_template_from_a_file(tmp_path: Path) -> None:
    own = template(tmp_path, CHAT)
    turns = [*USER, Message("assistant", "Hi"), Message("user", "✿?")]
    assert own.prompt(turns, "on") == "User: Hello\n\nAssistant: Hi\n\nUser: ✿?\n\nAssistant: <think"
    assert (own.name, own.stops, own.think_modes) == ("chat.jinja", ("\n\nUser:", "<end>"), THINK_MODES)
    assert [own.opening(mode) for mode in ("off", "fast", "on")] == ["", " <think>\n</think", " <think"]
    assert own.parse_tool_calls('{"name": "f", "arguments": {}}')[0].name == "f"
    assert own.for_tools() is own and own.as_sent(USER[0]) is USER[0]


def test_what_hugging_face_gives(tmp_path: Path) -> None:
    source = """{%- if tools %}
    {{- tools | tojson }}
{%- endif %}
{% for message in messages %}
    {% if message['role'] == 'system' %}{% continue %}{% endif %}
{% generation %}
{{ message['content'] }}
{% endgeneration %}
{% endfor %}
{{ bos_token }}{{ eos_token }}{{ documents is none }}{{ strftime_now("%Y")[:2] }}
{%- if add_generation_prompt %}
{{ '<think>' if enable_thinking else '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}"""
    own = template(tmp_path, source)
    assert own.think_modes == ("off", "on") and own.stops == ()
    prompt = own.prompt([Message("system", "s"), *USER], "on", [{"name": "f", "description": "é<"}])
    assert prompt == '[{"name": "f", "description": "é<"}]Hello\nTrue20<think>'
    assert own.opening() == "<think>\n\n</think>\n\n" and own.opening("on") == "<think>"


def test_a_template_that_does_not_think(tmp_path: Path) -> None:
    own = template(tmp_path, "{{ messages[0].content }}")
    assert own.think_modes == ("off",)
    with pytest.raises(InputError, match=r"the template chat.jinja has no think mode 'on'; choose one of: off"):
        own.prompt(USER, "on")
    with pytest.raises(InputError, match="without messages"):
        own.prompt([])


WRONG = {
    "syntax": ("\n{% if %}", "{path}, line 2: Expected an expression, got 'end of statement block'; "),
    "unknown filter": ("a\n\n{{ 1 | shout }}", "{path}, line 3: No filter named 'shout'"),
    "its own refusal": (
        "\n{{ raise_exception('no\n system') }}",
        "{path}, line 2 refuses this conversation: no system",
    ),
    "undefined": ("\n\n{{ nothing.at.all }}", "{path}, line 3: 'nothing' is undefined; "),
    "division": ("{{ 1 / 0 }}", "{path}, line 1: division by zero; "),
    "another file": ("{% include 'secret' %}", "{path}, line 1: no loader"),
    "a loop": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{path}, line 1: it takes more than 2,000,000 steps; ",
    ),
    "a loop in a macro": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{path}, line 1: it takes more than 2,000,000 steps; ",
    ),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{path}, line 1: maximum recursion depth"),
    "a wide range": ("{{ range(9999999999) }}", "{path}, line 1: Range too big"),
    "a long text": ("{{ 'a' * 99999999999 }}", "{path}, line 1: it makes a value that is too large; "),
    "a long list": ("{{ 99999999999 * messages }}", "{path}, line 1: it makes a value that is too large; "),
    "a high power": ("{{ 9 ** 9999999999 }}", "{path}, line 1: it makes a value that is too large; "),
    "a number that doubles": (
        "{% set n = namespace(s=9) %}{% for i in range(99) %}{% set n.s = n.s * n.s %}{% endfor %}",
        "{path}, line 1: it makes a value that is too large; ",
    ),
    "a text that doubles": (
        "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{path}, line 1: it makes a value that is too large; ",
    ),
    "a list that doubles": (
        "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{path}, line 1: it makes a value that is too large; ",
    ),
    "a long prompt": (
        "{% set s = 'a' * 9000 %}{% for i in range(9000) %}{{ s }}{% endfor %}",
        "{path}: it writes more than 10,000,000 characters; ",
    ),
    "the way out of the sandbox": ("{{ ''.__class__.__mro__ }}", "{path}, line 1: access to attribute '__class__'"),
    "changing a message": ("{{ messages.append(1) }}", "{path}, line 1: access to attribute 'append'"),
    "stops that are no list": ("{# stops: 7 #}", "the stops of {path} are no list of texts; write for example"),
    "stops that are no JSON": ("{# stops: ['a'] #}", "the stops of {path} are no list of texts; "),
    "an empty stop": ('{# stops: [""] #}', "the stops of {path} are no list of texts; "),
    "nested without end": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{path} is nested too deeply"),
    "a large file": (" " * (2**20 + 1), "{path} is larger than 1,048,576 characters and cannot be a template"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(case: str, tmp_path: Path) -> None:
    source, said = WRONG[case]
    with pytest.raises(InputError) as error:
        template(tmp_path, source).prompt(USER)
    assert str(error.value).startswith(said.format(path=tmp_path / "chat.jinja"))
    assert "\n" not in str(error.value)


WIDE = {
    "filter": "'a' | center(60_000_000)",
    "filter by name": "'a' | center(width=60_000_000)",
    "filter in a map": "['a'] | map('center', 60_000_000) | list",
    "batch": "[1] | batch(60_000_000, 0) | list",
    "method": "'a'.ljust(60_000_000)",
    "method by subscript": "'a'['zfill'](60_000_000)",
    "operator": "'%60000000d' % 1",
    "operator with a name": "'%(n)-60000000d' % {'n': 1}",
    "precision": "'%.60000000f' % 1",
    "format": "'{:>60000000}'.format(1)",
    "format of a mapping": "'{a:>60000000}'.format_map({'a': 1})",
    "format filter": "'%60000000s' | format(1)",
}
LARGE = {
    "method": "s.replace('a', s)",
    "filter": "s | replace('a', s)",
    "join": "s.join(s)",
    "operator": "('%s' * 9_000) % ((s,) * 9_000)",
    "computed width": "'{:{}}'.format(1, 60_000_000)",
}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        *((expression, "it asks for a width of more than 99,999") for expression in WIDE.values()),
        *((expression, "it makes a value that is too large") for expression in LARGE.values()),
    ],
    ids=[*(f"wide {what}" for what in WIDE), *(f"large {what}" for what in LARGE)],
)
def test_no_value_is_too_large(expression: str, said: str, tmp_path: Path) -> None:
    own = template(tmp_path, f"{{% set s = 'a' * 9_000 %}}\n{{{{ ({expression}) | length }}}}")
    with pytest.raises(InputError, match=f"line 2: {said}; correct the template$"):
        own.prompt(USER)


def test_what_formats_and_fills_still_does(tmp_path: Path) -> None:
    """Bounds on widths touch neither other numbers nor texts that only look like a format."""
    expressions = {
        "'a' | center(5)": "  a  ",
        "'7'.zfill(3)": "007",
        "'%s of %05.1f%%: 123456789' % ('5% 7', 2)": "5% 7 of 002.0%: 123456789",
        "7 % 4": "3",
        "'{} {n:>4}: {0[0]} 123456789'.format('ab', n=1720000000)": "ab 1720000000: a 123456789",
        "'%d' | format(1720000000)": "1720000000",
        "1720000000.5 | round(0) | int": "1720000000",
        "nothing | default(1720000000)": "1720000000",
        "[1, 2, 3] | batch(2) | list": "[[1, 2], [3]]",
        "messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',')": "Hello",
    }
    for expression, value in expressions.items():
        assert template(tmp_path, f"{{{{ {expression} }}}}").prompt(USER) == value, expression


def test_a_file_that_repeats_raw_goes_on_where_the_model_is(tmp_path: Path) -> None:
    raw = 'Assistant:{{ message.raw if message.raw is not none else " " + message.content }}{{ "\\n\\n" }}'
    source = "{%- for message in messages -%}{%- if message.role == 'user' -%}User: {{ message.content }}{{ '\\n\\n' }}"
    source += "{%- else -%}" + raw + "{%- endif -%}{%- endfor -%}Assistant:"
    answer = "  Hi \n</think>"
    turns = [*USER, Message("assistant", "Hi", answer), *USER]
    for own, goes_on in ((template(tmp_path, source), True), (template(tmp_path, CHAT), False)):
        assert own.prompt(turns).startswith(own.prompt(USER) + answer) == goes_on


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    own = template(tmp_path, "\ufeff" + CHAT)
    assert own.stops == ("\n\nUser:", "<end>") and own.prompt(USER) == "User: Hello\n\nAssistant:"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jinja"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=f"{path} cannot be read as a template"):
        open_template(path)


def test_steps_are_counted_anew_for_each_prompt(tmp_path: Path) -> None:
    own = template(tmp_path, "{% for a in range(99999) %}{% endfor %}{{ messages | length }}{{ loop }}")
    assert [own.prompt(USER) for _ in range(30)] == ["1"] * 30


def test_loops_know_where_they_are(tmp_path: Path) -> None:
    """A loop over what is counted is still a loop."""
    source = (
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% else %}-{% endfor %}"
    )
    source += (
        "{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% endfor %}{% for c in 'xy' recursive %}{{ c }}{% endfor %}"
    )
    own = template(tmp_path, source + "{% for x in nothing %}{% else %}-{% endfor %}")
    turns: list[Any] = [*USER, *USER]
    assert own.prompt(turns) == "1/2,2/2a1xy-"
