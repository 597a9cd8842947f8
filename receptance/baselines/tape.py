"""A tensor that grows by a token at a time and is still a value: what a cache of keys and values is made of.

tape = Tape.holding(torch.zeros(1, 0, 2))       # [..., S, N] with S = 0
longer = tape.append(torch.ones(1, 3, 2))       # `tape` is as it was
longer.tensor                                   # [1, 3, 2]
"""

from __future__ import annotations

import torch
from torch import Tensor


class _Storage:
    """The memory under one or several tapes; `filled` is how far the longest of them has written."""

    __slots__ = ("filled", "tensor")

    def __init__(self, tensor: Tensor, filled: int) -> None:
        self.tensor = tensor
        self.filled = filled


class Tape:
    """A tensor [..., S, N] that grows along S and is still a value.

    `append` returns a longer tape and leaves this one as it was.  A tape that nothing has been appended to yet lends
    its spare memory to the longer one, so that a token costs one write; a second append to the same tape (a fork)
    copies it.  Memory doubles when it runs out.  Where autograd records, every append copies, since autograd must keep
    what it has seen unchanged.
    """

    __slots__ = ("_storage", "length")

    def __init__(self, storage: _Storage, length: int) -> None:
        self._storage = storage
        self.length = length

    @classmethod
    def holding(cls, tensor: Tensor, capacity: int = 0) -> Tape:
        """A tape of `tensor` [..., S, N] with memory for `capacity` places (S or more)."""
        length = tensor.shape[-2]
        if capacity <= length:
            return cls(_Storage(tensor, length), length)
        memory = tensor.new_empty(*tensor.shape[:-2], capacity, tensor.shape[-1])
        memory[..., :length, :] = tensor
        return cls(_Storage(memory, length), length)

    @property
    def tensor(self) -> Tensor:
        """[..., S, N], a view."""
        return self._storage.tensor[..., : self.length, :]

    def append(self, new: Tensor) -> Tape:
        """This tape with `new` [..., T, N] at its end."""
        length = self.length + new.shape[-2]
        if torch.is_grad_enabled():
            return Tape.holding(torch.cat([self.tensor, new], -2))
        memory = self._storage.tensor
        newest = self._storage.filled == self.length
        # A tensor made in inference mode may not be written to outside of it.
        writable = torch.is_inference_mode_enabled() or not memory.is_inference()
        tape = self
        if not newest or not writable or length > memory.shape[-2] or memory.dtype != new.dtype:
            tape = Tape.holding(self.tensor.to(new.dtype), capacity=max(2 * self.length, length, 64))
        tape._storage.tensor[..., self.length : length, :] = new
        tape._storage.filled = length
        return Tape(tape._storage, length)
