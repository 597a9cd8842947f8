"""Conversations by name: kept, found again after a restart, apart for each owner, and never half."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from receptance.errors import InputError, ReceptanceError, StateError
from receptance.generation import Moment
from receptance.models import RWKV
from receptance.server.stored import Conversations, Stored, UnknownError, new
from receptance.templates import Message

from ..generation.models import small

MODEL = "m"


@pytest.fixture(scope="module")
def model() -> RWKV:
    return small(dtype=torch.float32)


def stored(model: RWKV, name: str = "a", text: str = "Hello", offer: str = MODEL) -> Stored:
    """A conversation that has read a text."""
    with torch.no_grad():
        _, state = model(torch.tensor([list(text.encode())]))
    messages = (Message("user", text), Message("assistant", "Yes."))
    return new(name, offer, Moment(messages, text, "", state, len(text)), "g1", "off")


def same(one: Stored, other: Stored) -> bool:
    """All but when."""
    assert one.moment.state is not None and other.moment.state is not None
    equal = all(torch.equal(*pair) for pair in zip(one.moment.state, other.moment.state, strict=True))
    without = [replace(found, created=0, moment=replace(found.moment, state=None)) for found in (one, other)]
    return equal and without[0] == without[1]


@pytest.fixture(params=["memory", "folder"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, model: RWKV) -> Conversations:
    return Conversations({MODEL: model}, most=3, folder=tmp_path / "kept" if request.param == "folder" else None)


def test_what_is_put_is_got(kept: Conversations, model: RWKV) -> None:
    one = stored(model)
    kept.put("", one)
    assert same(kept.get("", "a"), one) and kept.names("") == ["a"] and len(kept.all("")) == 1
    other = stored(model, text="Goodbye")
    kept.put("", other)
    assert same(kept.get("", "a"), other) and kept.names("") == ["a"]


def test_what_is_not_there(kept: Conversations) -> None:
    with pytest.raises(UnknownError, match="no stored conversation 'a'"):
        kept.get("", "a")
    with pytest.raises(UnknownError):
        kept.delete("", "a")
    assert kept.names("") == [] == kept.all("")


def test_what_is_deleted_is_gone(kept: Conversations, model: RWKV) -> None:
    kept.put("", stored(model))
    kept.get("", "a")
    kept.delete("", "a")
    with pytest.raises(UnknownError):
        kept.get("", "a")
    assert kept.names("") == []


def test_owners_do_not_see_each_other(kept: Conversations, model: RWKV) -> None:
    kept.put("ada", stored(model, text="Ada's"))
    kept.put("bob", stored(model, text="Bob's"))
    assert kept.get("ada", "a").moment.text == "Ada's" and kept.get("bob", "a").moment.text == "Bob's"
    kept.delete("ada", "a")
    assert kept.names("ada") == [] and kept.names("bob") == ["a"] and kept.names("") == []


def test_there_are_not_too_many(kept: Conversations, model: RWKV) -> None:
    for name in ("a", "b", "c"):
        kept.put("", stored(model, name))
    kept.put("", stored(model, "b", "Again"))
    for name in ("d", "e"):
        with pytest.raises(InputError, match="3 conversations are stored already"):
            kept.put("", stored(model, name))
        with pytest.raises(InputError):
            kept.check_room("", name)
    kept.check_room("", "a")
    kept.put("another", stored(model, "d"))
    kept.delete("", "a")
    kept.put("", stored(model, "d"))


def test_memory_is_bounded(model: RWKV, tmp_path: Path) -> None:
    most = int(2.5 * stored(model).num_bytes)
    in_memory = Conversations({MODEL: model}, most_bytes=most)
    for name in ("a", "b", "c"):
        in_memory.put("", stored(model, name))
    with pytest.raises(InputError, match="memory"):
        in_memory.put("another", stored(model))
    # Where there is a folder, it is the reading that is done again.
    in_folder = Conversations({MODEL: model}, most_bytes=most, folder=tmp_path)
    for number in range(6):
        in_folder.put("", stored(model, f"a{number}", f"Hello {number}"))
    for _ in range(2):
        assert [one.moment.text for one in in_folder.all("")] == [f"Hello {number}" for number in range(6)]
        assert in_folder._num_bytes <= most


def test_a_restart_changes_nothing(model: RWKV, tmp_path: Path) -> None:
    for name in ("a", "b.c", "d-e_f", "A" * 64):
        one = stored(model, name, f"Hello {name}")
        Conversations({MODEL: model}, folder=tmp_path).put("ada", one)
        assert same(Conversations({MODEL: model}, folder=tmp_path).get("ada", name), one)
    assert Conversations({MODEL: model}, folder=tmp_path).names("ada") == ["A" * 64, "a", "b.c", "d-e_f"]


def test_a_conversation_keeps_its_model_over_a_restart(model: RWKV, tmp_path: Path) -> None:
    """Also where another model reads the same states, and where the server has another name."""
    before = Conversations({"m": model, "m:poet/v1": model}, folder=tmp_path)
    before.put("", stored(model, "a", offer="m:poet/v1"))
    before.put("", stored(model, "b"))
    after = Conversations({"n": model, "n:poet/v1": model}, folder=tmp_path)
    assert [one.model for one in after.all("")] == ["n:poet/v1", "n"] and after.names("") == ["a", "b"]
    # In the place of one that another model led.
    after.put("", stored(model, "a", "Again", offer="n"))
    assert after.get("", "a").model == "n" and after.names("") == ["a", "b"]
    after.put("", stored(model, "a", offer="n:poet/v1"))
    without = Conversations({"m": model}, folder=tmp_path)
    with pytest.raises(StateError, match="was led with m:poet/v1, which is not served now"):
        without.get("", "a")
    assert [one.name for one in without.all("")] == ["b"]
    without.delete("", "a")
    assert without.names("") == ["b"]


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_damaged_file_is_one_sentence_and_no_harm(
    model: RWKV, tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    before = Conversations({MODEL: model}, folder=tmp_path)
    before.put("", stored(model, "a"))
    before.put("", stored(model, "b"))
    [file] = tmp_path.glob("*/a.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[:size])
    after = Conversations({MODEL: model}, folder=tmp_path)
    with pytest.raises(StateError, match="the stored conversation a is no saved state") as raised:
        after.get("", "a")
    assert str(tmp_path) not in str(raised.value)
    assert [one.name for one in after.all("")] == ["b"] and "left out" in caplog.text
    after.put("", stored(model, "a"))
    assert same(after.get("", "a"), stored(model, "a"))
    file.write_bytes(data[:size])
    after.delete("", "a")
    assert not file.exists()


def test_a_file_goes_out_and_in(kept: Conversations, model: RWKV) -> None:
    one = stored(model)
    data = kept.to_file(one)
    assert same(kept.from_file(data, "b", MODEL), replace(one, name="b"))


def test_another_models_file(kept: Conversations, model: RWKV) -> None:
    other = small("6", dtype=torch.float32)
    data = Conversations({MODEL: other}).to_file(stored(other))
    with pytest.raises(StateError, match="the file was saved from another model"):
        kept.from_file(data, "b", MODEL)


def test_no_file_however_damaged_does_harm(kept: Conversations, model: RWKV) -> None:
    """Bytes of a good one changed at random: it is read as it is, or refused with a sentence."""
    data, noise = kept.to_file(stored(model)), random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(noise.choice((1, 1, 3, 20))):
            damaged[noise.randrange(noise.choice((8, 600, len(data))))] = noise.randrange(256)
        try:
            found = kept.from_file(bytes(damaged[: noise.choice((None, -1, len(data) // 2))]), "b", MODEL)
            assert found.moment.state is not None and all(bool(t.isfinite().all()) for t in found.moment.state)
        except ReceptanceError as error:
            refused += 1
            assert "\n" not in str(error) and "/tmp" not in str(error)
    assert refused > 100


def test_a_folder_that_cannot_be_written(model: RWKV, tmp_path: Path) -> None:
    (tmp_path / "all").write_text("in the way")
    with pytest.raises(ReceptanceError, match="the conversation a cannot be written") as raised:
        Conversations({MODEL: model}, folder=tmp_path).put("", stored(model))
    assert not isinstance(raised.value, InputError) and str(tmp_path) not in str(raised.value)


def test_owners_names_may_be_anything(model: RWKV, tmp_path: Path) -> None:
    kept = Conversations({MODEL: model}, folder=tmp_path)
    for owner in ("../../a", "/", "a\0b", "é" * 300, "all"):
        kept.put(owner, stored(model))
        assert kept.names(owner) == ["a"]
    assert len(list(tmp_path.glob("*/a.safetensors"))) == 5


def test_many_threads_at_once(kept: Conversations, model: RWKV) -> None:
    one, errors = stored(model), []

    def work() -> None:
        try:
            for _ in range(10):
                kept.put("", one)
                assert same(kept.get("", "a"), one)
                kept.all("")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
