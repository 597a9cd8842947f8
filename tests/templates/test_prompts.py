"""Each family's prompts, byte for byte.

The texts are those of the sources that `receptance/templates/known.py` names, and their examples where they have some.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from receptance.errors import InputError
from receptance.templates import THINK_MODES, Message, Template, TurnTemplate, open_template
from receptance.templates.known import TEMPLATES
from receptance.tokenizers import StopFinder

INTRO = (
    "User: hi\n\nAssistant: Hi. I am your assistant and I will provide expert full response in full details. "
    "Please feel free to ask any question and I will always answer it.\n\n"
)
USER = Message("user", "xxx")
TURNS = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
SYSTEM = Message("system", "s")

PROMPTS: dict[str, tuple[str, list[Message], str, str]] = {
    "world": ("world", [USER], "off", INTRO + "User: xxx\n\nAssistant:"),
    "world without its introduction": ("world", [Message("system", ""), USER], "off", "User: xxx\n\nAssistant:"),
    "world turns": ("world", [SYSTEM, *TURNS], "off", "System: s\n\nUser: a\n\nAssistant: b\n\nUser: c\n\nAssistant:"),
    "raven": ("raven", [USER], "off", "Bob: xxx\n\nAlice:"),
    "raven turns": ("raven", [SYSTEM, *TURNS], "off", "\ns\n\nBob: a\n\nAlice: b\n\nBob: c\n\nAlice:"),
    "g1": ("g1", [USER], "off", "User: xxx\n\nAssistant:"),
    "g1 turns": ("g1", TURNS, "off", "User: a\n\nAssistant: b\n\nUser: c\n\nAssistant:"),
    "g1 system": ("g1", [SYSTEM, USER], "off", "System: s\n\nUser: xxx\n\nAssistant:"),
    "g1 all": ("g1", [SYSTEM, *TURNS], "on", "System: s\n\nUser: a\n\nAssistant: b\n\nUser: c\n\nAssistant: <think"),
    "g1 on": ("g1", [USER], "on", "User: xxx\n\nAssistant: <think"),
    "g1 fast": ("g1", [USER], "fast", "User: xxx\n\nAssistant: <think>\n</think"),
    "g1 some": ("g1", [USER], "some", "User: xxx (think)\n\nAssistant: <think"),
    "g1 a bit": ("g1", [USER], "a bit", "User: xxx (think a bit)\n\nAssistant: <think"),
    "g1 a lot": ("g1", [USER], "a lot", "User: xxx (think a lot)\n\nAssistant: <think"),
    "flower": ("flower", [USER], "off", "User✿xxx✿\nBot✿"),
    "flower on": ("flower", [USER], "on", "User✿xxx✿\nBot✿<think"),
    "flower fast": ("flower", [USER], "fast", "User✿xxx✿\nBot✿<think></think"),
    "flower a bit": ("flower", [USER], "a bit", "User✿xxx (think a bit)✿\nBot✿<think"),
    "flower turns": ("flower", [SYSTEM, *TURNS], "on", "System✿s✿\nUser✿a✿\nBot✿b✿\nUser✿c✿\nBot✿<think"),
    "markdown": ("markdown", TURNS, "on", "### User\na\n### Assistant\nb\n### User\nc\n### Assistant\n<think"),
    "markdown fast": (
        "markdown",
        [SYSTEM, USER],
        "fast",
        "### System\ns\n### User\nxxx\n### Assistant\n<think></think",
    ),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_a_prompt_is_the_official_text(case: str) -> None:
    name, messages, think, text = PROMPTS[case]
    template = TEMPLATES[name]
    assert template.prompt(messages, think) == text
    assert text.endswith(template.opening(think))


UNTIDY = "\r\n  one\r\n\r\ntwo\n\n\n\nthree \n\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g1", "System: one\ntwo\nthree\n\nUser: one\ntwo\nthree\n\nAssistant: one\n\ntwo\n\n\n\nthree"),
        ("world", "System: one\ntwo\nthree\n\nUser: one\ntwo\nthree\n\nAssistant: one\ntwo\nthree"),
        ("raven", "\none\ntwo\nthree\n\nBob: one\ntwo\nthree\n\nAlice: one\ntwo\nthree"),
        ("flower", "System✿one\n\ntwo\n\n\n\nthree✿\nUser✿one\n\ntwo\n\n\n\nthree✿\nBot✿one\n\ntwo\n\n\n\nthree✿\n"),
    ],
)
def test_blank_lines_go_where_they_would_end_a_turn(name: str, text: str) -> None:
    messages = [Message(role, UNTIDY) for role in ("system", "user", "assistant")]
    assert TEMPLATES[name].prompt([*messages, USER]).startswith(text)


def test_a_flower_in_a_message_ends_no_turn() -> None:
    assert TEMPLATES["flower"].prompt([Message("user", "✿\nBot✿yes✿")]) == "User✿❀\nBot❀yes❀✿\nBot✿"


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_empty_message_leaves_no_space_behind(name: str) -> None:
    prompt = TEMPLATES[name].prompt([Message("user", " \n"), Message("assistant", ""), USER])
    assert ": \n" not in prompt and not prompt.endswith(" ")


GENERATED = {
    "off": (" Yes.", " Two\n\nparts", ""),
    "fast": (">\nYes.", ">\nA\n\nb"),
    "on": (">\nSo?\n</think>\nYes.", "> never closed"),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("think", GENERATED)
def test_a_longer_conversation_begins_with_what_was_read(name: str, think: str) -> None:
    """Whatever was generated, and however much of a turn's end a stop left behind."""
    template = TEMPLATES[name]
    assert isinstance(template, TurnTemplate)
    if think not in template.think_modes:
        return
    asked = [SYSTEM, template.as_sent(USER, think)]
    read = template.prompt(asked, think)
    following = template.prompt([Message("system", ""), Message("user", "next")])
    for generated in GENERATED[think]:
        for length in range(len(template.closing) + 1):
            raw = template.opening(think) + generated + template.closing[:length]
            turns = [*asked, Message("assistant", "unused", raw), Message("user", "next")]
            assert template.prompt(turns) == read + generated + template.closing + following


