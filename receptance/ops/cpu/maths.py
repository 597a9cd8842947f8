"""exp, sigmoid and tanh of a float32, for loops that are to be vectorised: LLVM has no vector form of libm's.

    for i in range(x.size):
        y[i] = exp(x[i])

Right to about 2 units in the last place, below the normal range too; infinities and NaN come out as they should.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .bits import bits_of_float, float_of_bits

__all__ = ["exp", "sigmoid", "tanh"]

# Not `jit.kernel`: where sums may be regrouped, what is split below to be exact is put together again.
_exact_kernel = numba.njit(cache=True, fastmath={"contract"}, error_model="numpy")

_LOG2_E = np.float32(1.4426950408889634)
# log 2 in two parts; the first has so few digits that a whole multiple of it is exact.
_LOG_2_HIGH = np.float32(0.693359375)
_LOG_2_LOW = np.float32(-2.12194440e-4)
# A float32 of this size has no digits behind the point: adding it rounds, and its last bits are the whole number.
_ROUND = np.float32(1.5 * 2**23)
_ROUND_BITS = np.int32(0x4B400000)
# e^x is 0, and e^x is infinite, beyond these.
_LOWEST, _HIGHEST = np.float32(-105), np.float32(90)
# (e^x - 1 - x) / x^2 on [-log 2 / 2, log 2 / 2], and (tanh x - x) / x^3 in powers of x^2 on [0, 0.5]; the largest
# relative error of the whole is the least for these degrees.
_EXP = (
    np.float32(0.4999999305059735),
    np.float32(0.16666514790152853),
    np.float32(0.04166845681239856),
    np.float32(0.008369418949162436),
    np.float32(0.0013813143336116468),
)
_TANH = (
    np.float32(-0.3333332688190702),
    np.float32(0.133329642518574),
    np.float32(-0.053899190012168585),
    np.float32(0.021297988782501012),
    np.float32(-0.006647483867844233),
)
_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)


@_exact_kernel
def _power_of_two(n: Any) -> Any:
    """2^n for an int32 n in [-126, 127]."""
    return float_of_bits(np.uint32(np.int32(np.int32(n + np.int32(127)) << np.int32(23))))


@_exact_kernel
def _with_sign_of(x: Any, size: Any) -> Any:
    sign = np.uint32(bits_of_float(x) & np.uint32(0x80000000))
    return float_of_bits(np.uint32(bits_of_float(size) | sign))


@_exact_kernel
def exp(x: Any) -> Any:
    """e^x: with n the whole number nearest to x / log 2, 2^n e^(x - n log 2)."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    shifted = x * _LOG2_E + _ROUND
    n = np.int32(np.int32(bits_of_float(shifted)) - _ROUND_BITS)
    multiple = shifted - _ROUND
    rest = (x - multiple * _LOG_2_HIGH) - multiple * _LOG_2_LOW
    series = (((_EXP[4] * rest + _EXP[3]) * rest + _EXP[2]) * rest + _EXP[1]) * rest + _EXP[0]
    power = _ONE + (rest + rest * rest * series)
    # In two factors: 2^n alone would leave the range where e^x is near its ends.
    half = np.int32(n >> np.int32(1))
    return power * _power_of_two(half) * _power_of_two(np.int32(n - half))


@_exact_kernel
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), by the exponential that cannot overflow."""
    small = exp(-abs(x))
    upper = _ONE / (_ONE + small)
    return small * upper if x < 0 else upper


@_exact_kernel
def tanh(x: Any) -> Any:
    """A polynomial near 0, where 1 - 2 / (e^2x + 1) would lose its digits."""
    size = abs(x)
    z = x * x
    series = (((_TANH[4] * z + _TANH[3]) * z + _TANH[2]) * z + _TANH[1]) * z + _TANH[0]
    near = size + size * z * series
    far = _ONE - _TWO / (exp(_TWO * size) + _ONE)
    return _with_sign_of(x, near if size < _HALF else far)
