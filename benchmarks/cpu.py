"""receptance on a CPU beside its peers: decoding and prefill, random weights at the official sizes.

    make bench-peers                            # once: llama.cpp in an environment of its own
    make bench PART=cpu                         # all models, about 25 minutes and 20 GB below --work
    python benchmarks/cpu.py --models rwkv7-0.1b --rounds 1 --out my.json

Each engine waits in a process of its own, and in every round each does the same work in turn while the others sleep:
`--tokens` tokens one after the other from an empty state, and a prefill of 512 with the last token's logits.  Before
each, two threads read a GiB, because a machine's bandwidth moves by the minute.  Medians are compared.  Nothing is
timed before its logits agree with those of our model in float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cpu_models import Models, gguf_bytes
from benchmarks.cpu_peers import VARIABLE, llama_command, peers_python
from benchmarks.cpu_serve import ROOT, Worker, tokens_to_read
from benchmarks.cpu_targets import FOURTH, OFFICIAL, OURS, SKIP, SMALL, TRANSFORMERS, Result, compare
from benchmarks.protocol import report

PREFILL = 512
CHECKED_TOKENS = 24
PAUSE = 0.05
# Most mean Kullback-Leibler divergence from our float32 logits, in nats, by the end of an engine's name.  Each layer of
# random weights amplifies what rounding changes; what computes something else is off by more than 1.
AGREEMENT = {
    "fp32": 1e-5,
    "bf16": 2e-2,
    "BF16": 2e-2,
    "int8": 0.2,
    "Q8_0": 0.2,
    "int4": 1.0,
    "Q4_0": 1.0,
    "Q4_K_M": 1.0,
}
# float32 at every size would need more memory than most machines have, and is compared at the smallest only.
LLAMA_KINDS = ("BF16", "Q8_0", "Q4_0", "Q4_K_M")
ENGINES = {
    SMALL: (*OURS, *OFFICIAL, *(f"llama.cpp {kind}" for kind in LLAMA_KINDS)),
    "rwkv7-0.4b": (*OURS[1:], *(f"llama.cpp {kind}" for kind in LLAMA_KINDS)),
    "rwkv7-1.5b": (*OURS[1:], *(f"llama.cpp {kind}" for kind in LLAMA_KINDS)),
    FOURTH: (*OURS[1:], OFFICIAL[0], *TRANSFORMERS),
}
# The share of zeros in a trained model's channel mix, for what leaving them out brings.
TRAINED_ZEROS = 0.9


class Work(NamedTuple):
    """Something an engine is asked to do: `do(num_tokens, **options)`."""

    name: str
    do: str
    num_tokens: int
    options: Mapping[str, Any]


def main() -> None:
    args = parse()
    if args.peers_python:
        os.environ[VARIABLE] = str(args.peers_python)
    peers = peers_python()
    if peers is None:
        print("llama.cpp is left out: `make bench-peers` installs it")
    python = [sys.executable, ROOT / "benchmarks" / "cpu_worker.py"]
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    with Worker([*python, "bandwidth", "-"], args.work / "bandwidth.log", args.threads) as bandwidth:
        for preset, zeros in runs(args.models):
            models = Models(args.work, preset, peers, args.threads, zeros)
            result, details[models.folder.name] = measure(models, bandwidth, args)
            rows += compare(result)
    if not rows:
        raise SystemExit("nothing was measured that has a target; choose other --models")
    kept = ("models", "rounds", "tokens", "threads", "engines")  # and no paths
    settings = {name: getattr(args, name) for name in kept} | {"prefill": PREFILL}
    report("cpu", rows, args.out, {"settings": settings, "models": details})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ENGINES, default=list(ENGINES))
    for name, default in (("rounds", 5), ("tokens", 48), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--work", type=Path, default=cache / "receptance-bench", help="where checkpoints are kept")
    everything = sorted({name for names in ENGINES.values() for name in names})
    parser.add_argument("--engines", nargs="+", choices=everything, default=everything, metavar="NAME")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has llama-cpp-python")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    return args


def runs(models: list[str]) -> Iterator[tuple[str, float]]:
    """Each model with the share of zeros that its weights give, and where that is of interest with a trained one's."""
    skipping = {model for least in SKIP.values() for model in least}
    for model in models:
        yield model, 0.5
        if model in skipping:
            yield model, TRAINED_ZEROS


def measure(models: Models, bandwidth: Worker, args: argparse.Namespace) -> tuple[Result, dict[str, Any]]:
    """All engines of one model: opened, checked, and asked in turns."""
    names = [name for name in (ENGINES[models.preset] if models.zeros == 0.5 else SKIP) if name in args.engines]
    if models.peers is None:
        names = [name for name in names if not name.startswith("llama.cpp")]
    truth = reference(models, args)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(engine(name, models, args)) for name in names}
        agreement = {name: check(name, worker, truth) for name, worker in workers.items()}
        seconds, speeds = interleaved(workers, bandwidth, args)
        about = {name: worker.ask("about") for name, worker in workers.items()}
        own = next((worker for name, worker in workers.items() if name in OURS), None)
        zeros = own.ask("zeros", num_tokens=PREFILL) if own else []
    result = Result(models.preset, models.zeros, statistics.median(speeds))
    num_tokens = {work.name: work.num_tokens for work in works(args)}
    for (name, work), taken in seconds.items():
        result.speed[name, work] = num_tokens[work] / statistics.median(taken)
    result.bytes = {name: facts["bytes"] for name, facts in about.items() if "bytes" in facts}
    kinds = [kind for kind in LLAMA_KINDS if f"llama.cpp {kind}" in workers]
    result.bytes |= {f"llama.cpp {kind}": gguf_bytes(models.gguf(kind)) for kind in kinds}
    show(result)
    engines = {name: about[name] | {"KL from float32": agreement[name]} for name in names}
    for name, facts in engines.items():
        facts["bytes a token"] = result.bytes.get(name)
        facts["seconds"] = {work: taken for (of, work), taken in seconds.items() if of == name}
    facts = {"bandwidth GB/s": [speed / 1e9 for speed in speeds], "zeros by layer": zeros}
    return result, facts | {"tokens": num_tokens, "engines": engines}


