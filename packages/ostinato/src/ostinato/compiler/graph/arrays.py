"""Operations within a row that is an array: an axis spread or reduced, elements taken, products.

In: nodes, and the axis as the middle one of `[outer, times, inner]`. Out: nodes in canonical form.

    spread    `[outer, inner]` to `[outer, times, inner]`, as a broadcast does to its operands
    reduce    row_sum, row_max: `[outer, times, inner]` to `[outer, inner]`
    take      elements by their places: permutes, cuts and joins axes
    product   multiplies two matrices in each row, for each of `groups`

A spread operand costs next to nothing where an elementwise operation reads it. So an outer product
is a product of two spread operands, and its gradient a sum of such a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.node import ROWS, Node, axis_of
from ostinato.engine.ops import OPS

if TYPE_CHECKING:
    from ostinato.compiler.graph.builder import Builder

Places = np.ndarray[Any, np.dtype[np.intp]]  # positions of elements in a row; −1 means a zero


def spread(b: Builder, node: Node, times: int, inner: int) -> Node:
    """`[outer, inner]` as `[outer, times, inner]`."""
    width = node.width * times
    if times == 1 or node.width == 1:
        return b.widen(node, width)
    if node.op == "const":
        return b.widen(node, width)
    if node.op == "spread":
        n, i = axis_of(node)
        if inner in (i, n * i):  # two axes that are neighbours, as one
            return spread(b, node.inputs[0], n * times, i)
    return b.node("spread", (node,), (times, inner), ROWS, (width,))


def of_spread(b: Builder, node: Node, places: Places) -> Node | None:
    """Elements of a spread value as a spread of whole runs of its source; None if they are not."""
    times, inner = axis_of(node)
    of_source = places // (times * inner) * inner + places % inner
    start, stop = int(of_source.min()), int(of_source.max()) + 1
    axis = _axis_of_places(of_source - start, stop - start)
    if axis is None or start % inner or stop % inner:
        return None
    return spread(b, b.slice(node.inputs[0], start, stop), *axis)


def reduce(b: Builder, name: str, node: Node, times: int, inner: int) -> Node:
    """row_sum or row_max of `[outer, times, inner]`, over the axis in the middle."""
    width = node.width // times
    if times == 1:
        return node
    if node.op == "spread" and axis_of(node) == (times, inner):
        source = node.inputs[0]
        return b.op("mul_s", source, s=float(times)) if name == "row_sum" else source
    if node.op == "const" and (name == "row_max" or node.s == 0):
        return b.const(node.s, width)
    axis = () if width == 1 else (times, inner)
    return b.node(name, (b.in_memory(node),), axis, ROWS, (width,))


# ---- elements by their places


def take(b: Builder, node: Node, places: Places) -> Node:
    """The elements of a row at `places`; zeros where a place is −1."""
    width = len(places)
    if (places < 0).all():
        return b.const(0.0, width)
    if node.op == "const" and ((places >= 0).all() or node.s == 0):
        return b.const(node.s, width)
    if node.op == "take":
        inside = places_of(node.attrs)
        return take(b, node.inputs[0], np.where(places < 0, -1, inside[places]))
    if places[0] >= 0 and (np.diff(places) == 1).all():
        return b.slice(node, int(places[0]), int(places[-1]) + 1)
    if node.op == "concat":
        starts = np.cumsum([0, *(n.width for n in node.inputs)])
        there = [i for i, n in enumerate(node.inputs) if not is_zero(n)]
        if len(there) == 1:  # among zeros
            i = there[0]
            inside = (starts[i] <= places) & (places < starts[i + 1])
            return take(b, node.inputs[i], np.where(inside, places - starts[i], -1))
    axis = _axis_of_places(places, node.width) if (places >= 0).all() else None
    if axis is not None:
        return spread(b, node, *axis)
    moved = _moved(b, node, places, {})
    if moved is not None:
        return moved
    return b.node("take", (b.in_memory(node),), _runs(places), ROWS, (width,))


def _moved(b: Builder, node: Node, places: Places, found: dict[Node, Node | None]) -> Node | None:
    """The elements at `places` of a value computed from spread values alone, without a take.

    Each operand is spread in another way instead; None if that is impossible. For example, the
    transpose of an outer product moves no element.

    Args:
        found: the results for operands at the same places, so that each is computed once.
    """
    if node.op == "spread" and (places >= 0).all():
        return of_spread(b, node, places)
    if node.op not in OPS or node.op == "copy" or not node.inputs:
        return None
    operands: list[Node] = []
    for n in node.inputs:
        if n not in found:
            if n.op == "const":
                found[n] = n if n.width == 1 else b.const(n.s, len(places))
            else:
                found[n] = _moved(b, n, places, found)
        moved = found[n]
        if moved is None:
            return None
        operands.append(moved)
    return b.op(node.op, *operands, s=node.s)


def _axis_of_places(places: Places, width: int) -> tuple[int, int] | None:
    """(times, inner) of the spread from `width` elements to these places; None if there is none."""
    again = np.flatnonzero(places[1:] == 0) + 1
    inner = int(again[0]) if len(again) else len(places)
    if len(places) % width or inner > width or width % inner:
        return None
    times = len(places) // width
    spread_out = np.arange(width).reshape(-1, 1, inner).repeat(times, 1).ravel()
    return (times, inner) if (places == spread_out).all() else None


def permuted(b: Builder, node: Node, sizes: Sequence[int], order: Sequence[int]) -> Node:
    """A row whose axes have these sizes, with its axes in another order."""
    if [i for i in order if sizes[i] != 1] == [i for i in range(len(sizes)) if sizes[i] != 1]:
        return node
    return take(b, node, np.arange(math.prod(sizes)).reshape(sizes).transpose(order).ravel())


def transposed_source(node: Node, groups: int, rows: int, n_columns: int) -> Node | None:
    """The value of which `[groups, rows, n_columns]` is the transpose; None if there is none."""
    if node.op != "take":
        return None
    as_it_lies = np.arange(groups * rows * n_columns).reshape(groups, n_columns, rows)
    swapped = as_it_lies.swapaxes(1, 2).ravel()
    if node.inputs[0].width == node.width and node.attrs == _runs(swapped):
        return node.inputs[0]
    return None


def _runs(places: Places) -> tuple[tuple[int, int, int], ...]:
    """The places as runs (start, count, step), each as long as possible."""
    runs: list[tuple[int, int, int]] = []
    p, at, n = places.tolist(), 0, len(places)
    while at < n:
        end, step = at + 1, 0
        if end < n and p[at] >= 0 and p[end] >= 0:
            step = p[end] - p[at]
        while (
            end < n and (p[end] >= 0) == (p[at] >= 0) and (p[at] < 0 or p[end] - p[end - 1] == step)
        ):
            end += 1
        runs.append((p[at], end - at, step if end - at > 1 else int(p[at] >= 0)))
        at = end
    return tuple(runs)


def places_of(runs: Sequence[tuple[int, int, int]]) -> Places:
    """The element at each place, from runs (start, count, step); −1 for zeros."""
    return np.concatenate(
        [
            np.full(count, -1) if start < 0 else start + step * np.arange(count)
            for start, count, step in runs
        ]
    )


STRETCH = 16  # elements that a product reads with one load: a vector of AVX-512


def in_stretches(places: Places, n: int) -> bool:
    """Whether a product can read these elements, rows of n, from their source without a take.

    Each sixteen neighbours of a row must lie side by side, except for zeros. The patches of an
    image do if the result of the convolution is as wide as the image.
    """
    rows = np.pad(places.reshape(-1, n), ((0, 0), (0, -n % STRETCH)), constant_values=-1)
    sixteens = rows.reshape(-1, STRETCH)
    first = sixteens - np.arange(STRETCH)
    there = sixteens >= 0
    lowest = np.where(there, first, np.iinfo(np.intp).max).min(1)
    highest = np.where(there, first, np.iinfo(np.intp).min).max(1)
    return bool((highest <= lowest).all())


# ---- products


def product_across(b: Builder, a: Node, w: Node, groups: int, M: int, K: int, N: int) -> Node:
    """a `[groups, M, K]` times the transpose of w `[groups, N, K]`, matrix by matrix."""
    width = groups * M * N
    inputs = (_operand(b, a), _operand(b, w))
    return b.node("product", inputs, (groups, M, K, N, True), ROWS, (width,))


def product(b: Builder, a: Node, w: Node, groups: int, M: int, K: int, N: int) -> Node:
    """a `[groups, M, K]` times w `[groups, K, N]`, matrix by matrix.

    Each operand may be rows, or a vector without batch that all rows share.
    """
    width = groups * M * N
    if is_zero(a) or is_zero(w):
        return b.const(0.0, width)
    if K == 1:  # an outer product
        left, right = spread(b, a, N, 1), spread(b, w, M, N)
        return b.op("mul", left, right)
    across = False
    if N == 1:  # (a w)ᵀ = wᵀ aᵀ: each element sums products of neighbours
        lying = transposed_source(a, groups, M, K)
        a, w, M, N, across = w, a if lying is None else lying, 1, M, lying is None
    else:
        lying = transposed_source(w, groups, K, N)
        if lying is not None:
            w, across = lying, True
    inputs = (_operand(b, a), _operand(b, w))
    return b.node("product", inputs, (groups, M, K, N, across), ROWS, (width,))


def _operand(b: Builder, n: Node) -> Node:
    """An operand in memory; a vector without batch is not copied for every row."""
    if n.op == "copy" and n.inputs[0].kind != ROWS:
        return n.inputs[0]
    return n if n.kind != ROWS else b.in_memory(n)
