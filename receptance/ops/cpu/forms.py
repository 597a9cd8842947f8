"""All forms called "numba", by the names of their ops; `dispatch` imports this when the first of them serves."""

from __future__ import annotations

from .delta import delta_inputs
from .lerps import lerps
from .readout import read_out
from .rectify import squared_relu
from .recurrences import wkv4, wkv6, wkv7

__all__ = ["delta_inputs", "lerps", "read_out", "squared_relu", "wkv4", "wkv6", "wkv7"]
