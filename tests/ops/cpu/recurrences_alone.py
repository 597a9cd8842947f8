"""Every recurrence in Numba against the loop, small, forward and backward, and then in two Python threads at once.

Run as a program, by test_recurrences_elsewhere.py, under other settings of Numba.
"""

from __future__ import annotations

import threading

import torch

from receptance import ops
from tests.ops.cases import boundaries, make, relative
from tests.ops.test_forms import compute

LENGTH = 18


def worst_error(op: str) -> float:
    """The largest relative error of a value or gradient, with document boundaries and a state."""
    inputs, first = make(op, 2, LENGTH, torch.float32, size=5), boundaries(2, LENGTH)
    want = compute(op, "reference", [x.double() for x in inputs], first)
    got = compute(op, "numba", inputs, first)
    return max(relative(g.double(), w) for g, w in zip(got, want, strict=True))


def at_once(times: int) -> bool:
    """Whether two threads that compute at the same time both find what one finds alone."""
    inputs = make("wkv7", 2, LENGTH, torch.float32, size=5)
    want, found = ops.wkv7(*inputs)[0], []

    def work() -> None:
        for _ in range(times):
            found.append(torch.equal(ops.wkv7(*inputs)[0], want))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(found) == 2 * times and all(found)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(2)
    for op in ("wkv4", "wkv6", "wkv7"):
        error = worst_error(op)
        assert error < 3e-6, f"{op} is wrong by {error}"
    assert at_once(200)
    import numba

    print(numba.config.THREADING_LAYER, numba.config.CPU_NAME, numba.config.BOUNDSCHECK)
