"""States of what was read before: found by what was read and how it was cut, bounded, and on the disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from receptance.engine import Engine, Limits, Request, StateCache, StateStore
from receptance.engine.cache import Cuts, Place, name_of
from receptance.errors import StateError
from receptance.generation import Sampling
from receptance.state import State
from tests.conftest import ROOT

from .listening import model_of, serve

ROOT_NAME = b"model"


def state(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return State(torch.randn(2, 2, 1, 4), torch.randn(2, 1, 1, 4, 4))


def root() -> Place:
    return Place(ROOT_NAME, 0, state())


def read_all(cache: StateCache, tokens: list[int], marks: list[int], piece: int = 4) -> tuple[int, list[Place]]:
    """As the engine does it; the places that were made, and how many tokens were known."""
    cuts, place, made = Cuts(marks, len(tokens), piece), root(), []
    place = cache.find(place, tokens, cuts)
    known = place.length
    while place.length < cuts.end:
        cut = cuts.after(place.length)
        place = cache.after(place, tokens[place.length : cut], state(cut), torch.zeros(4))
        cache.keep(place)
        made.append(place)
    return known, made


def test_cuts() -> None:
    cuts = Cuts([3, 10], 17, 4)
    place, places = 0, []
    while place < 17:
        place = cuts.after(place)
        places.append(place)
    assert places == [3, 7, 10, 14, 17]


def test_only_the_same_computation_is_found() -> None:
    cache = StateCache(2**20)
    tokens = list(range(20))
    assert read_all(cache, tokens, [6])[0] == 0
    assert read_all(cache, tokens, [6])[0] == 20
    assert read_all(cache, [*tokens, 1, 2], [6, 20])[0] == 20
    assert read_all(cache, [*tokens[:6], 99], [6])[0] == 6
    # Without the mark the reading is cut elsewhere, and its numbers may be others in the last bit.
    assert read_all(cache, [*tokens, 3], [])[0] == 4
    assert read_all(cache, [*tokens, 3], [], piece=3)[0] == 0


def test_answers_are_followed() -> None:
    cache = StateCache(2**20)
    prompt, answer = [1, 2, 3, 4, 5], [9, 8, 7]
    _, places = read_all(cache, prompt, [])
    held = cache.after(places[-1], answer, state(), None)
    cache.keep(held)
    cache.keep(cache.after(places[-1], answer[:2], state(), None))
    cuts = Cuts([5], 10, 4)
    assert cache.find(root(), [*prompt, *answer, 6, 6], cuts) is held
    assert cache.find(root(), [*prompt, 9, 8, 0, 6, 6], cuts).length == 7
    assert cache.find(root(), [*prompt, 1, 1, 1, 6, 6], cuts).length == 5
    # At its very end there is nothing to choose a token from.
    assert cache.find(root(), [*prompt, *answer], Cuts([5], 8, 4)).length == 7


def test_the_least_used_goes_first() -> None:
    size = Place(b"", 0, state(), torch.zeros(4)).num_bytes
    cache = StateCache(3 * size + 1)
    for number in range(3):
        read_all(cache, [number], [])
    assert read_all(cache, [0], [])[0] == 1
    read_all(cache, [3], [])
    assert len(cache) == 3 and cache.num_bytes == 3 * size
    assert [read_all(cache, [number], [])[0] for number in (0, 2, 3)] == [1, 1, 1]
    assert read_all(StateCache(size - 1), [5], [])[1] and read_all(StateCache(0), [5], [])[0] == 0


def test_what_somebody_holds_is_found_although_it_was_dropped() -> None:
    cache = StateCache(0)
    _, held = read_all(cache, [1, 2], [])
    assert read_all(cache, [1, 2, 3], [2])[0] == 2
    del held
    assert read_all(cache, [1, 2, 3], [2])[0] == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=12), st.integers(0, 2000))
def test_bytes_are_bounded_and_what_is_found_is_right(texts: list[list[int]], max_bytes: int) -> None:
    cache = StateCache(max_bytes)
    for tokens in texts:
        cuts = Cuts([], len(tokens), 4)
        place = cache.find(root(), tokens, cuts)
        name, at = ROOT_NAME, 0
        while at < place.length:
            name, at = name_of(name, tokens[at : cuts.after(at)]), cuts.after(at)
        assert name == place.name
        read_all(cache, tokens, [])
        assert cache.num_bytes <= max_bytes


def test_it_is_found_after_a_restart(tmp_path: Path) -> None:
    cache = StateCache(2**20, StateStore(tmp_path, 2**30))
    _, [*_, last] = read_all(cache, list(range(10)), [])
    answer = cache.after(last, [1, 2], state(5), None)
    cache.keep(answer)
    cache.close()
    again = StateCache(2**20, StateStore(tmp_path, 2**30))
    found = again.find(root(), [*range(10), 1, 2, 3], Cuts([10], 13, 4))
    assert found.name == answer.name and found.length == 12
    for part, want in zip(found.state, answer.state, strict=True):
        assert torch.equal(part, want)
    assert read_all(again, list(range(10)), [])[0] == 10
    again.close()


def test_damaged_files_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = StateCache(2**20, StateStore(tmp_path, 2**30))
    for number in range(4):
        read_all(cache, [number], [])
    cache.close()
    files = sorted(tmp_path.glob("*.place"))
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:-1])
    data = bytearray(files[1].read_bytes())
    data[-3] ^= 1
    files[1].write_bytes(data)
    files[2].write_bytes(b"")
    again = StateCache(2**20, StateStore(tmp_path, 2**30))
    assert sum(read_all(again, [number], [])[0] for number in range(4)) == 1
    again.close()
    # They were read anew, and written again.
    last = StateCache(2**20, StateStore(tmp_path, 2**30))
    assert sum(read_all(last, [number], [])[0] for number in range(4)) == 4
    last.close()


def test_the_disk_is_bounded_and_belongs_to_one(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "new" / "folder", 4000)
    with pytest.raises(StateError, match="another process"):
        StateStore(tmp_path / "new" / "folder", 4000)
    cache = StateCache(2**20, store)
    for number in range(20):
        read_all(cache, [number], [])
    cache.close()
    assert 0 < sum(file.stat().st_size for file in store.folder.glob("*.place")) == store.num_bytes <= 4000
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot hold states"):
        StateStore(tmp_path / "file", 4000)


def test_half_written_folders_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "y").write_text("")
    StateStore(tmp_path, 100).close()
    assert not list(tmp_path.glob("*.partial"))


WRITES = """
import sys
from pathlib import Path
from receptance.engine import StateCache, StateStore
from tests.engine.test_cache import read_all
cache = StateCache(2**30, StateStore(Path(sys.argv[1]), 2**30))
for number in range(10**6):
    read_all(cache, [number, 1, 2, 3, 4], [])
    print(number, flush=True)
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """What is there afterwards is whole."""
    chance = random.Random(3)
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(0.3 * chance.random())
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    store = StateStore(tmp_path, 2**30)
    assert len(store) > 0 and not list(tmp_path.glob("*.partial"))
    for file in tmp_path.glob("*.place"):
        name = bytes.fromhex(file.stem)
        assert store.read(name) is not None and file.exists()
    store.close()


def test_an_engine_goes_on_from_the_disk(tmp_path: Path) -> None:
    asked = Request(tokens=list(range(1, 25)), max_tokens=4, sampling=Sampling(seed=1), num_logprobs=1)
    told = []
    for number_read in (24, 0):
        engine = Engine(model_of(), StateCache(2**24, StateStore(tmp_path, 2**30)), Limits(4, 100, 8, 16))
        [heard] = serve(engine, [asked])
        assert engine.stats.tokens_read == number_read
        engine.cache.close()
        told.append(heard.told)
    assert told[0] == told[1]
    # Another model finds nothing there.
    other = Engine(model_of("6"), StateCache(2**24, StateStore(tmp_path, 2**30)), Limits(4, 100, 8, 16))
    serve(other, [asked])
    assert other.stats.tokens_read == 24
    other.cache.close()