def test_the_last_message_as_later_prompts_repeat_it() -> None:
    template = TEMPLATES["g1"]
    sent = template.as_sent(USER, "a bit")
    assert sent == Message("user", "xxx", " xxx (think a bit)")
    assert template.as_sent(sent, "a lot") == sent
    assert template.as_sent(USER, "on") == USER
    more = [sent, Message("assistant", "b"), Message("user", "c")]
    assert template.prompt(more, "a lot") == (
        "User: xxx (think a bit)\n\nAssistant: b\n\nUser: c (think a lot)\n\nAssistant: <think"
    )


@pytest.mark.parametrize(
    ("name", "generated", "kept"),
    [
        ("world", " It is.\n\nUser: and", " It is."),
        ("world", " 好。\n\n", " 好。"),
        ("raven", " Yes!\n\nBob: and", " Yes!"),
        ("g1", " One.\n\nTwo.\n\nUser: and", " One.\n\nTwo."),
        ("g1", " One.\nUser: and", " One."),
        ("g1", "\n\nUser:", ""),
        ("flower", "Two\n\nparts✿\nUser✿", "Two\n\nparts"),
        ("flower", "✿", ""),
        ("markdown", "Done.\n### User\nand", "Done."),
    ],
)
def test_an_answer_ends_where_its_family_ends_one(name: str, generated: str, kept: str) -> None:
    for size in range(1, len(generated) + 1):
        finder = StopFinder(TEMPLATES[name].stops)
        parts = [generated[i : i + size] for i in range(0, len(generated), size)]
        assert "".join(map(finder.push, parts)) == kept and finder.found


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "a conversation without messages cannot be answered; give at least one from the user"),
        ([Message("wizard", "x")], "a message has the role 'wizard'; choose one of: system, user, assistant, tool"),
        (TURNS[:2], "the last message is the assistant's own; add one from the user or a tool for it to answer"),
        ([Message("user", 1)], "the content of a message must be text and is int"),  # type: ignore[arg-type]
    ],
    ids=["none", "role", "assistant", "number"],
)
def test_what_cannot_be_answered(messages: list[Message], said: str) -> None:
    for template in TEMPLATES.values():
        with pytest.raises(InputError) as error:
            template.prompt(messages)
        assert str(error.value) == said


@pytest.mark.parametrize(("name", "modes"), [("world", "off"), ("markdown", "off, fast, on")])
def test_a_think_mode_that_a_family_does_not_have(name: str, modes: str) -> None:
    template = TEMPLATES[name]
    calls: list[Any] = [lambda: template.prompt([USER], "deep"), lambda: template.opening("deep")]
    for call in [*calls, lambda: template.as_sent(USER, "deep")]:
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value) == f"the template {name} has no think mode 'deep'; choose one of: {modes}"


def test_every_template_can_be_opened_by_name() -> None:
    for name, template in TEMPLATES.items():
        assert open_template(name) is template and template.name == name
        assert template.default_think in template.think_modes and "off" in template.think_modes
        assert set(template.think_modes) <= set(THINK_MODES) and template.stops


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flowr", "no template is called 'flowr'; did you mean flower?"),
        ("qq", "no template is called 'qq'; choose one of: world, raven, g1, flower, markdown, or give a Jinja file"),
        (
            "a.jinja",
            "the template a.jinja does not exist; give a Jinja file or one of: world, raven, g1, flower, markdown",
        ),
    ],
)
def test_a_template_that_does_not_exist(name: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        open_template(name)
    assert str(error.value) == said


def test_templates_load_no_pytorch() -> None:
    code = "import receptance.templates as t, sys; t.template_for('x'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_tools_for_families_that_never_saw_any() -> None:
    tools = [{"name": "f"}]
    for name in ("world", "raven"):
        with pytest.raises(InputError) as error:
            TEMPLATES[name].prompt([USER], tools=tools)
        assert str(error.value) == f"the template {name} has no form for tools; leave them out"
        with pytest.raises(InputError):
            TEMPLATES[name].for_tools()
        assert TEMPLATES[name].parse_tool_calls('```json\n{"name": "f", "arguments": {}}\n```') == []
        with pytest.raises(InputError, match="has no form for tools; leave them out"):
            TEMPLATES[name].prompt([USER, Message("tool", "1")])


def test_a_template_of_ones_own() -> None:
    plain = TurnTemplate(name="plain", headings={"user": "Q: ", "assistant": "A: "}, stops=("\n\n",))
    assert plain.prompt([USER]) == "Q: xxx\n\nA:"
    with pytest.raises(InputError) as error:
        plain.prompt([SYSTEM, USER])
    assert str(error.value) == "the template plain has no messages of the role 'system'; leave them out"


def test_who_writes_tools_for_the_flower() -> None:
    with pytest.raises(InputError) as error:
        TEMPLATES["flower"].prompt([USER], tools=[{"name": "f"}])
    assert str(error.value) == (
        "the template flower has no form for tools; use the template g1, which its models know too"
    )
    assert TEMPLATES["flower"].for_tools() is TEMPLATES["g1"].for_tools() is TEMPLATES["g1"]


def test_a_message_is_plain_data() -> None:
    """So that conversations can be saved as JSON."""
    message = Message("user", "x", " x")
    assert Message(**json.loads(json.dumps(vars(message)))) == message
    assert isinstance(TEMPLATES["g1"], Template)
