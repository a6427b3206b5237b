"""The step graph: one time step, forward and backward, as values over a symbolic batch.

A node is one of three kinds.

    rows   `[B, width]`, one row for each row of the batch
    once   a tensor that depends on captured tensors only: the same for all rows and steps
    sum    a tensor summed over all rows and steps: what gradients of captured tensors are made of
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROWS, ONCE, SUM = "rows", "once", "sum"


class Unsupported(Exception):  # noqa: N818 (it is a reason, and no error)
    """Why a step cannot be played by the engine; the eager loop plays it instead."""

    def __init__(self, reason: str, op: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.op = op

    def bare(self) -> Unsupported:
        """To be kept: without what it was raised from, whose frames hold all that was at hand."""
        return type(self)(self.reason, self.op)


# Raised while a step runs they are no word on it: a signal handler's (TimeoutError), say.
NOT_OF_A_STEP = (OSError, MemoryError)


def error_in_short(error: Exception) -> str:
    """For a reason that names it."""
    first_line = str(error).split("\n")[0]
    return f"{type(error).__name__}: {first_line}"


@dataclass(frozen=True)
class Slot:
    """In the arguments of an ATen call: the i-th input of its node."""

    index: int


@dataclass(frozen=True, eq=False)
class Node:
    op: str
    inputs: tuple[Node, ...]
    attrs: tuple[Any, ...]
    kind: str
    shape: tuple[int, ...]  # rows: (width,)
    index: int  # order of making, which is an order of computing

    @property
    def width(self) -> int:
        return self.shape[0]

    @property
    def s(self) -> float:
        """The scalar of an elementwise operation; the value of a constant."""
        return self.attrs[0]

    def __repr__(self) -> str:
        inputs = ", ".join(f"%{n.index}" for n in self.inputs)
        return (
            f"%{self.index} {self.kind}{list(self.shape)} = {self.op}({inputs}) {self.attrs or ''}"
        )