@contextmanager
def engine(name: str, models: Models, args: argparse.Namespace) -> Iterator[Worker]:
    """The process that serves the engine of this name."""
    own = [sys.executable, ROOT / "benchmarks" / "cpu_worker.py"]
    program, kind = name.rsplit(" ", 1)
    dtype = {"fp32": "float32", "bf16": "bfloat16"}.get(kind, "bfloat16")
    options = ["--dtype", dtype, "--threads", str(args.threads)]
    if program == "llama.cpp":
        assert models.peers
        command = list(llama_command(models.peers, models.gguf(kind), args.threads))
    elif program == "ours":
        path = models.official() if kind in ("fp32", "bf16") else models.quantised(kind)
        command = [*own, "ours", path, *options]
    elif program == "rwkv":
        command = [*own, "official", models.official(), *options]
    else:
        command = [*own, "transformers", models.transformers(), *options]
    with Worker(command, models.folder / f"{name}.log", args.threads) as worker:
        yield worker


def reference(models: Models, args: argparse.Namespace) -> np.ndarray:
    """Our model's logits in float32, from a process that ends before anything is timed."""
    with engine("ours fp32", models, args) as worker:
        return worker.ask("logits", tokens=tokens_to_read(CHECKED_TOKENS, models.config.vocab_size), whole=True)


def check(name: str, worker: Worker, truth: np.ndarray) -> float:
    """The engine's divergence from the truth, the larger of whole and token by token.  Exits where it is too large,
    and where leaving out zeros changes a bit of ours.
    """
    tokens = tokens_to_read(CHECKED_TOKENS, truth.shape[1])
    whole, stepwise = (worker.ask("logits", tokens=tokens, whole=whole) for whole in (True, False))
    worst = max(divergence(truth, found) for found in (whole, stepwise))
    limit = next(limit for end, limit in AGREEMENT.items() if name.endswith(end))
    if not worst <= limit:
        raise SystemExit(f"{name} is wrong by a divergence of {worst:.3g} (at most {limit:g}): nothing is timed")
    if name in OURS and not np.array_equal(stepwise, worker.ask("logits", tokens=tokens, whole=False, skip=True)):
        raise SystemExit(f"{name} gives other logits where it leaves out zeros: nothing is timed")
    print(f"{name}: {worst:.2g} nats from float32", flush=True)
    return worst


def divergence(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence over the positions, in nats; NaN for logits that are no numbers."""
    wide = (x.astype(np.float64) for x in (truth, found))
    p, q = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in wide)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def works(args: argparse.Namespace) -> tuple[Work, ...]:
    """What every engine is asked in every round; only ours can leave out what is multiplied by 0."""
    return (
        Work("decode", "decode", args.tokens, {}),
        Work("decode skip", "decode", args.tokens, {"skip": True}),
        Work("prefill", "prefill", PREFILL, {}),
    )


def interleaved(
    workers: Mapping[str, Worker], bandwidth: Worker, args: argparse.Namespace
) -> tuple[dict[tuple[str, str], list[float]], list[float]]:
    """Seconds by engine and work, and bytes a second before each; the first round warms up and does not count."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    speeds = []
    for number in range(args.rounds + 1):
        for work, (name, worker) in product(works(args), workers.items()):
            if "skip" in work.options and name not in OURS:
                continue
            # The threads of the one before spin for a moment.
            time.sleep(PAUSE)
            speed = bandwidth.ask("read")
            time.sleep(PAUSE)
            taken = worker.ask(work.do, num_tokens=work.num_tokens, **work.options)
            if number:
                speeds.append(speed)
                seconds[name, work.name].append(taken)
        print(f"round {number} of {args.rounds}" if number else "warm", flush=True)
    return seconds, speeds


def show(result: Result) -> None:
    """Print tokens a second, and of decoding the share of the floor."""
    print(f"\n{result.model}, {result.zeros:.0%} zeros, {result.bandwidth / 1e9:.1f} GB/s")
    for name in dict.fromkeys(name for name, _ in result.speed):
        figures = []
        for work in ("decode", "decode skip", "prefill"):
            if speed := result.speed.get((name, work)):
                share = result.share(name, work) if work == "decode" else None
                figures.append(f"{work} {speed:.4g}" + (f" ({share:.0%})" if share else ""))
        print(f"  {name:18} {', '.join(figures)}")


if __name__ == "__main__":
    main()
