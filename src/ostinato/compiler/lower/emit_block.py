"""A block of elementwise operations: which values registers hold, and when."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from ostinato.compiler.graph.node import Node
from ostinato.engine.program import NONE, Code, Instruction, Operand, register

MAX_BLOCK, MAX_REGISTERS = 64, 48  # the engine's kMaxBlock and kMaxRegisters


class BlockTooLarge(Exception):  # noqa: N818
    """A block needs more instructions or registers than the engine has."""


class BlockWriter:
    """Writes a block: a value without a place is held in a register until it is last read.

    Args:
        places: of the values that are written to memory.
        operand: finds a value in memory.
    """

    def __init__(
        self,
        nodes: tuple[Node, ...],
        leaves: Container[Node],
        places: Mapping[Node, Operand],
        operand: Callable[[Node], Operand],
    ):
        self.nodes, self.leaves, self.places, self.operand = nodes, leaves, places, operand
        self.width = nodes[0].width
        self.last_use = {x: i for i, n in enumerate(nodes) for x in n.inputs}
        self.free = list(range(MAX_REGISTERS - 1, -1, -1))
        self.holding: dict[Node, int] = {}
        self.out: list[Instruction] = []

    def instructions(self) -> list[Instruction]:
        """The block.

        Raises:
            BlockTooLarge: see there.
        """
        for i, n in enumerate(self.nodes):
            self.add(i, n)
        if len(self.out) > MAX_BLOCK:
            raise BlockTooLarge
        return [Instruction(Code.BLOCK, n=self.width, count=len(self.out)), *self.out]

    def add(self, i: int, n: Node) -> None:
        """Compute n, the i-th node of the block."""
        temporary: list[int] = []
        source = n.inputs[0] if n.op == "spread" else None
        if source is not None and source.op != "const":
            code, operands = Code.BROADCAST, [self.operand(source)]
        else:
            code, operands = Code.OP, [self.read(x, temporary) for x in n.inputs]
        for x in dict.fromkeys(n.inputs):
            if x in self.holding and self.last_use[x] == i:
                self.free.append(self.holding.pop(x))
        self.free += temporary
        if n in self.places:
            d = self.operand(n)
        else:
            self.holding[n] = self.take()
            d = register(self.holding[n])
        op, s = ("copy", 0.0) if n.op == "spread" else (n.op, n.s)
        a, b, c = [*operands, NONE, NONE, NONE][:3]
        self.out.append(Instruction(code, op, s=s, d=d, a=a, b=b, c=c))

    def read(self, x: Node, temporary: list[int]) -> Operand:
        """An operand as wide as the block. A register filled for it is added to `temporary`."""
        if x in self.holding:
            return register(self.holding[x])
        constant = x.op == "const" and x not in self.leaves
        if not constant and x.width == self.width:
            return self.operand(x)
        d = register(self.take())
        temporary.append(d.register)
        if constant:
            self.out.append(Instruction(Code.OP, "fill", d=d, s=x.s))
        else:
            self.out.append(Instruction(Code.BROADCAST, d=d, a=self.operand(x)))
        return d

    def take(self) -> int:
        if not self.free:
            raise BlockTooLarge
        return self.free.pop()
