"""Which time mix and channel mix make which generation."""

from __future__ import annotations

from . import rwkv4, rwkv5, rwkv6, rwkv7
from .layers import Part

PARTS: dict[str, tuple[type[Part], type[Part]]] = {
    "4": (rwkv4.TimeMix, rwkv4.ChannelMix),
    "5.0": (rwkv5.TimeMix, rwkv5.ChannelMix),
    "5.1": (rwkv5.TimeMix, rwkv5.ChannelMix),
    "5.2": (rwkv5.TimeMix, rwkv5.ChannelMix),
    "6": (rwkv6.TimeMix, rwkv6.ChannelMix),
    "7": (rwkv7.TimeMix, rwkv7.ChannelMix),
}
