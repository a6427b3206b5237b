"""Making the step graph, simplified on the way.

Equal nodes are one node, a slice moves to the operands of what it slices, a concatenation dissolves
in the product that uses it, zeros vanish. So `cat([x, h]) @ W` is `x @ Wx + h @ Wh`, and a gate of
an LSTM is a product with its own columns.

*Absent* is the gradient of an output that nobody used: like autograd's undefined tensor it is not
multiplied (0 · inf would be NaN), it makes absent what it is multiplied with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node, Slot
from ostinato.engine.ops import OPS

_ABSENT_IF_FIRST = {
    "neg", "mul_s", "copy", "div", "tanh_backward", "sigmoid_backward", "max_backward", "spread",
}  # fmt: skip


class Builder:
    """Makes nodes, each only once."""

    def __init__(self) -> None:
        self._made: dict[Any, Node] = {}

    def node(
        self,
        op: str,
        inputs: Sequence[Node],
        attrs: tuple[Any, ...],
        kind: str,
        shape: tuple[int, ...],
    ) -> Node:
        key = (op, tuple(n.index for n in inputs), repr(attrs), kind, shape)
        if key not in self._made:
            self._made[key] = Node(op, tuple(inputs), attrs, kind, shape, len(self._made))
        return self._made[key]

    # ---- rows

    def const(self, value: float, width: int = 1) -> Node:
        return self.node("const", (), (float(value),), ROWS, (width,))

    def absent(self, width: int = 1) -> Node:
        return self.node("absent", (), (), ROWS, (width,))

    def widen(self, node: Node, width: int) -> Node:
        """The same value in rows of `width` columns."""
        if node.op == "const":
            return self.const(node.s, width)
        if node.op == "absent":
            return self.absent(width)
        if node.width == width:
            if node.kind == ROWS:
                return node
            return self.node("copy", (node,), (0.0,), ROWS, (width,))
        return self.node("spread", (node,), (0.0,), ROWS, (width,))

    def op(self, name: str, *operands: Node, s: float = 0.0) -> Node:
        """An elementwise operation on operands of one width, or of width 1."""
        widths = {n.width for n in operands} - {1}
        if len(widths) > 1:
            raise Unsupported(f"operands of {sorted(widths)} columns cannot be combined", name)
        width = widths.pop() if widths else 1
        known = self._known(name, operands, s, width)
        if known is not None:
            return known
        operands = tuple(self.const(0.0, n.width) if n.op == "absent" else n for n in operands)
        concats = [n for n in operands if n.op == "concat"]
        if concats:
            return self._over_pieces(name, operands, s, concats)
        name, operands, s = _with_scalar(name, operands, s)
        if name == "select_s" and s == 0:
            name, operands = self._as_gradient_of_max(*operands)
        return self.node(name, operands, (float(s),), ROWS, (width,))

    def _as_gradient_of_max(self, less: Node, other: Node) -> tuple[str, tuple[Node, ...]]:
        """PyTorch's gradient of maximum or minimum, three selections, as one operation."""
        if less.op == "lt" and other.op == "select":
            a, b = less.inputs
            equal, half, g = other.inputs
            halved = self.op("div", g, self.const(2.0))
            if equal.op == "eq" and {*equal.inputs} == {a, b} and half is halved:
                return "max_backward", (g, a, b)
        return "select_s", (less, other)

    def _known(self, name: str, operands: tuple[Node, ...], s: float, width: int) -> Node | None:
        """A result that needs no computing."""
        first = operands[0]
        absent = [n.op == "absent" for n in operands]
        if any(absent):
            if (name in _ABSENT_IF_FIRST and absent[0]) or name == "mul" or all(absent):
                return self.absent(width)
            if name == "select" and all(n.op == "absent" or _is_zero(n) for n in operands[1:]):
                return self.absent(width)
            if name in ("add", "sub") and absent[1]:
                return self.widen(first, width)
            if name == "add":
                return self.widen(operands[1], width)
            if name == "sub":
                return self.op("neg", self.widen(operands[1], width))
        if all(n.op == "const" for n in operands):
            values = [np.float64(n.s) for n in operands]
            with np.errstate(all="ignore"):
                return self.const(float(OPS[name].meaning(*values, np.float64(s))), width)
        if name == "add" and _is_zero(first):
            return self.widen(operands[1], width)
        if name in ("add", "sub") and _is_zero(operands[1]):
            return self.widen(first, width)
        if name == "copy" or (name == "mul_s" and s == 1) or (name == "add_s" and s == 0):
            return self.widen(first, width)
        if name == "mul_s" and first.op == "mul_s":
            return self.op("mul_s", first.inputs[0], s=s * first.s)
        if name == "add":
            for a, b in (operands, operands[::-1]):
                if b.op == "neg":
                    return self.op("sub", a, b.inputs[0])
        if name == "sub" and operands[1].op == "neg":
            return self.op("add", first, operands[1].inputs[0])
        if name == "neg" and first.op == "neg":
            return self.widen(first.inputs[0], width)
        if name == "mul":  # g · ((x / y) / y), a division's gradient, by g / y, which is its other
            for g, b in (operands, operands[::-1]):
                y = _divisor(b)
                if y is not None and _divisor(b.inputs[0]) is y and _divisor(g) is not y:
                    return self.op("mul", self.op("div", g, y), b.inputs[0])
        if name in ("mul", "div"):  # the sign last, where a sum may take it
            for i, n in enumerate(operands):
                if n.op == "neg":
                    rest = (*operands[:i], n.inputs[0], *operands[i + 1 :])
                    return self.op("neg", self.op(name, *rest))
        return None

    def _over_pieces(
        self, name: str, operands: tuple[Node, ...], s: float, concats: list[Node]
    ) -> Node:
        width = concats[0].width
        cuts = sorted({c for n in concats for c, _ in _placed(n.inputs)} | {width})
        return self.concat(
            [
                self.op(name, *(n if n.width == 1 else self.slice(n, a, b) for n in operands), s=s)
                for a, b in pairwise(cuts)
            ]
        )

    def slice(self, node: Node, start: int, stop: int) -> Node:
        """Columns start … stop−1."""
        width = stop - start
        if width == node.width:
            return node
        if node.kind == ONCE:
            return self.part(node, start, width)
        if node.op in ("const", "absent"):
            return self.widen(node, width)
        if node.op == "concat":
            pieces = [
                self.slice(piece, max(start - at, 0), min(stop - at, piece.width))
                for at, piece in _placed(node.inputs)
                if at < stop and at + piece.width > start
            ]
            return self.concat(pieces)
        if node.op == "spread":
            return self.widen(node.inputs[0], width)
        if node.op == "matmul":
            a, w = node.inputs
            return self.matmul(a, self.block(w, 0, w.shape[0], start, width))
        if node.op in OPS:
            cut = [n if n.width == 1 else self.slice(n, start, stop) for n in node.inputs]
            return self.op(node.op, *cut, s=node.s)
        if node.op == "slice":
            return self.node("slice", node.inputs, (node.attrs[0] + start,), ROWS, (width,))
        return self.node("slice", (node,), (start,), ROWS, (width,))

    def concat(self, pieces: Sequence[Node]) -> Node:
        flat: list[Node] = []
        for piece in pieces:
            flat.extend(piece.inputs if piece.op == "concat" else [piece])
        # Zeros beside what is absent are autograd's, for the pieces of a split that nobody uses.
        if any(n.op == "absent" for n in flat) and all(
            n.op == "absent" or _is_zero(n) for n in flat
        ):
            return self.absent(sum(n.width for n in flat))
        rows = [
            self.const(0.0, n.width) if n.op == "absent" else self.widen(n, n.width) for n in flat
        ]
        merged: list[Node] = []
        for n in rows:
            if merged and n.op == "const" and merged[-1].op == "const" and n.s == merged[-1].s:
                merged[-1] = self.const(n.s, merged[-1].width + n.width)
            else:
                merged.append(n)
        if len(merged) == 1:
            return merged[0]
        return self.node("concat", merged, (), ROWS, (sum(n.width for n in merged),))

    def matmul(self, a: Node, w: Node) -> Node:
        """a `[B, K]` times w `[K, N]`."""
        n_columns = w.shape[1]
        if a.op == "absent":
            return self.absent(n_columns)
        terms = [
            self.node(
                "matmul",
                (self._operand(p), self.block(w, at, p.width, 0, n_columns)),
                (),
                ROWS,
                (n_columns,),
            )
            for at, p in _placed(a.inputs if a.op == "concat" else (a,))
            if not _is_zero(p)
        ]
        if not terms:
            return self.const(0.0, n_columns)
        total = terms[0]
        for term in terms[1:]:
            total = self.op("add", total, term)
        return total

    def _operand(self, node: Node) -> Node:
        """A value that lies in memory, as a product needs it."""
        if node.kind == ONCE or node.op == "const":
            return self.node("copy", (node,), (0.0,), ROWS, (node.width,))
        return node

    def reduce(self, name: str, node: Node, width: int) -> Node:
        """row_sum or row_max: `[B, width]` to `[B, 1]`."""
        if node.op == "absent":
            return self.absent()
        wide = self._operand(self.widen(node, width))
        return self.node(name, (wide,), (), ROWS, (1,))

    # ---- once

    def captured(self, index: int, shape: tuple[int, ...]) -> Node:
        return self.node("captured", (), (index,), ONCE, shape)

    def block(self, w: Node, row: int, n_rows: int, column: int, n_columns: int) -> Node:
        """w[row : row + n_rows, column : column + n_columns]"""
        if (n_rows, n_columns) == w.shape:
            return w
        if w.op == "block":
            row, column, w = row + w.attrs[0], column + w.attrs[1], w.inputs[0]
        return self.node("block", (w,), (row, column), ONCE, (n_rows, n_columns))

    def part(self, v: Node, start: int, width: int) -> Node:
        """v[start : start + width]"""
        if v.op == "part":
            start, v = start + v.attrs[0], v.inputs[0]
        return self.node("part", (v,), (start,), ONCE, (width,))

    def call(
        self,
        name: str,
        inputs: Sequence[Node],
        call: Any,
        out: int,
        kind: str,
        shape: tuple[int, ...],
    ) -> Node:
        """An ATen call on tensors without a batch, left to PyTorch; `out` of its results."""
        return self.node(name, inputs, (call, out), kind, shape)

    def view(self, node: Node, shape: tuple[int, ...], kind: str) -> Node:
        """The same elements in another shape; a view of a view is one view."""
        if node.op == "absent":
            return node
        if node.op == "aten.view.default":
            node = node.inputs[0]
        if node.shape == shape:
            return node
        return self.call("aten.view.default", (node,), ((Slot(0), shape), ()), 0, kind, shape)

    # ---- sum

    def outer(self, a: Node, b: Node) -> Node:
        """Σ aᵀ b over rows and steps: `[K, N]`."""
        if "absent" in (a.op, b.op):
            return self.absent()
        inputs: list[Node] = []
        places = []
        for row, p in _placed(a.inputs if a.op == "concat" else (a,)):
            for column, q in _placed(b.inputs if b.op == "concat" else (b,)):
                if not {p.op, q.op} & {"absent"} and not _is_zero(p) and not _is_zero(q):
                    inputs += [self._operand(p), self._operand(q)]
                    places.append((row, column))
        return self.node("outer", inputs, tuple(places), SUM, (a.width, b.width))

    def transposed(self, outer: Node) -> Node:
        """(Σ aᵀ b)ᵀ = Σ bᵀ a: `[N, K]`, so that a gradient has the layout of what it is of."""
        pairs = zip(outer.inputs[::2], outer.inputs[1::2], strict=True)
        inputs = [n for a, b in pairs for n in (b, a)]
        places = tuple((column, row) for row, column in outer.attrs)
        return self.node("outer", inputs, places, SUM, outer.shape[::-1])

    def column_sum(self, a: Node) -> Node:
        """Σ a over rows and steps: `[1, width]`."""
        if a.op == "absent":
            return a
        inputs = []
        places = []
        for column, p in _placed(a.inputs if a.op == "concat" else (a,)):
            if p.op != "absent" and not _is_zero(p):
                inputs.append(self._operand(p))
                places.append((0, column))
        return self.node("column_sum", inputs, tuple(places), SUM, (1, a.width))

    def add_sums(self, a: Node, b: Node) -> Node | None:
        """The sum of two sums, if one accumulator can take both."""
        if a.op == b.op and a.op in ("outer", "column_sum") and a.shape == b.shape:
            return self.node(a.op, a.inputs + b.inputs, a.attrs + b.attrs, SUM, a.shape)
        return None


