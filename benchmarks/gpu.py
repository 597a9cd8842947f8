"""Everything that matters on a GPU, in one run of under eight minutes: right first, then how fast, beside its peers.

    python benchmarks/gpu.py                    # writes results/gpu.json
    python benchmarks/gpu.py --only ops train --out my.json
    python benchmarks/gpu.py --small            # tries the script itself in small sizes, on a CPU too

A recurrence that computes wrongly is not timed, and the parts behind it follow only where all is right.  Peers take
turns with ours, in the same run: the chunked form in PyTorch's functions, flash-linear-attention where it can be
imported (pip install flash-linear-attention), attention at the same width and context.  Shares are of what this GPU was
measured to copy and to multiply, a moment before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocol import RESULTS, machine
from receptance import Config, build, ops, runtime
from receptance.models.rwkv import flops_per_token
from receptance.training.loss import next_token_loss
from tests.ops.cases import make, relative
from tests.ops.test_fused import FUSED, made

# Rows, length, heads, head size: the shape that published kernels are timed at, and others around it.
SHAPES = {"wide": (8, 4096, 64, 64), "narrow": (16, 512, 12, 64), "few heads": (1, 8192, 12, 64)}
SMALL_SHAPES = {"small": (2, 40, 2, 16)}
# How far a result in bfloat16 may be from float64's, beside three times the error of the chunked form.
BOUND = 2e-2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.small:
        parser.error("there is no GPU here; --small tries the script itself without one")
    bench = Bench(device, args.small)
    found: dict[str, Any] = {"machine": machine() | bench.card(), "ceilings": bench.ceilings}
    print(json.dumps(found))
    for name in args.only:
        checked = found.get("correctness", {})
        wrong = [op for op, each in checked.items() if isinstance(each, dict) and not each.get("right", True)]
        if wrong and name != "ops":
            print(f"{name} is not timed, as {', '.join(wrong)} is wrong")
            continue
        start = time.perf_counter()
        try:
            found[name] = PARTS[name](bench)
        except Exception as error:
            # One part that fails must not cost the others: a GPU is lent for minutes.
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:600]}
            traceback.print_exc()
        print(f"{name} ({time.perf_counter() - start:.0f} s):", json.dumps(found[name], indent=1), flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {args.out}")


class Bench:
    """The device, its clock, and what it is capable of."""

    def __init__(self, device: torch.device, small: bool) -> None:
        self.device, self.small = device, small
        self.shapes = SMALL_SHAPES if small else SHAPES
        torch.manual_seed(0)
        self.ceilings = {"bytes/s": self._copies(), "bfloat16 FLOP/s": self._multiplies()}

    def card(self) -> dict[str, Any]:
        if self.device.type == "cpu":
            return {"device": "cpu"}
        import triton

        return {"device": torch.cuda.get_device_name(), "triton": triton.__version__, "cuda": torch.version.cuda}

    def seconds(self, *candidates: Callable[[], object], rounds: int = 0) -> list[float]:
        """The median time of each, taken in turns."""
        rounds = rounds or (2 if self.small else 9)
        taken: list[list[float]] = [[] for _ in candidates]
        for run in candidates:
            run()
            run()
        for _ in range(rounds):
            for run, times in zip(candidates, taken, strict=True):
                times.append(self._timed(run))
        return [sorted(times)[len(times) // 2] for times in taken]

    def _timed(self, run: Callable[[], object]) -> float:
        if self.device.type == "cpu":
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        run()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) / 1e3

    def _copies(self) -> float:
        x = torch.empty(2**20 if self.small else 2**31, dtype=torch.bfloat16, device=self.device)
        y = torch.empty_like(x)
        (took,) = self.seconds(lambda: y.copy_(x))
        return 2 * x.numel() * 2 / took

    def _multiplies(self) -> float:
        size = 128 if self.small else 8192
        x, y = (torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        (took,) = self.seconds(lambda: x @ y)
        return 2 * size**3 / took


# Right first


def inputs_of(bench: Bench, op: str, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Of a recurrence; decay and state in float32."""
    rows, length, heads, size = shape
    tensors = make(op, rows, length, torch.float32, heads, size)
    decay = 0 if op == "wkv4" else 1
    kept = (decay, len(tensors) - 1)
    made = [x if place in kept else x.to(dtype) for place, x in enumerate(tensors)]
    return [x.to(bench.device) for x in made]


