"""What the CPU benchmark compares, and what each comparison must show.

    rows = compare(result)                  # one row for each target that was measured

Every ratio is of medians.  Ours are judged with no weight left out (`skip` off), so that the zeros of random weights
are no hidden advantage; what leaving them out adds stands beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

OURS = ("ours fp32", "ours bf16", "ours int8", "ours int4")
LLAMA = ("llama.cpp BF16", "llama.cpp Q8_0", "llama.cpp Q4_0", "llama.cpp Q4_K_M")
OFFICIAL = ("rwkv bf16", "rwkv fp32")
TRANSFORMERS = ("transformers fp32",)


class Target(NamedTuple):
    """The best of `ours` against the best of `others` in `work`; `least` by model."""

    work: str
    ours: tuple[str, ...]
    others: tuple[str, ...]
    least: Mapping[str, float]

    def __str__(self) -> str:
        best = "best of ours" if self.ours == OURS else self.ours[0]
        return f"{self.work} {best} / {' or '.join(self.others)}"


def _sizes(small: float, middle: float, large: float) -> dict[str, float]:
    return {"rwkv7-0.1b": small, "rwkv7-0.4b": middle, "rwkv7-1.5b": large}


SMALL, FOURTH = "rwkv7-0.1b", "rwkv4-169m"
TARGETS = (
    Target("decode", ("ours int4",), LLAMA[2:], _sizes(2.0, 1.8, 1.4)),
    Target("decode", ("ours int8",), LLAMA[1:2], _sizes(1.6, 1.5, 1.3)),
    Target("decode", ("ours bf16",), LLAMA[:1], _sizes(1.15, 1.1, 1.05)),
    Target("prefill", OURS, LLAMA, _sizes(1.8, 1.7, 1.5)),
    Target("decode", ("ours int8",), OFFICIAL, {SMALL: 6.0}),
    Target("prefill", OURS, OFFICIAL, {SMALL: 6.0}),
    Target("decode", ("ours fp32",), OFFICIAL[1:], {SMALL: 1.8}),
    Target("decode", ("ours int8",), OFFICIAL[:1], {FOURTH: 3.0}),
    Target("decode", ("ours int8",), TRANSFORMERS, {FOURTH: 8.0}),
    Target("prefill", OURS, OFFICIAL[:1], {FOURTH: 1.8}),
)
# Bytes of weights a token, times tokens a second, over the bytes a second that memory gives.
SHARES = {"ours int8": _sizes(0.75, 0.8, 0.85)}
# What leaving out zeros must bring, where as many activations are 0 as in a trained model.
SKIP = {engine: {"rwkv7-0.4b": 1.15, "rwkv7-1.5b": 1.15} for engine in ("ours int8", "ours int4")}


@dataclass
class Result:
    """One model's figures: tokens a second by (engine, work), "decode skip" among the work; bytes a token by engine."""

    model: str
    zeros: float
    bandwidth: float
    speed: dict[tuple[str, str], float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def best(self, engines: tuple[str, ...], work: str) -> float | None:
        """The most tokens a second that one of the engines reached; None where none was measured."""
        return max((self.speed[engine, work] for engine in engines if (engine, work) in self.speed), default=None)

    def share(self, engine: str, work: str) -> float | None:
        """Of the speed at which memory gives the weights."""
        speed, needed = self.speed.get((engine, work)), self.bytes.get(engine)
        return None if speed is None or needed is None else speed * needed / self.bandwidth


def compare(result: Result) -> list[dict[str, Any]]:
    """A row for each target of this model that was measured."""
    if result.zeros != 0.5:
        return [row for engine, least in SKIP.items() for row in _skip_row(result, engine, least)]
    rows = []
    for target in TARGETS:
        ours, others = result.best(target.ours, target.work), result.best(target.others, target.work)
        if ours and others and result.model in target.least:
            skipping = result.best(target.ours, f"{target.work} skip")
            with_skip = skipping / others if skipping else None
            rows.append(_row(result.model, str(target), target.least[result.model], ours / others, with_skip))
    for engine, least in SHARES.items():
        if (share := result.share(engine, "decode")) is not None and result.model in least:
            # Of the weights that are left out no bytes are read, so that this share means nothing with skip.
            rows.append(_row(result.model, f"decode {engine}, share of the floor", least[result.model], share, None))
    return rows


def _skip_row(result: Result, engine: str, least: Mapping[str, float]) -> list[dict[str, Any]]:
    plain, skipping = (result.speed.get((engine, work)) for work in ("decode", "decode skip"))
    if not plain or not skipping or result.model not in least:
        return []
    name = f"decode {engine}, {result.zeros:.0%} zeros, skip on / off"
    return [_row(result.model, name, least[result.model], skipping / plain, None)]


def _row(model: str, figure: str, target: float, found: float, with_skip: float | None) -> dict[str, Any]:
    return {
        "model": model,
        "figure": figure,
        "target": target,
        "found": found,
        "with skip": "" if with_skip is None else with_skip,
        "met": "yes" if found >= target else "NO",
    }
