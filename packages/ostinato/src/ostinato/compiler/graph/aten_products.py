"""Rules of products: of rows and captured matrices, of matrices in rows, of sums over the batch.

A product is `[g, m, k]` by `[g, k, n]`; g = 1 for two matrices. Its form depends on the axis that
holds the batch, with c elements of a row:

    a       w                 form
    m       none (captured)   c · g products of rows with a matrix of the engine
    none    n                 the same if c = 1; otherwise a product within the row
    g       g                 a product within the row
    k       k                 a sum over the batch: of c outer products for each g, or of products
                              within the row if these are smaller
"""

from __future__ import annotations

from typing import Any

import torch

from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.node import ONCE, Node
from ostinato.compiler.graph.rules import Context, Value, batch_axis, of_row, rule

# Up to this many products with columns of a row are faster than one product within the row, which
# has no packed weights and reads its captured matrix for every row.
MOST_PRODUCTS = 64
# The same limit for n = 1, where a product uses one lane of sixteen.
MOST_OF_ONE_COLUMN = 2


@rule("mm", "bmm")
def _mm(c: Context, a: Value, w: Value) -> Any:
    if is_zero(a.node) or is_zero(w.node):
        return c.b.const(0.0)
    a, w = _as_matrices(c, a), _as_matrices(c, w)
    where = batch_axis(a.shape), batch_axis(w.shape)
    if where not in _PRODUCTS or (None not in where and a.outer != w.outer):
        raise c.refuse(
            f"multiplies {list(a.shape)} by {list(w.shape)}, where rows of the batch mix"
        )
    (g, m, k), (_, _, n) = of_row(a.shape), of_row(w.shape)
    return _PRODUCTS[where](c, a, w, g, m, k, n)


rule("mv")(lambda c, a, v: _mm(c, a, Value(v.node, (*v.shape, 1), v.outer)))


def _as_matrices(c: Context, v: Value) -> Value:
    """The value as matrices `[g, rows, columns]`."""
    if v.node.op == "const" and batch_axis(v.shape) is None:
        v = Value(c.b.node("full", (), (v.node.s, torch.float64), ONCE, v.shape), v.shape)
    return Value(v.node, (1, *v.shape)[-3:], v.outer)


def _swapped(c: Context, v: Value) -> Value:
    """The matrices of v transposed."""
    g, rows, n = v.shape
    if v.rows:
        node = arrays.permuted(c.b, c.as_rows(v), of_row(v.shape), (0, 2, 1))
        return Value(node, (g, n, rows), v.outer)
    matrix = c.b.view(v.node, (g, rows, n))
    turned = (g, n, rows)
    return Value(c.b.call("aten.transpose.int", matrix, 1, 2, shape=turned), turned)


def _within_rows(c: Context, a: Value, w: Value, g: int, m: int, k: int, n: int) -> Node:
    return arrays.product(c.b, c.as_rows(a), c.as_rows(w), g, m, k, n)


def _by_captured(c: Context, a: Value, w: Value, g: int, m: int, k: int, n: int) -> Node:
    """a `[g, c · B, k]` by w `[g, k, n]`, which all rows share."""
    if g * m > (MOST_PRODUCTS if n > 1 else MOST_OF_ONE_COLUMN):
        return _within_rows(c, a, w, g, m, k, n)
    rows, matrix = c.as_rows(a), c.b.view(w.node, (g * k, n))
    products = []
    for i in range(g * m):
        of_group = c.b.block(matrix, (i // m * k, 0), (k, n))
        products.append(c.b.matmul(c.b.slice(rows, i * k, (i + 1) * k), of_group))
    return products[0] if g * m == 1 else c.b.concat(products)


def _captured_by(c: Context, a: Value, w: Value, g: int, m: int, k: int, n: int) -> Node:
    """a `[g, m, k]`, which all rows share, by w `[g, k, c · B]`."""
    if n > 1 or g > MOST_PRODUCTS:
        return _within_rows(c, a, w, g, m, k, n)
    return _by_captured(c, _swapped(c, w), _swapped(c, a), g, n, k, m)


def _over_batch(c: Context, a: Value, w: Value, g: int, m: int, k: int, n: int) -> Node:
    """a `[g, m, c · B]` by w `[g, c · B, n]`: a sum over the batch."""
    if m * n < k * (m + n):  # the product is smaller than its factors
        total = c.b.column_sum(_within_rows(c, a, w, g, m, k, n))
    else:
        left = arrays.permuted(c.b, c.as_rows(a), (g, m, k), (0, 2, 1))
        total = outer_products(c, left, c.as_rows(w), (g, m, k, n))
    return c.b.view(total, tuple(c.shapes[0]))


# The key is the batch's axis in `[g, m, k]` and in `[g, k, n]`; None for a captured tensor.
_PRODUCTS = {
    (0, 0): _within_rows,
    (1, None): _by_captured,
    (2, 1): _over_batch,
    (None, 2): _captured_by,
}


def outer_products(c: Context, a: Node, w: Node, sizes: tuple[int, int, int, int]) -> Node:
    """Σ aᵀ w over the batch as `[g · m, n]`, of a `[g, k, m]` and w `[g, k, n]`."""
    g, m, k, n = sizes
    factors = [
        (i // k * m, c.b.slice(a, i * m, (i + 1) * m), c.b.slice(w, i * n, (i + 1) * n))
        for i in range(g * k)
    ]
    return c.b.outer(factors, (g * m, n))
