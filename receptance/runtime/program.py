"""A straight line of instructions over registers, put in order, given places in memory, and written as a table.

program = Program()
x = program.emit(Op.EMBED, 768, address, kind)          # a Register of 768 numbers a row
y = program.emit(Op.SQUARE, 768, x)
table = program.assemble(capacity=4, outputs=(y,))
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..ops.cpu.instructions import FIRST_SHARED, OPERATION, STEP, TARGET, WIDTH, Op

# Places begin at a cache line.
LINE = 16
# Compiled loops take arrays that nearly touch for overlapping, and add in another order then: rows would depend, in the
# last bit, on how many there are.
GAP = 64


@dataclass(eq=False)
class Register:
    """`size` float32 for each row of the batch, written once."""

    size: int


@dataclass(eq=False)
class Constant:
    """Numbers that are the same for every row."""

    values: NDArray[np.float32]


Operand = Register | Constant | int


@dataclass(eq=False)
class Instruction:
    """One operation; `operands` fill the columns after the target."""

    op: Op
    target: Register
    operands: tuple[Operand, ...]

    @property
    def shared(self) -> bool:
        """Whether threads share the work of it."""
        return self.op >= FIRST_SHARED

    @property
    def sources(self) -> list[Register]:
        return [operand for operand in self.operands if isinstance(operand, Register)]


class Assembled(NamedTuple):
    """What the executor takes.

    table [n, WIDTH]   instructions; those that may run at the same time stand side by side
    constants          all constants, one after the other
    scratch_size       float32 that the values of all rows need
    """

    table: NDArray[np.int64]
    constants: NDArray[np.float32]
    scratch_size: int


@dataclass
class Program:
    """Instructions in the order of tracing, and what must stay alive as long as their addresses are used."""

    instructions: list[Instruction] = field(default_factory=list)
    held: list[Tensor] = field(default_factory=list)

    def emit(self, op: Op, size: int, *operands: Operand) -> Register:
        """Append an instruction; returns its target."""
        target = Register(size)
        self.instructions.append(Instruction(op, target, operands))
        return target

    def address(self, tensor: Tensor) -> int:
        """Where a tensor lies; it is kept from being freed."""
        self.held.append(tensor)
        return tensor.data_ptr()

    def assemble(self, capacity: int, output: Register) -> tuple[Assembled, int]:
        """The table for at most `capacity` rows, and the place of `output`."""
        steps = _steps(_scheduled(self.instructions))
        places, size = _allocate(steps, capacity, output)
        constants = _Constants()
        table = np.zeros((len(self.instructions), WIDTH), np.int64)
        numbered = ((number, instruction) for number, step in enumerate(steps) for instruction in step)
        for row, (number, instruction) in zip(table, numbered, strict=True):
            row[OPERATION], row[TARGET], row[STEP] = instruction.op, places[instruction.target], number
            for column, operand in enumerate(instruction.operands, TARGET + 1):
                if isinstance(operand, Register):
                    row[column] = places[operand]
                else:
                    row[column] = constants.place(operand) if isinstance(operand, Constant) else operand
        return Assembled(table, constants.joined(), size), places[output]


def _scheduled(instructions: list[Instruction]) -> list[Instruction]:
    """In the order of execution: whatever needs equally many shared instructions before it is done together.

    So products that do not wait for each other (receptance, key, value, the first low-rank factors) are one region.
    """
    levels: dict[Register, int] = {}
    for instruction in instructions:
        before = max((levels[source] for source in instruction.sources), default=0)
        levels[instruction.target] = before + instruction.shared
    return sorted(instructions, key=lambda i: (levels[i.target], not i.shared))


def _steps(instructions: list[Instruction]) -> list[list[Instruction]]:
    """Instructions that run at the same time, as lists."""
    steps: list[list[Instruction]] = []
    for instruction in instructions:
        if steps and instruction.shared and steps[-1][-1].shared and not _waits(instruction, steps[-1]):
            steps[-1].append(instruction)
        else:
            steps.append([instruction])
    return steps


def _waits(instruction: Instruction, step: list[Instruction]) -> bool:
    targets = {other.target for other in step}
    return any(source in targets for source in instruction.sources)


def _allocate(steps: list[list[Instruction]], capacity: int, output: Register) -> tuple[dict[Register, int], int]:
    """A place for each register; one that nobody reads any more gives its place to the next of its size."""
    last_read = {source: number for number, step in enumerate(steps) for i in step for source in i.sources}
    last_read[output] = len(steps)
    places: dict[Register, int] = {}
    free: defaultdict[int, list[int]] = defaultdict(list)
    end = 0
    for number, step in enumerate(steps):
        for target in (instruction.target for instruction in step):
            size = _space(target, capacity)
            if free[size]:
                places[target] = free[size].pop()
            else:
                places[target], end = end, end + size
        for register in {register for i in step for register in (i.target, *i.sources)}:
            if last_read.get(register, number) == number:
                free[_space(register, capacity)].append(places[register])
    return places, end


def _space(register: Register, capacity: int) -> int:
    """float32 that a register takes, with the gap behind it."""
    return -(-register.size * capacity // LINE) * LINE + GAP


class _Constants:
    """The table of constants while it grows."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._parts: list[NDArray[np.float32]] = []
        self._end = 0

    def place(self, constant: Constant) -> int:
        if id(constant) not in self._places:
            self._places[id(constant)] = self._end
            self._parts.append(constant.values)
            self._end += -(-constant.values.size // LINE) * LINE
        return self._places[id(constant)]

    def joined(self) -> NDArray[np.float32]:
        table = np.zeros(max(self._end, LINE), np.float32)
        for part, place in zip(self._parts, self._places.values(), strict=True):
            table[place : place + part.size] = part
        return table