def _placed(pieces: Sequence[Node]) -> list[tuple[int, Node]]:
    """Pieces with the column each begins at."""
    placed, at = [], 0
    for piece in pieces:
        placed.append((at, piece))
        at += piece.width
    return placed


def _is_zero(node: Node) -> bool:
    return node.op == "const" and node.s == 0.0


def _divisor(node: Node) -> Node | None:
    return node.inputs[1] if node.op == "div" else None


def _is_power_of_two(s: float) -> bool:
    """Whether it is one, and its reciprocal a normal float32."""
    mantissa, exponent = math.frexp(s)
    return abs(mantissa) == 0.5 and abs(exponent) < 100


# (operation, position of the constant) → the same with a scalar
_SCALAR_FORMS = {
    ("add", 0): "add_s",
    ("add", 1): "add_s",
    ("mul", 0): "mul_s",
    ("mul", 1): "mul_s",
    ("sub", 0): "rsub_s",
    ("div", 0): "rdiv_s",
    ("max", 0): "max_s",
    ("max", 1): "max_s",
    ("min", 0): "min_s",
    ("min", 1): "min_s",
    ("lt", 0): "gt_s",
    ("lt", 1): "lt_s",
    ("le", 0): "ge_s",
    ("le", 1): "le_s",
    ("eq", 0): "eq_s",
    ("eq", 1): "eq_s",
    ("pow", 1): "pow_s",
}


def _with_scalar(
    name: str, operands: tuple[Node, ...], s: float
) -> tuple[str, tuple[Node, ...], float]:
    """a + const as add_s(a), and so on."""
    if len(operands) == 2:
        for position, n in enumerate(operands):
            other = operands[1 - position]
            if n.op == "const" and n.width in (1, other.width):
                if (name, position) in _SCALAR_FORMS:
                    return _SCALAR_FORMS[name, position], (other,), n.s
                if (name, position) == ("sub", 1):
                    return "add_s", (other,), -n.s
                if (name, position) == ("div", 1) and _is_power_of_two(n.s):
                    return "mul_s", (other,), 1 / n.s  # the same bits
    if name == "select":
        mask, a, b = operands
        for n, other, form in ((a, b, "select_s"), (b, a, "select_else_s")):
            if n.op == "const" and n.width in (1, max(mask.width, other.width)):
                return form, (mask, other), n.s
    return name, operands, s
