"""Who is served next, with nothing but names."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from receptance.engine.scheduler import Scheduler


@dataclass(eq=False)
class Asked:
    name: str
    owner: str = ""
    priority: int = 0
    length: int = 1
    num_read: int = 0


def read_step(scheduler: Scheduler[Asked], piece: int = 4) -> list[str]:
    """One step's reading: whose turn it was."""
    turns = []
    for asked in scheduler.turns():
        turns.append(asked.name)
        num_tokens = min(piece, asked.length - asked.num_read)
        asked.num_read += num_tokens
        scheduler.read(asked, num_tokens, asked.num_read == asked.length)
    return turns


def test_priority_then_fairness_then_arrival() -> None:
    scheduler: Scheduler[Asked] = Scheduler(num_slots=4, budget=100)
    scheduler.waiting += [Asked("a1", "a"), Asked("a2", "a"), Asked("a3", "a"), Asked("b1", "b"), Asked("c1", "c", 1)]
    assert [asked.name for asked in scheduler.admit()] == ["c1", "a1", "b1", "a2"]
    assert [asked.name for asked in scheduler.waiting] == ["a3"] and not scheduler.admit()
    scheduler.remove(scheduler.reading[0])
    assert [asked.name for asked in scheduler.admit()] == ["a3"]


def test_a_long_prompt_holds_nobody_up() -> None:
    scheduler: Scheduler[Asked] = Scheduler(num_slots=4, budget=8)
    scheduler.waiting += [Asked("long", length=40), Asked("short", length=3), Asked("middle", length=9)]
    scheduler.admit()
    assert read_step(scheduler) == ["long", "short", "middle"]
    assert [asked.name for asked in scheduler.running] == ["short"]
    assert read_step(scheduler) == ["long", "middle"]
    assert read_step(scheduler) == ["long", "middle", "long"]
    assert read_step(scheduler) == ["long", "long"]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 2), st.sampled_from("abc")), max_size=30))
def test_everybody_is_served_and_budgets_hold(lengths: list[tuple[int, int, str]]) -> None:
    scheduler: Scheduler[Asked] = Scheduler(num_slots=3, budget=10)
    asked = [Asked(str(n), owner, priority, length) for n, (length, priority, owner) in enumerate(lengths)]
    scheduler.waiting += asked
    steps = 0
    while len(scheduler):
        scheduler.admit()
        assert scheduler.num_active <= 3
        before = sum(one.num_read for one in asked)
        read_step(scheduler)
        # The last piece may go beyond the budget.
        assert sum(one.num_read for one in asked) - before < 10 + 4
        for one in scheduler.running[:]:
            scheduler.remove(one)
        steps += 1
        assert steps < 1000
    assert all(one.num_read == one.length for one in asked)
