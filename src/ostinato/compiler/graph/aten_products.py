"""Rules of products: of rows and captured matrices, of matrices in rows, of sums over the batch.

A product is `[g, m, k]` by `[g, k, n]`; g = 1 for two matrices. The axis that holds the batch, with
c elements of a row, decides what it is:

    a       w                 what it is
    m       none (captured)   c · g products of rows with a matrix of the engine
    none    n                 the same, where c = 1; otherwise a product within the row
    g       g                 a product within the row
    k       k                 a sum over the batch: of each g, c outer products, or where that is
                              less, of products within the row
"""

from __future__ import annotations

from typing import Any

import torch

from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.node import ONCE, SUM, Node, Slot
from ostinato.compiler.graph.rules import Context, Value, batch_axis, of_row, rule

# So many products of the engine, each with some columns of a row, are better than one within the
# row: that has no packed weights, and its captured matrix is read for every row.
MOST_PRODUCTS = 64
# A product of one column fills a lane of sixteen; within the row it is a sum of neighbours.
MOST_OF_ONE_COLUMN = 2

_G, _LEFT, _RIGHT = 0, 1, 2  # axes


@rule("mm", "bmm", "mv")
def _mm(c: Context, a: Value, w: Value) -> Any:
    if "absent" in (a.node.op, w.node.op):
        return c.b.absent()
    if is_zero(a.node) or is_zero(w.node):
        return c.b.const(0.0)
    a, w = _as_matrices(c, a), _as_matrices(c, w, vector=len(w.shape) == 1)
    g, m, k = of_row(a.shape)
    n = of_row(w.shape)[_RIGHT]
    where = batch_axis(a.shape), batch_axis(w.shape)
    if where == (_LEFT, None):
        return _by_captured(c, a, w)
    if where == (None, _RIGHT):
        if g * n > MOST_PRODUCTS or n > 1:
            return arrays.product(c.b, _flat(c, a), _flat(c, w), g, m, k, n)
        return _by_captured(c, _swapped(c, w), _swapped(c, a))
    if where == (_G, _G) and a.outer == w.outer:
        return arrays.product(c.b, _flat(c, a), _flat(c, w), g, m, k, n)
    if where == (_RIGHT, _LEFT) and a.outer == w.outer:
        return _over_batch(c, a, w)
    raise c.refuse(f"multiplies {list(a.shape)} by {list(w.shape)}, where rows of the batch mix")


def _as_matrices(c: Context, v: Value, vector: bool = False) -> Value:
    """`[g, rows, columns]`."""
    if vector:
        v = Value(v.node, (*v.shape, 1), v.outer)
    if v.node.op == "const" and batch_axis(v.shape) is None:
        v = Value(c.b.node("full", (), (v.node.s, torch.float64), ONCE, v.shape), v.shape)
    if len(v.shape) == 3:
        return v
    if len(v.shape) != 2:
        raise c.refuse(f"multiplies {list(v.shape)}")
    return Value(v.node, (1, *v.shape), v.outer)


def _flat(c: Context, v: Value) -> Node:
    """Rows of their full width; of a captured tensor, the vector of its elements."""
    return c.as_rows(v) if v.rows else c.b.in_memory(c.as_rows(v))


def _swapped(c: Context, v: Value) -> Value:
    """The matrices of v transposed."""
    g, rows, n = v.shape
    if v.rows:
        node = arrays.permuted(c.b, c.as_rows(v), of_row(v.shape), (0, 2, 1))
        return Value(node, (g, n, rows), v.outer)
    matrix = c.b.view(v.node, (g, rows, n), ONCE)
    args = (Slot(0), 1, 2)
    return Value(c.b.call("aten.transpose.int", (matrix,), args, ONCE, (g, n, rows)), (g, n, rows))


def _by_captured(c: Context, a: Value, w: Value) -> Node:
    """a `[g, c · B, k]` by w `[g, k, n]`, which all rows share."""
    g, m, k = of_row(a.shape)
    n = of_row(w.shape)[_RIGHT]
    if g * m > (MOST_PRODUCTS if n > 1 else MOST_OF_ONE_COLUMN):
        return arrays.product(c.b, c.as_rows(a), _flat(c, w), g, m, k, n)
    rows = c.as_rows(a)
    matrix = c.b.view(w.node, (g * k, n), ONCE)
    products = []
    for i in range(g * m):
        of_group = c.b.block(matrix, i // m * k, k, 0, n)
        products.append(c.b.matmul(c.b.slice(rows, i * k, (i + 1) * k), of_group))
    return products[0] if g * m == 1 else c.b.concat(products)


def _over_batch(c: Context, a: Value, w: Value) -> Node:
    """a `[g, m, c · B]` by w `[g, c · B, n]`: a sum over the batch."""
    g, m, k = of_row(a.shape)
    n = of_row(w.shape)[_RIGHT]
    if m * n < k * (m + n):  # less to sum over the batch than its factors have
        of_row_alone = arrays.product(c.b, c.as_rows(a), c.as_rows(w), g, m, k, n)
        return c.b.view(c.b.column_sum(of_row_alone), tuple(c.shapes[0]), SUM)
    left = arrays.permuted(c.b, c.as_rows(a), (g, m, k), (0, 2, 1))
    total = outer_products(c, left, c.as_rows(w), (g, m, k, n))
    return c.b.view(total, tuple(c.shapes[0]), SUM)


def outer_products(c: Context, a: Node, w: Node, sizes: tuple[int, int, int, int]) -> Node:
    """`[g · m, n]`, summed over the batch: of a `[g, k, m]` and w `[g, k, n]`, one for each k."""
    g, m, k, n = sizes
    total = c.b.absent()
    for i in range(g * k):
        p = c.b.slice(a, i * m, (i + 1) * m)
        q = c.b.slice(w, i * n, (i + 1) * n)
        total = c.b.outer(p, q, i // k * m, g * m, total)
    return total