def computed(op: str, form: str, inputs: list[Tensor]) -> list[Tensor]:
    """y, the state and all gradients."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    with ops.use(form):
        y, state = ops.OPS[op](*inputs)
    generator = torch.Generator().manual_seed(7)
    # wkv4's running maximum is the scale of the other two numbers, and no result of its own.
    results = (y, state[:, :2] if op == "wkv4" else state)
    loss = sum((x.double() * torch.randn(x.shape, generator=generator).to(x.device)).sum() for x in results)
    return [y.detach(), state.detach(), *torch.autograd.grad(loss, inputs)]


def errors_of(bench: Bench, op: str, dtype: torch.dtype) -> dict[str, float]:
    """The largest relative errors of values and gradients against float64: ours, with the values of a head in one
    program and in two, and the chunked form's."""
    from receptance.ops.triton import recurrences

    shape = (2, 40, 2, 32) if bench.small else (2, 400, 4, 64)
    inputs = inputs_of(bench, op, shape, dtype)
    exact = computed(op, "reference", [x.double() for x in inputs])

    def error(form: str) -> float:
        return max(relative(g.double(), e) for g, e in zip(computed(op, form, inputs), exact, strict=True))

    errors, usual = {"chunked": error("chunked")}, recurrences._num_parts
    try:
        for parts in (1, 2):
            recurrences._num_parts = lambda *_, parts=parts: parts
            errors[f"triton in {parts}"] = error("triton")
    finally:
        recurrences._num_parts = usual
    return errors


def is_right(errors: dict[str, float], dtype: torch.dtype) -> bool:
    bound = max(1e-4 if dtype == torch.float32 else BOUND, 3 * errors["chunked"])
    return errors["chunked"] < 0.1 and max(errors.values()) < bound


def precisions(bench: Bench) -> list[torch.dtype]:
    """Triton's interpreter multiplies bfloat16 wrongly."""
    return [torch.float32] if bench.device.type == "cpu" else [torch.bfloat16, torch.float32]


def correctness(bench: Bench) -> dict[str, Any]:
    """Whether each kernel is right, forward and backward."""
    found: dict[str, Any] = {}
    for dtype in precisions(bench):
        for op in ("wkv7", "wkv6", "wkv4"):
            errors = errors_of(bench, op, dtype)
            found[f"{op} {str(dtype).removeprefix('torch.')}"] = {**errors, "right": is_right(errors, dtype)}
    for op in FUSED:
        function, inputs = made(op, (2, 35, 2, 64), torch.float32, 1)
        inputs = [x.to(bench.device) for x in inputs]
        exact = values_and_gradients("reference", function, [x.double() for x in inputs])
        got = values_and_gradients("triton", function, inputs)
        error = max(relative(g.double(), e) for g, e in zip(got, exact, strict=True))
        found[op] = {"triton": error, "right": error < 1e-4}
    logits, targets = torch.randn(50, 5000, device=bench.device), torch.randint(5000, (50,), device=bench.device)
    cross = partial(ops.cross_entropy, targets=targets, l2wrap=1e-2)
    exact = values_and_gradients("reference", cross, [logits.double()])
    got = values_and_gradients("triton", cross, [logits])
    error = max(relative(g.double(), e) for g, e in zip(got, exact, strict=True))
    found["cross_entropy"] = {"triton": error, "right": error < 1e-4}
    return found


# How fast


def step_of(op: str, form: str, inputs: list[Tensor], backward: bool) -> Callable[[], object]:
    leaves = [x.detach().requires_grad_(backward) for x in inputs]
    weight = torch.randn_like(inputs[-2])

    def run() -> None:
        with ops.use(form), torch.set_grad_enabled(backward):
            y, _ = ops.OPS[op](*leaves)
            if backward:
                torch.autograd.grad(y, leaves, weight, materialize_grads=True, allow_unused=True)

    return run


def attention_of(bench: Bench, shape: tuple[int, ...], backward: bool) -> Callable[[], object]:
    rows, length, heads, size = shape
    q, k, v = (
        torch.randn(rows, heads, length, size, device=bench.device, dtype=torch.bfloat16).requires_grad_(backward)
        for _ in range(3)
    )
    weight = torch.randn_like(q)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            if backward:
                torch.autograd.grad(y, (q, k, v), weight)

    return run


def fla_of(op: str, inputs: list[Tensor], backward: bool) -> Callable[[], object] | None:
    """flash-linear-attention's kernel on the same tensors; None where it cannot be imported."""
    try:
        from fla.ops.rwkv6 import chunk_rwkv6
        from fla.ops.rwkv7 import chunk_rwkv7
    except Exception:
        return None
    if op == "wkv4":
        return None
    *vectors, _ = (x.detach().to(inputs[-2].dtype).requires_grad_(backward) for x in inputs)
    r, log_w, k, v, *rest = vectors
    weight, bonus = torch.randn_like(v), torch.zeros(v.shape[2:], device=v.device, dtype=v.dtype)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            if op == "wkv7":
                y, _ = chunk_rwkv7(r=r, w=log_w, k=k, v=v, a=rest[0], b=rest[1], scale=1.0)
            else:
                y, _ = chunk_rwkv6(r=r, k=k, v=v, w=log_w, u=bonus, scale=1.0)
            if backward:
                torch.autograd.grad(y, vectors, weight)

    return run


