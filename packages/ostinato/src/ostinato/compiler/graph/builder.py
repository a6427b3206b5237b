"""Making the nodes of the step graph: each once, and none that equals an existing one.

In: operations by name, on nodes. Out: nodes in canonical form, so that equivalent ways to write a
step give one graph:

    a slice                    moves to the operands of the sliced operation
    a concatenation            dissolves in the product or the operation that uses it
    zeros, copies, signs       are left out or moved, see `identities.py`

So `cat([x, h]) @ W` is `x @ Wx + h @ Wh`, and a gate of an LSTM is a product with its own columns
of W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from operator import add
from typing import Any

import numpy as np

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph import arrays, identities
from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node, Slot
from ostinato.engine.ops import OPS


class Builder:
    """Makes nodes, each only once."""

    def __init__(self) -> None:
        self._made: dict[Any, Node] = {}
        self._cut: dict[Any, Node] = {}  # columns of elementwise operations: each is cut once

    def node(
        self, op: str, inputs: Sequence[Node], attrs: Any, kind: str, shape: tuple[int, ...]
    ) -> Node:
        """The node with exactly these fields; the methods below find the canonical one."""
        key = (op, tuple(n.index for n in inputs), repr(attrs), kind, shape)
        if any(n.op == "row_number" for n in inputs):
            raise Unsupported("the step computes with the number of a row in the batch", op)
        if key not in self._made:
            self._made[key] = Node(op, tuple(inputs), attrs, kind, shape, len(self._made))
        return self._made[key]

    # ---- rows

    def const(self, value: float, width: int = 1) -> Node:
        return self.node("const", (), (float(value),), ROWS, (width,))

    def absent(self, width: int = 1) -> Node:
        """The gradient of a value that the loss does not use: see `values.py`."""
        return self.node("absent", (), (), ROWS, (width,))

    def widen(self, node: Node, width: int) -> Node:
        """The same value in rows of `width` columns."""
        if node.op == "const":
            return self.const(node.s, width)
        if node.width == width:
            return node if node.kind == ROWS else self._copy(node)
        return self.node("spread", (node,), (0.0,), ROWS, (width,))

    def _copy(self, node: Node) -> Node:
        """A constant, or a vector without batch, as rows that lie in memory."""
        return self.node("copy", (node,), (0.0,), ROWS, (node.width,))

    def op(self, name: str, *operands: Node, s: float = 0.0) -> Node:
        """An elementwise operation of engine/ops.py, on operands of one width, or of width 1."""
        widths = {n.width for n in operands} - {1}
        if len(widths) > 1:
            raise Unsupported(f"operands of {sorted(widths)} columns cannot be combined", name)
        width = widths.pop() if widths else 1
        e = Node(name, operands, (float(s),), ROWS, (width,), -1)  # not entered yet
        known = identities.simplified(self, e)
        if known is not None:
            return known
        if any(n.op == "concat" for n in e.inputs):
            return self._piece_by_piece(e)
        e = identities.in_best_form(self, e)
        return self.node(e.op, e.inputs, e.attrs, ROWS, e.shape)

    def _columns_of(self, e: Node, start: int, stop: int) -> Node:
        """Columns of an elementwise operation, computed from the same columns of its operands."""
        cut = [n if n.width == 1 else self.slice(n, start, stop) for n in e.inputs]
        return self.op(e.op, *cut, s=e.s)

    def _piece_by_piece(self, e: Node) -> Node:
        """An operation on concatenations, as the concatenation of operations on their pieces."""
        concats = [n for n in e.inputs if n.op == "concat"]
        cuts = sorted({at for n in concats for at, _ in _pieces(n)} | {e.width})
        return self.concat([self._columns_of(e, *piece) for piece in pairwise(cuts)])

    def slice(self, node: Node, start: int, stop: int) -> Node:
        """Columns start … stop−1, computed from columns of the operands where that is possible."""
        width = stop - start
        if width == node.width:
            return node
        if node.kind == ONCE:
            return self.block(node, (start,), (width,))
        if node.op == "const":
            return self.widen(node, width)
        if node.op == "concat":
            there = [(at, n) for at, n in _pieces(node) if at < stop and at + n.width > start]
            cut = [self.slice(n, max(start - at, 0), min(stop - at, n.width)) for at, n in there]
            return self.concat(cut)
        if node.op == "spread":
            spread_out = arrays.of_spread(self, node, np.arange(start, stop))
            if spread_out is not None:
                return spread_out
        if node.op == "matmul":
            a, w = node.inputs
            return self.matmul(a, self.block(w, (0, start), (w.shape[0], width)))
        if node.op in OPS:
            key = node.index, start, stop
            if key not in self._cut:
                self._cut[key] = self._columns_of(node, start, stop)
            return self._cut[key]
        if node.op == "slice":
            start, node = start + node.attrs[0], node.inputs[0]
        return self.node("slice", (node,), (start,), ROWS, (width,))

    def concat(self, nodes: Sequence[Node]) -> Node:
        """The columns of all nodes, side by side; adjacent equal constants become one."""
        pieces = [piece for n in nodes for _, piece in _pieces(n)]
        width = sum(n.width for n in pieces)
        merged: list[Node] = []
        for n in [self.widen(piece, piece.width) for piece in pieces]:
            if merged and n.op == "const" and merged[-1].op == "const" and n.s == merged[-1].s:
                merged[-1] = self.const(n.s, merged[-1].width + n.width)
            else:
                merged.append(n)
        return merged[0] if len(merged) == 1 else self.node("concat", merged, (), ROWS, (width,))

    def matmul(self, a: Node, w: Node) -> Node:
        """a `[B, K]` times w `[K, N]`: a sum of products, one for each piece of a."""
        n_columns = w.shape[1]
        total = self.const(0.0, n_columns)
        for row, piece in _pieces(a):
            if not is_zero(piece):
                factors = self.in_memory(piece), self.block(w, (row, 0), (piece.width, n_columns))
                term = self.node("matmul", factors, (), ROWS, (n_columns,))
                total = self.op("add", total, term)
        return total

    def in_memory(self, node: Node) -> Node:
        """A value in memory, where products, reductions and sums read it."""
        return self._copy(node) if node.kind == ONCE or node.op == "const" else node

    # ---- once

    def captured(self, index: int, shape: tuple[int, ...]) -> Node:
        return self.node("captured", (), (index,), ONCE, shape)

    def block(self, w: Node, starts: tuple[int, ...], shape: tuple[int, ...]) -> Node:
        """The part of a vector, or the block of a matrix, of this shape that begins at `starts`."""
        if shape == w.shape:
            return w
        op = "part" if len(shape) == 1 else "block"
        if w.op == op:
            starts, w = tuple(map(add, starts, w.attrs)), w.inputs[0]
        return self.node(op, (w,), starts, ONCE, shape)

    # ---- once, or sum

    def call(
        self,
        name: str,
        *args: Any,
        shape: tuple[int, ...],
        kind: str = ONCE,
        kwargs: Mapping[str, Any] | None = None,
        out: int = 0,
    ) -> Node:
        """Result number `out` of an ATen call that is left to PyTorch: see `left_to_torch.py`.

        Arguments that are tensors are given as nodes without a batch.
        """
        inputs: list[Node] = []
        slots = _slots(args, inputs), _slots([*(kwargs or {}).items()], inputs)
        return self.node(name, inputs, (slots, out), kind, shape)

    def view(self, node: Node, shape: tuple[int, ...]) -> Node:
        """The same elements in another shape; a view of a view is one view.

        Where PyTorch cannot make a view, for example from a transpose, it makes a copy.
        """
        if node.op == "aten.view.default":
            node = node.inputs[0]
        if node.shape == shape:
            return node
        return self.call("aten.view.default", node, shape, shape=shape, kind=node.kind)

    # ---- sum

    def outer(self, factors: Sequence[tuple[int, Node, Node]], shape: tuple[int, int]) -> Node:
        """Σ aᵀ b over rows and steps: `[K, N]`, from one product for each pair of pieces.

        Args:
            factors: (row of the result at which the product begins, a, b); all are added.
        """
        inputs: list[Node] = []
        places: list[tuple[int, int]] = []
        for first, a, b in factors:
            for (row, p), (column, q) in product(_pieces(a), _pieces(b)):
                if not is_zero(p) and not is_zero(q):
                    inputs += [self.in_memory(p), self.in_memory(q)]
                    places.append((first + row, column))
        return self.node("outer", inputs, tuple(places), SUM, shape)

    def transposed(self, outer: Node) -> Node:
        """(Σ aᵀ b)ᵀ = Σ bᵀ a: `[N, K]`, so that a gradient lies in memory as its tensor does."""
        pairs = zip(outer.inputs[::2], outer.inputs[1::2], strict=True)
        inputs = [n for a, b in pairs for n in (b, a)]
        places = tuple((column, row) for row, column in outer.attrs)
        return self.node("outer", inputs, places, SUM, outer.shape[::-1])

    def column_sum(self, a: Node) -> Node:
        """Σ a over rows and steps: `[1, width]`."""
        there = [(column, p) for column, p in _pieces(a) if not is_zero(p)]
        inputs = [self.in_memory(p) for _, p in there]
        places = tuple([(0, column) for column, _ in there])
        return self.node("column_sum", inputs, places, SUM, (1, a.width))

    def add_sums(self, a: Node, b: Node) -> Node | None:
        """The sum of two sums if one accumulator can take both; otherwise None."""
        if a.op == b.op and a.op in ("outer", "column_sum") and a.shape == b.shape:
            return self.node(a.op, a.inputs + b.inputs, a.attrs + b.attrs, SUM, a.shape)
        return None


def _slots(argument: Any, inputs: list[Node]) -> Any:
    """The argument with a slot in the place of each node; the nodes are appended to `inputs`."""
    if isinstance(argument, Node):
        inputs.append(argument)
        return Slot(len(inputs) - 1)
    if isinstance(argument, (list, tuple)):
        return tuple([_slots(a, inputs) for a in argument])
    return argument


def _pieces(node: Node) -> list[tuple[int, Node]]:
    """The pieces of a concatenation, or the node itself, with the column that each begins at."""
    placed, at = [], 0
    for piece in node.inputs if node.op == "concat" else (node,):
        placed.append((at, piece))
        at += piece.width
    return placed
