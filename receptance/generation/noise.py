"""Where chance comes from: a number for each token that depends on nothing but three integers.

    uniform(seed=7, request=0, position=12)      # 0.1877...

So a sequence is drawn in the same way alone and in any batch, on every machine, and can be drawn again from any token
on.
"""

from __future__ import annotations

import hashlib
import struct

# Seeds and requests are below it, so that they fit a signed integer of 64 bits everywhere.
LIMIT = 2**63


def uniform(seed: int, request: int, position: int) -> float:
    """The noise in [0, 1), 53 random bits, for the token at `position` of a request, all three from 0 to 2**63 - 1.

    It is the first 53 bits of BLAKE2b with a digest of 8 bytes, read as a little-endian integer, of the three numbers
    as little-endian integers of 8 bytes.
    """
    digest = hashlib.blake2b(struct.pack("<3Q", seed, request, position), digest_size=8).digest()
    bits: int = struct.unpack("<Q", digest)[0] >> 11
    return bits * 2.0**-53