def ops_part(bench: Bench) -> list[dict[str, Any]]:
    """Milliseconds of each recurrence, forward and with its gradients, and the share of the bytes' floor."""
    rows = []
    for op in ("wkv7", "wkv6", "wkv4"):
        for name, shape in bench.shapes.items():
            if op != "wkv7" and name == "few heads":
                continue
            kind = precisions(bench)[0]
            if not is_right(errors := errors_of(bench, op, kind), kind):
                rows.append({"op": op, "shape": name, "not timed": f"wrong: {errors}"})
                continue
            inputs = inputs_of(bench, op, shape, kind)
            row: dict[str, Any] = {"op": op, "shape": name, "sizes": shape}
            for backward in (False, True):
                candidates = {"triton": step_of(op, "triton", inputs, backward)}
                if name != "wide" or op == "wkv7":
                    candidates["chunked"] = step_of(op, "chunked", inputs, backward)
                if peer := fla_of(op, inputs, backward):
                    candidates["fla"] = peer
                if op == "wkv7" and bench.device.type != "cpu":
                    candidates["attention"] = attention_of(bench, shape, backward)
                row["both ms" if backward else "forward ms"] = timed(bench, candidates)
            numbers = inputs[-2].numel()
            # Each vector read and each result written once, again for the gradients, the decay in float32.
            traffic = sum(x.numel() * x.element_size() for x in inputs[:-1]) + numbers * inputs[-2].element_size()
            floor = 1e3 * 3 * traffic / bench.ceilings["bytes/s"]
            row["floor of both, ms"] = floor
            if "triton" in row["both ms"]:
                row["share of the floor"] = floor / row["both ms"]["triton"]
            rows.append(row)
            del inputs, candidates
            empty(bench)
    return rows


def timed(bench: Bench, candidates: dict[str, Callable[[], object]]) -> dict[str, Any]:
    """Milliseconds of each; of one that cannot, why."""
    found, able = {}, {}
    for name, run in candidates.items():
        try:
            run()
            able[name] = run
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:200]
    for name, took in zip(able, bench.seconds(*able.values()), strict=True):
        found[name] = 1e3 * took
    return found


def tiles_part(bench: Bench) -> list[dict[str, Any]]:
    """wkv7 and wkv6 at the widest shape with every size of chunk and number of warps: what the constants should be."""
    from receptance.ops.triton import recurrences

    rows, usual = [], recurrences._tiling
    shape = next(iter(bench.shapes.values()))
    kind = precisions(bench)[0]
    usual_parts = recurrences._num_parts
    try:
        for op in ("wkv7", "wkv6"):
            inputs = inputs_of(bench, op, shape, kind)
            for size in (16,) if bench.small else (16, 32, 64):
                for warps in (4,) if bench.small else (2, 4, 8):
                    for parts in (1, 2):
                        recurrences._tiling = lambda _, tiling=(size, warps): tiling
                        recurrences._num_parts = lambda *_, parts=parts: parts
                        row = {"op": op, "chunk": size, "warps": warps, "parts": parts}
                        for name, backward in (("forward ms", False), ("both ms", True)):
                            row |= {name: timed(bench, {"triton": step_of(op, "triton", inputs, backward)})["triton"]}
                        rows.append(row)
    finally:
        recurrences._tiling, recurrences._num_parts = usual, usual_parts
    return rows


def between_part(bench: Bench) -> list[dict[str, Any]]:
    """What stands between products and recurrence: ours, PyTorch's, and PyTorch's compiled."""
    rows = []
    size = (2, 35, 2, 16) if bench.small else (8, 4096, 12, 64)
    for op in FUSED:
        function, inputs = made(op, size, torch.float32 if bench.small else torch.bfloat16, 1)
        leaves = [x.to(bench.device).requires_grad_() for x in inputs]
        candidates = {
            "triton": partial(run_both_ways, "triton", function, leaves),
            "pytorch": partial(run_both_ways, "reference", function, leaves),
        }
        if not bench.small:
            candidates["compiled"] = partial(run_both_ways, "reference", torch.compile(function), leaves)
        rows.append({"op": op, "forward and backward ms": timed(bench, candidates)})
        empty(bench)
    return rows


