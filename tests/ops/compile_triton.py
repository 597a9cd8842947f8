"""Compiles the kernels in Triton for several kinds of GPU, of which none needs to be here; prints what each takes.

    TRITON_INTERPRET=0 python tests/ops/compile_triton.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import triton.language as tl
from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from receptance.ops.triton import cross_entropy, elementwise, recurrent, wkv4, wkv6, wkv7
from receptance.ops.triton.recurrences import STAGES

# A kind of GPU, and bytes of shared memory that a program may have there.
TARGETS = {
    "RTX 4090": (GPUTarget("cuda", 89, 32), 99 * 1024),
    "H200": (GPUTarget("cuda", 90, 32), 227 * 1024),
    "MI300X": (GPUTarget("hip", "gfx942", 64), 64 * 1024),
}
MARKS = {"first"}
WHOLE_MEMORY = {"targets": "*i64", "places": "*i32"}
FLOAT32 = {"state", "end", "log_w", "w", "d_log_w", "d_state", "d_end", "d_u", "sums", "to_w"}
FLOAT32 |= {"losses", "norms", "tops"}
WHOLE = {"T", "H", "A", "size", "num_rows", "width", "count", "V"}


def cases() -> Iterator[tuple[Any, dict[str, Any], str, int]]:
    """Kernels, their constants, the dtype of their tensors and their warps."""
    small = {"N": 64, "V": 64, "C": 32, "OPERAND": tl.bfloat16, "EXACT": "tf32"}
    exact = {"N": 64, "V": 64, "C": 16, "OPERAND": tl.float32, "EXACT": "tf32x3"}
    plain = dict.fromkeys(("first", "kept", "u", "solution"))
    for sizes, kind, warps in ((small, "bf16", 4), (exact, "fp32", 8)):
        log = {"LOG_C": sizes["C"].bit_length() - 1}
        yield wkv7.forward, sizes | log, kind, warps
        yield wkv7.backward, sizes | log, kind, warps
        if kind == "bf16":
            yield wkv6.forward, sizes | log, kind, warps
            yield wkv6.backward, sizes | log, kind, warps
            yield wkv6.backward, sizes | log | {"first": None}, kind, warps
            yield wkv7.backward, sizes | log | {"first": None}, kind, warps
            large = {"N": 128, "V": 128, "C": 16, "LOG_C": 4}
            yield wkv7.forward, sizes | large, kind, 8
            yield wkv7.backward, sizes | large | {"first": None}, kind, 8
            yield wkv7.forward, exact | {"LOG_C": 4} | plain, "fp16", 8
        yield wkv7.forward, sizes | log | plain, kind, warps
    yield recurrent.forward, {"N": 64, "V": 64}, "fp16", 4
    yield recurrent.forward, {"N": 64, "V": 32, "a": None, "b": None, "first": None}, "bf16", 4
    means = {"SHARED": False, "C": 32, "COLUMNS": 32}
    yield wkv4.forward, means, "bf16", 4
    yield wkv4.backward, means, "bf16", 4
    yield wkv4.backward, means | {"SHARED": True, "first": None}, "fp32", 4
    tile = {"ROWS": 32, "COLUMNS": 64}
    yield elementwise.lerps_forward, tile, "bf16", 4
    yield elementwise.lerps_backward, tile | dict.fromkeys(("offsets", "to_offsets")), "bf16", 4
    for kernel in (elementwise.delta_forward, elementwise.delta_backward):
        yield kernel, tile | {"N": 64}, "bf16", 4
    for kernel in (elementwise.read_out_forward, elementwise.read_out_backward):
        yield kernel, tile | {"N": 64, "BONUS_FIRST": False}, "bf16", 4
    yield cross_entropy.forward, {"SIZE": 4096}, "bf16", 4
    yield cross_entropy.backward, {"SIZE": 4096}, "bf16", 4
    yield elementwise.squared_relu_forward, {"SIZE": 1024}, "bf16", 4
    yield elementwise.squared_relu_backward, {"SIZE": 1024}, "bf16", 4


def kind_of(name: str, constants: dict[str, Any], kind: str) -> Any:
    if name in constants:
        return "constexpr"
    if name in WHOLE:
        return "i32"
    if name in {"eps", "strength"}:
        return "fp32"
    if name in WHOLE_MEMORY:
        return WHOLE_MEMORY[name]
    if name in {"weights", "mixed", "gradients"}:
        return ("*bf16",) * 6
    return "*i1" if name in MARKS else "*fp32" if name in FLOAT32 else f"*{kind}"


def main() -> None:
    found = []
    for gpu, (target, room) in TARGETS.items():
        # What differs from the others are products, and the first two have all kinds of them.
        for kernel, constants, kind, warps in cases() if gpu == "H200" else islice(cases(), 2):
            values = {**constants, "EXACT": "ieee"} if target.backend == "hip" and "EXACT" in constants else constants
            signature = {name: kind_of(name, values, kind) for name in kernel.arg_names}
            # As memory comes from PyTorch: aligned.
            pointers = [(place,) for place, kind in enumerate(signature.values()) if str(kind).startswith("*")]
            source = ASTSource(kernel, signature, values, {key: [["tt.divisibility", 16]] for key in pointers})
            made = compiled(source, target=target, options={"num_warps": warps, "num_stages": STAGES})
            found.append({"kernel": kernel.__name__, "gpu": gpu, "shared": made.metadata.shared, "room": room})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
