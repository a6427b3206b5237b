"""The terms of a gradient that is summed over rows and steps, and the memory they are summed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ostinato.compiler.graph.node import Node
from ostinato.engine.program import Operand

PANEL = 64  # columns of a register tile of the widest vectors

Rectangle = tuple[int, int, int, int]  # row, column, number of rows, number of columns


@dataclass(frozen=True)
class SumTerm:
    """aᵀ b, `[K, N]`, or b alone, `[1, N]`: added to a rectangle of the result."""

    row: int
    column: int
    K: int
    N: int
    a: Operand | None
    b: Operand

    @property
    def rectangle(self) -> Rectangle:
        return self.row, self.column, self.K, self.N

    def right_of(self, left: SumTerm) -> bool:
        """Whether it continues `left` to the right: the same rows, and b side by side."""
        return (
            (left.row, left.K, left.a) == (self.row, self.K, self.a)
            and left.column + left.N == self.column
            and _continues(left.b, left.N, self.b)
        )

    def below(self, above: SumTerm) -> bool:
        """Whether it continues `above` downwards: the same columns, and a side by side."""
        return (
            above.a is not None
            and self.a is not None
            and (above.column, above.N, above.b) == (self.column, self.N, self.b)
            and above.row + above.K == self.row
            and _continues(above.a, above.K, self.a)
        )


def sum_terms(node: Node, operand: Callable[[Node], Operand]) -> tuple[list[SumTerm], bool]:
    """The terms of an `outer` or `column_sum` node; and whether they give its transpose.

    The engine's vectors run along the second factor, which had better be the wider one.
    """
    if node.op == "column_sum":
        terms = [
            SumTerm(row, column, 1, a.width, None, operand(a))
            for (row, column), a in zip(node.attrs, node.inputs, strict=True)
        ]
        return _joined(terms), False
    n_rows, n_columns = node.shape
    transposed = n_columns < min(n_rows, PANEL)
    terms = []
    for (row, column), a, b in zip(node.attrs, node.inputs[::2], node.inputs[1::2], strict=True):
        if transposed:
            row, column, a, b = column, row, b, a
        terms.append(SumTerm(row, column, a.width, b.width, operand(a), operand(b)))
    return _joined(terms), transposed


def in_layers(terms: list[SumTerm]) -> dict[Rectangle, int]:
    """The layer of each rectangle: rectangles that overlap are summed apart, in different ones."""
    layer_of: dict[Rectangle, int] = {}
    layers: list[list[Rectangle]] = []
    for rectangle in dict.fromkeys(t.rectangle for t in terms):
        fitting = (
            k
            for k, others in enumerate(layers)
            if not any(_overlap(rectangle, other) for other in others)
        )
        layer = next(fitting, len(layers))
        if layer == len(layers):
            layers.append([])
        layers[layer].append(rectangle)
        layer_of[rectangle] = layer
    return layer_of


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    (r, c, K, N), (q, d, k, n) = a, b
    return not (r + K <= q or q + k <= r or c + N <= d or d + n <= c)


def _joined(terms: list[SumTerm]) -> list[SumTerm]:
    """The terms, with those that continue each other as one.

    Several terms for one place stay as they are: they must all cut it the same way.
    """
    if len({(t.row, t.column) for t in terms}) < len(terms):
        return terms
    wide: list[SumTerm] = []
    for t in sorted(terms, key=lambda t: (t.row, t.column)):
        if wide and t.right_of(wide[-1]):
            wide[-1] = replace(wide[-1], N=wide[-1].N + t.N)
        else:
            wide.append(t)
    high: list[SumTerm] = []
    for t in sorted(wide, key=lambda t: (t.column, t.row)):
        if high and t.below(high[-1]):
            high[-1] = replace(high[-1], K=high[-1].K + t.K)
        else:
            high.append(t)
    return high


def _continues(first: Operand, width: int, second: Operand) -> bool:
    return replace(first, column=first.column + width) == second