def values_and_gradients(form: str, function: Callable[..., Any], inputs: list[Tensor]) -> list[Tensor]:
    """What the function gives, and the gradients of a loss that weighs all of it."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with ops.use(form):
        out = function(*leaves)
    outputs = [out] if isinstance(out, Tensor) else list(out)
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    return [*(x.detach() for x in outputs), *torch.autograd.grad(outputs, leaves, weights)]


def run_both_ways(form: str, function: Callable[..., Any], leaves: list[Tensor]) -> None:
    """The function, and the gradients of all its inputs."""
    with ops.use(form):
        out = function(*leaves)
    outputs = [out] if isinstance(out, Tensor) else [x for x in out if x.requires_grad]
    torch.autograd.grad(outputs, leaves, [torch.ones_like(x) for x in outputs])


def training_of(bench: Bench, rows: int, length: int) -> Any:
    """A step of RWKV-7 L12 D768 with the World vocabulary in bfloat16 autocast, AdamW included."""
    config = Config.preset("rwkv7-0.1b")
    if bench.small:
        config = Config(version="7", vocab_size=64, num_layers=2, dim=32, head_size=16)
    model = build(config).to(bench.device).train()
    optimizer = torch.optim.AdamW(model.param_groups(6e-4, 0.1), betas=(0.9, 0.99), eps=1e-18, fused=True)
    tokens = torch.randint(config.vocab_size, (rows, length + 1), device=bench.device)

    def run() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=not bench.small), ops.use("triton"):
            x, _ = model.features(tokens[:, :-1])
            loss = next_token_loss(model.head, x, tokens[:, 1:], l2wrap=1e-4)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return model, run


def train_part(bench: Bench) -> list[dict[str, Any]]:
    """Tokens a second of a whole training step, and how the time of a token grows with the context."""
    rows = []
    shapes = [(2, 32)] if bench.small else [(64, 512), (8, 4096), (16, 2048), (1, 32768)]
    for batch, length in shapes:
        model, run = training_of(bench, batch, length)
        (took,) = bench.seconds(run, rounds=5)
        speed = batch * length / took
        use = 3 * flops_per_token(model) * speed / bench.ceilings["bfloat16 FLOP/s"]
        row = {"rows": batch, "length": length, "tokens/s": speed, "use of measured peak": use}
        if (batch, length) == (64, 512) or bench.small:
            row["kernels"] = kernels_of(bench, run)
        rows.append(row)
        del model, run
        empty(bench)
    return rows


def kernels_of(bench: Bench, run: Callable[[], object]) -> list[dict[str, Any]]:
    """What a step spends its time on."""
    if bench.device.type == "cpu":
        return []
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    events = [event for event in seen.key_averages() if event.device_time_total > 0]
    whole = sum(event.device_time_total for event in events)
    events.sort(key=lambda event: -event.device_time_total)
    return [
        {"kernel": event.key[:80], "share": event.device_time_total / whole, "times": event.count}
        for event in events[:25]
    ]


def speak_part(bench: Bench) -> list[dict[str, Any]]:
    """RWKV-7 1.5B in half precision: the model's own call at one token, as a CUDA graph, and reading long prompts."""
    config = Config.preset("rwkv7-1.5b")
    if bench.small:
        config = Config(version="7", vocab_size=64, num_layers=2, dim=32, head_size=16)
    dtype = torch.float32 if bench.small else torch.bfloat16
    with torch.device(bench.device):
        model = build(config).to(dtype).eval()
    rows: list[dict[str, Any]] = []
    with torch.no_grad(), ops.use("triton"):
        for batch in (1, 2) if bench.small else (1, 8, 32, 128):
            tokens = torch.randint(60, (batch, 1), device=bench.device)
            _, state = model(tokens)
            step = runtime.record(model, batch)
            step.write(range(batch), state)
            recorded, called = bench.seconds(partial(step, tokens[:, 0]), partial(model, tokens, state))
            rows.append({"batch": batch, "tokens/s": batch / recorded, "tokens/s without a graph": batch / called})
            del step
            empty(bench)
        for batch in (1, 2) if bench.small else (1, 8, 32):
            tokens = torch.randint(60, (batch, 48 if bench.small else 1024), device=bench.device)
            (took,) = bench.seconds(partial(model.features, tokens), rounds=5)
            rows.append({"prompts": batch, "length": tokens.shape[1], "prefill tokens/s": tokens.numel() / took})
    return rows


def empty(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


PARTS: dict[str, Callable[[Bench], Any]] = {
    "correctness": correctness,
    "ops": ops_part,
    "tiles": tiles_part,
    "between": between_part,
    "train": train_part,
    "speak": speak_part,
}

if __name__ == "__main__":
    main()
