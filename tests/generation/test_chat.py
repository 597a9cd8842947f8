"""Conversations: the state always stands where the text stands, and what is undone, forked or tried again is exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from receptance import Config, InputError, Message, StateError
from receptance.generation import Chat, Sampling
from receptance.generation.transcript import KEY, Moment
from receptance.state import State, saved_notes
from receptance.templates import TEMPLATES
from receptance.tokenizers import ByteTokenizer, Tokenizer, WorldTokenizer

from ..models.cases import noisy, used
from .models import scripted, small

BYTES = ByteTokenizer()
WARM = Sampling(temperature=1.2, top_p=0.9, seed=11)


def chat_of(template: str = "g1", **options: object) -> Chat:
    return Chat(small(), BYTES, TEMPLATES[template], sampling=WARM, max_tokens=25, **options)  # type: ignore[arg-type]


def script(*answers: str, template: str = "g1", tokenizer: Tokenizer = BYTES, **options: object) -> Chat:
    """A conversation with a model that says `answers`; each has to end itself, by a stop or the end of text ("\\0")."""
    tokens = [token for answer in answers for token in ([0] if answer == "\0" else tokenizer.encode(answer))]
    model = scripted(small(vocab_size=tokenizer.vocab_size, dtype=torch.float64), tokens)
    return Chat(model, tokenizer, TEMPLATES[template], sampling=Sampling(temperature=0), **options)  # type: ignore[arg-type]


def same(one: State | None, other: State | None) -> bool:
    assert one is not None and other is not None
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def state_of(chat: Chat) -> State:
    """What the model remembers after the text that the conversation says it has read."""
    text = chat.moment.text.removesuffix(chat.moment.unread) if chat.moment.unread else chat.moment.text
    tokens = [0, *chat.tokenizer.encode(text)]
    return chat.model.features(torch.tensor([tokens]))[1]


def remembers_its_text(chat: Chat) -> None:
    assert chat.state is not None
    for one, other in zip(chat.state, state_of(chat), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_undo_gives_the_state_of_a_fresh_run() -> None:
    fresh, chat = chat_of(), chat_of()
    fresh.ask("one")
    chat.ask("one")
    moment = chat.moment
    chat.ask("two")
    assert not same(chat.state, fresh.state)
    gone = chat.undo()
    assert [message.role for message in gone] == ["user", "assistant"] and gone[0].content == "two"
    assert chat.moment is moment and same(chat.state, fresh.state)
    fresh.ask("three")
    chat.ask("three")
    assert chat.moment.text == fresh.moment.text and same(chat.state, fresh.state)


def test_forks_go_their_own_ways() -> None:
    fresh, chat = chat_of(), chat_of()
    chat.ask("one")
    fork = chat.fork()
    chat.ask("two")
    fork.ask("three")
    fresh.ask("one")
    fresh.ask("three")
    assert same(fork.state, fresh.state) and not same(fork.state, chat.state)
    fork.undo()
    assert len(chat.messages) == 4 and len(fork.messages) == 2


def test_retry_is_another_answer_to_the_same_message() -> None:
    chat = chat_of()
    chat.ask("one")
    first = chat.ask("two")
    for _ in chat.retry():
        pass
    second = chat.reply
    assert second is not None and second.text != first.text
    assert [m.content for m in chat.messages if m.role == "user"] == ["one", "two"]
    chat.undo()
    fresh = chat_of()
    fresh.ask("one")
    assert same(chat.state, fresh.state)
    for _ in range(2):
        again = chat_of()
        again.ask("one")
        again.ask("two")
        list(again.retry())
        assert again.reply is not None and again.reply.text == second.text


def test_saved_and_loaded_is_the_same_conversation(tmp_path: Path) -> None:
    chat, path = chat_of(system="Be brief."), tmp_path / "chat.safetensors"
    for text in ("one", "two"):
        chat.ask(text)
    chat.save(path)
    other = chat_of()
    other.load(path)
    assert other.messages == chat.messages and other.system == "Be brief." and same(other.state, chat.state)
    chat.ask("three")
    other.ask("three")
    assert same(other.state, chat.state)
    for conversation in (chat, other):
        conversation.undo()
        conversation.undo()
        conversation.ask("four")
    assert same(other.state, chat.state) and other.moment.text == chat.moment.text


def test_files_that_are_no_conversation(tmp_path: Path) -> None:
    chat = chat_of()
    with pytest.raises(InputError, match="say something"):
        chat.save(tmp_path / "empty.safetensors")
    assert not list(tmp_path.iterdir())
    used(chat.model, 1).save(tmp_path / "state.safetensors", chat.model)
    with pytest.raises(StateError, match="no conversation"):
        chat.load(tmp_path / "state.safetensors")
    with pytest.raises(StateError, match="does not exist"):
        chat.load(tmp_path / "nothing")
    chat.ask("one")
    chat.save(tmp_path / "chat.safetensors")
    other = Chat(
        noisy(Config(version="7", vocab_size=256, num_layers=1, dim=32, head_size=8)), BYTES, TEMPLATES["world"]
    )
    with pytest.raises(StateError, match="another model"):
        other.load(tmp_path / "chat.safetensors")
    assert other.moment == Moment()


def test_reset_forgets_and_can_be_undone() -> None:
    fresh, chat = chat_of(), chat_of()
    chat.ask("one")
    before = chat.moment
    chat.reset()
    assert chat.messages == () and chat.state is None
    chat.ask("two")
    fresh.ask("two")
    assert same(chat.state, fresh.state)
    chat.undo()
    chat.undo()
    assert chat.moment is before


def test_nothing_to_undo_or_try_again() -> None:
    chat = chat_of()
    with pytest.raises(InputError, match="say something"):
        chat.undo()
    with pytest.raises(InputError, match="say something"):
        chat.retry()
    chat.ask("one")
    chat.reset()
    with pytest.raises(InputError, match="say something"):
        chat.retry()


def test_a_new_system_text_is_read_with_the_next_message() -> None:
    chat = script(" Yes.\n\nUser:", " No.\n\nUser:", system="One.")
    chat.ask("one")
    chat.system = "Two."
    chat.ask("two")
    assert chat.moment.text.startswith("System: Two.\n\nUser: one") and "One." not in chat.moment.text
    remembers_its_text(chat)


def test_the_text_is_the_templates_own() -> None:
    chat = script(" Hello!\n\nUser:", " Fine.\n\nUser:")
    chat.ask("hi\n\n\nthere")
    remembers_its_text(chat)
    chat.ask("how are you")
    assert chat.moment.text == "User: hi\nthere\n\nAssistant: Hello!\n\nUser: how are you\n\nAssistant: Fine."
    assert [message.content for message in chat.messages][1::2] == ["Hello!", "Fine."]
    remembers_its_text(chat)


def test_a_stop_that_falls_inside_a_token() -> None:
    world = WorldTokenizer()
    chat = script(" 好。\n\n", " 好。\n\n", template="world", tokenizer=world)
    assert 28329 in world.encode(" 好。\n\n")
    for _ in range(2):
        reply = chat.ask("你好")
        assert (reply.text, reply.finish_reason) == ("好。", "stop")
        assert chat.moment.unread == "。" and chat.moment.text.endswith("Assistant: 好。")
        remembers_its_text(chat)


@pytest.mark.parametrize("stop", [(), "\nand this is a stop that is longer than what is kept of the last steps"])
def test_a_long_end_is_taken_back(stop: str) -> None:
    chat = script(" yes\n" + "\n" * 40 + (stop or "User:"), " no\n\nUser:", stop=stop)
    assert chat.ask("well?").text == "yes"
    assert chat.moment.text.endswith("Assistant: yes")
    remembers_its_text(chat)
    chat.ask("sure?")
    remembers_its_text(chat)


def test_a_stream_left_open_ends_where_something_else_begins() -> None:
    chat = script(" one two three", " four", "\0", " five")
    left = chat.stream("first")
    next(left)
    chat.model.head.tokens = list(b" four")  # type: ignore[union-attr]
    chat.ask("second")
    del left
    assert [message.content for message in chat.messages if message.role == "user"] == ["first", "second"]
    remembers_its_text(chat)
    for act in (chat.undo, chat.reset, chat.fork):
        chat.model.head.tokens = list(b" six seven")  # type: ignore[union-attr]
        left = chat.stream("more")
        next(left)
        act()
        assert list(left) == []
        assert [message.content for message in chat.messages if message.role == "user"] == {
            chat.undo: ["first", "second"],
            chat.reset: [],
            chat.fork: ["more"],
        }[act]


def test_a_stream_that_was_never_begun_says_nothing() -> None:
    chat = chat_of()
    chat.stream("first")
    chat.ask("second")
    assert len(chat.messages) == 2


def test_a_conversation_brings_its_template_and_its_start(tmp_path: Path) -> None:
    state = used(small(), 1)
    chat = Chat(small(), BYTES, TEMPLATES["g1"], sampling=WARM, max_tokens=5, state=state, think="fast")
    chat.ask("one")
    chat.save(tmp_path / "chat.safetensors")
    other = chat_of(template="flower")
    other.load(tmp_path / "chat.safetensors")
    assert (other.template.name, other.think) == ("g1", "fast") and same(other.initial_state, state)
    other.max_tokens = 5
    for conversation in (chat, other):
        conversation.system = "Be brief."
        conversation.ask("two")
    assert same(chat.state, other.state)
    other.reset()
    assert same(other.state, state)


def test_a_long_conversation_is_not_saved_again_for_every_turn(tmp_path: Path) -> None:
    chat = chat_of()
    chat.max_tokens = 1
    chat.ask("x" * 20_000)
    for _ in range(10):
        chat.ask("y")
    chat.save(tmp_path / "chat.safetensors")
    assert (tmp_path / "chat.safetensors").stat().st_size < 20_000 * 4 + 12 * chat.model.zero_state(1).num_bytes
    other = chat_of()
    other.load(tmp_path / "chat.safetensors")
    for _ in range(10):
        chat.undo()
        other.undo()
    assert other.moment.text == chat.moment.text and same(other.state, chat.state)


def test_the_seed_of_a_conversation(tmp_path: Path) -> None:
    def said(**options: object) -> str:
        return chat_of(**options).ask("one").text

    assert said(seed=5) == said(seed=5) != said(seed=6)
    assert said() == said(seed=WARM.seed)


def test_one_stop_may_be_a_text() -> None:
    assert script(" one. two", stop=". ").ask("count").text == "one"


def test_calls_are_told_only_where_there_are_tools() -> None:
    reply = script(' {"name": "rm", "arguments": {}}\n\nUser:').ask("hi")
    assert reply.tool_calls == () and reply.text.startswith("{")


def test_an_empty_answer() -> None:
    chat = script("\0", " Yes.\n\nUser:")
    reply = chat.ask("hi")
    assert (reply.text, reply.finish_reason) == ("", "stop")
    assert chat.ask("there?").text == "Yes."
    assert chat.moment.text == "User: hi\n\nAssistant:\n\nUser: there?\n\nAssistant: Yes."
    remembers_its_text(chat)


def test_thoughts_are_split_from_the_answer() -> None:
    chat = script(">\nhm\n</think>\nFour.\n\nUser:", "> no </think> five\n\nUser:", template="g1", think="on")
    kinds = [(piece.kind, piece.text) for piece in chat.stream("2+2?")]
    assert "".join(text for kind, text in kinds if kind == "answer").strip() == "Four."
    assert chat.reply is not None and (chat.reply.thought, chat.reply.text) == ("hm", "Four.")
    assert chat.moment.text.endswith("Assistant: <think>\nhm\n</think>\nFour.")
    chat.ask("sure?")
    assert chat.reply.thought == "no" and chat.messages[-1].content == "five"
    remembers_its_text(chat)


def test_a_thought_that_never_ends() -> None:
    chat = script("> and so on and on", template="g1", think="on", max_tokens=18)
    reply = chat.ask("why?")
    assert (reply.text, reply.thought, reply.finish_reason) == ("", "and so on and on", "length")


def test_an_answer_cut_short_goes_on_from_its_last_word() -> None:
    chat = script(" one two three", " Yes.\n\nUser:", max_tokens=8)
    assert chat.ask("count").finish_reason == "length"
    assert chat.moment.text.endswith("Assistant: one two"[: len("Assistant:") + 8])
    chat.model.head.tokens = list(b" Yes.\n\nUser:")  # type: ignore[union-attr]
    chat.max_tokens = 50
    chat.ask("go on")
    remembers_its_text(chat)


def test_closing_the_stream_keeps_what_was_said() -> None:
    chat = script(" one two three four")
    stream = chat.stream("count")
    said = "".join(next(stream).text for _ in range(3))
    stream.close()  # type: ignore[attr-defined]
    assert chat.reply is not None and chat.reply.finish_reason == "cancelled"
    assert said.strip() and chat.messages[-1].content.startswith(said.strip())
    remembers_its_text(chat)


def test_an_interrupt_keeps_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = script(" one two three four")
    stream = chat.stream("count")
    next(stream)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat.model.head, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert len(chat.messages) == 2
    remembers_its_text(chat)


@pytest.mark.parametrize("think", ["a bit", "a lot"])
def test_what_a_think_mode_adds_is_read_once(think: str) -> None:
    chat = script("> hm </think> Four.\n\nUser:", "> hm </think> Five.\n\nUser:", think=think)
    chat.ask("2+2?")
    read = chat.moment.num_tokens
    chat.ask("2+3?")
    assert chat.moment.num_tokens == len(chat.tokenizer.encode(chat.moment.text)) + 1 - len(chat.moment.unread)
    assert chat.reply is not None and chat.reply.num_prompt_tokens < read
    remembers_its_text(chat)
    chat.think = "off"
    list(chat.retry())
    assert chat.moment.text.count(f"(think {think})") == 1
    remembers_its_text(chat)


def test_tools_are_called_and_their_results_told() -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"properties": {"a": {"type": "number"}}}}}]
    call = '\n{"name": "add", "arguments": {"a": 1}}\n```\n\nUser:'
    chat = script(call, " It is 1.\n\nUser:", template="flower", tools=tools)
    assert chat.template.name == "g1"
    reply = chat.ask("add 1")
    assert [(called.name, called.arguments) for called in reply.tool_calls] == [("add", {"a": 1})]
    reply = chat.ask(Message("tool", '{"sum": 1}'))
    assert (reply.text, reply.tool_calls) == ("It is 1.", ())
    remembers_its_text(chat)


def test_a_message_that_cannot_be_said_changes_nothing() -> None:
    chat = chat_of()
    chat.ask("one")
    before = chat.moment
    for message in ("\ud800", Message("nobody", "hi")):
        with pytest.raises(InputError):
            chat.ask(message)
    assert chat.moment is before
    with pytest.raises(InputError, match="think"):
        chat_of(think="very hard")


def test_a_prepared_state_is_where_everything_starts() -> None:
    model = small()
    state = used(model, 1)
    chat = Chat(model, BYTES, TEMPLATES["world"], sampling=WARM, max_tokens=5, state=state)
    chat.ask("one")
    plain = chat_of()
    plain.max_tokens = 5
    plain.ask("one")
    assert not same(chat.state, plain.state)
    chat.reset()
    assert chat.state is state


def test_the_conversation_can_be_taken_up_from_messages() -> None:
    chat = chat_of(messages=[Message("user", "hi"), Message("assistant", "Hello.")])
    chat.ask("well?")
    assert chat.moment.text.startswith("User: hi\n\nAssistant: Hello.\n\nUser: well?\n\nAssistant:")
    assert len(chat.messages) == 4


def test_undo_reaches_back_a_fixed_number_of_turns() -> None:
    chat = chat_of()
    chat.max_tokens = 1
    for number in range(35):
        chat.ask(str(number))
    for _ in range(32):
        chat.undo()
    with pytest.raises(InputError, match="only the last 32 turns"):
        chat.undo()


def test_messages_as_openai_writes_them() -> None:
    chat = chat_of(messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}])
    chat.ask({"role": "user", "content": "well?"})
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [5]}, "tool 1"),
        ({"think": "hard"}, "think mode"),
        ({"messages": ["hi"]}, "a message is"),
        ({"messages": [{"role": "user"}]}, "a message is"),
        ({"messages": [Message("nobody", "hi")]}, "role"),
        ({"system": 5}, "text"),
        ({"settings": {"temprature": 1}}, "did you mean temperature"),
        ({"sampling": "greddy"}, "did you mean greedy"),
        ({"stop": ""}, "stop"),
    ],
)
def test_what_no_answer_could_be_given_with(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Chat(small(), BYTES, TEMPLATES["g1"], **options)  # type: ignore[arg-type]


def test_settings_change_what_suits() -> None:
    model = small()
    cold = Chat(model, BYTES, TEMPLATES["g1"], settings={"temperature": 0}, max_tokens=9)
    greedy = Chat(model, BYTES, TEMPLATES["g1"], sampling="greedy", max_tokens=9)
    assert cold.ask("one").text == greedy.ask("one").text


def test_half_a_letter_is_told_by_its_place_in_the_message() -> None:
    with pytest.raises(InputError, match="character 3 of the text is U\\+D800"):
        chat_of().ask("ab\ud800")


Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda note: note["moments"][-1].update(row=None), "do not belong together"),
        (lambda note: note["moments"][-1].update(unread="xxx"), "do not belong together"),
        (lambda note: note["moments"][-1].update(row=77), "no conversation"),
        (lambda note: note["messages"][0].update(role="bogus"), "no conversation"),
        (lambda note: note["about"].update(seed=2**70), "no conversation"),
        (lambda note: note.update(more=1), "no conversation"),
        (None, "not finite"),
    ],
)
def test_files_that_were_tampered_with(tmp_path: Path, change: Change | None, words: str) -> None:
    chat = chat_of()
    chat.ask("one")
    chat.save(tmp_path / "chat.safetensors")
    state = State.load(tmp_path / "chat.safetensors", chat.model)
    note = json.loads(saved_notes(tmp_path / "chat.safetensors")[KEY])
    if change is None:
        state.wkv[0, 0] = float("nan")
    else:
        change(note)
    state.save(tmp_path / "other.safetensors", chat.model, {KEY: json.dumps(note)})
    before = chat.moment
    with pytest.raises(StateError, match=words):
        chat.load(tmp_path / "other.safetensors")
    assert chat.moment is before
