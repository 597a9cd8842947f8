"""What the processor that we compile for can do beyond its baseline."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

from .jit import config


@cache
def has(feature: str) -> bool:
    """Whether code may use a feature, by LLVM's name (`avx512vnni`), for the target that Numba is set to."""
    if config.CPU_NAME or config.CPU_FEATURES is not None:
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(llvm.get_host_cpu_features().get(feature))
