"""Calls that move elements: cuts, joins, flips, transposes.

To find where such a call puts each element, PyTorch runs it on the numbers of the elements, for a
batch of two rows. The number 0 means a zero, as in the gradient of a slice outside the slice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ostinato import tree
from ostinato.compiler.capture.recording import Batch, overload_of
from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import Node
from ostinato.compiler.graph.rules import Context, Shape, Value, batch_axis, of_row

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def moved(c: Context, *args: Any, beyond: float = 0, **kwargs: Any) -> list[Value]:
    """The rule of a call that moves elements: it gives elements of its arguments, or `beyond`."""
    values = [v for v in tree.leaves((args, kwargs)) if isinstance(v, Value)]
    outers = [1 if Batch(1) in shape else values[0].outer for shape in c.shapes]
    row = c.b.concat([c.as_rows(v) for v in values])
    places = _places(c, overload_of(c.name), (args, kwargs), values, c.shapes, outers)
    return [
        Value(_taken(c.b, row, at, beyond), shape, outer)
        for at, shape, outer in zip(places, c.shapes, outers, strict=True)
    ]


def _taken(b: Builder, row: Node, places: Numbers, beyond: float) -> Node:
    """The elements at these places, `beyond` elsewhere.

    One contiguous run of elements with `beyond` around it becomes a concatenation.
    """
    at = np.flatnonzero(places >= 0)
    if len(at) and (np.diff(places[at[0] : at[-1] + 1]) == 1).all():
        start, stop = int(at[0]), int(at[-1]) + 1
        piece = arrays.take(b, row, places[start:stop])
        before, after = (b.const(beyond, n) for n in (start, len(places) - stop))
        return b.concat([n for n in (before, piece, after) if n.width])
    if beyond:  # a column behind the row
        places = np.where(places < 0, row.width, places)
        row = b.concat([row, b.const(beyond)])
    return arrays.take(b, row, places)


def moved_back(c: Context, g: Value, call: Any, shape: Shape, *args: Any) -> Node:
    """The gradient of a value of this shape, from the gradient g of `call(value, *args)`.

    For an element that the call moved to several places, the gradient is a sum.
    """
    value = Value(c.b.const(0.0), shape)
    (places,) = _places(c, call, ((value, *args), {}), [value], [g.shape], [g.outer])
    times = np.bincount(places, minlength=value.width)
    again = np.arange(len(places)) - np.repeat(times.cumsum() - times, times)  # its copy's number
    table = np.full((times.max(), value.width), -1)
    table[again, np.sort(places)] = np.argsort(places, kind="stable")
    each = arrays.take(c.b, c.as_rows(g), table.ravel())
    return arrays.reduce(c.b, "row_sum", each, *table.shape)


def _places(
    c: Context, call: Any, given: Any, values: list[Value], shapes: list[Any], outers: list[int]
) -> list[Numbers]:
    """The elements of each result, numbered across all values; −1 means a zero."""
    n = sum(v.width for v in values)
    numbers = iter(np.split(np.arange(1, n + 1), np.cumsum([v.width for v in values])))

    def numbered(leaf: Any) -> Any:
        if isinstance(leaf, Batch):
            return 2 * leaf.times
        if not isinstance(leaf, Value):
            return leaf
        return torch.from_numpy(_of_two_rows(next(numbers), leaf, n))

    args, kwargs = tree.mapped(numbered, given)
    found = call(*args, **kwargs)
    by_row = [[batch_axis(v.shape) is not None] * v.width for v in values]
    apart = n * np.concatenate([[0], *by_row])
    places = []
    for tensor, shape, outer in zip(
        found if isinstance(found, list) else [found], shapes, outers, strict=True
    ):
        first, second = _rows_of(tensor.numpy(), shape, outer)
        if (first > n).any() or (second != first + apart[first]).any():
            raise c.refuse("takes part of the batch, or mixes its rows")
        places.append(first - 1)
    return places


def _of_two_rows(numbers: Numbers, v: Value, apart: int) -> Numbers:
    """The numbers in the shape of a value with two rows; `apart` is added to the second row."""
    sizes, at = of_row(v.shape), batch_axis(v.shape)
    if at is None:
        return numbers.reshape(sizes)
    row = numbers.reshape(*sizes[:at], v.outer, -1, *sizes[at + 1 :])
    return np.stack([row, row + apart], at + 1).reshape(*sizes[:at], -1, *sizes[at + 1 :])


def _rows_of(numbers: Numbers, shape: Shape, outer: int) -> tuple[Numbers, Numbers]:
    """Both rows of a result, flat."""
    sizes, at = of_row(shape), batch_axis(shape)
    if at is None:
        return numbers.ravel(), numbers.ravel()
    parts = numbers.reshape(*sizes[:at], outer, 2, -1, *sizes[at + 1 :])
    first, second = (parts.take(i, at + 1).ravel() for i in range(2))
    return first, second
