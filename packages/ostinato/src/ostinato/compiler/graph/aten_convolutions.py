"""Rules of convolutions: a small image in each row, and a captured kernel.

x `[B, C, …]`, kernel `[C_out, C / groups, …]`, result `[B, C_out, …]`. The patches of x, one for
each place of the result, are elements of its row: `[C, taps, places]`, with zeros for the padding.
So the result is a product within the row. The gradient of x is a product, too, with patches of the
result's gradient. The engine does not write patches that are stretches of the image
(`arrays.in_stretches`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.aten_products import MOST_PRODUCTS, outer_products
from ostinato.compiler.graph.node import Node
from ostinato.compiler.graph.rules import Context, Value, rule

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """The sizes of x, the kernel and the result of a convolution, along each axis."""

    x: Sizes
    taps: Sizes
    out: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes

    def patches(self) -> arrays.Places:
        """`[taps, places]`: the element of x under each tap at each place; −1 for none."""
        x = np.arange(math.prod(self.x)).reshape(self.x)
        x = np.pad(x, [(n, n) for n in self.padding], constant_values=-1)
        spans = [(n - 1) * d + 1 for n, d in zip(self.taps, self.dilation, strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(x, spans)  # [places …, taps …]
        steps = [slice(None, None, n) for n in (*self.stride, *self.dilation)]
        return windows[tuple(steps)].reshape(-1, math.prod(self.taps)).T

    def patches_of_gradient(self) -> arrays.Places:
        """`[taps, elements of x]`: the place of the result at which a tap lies on an element."""
        patches = self.patches()
        found = np.full((len(patches), math.prod(self.x)), -1)
        taps, places = np.nonzero(patches >= 0)
        found[taps, patches[taps, places]] = places
        return found


def _of_channels(places: arrays.Places, channels: int, size: int) -> arrays.Places:
    """The same places in each of the channels: `[channels, taps, places]`."""
    first = np.arange(channels).reshape(-1, 1, 1) * size
    return np.where(places < 0, -1, places + first)


def _checked(
    c: Context, x: Value, kernel: Value, out: Any, stride: Any, padding: Any, dilation: Any
) -> Geometry:
    if kernel.rows:
        raise c.refuse("convolves with a kernel that the step computes; wanted a captured one")
    if x.shape[0] != Batch(1):
        raise c.refuse(f"convolves {list(x.shape)}; wanted the batch first")
    n = len(x.shape) - 2
    stride, padding, dilation = (
        tuple(int(v) for v in (list(s) * n)[:n]) for s in (stride, padding, dilation)
    )
    return Geometry(
        tuple(x.shape[2:]), tuple(kernel.shape[2:]), tuple(out[2:]), stride, padding, dilation
    )


def _flat_kernel(c: Context, kernel: Value, groups: int, turned: bool) -> Node:
    """`[groups, C_out, C · taps]`; turned: `[groups, C, C_out · taps]`, as a vector."""
    C_out, C = kernel.shape[0] // groups, kernel.shape[1]
    taps = math.prod(kernel.shape[2:])
    matrix = c.b.view(kernel.node, (groups, C_out, C, taps))
    if turned:
        matrix = c.b.call("aten.transpose.int", matrix, 1, 2, shape=(groups, C, C_out, taps))
    n = groups * C_out * C * taps
    return c.b.view(matrix, (n,))


@rule("convolution")
def _convolution(
    c: Context,
    x: Value,
    kernel: Value,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    _: bool,
    __: Any,
    groups: int,
) -> Any:
    g = _checked(c, x, kernel, c.shapes[0], stride, padding, dilation)
    C, C_out = x.shape[1], kernel.shape[0]
    places = _of_channels(g.patches(), C, math.prod(g.x))
    patches = arrays.take(c.b, c.as_rows(x), places.ravel())
    taps, n = places.shape[1:]
    weights = _flat_kernel(c, kernel, groups, turned=False)
    out = arrays.product(c.b, weights, patches, groups, C_out // groups, C // groups * taps, n)
    if bias is None:
        return out
    each = Value(bias.node, (C_out, *[1] * len(g.out)))
    return c.b.op("add", out, c.node(each))


@rule("convolution_backward")
def _convolution_backward(
    c: Context,
    d: Value,
    x: Value,
    kernel: Value,
    _: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    __: bool,
    ___: Any,
    groups: int,
    wanted: Sequence[bool],
) -> Any:
    g = _checked(c, x, kernel, d.shape, stride, padding, dilation)
    C, C_out = x.shape[1], kernel.shape[0]
    node, n = c.as_rows(d), math.prod(g.out)
    dx = dw = db = None
    if wanted[0]:
        places = _of_channels(g.patches_of_gradient(), C_out, n)
        taps, size = places.shape[1:]
        patches = arrays.take(c.b, node, places.ravel())
        weights = _flat_kernel(c, kernel, groups, turned=True)
        dx = arrays.product(
            c.b, weights, patches, groups, C // groups, C_out // groups * taps, size
        )
    if wanted[1]:
        dw = _gradient_of_kernel(c, node, c.as_rows(x), g, C, C_out, groups)
        dw = c.b.view(dw, tuple(kernel.shape))
    if wanted[2]:
        of_channel = arrays.reduce(c.b, "row_sum", node, n, 1)
        db = c.b.view(c.b.column_sum(of_channel), (C_out,))
    return [dx, dw, db]


def _gradient_of_kernel(
    c: Context, d: Node, x: Node, g: Geometry, C: int, C_out: int, groups: int
) -> Node:
    """The sum over the batch and all places of gradient `[C_out]` times patch `[C · taps]`."""
    n = math.prod(g.out)
    places = _of_channels(g.patches(), C, math.prod(g.x))
    depth = places.shape[0] * places.shape[1] // groups
    patches = arrays.take(c.b, x, places.ravel())
    # With fewer places than a stretch, the product would need its patches in memory.
    if n >= arrays.STRETCH and patches.op == "take" and arrays.in_stretches(places, n):
        return c.b.column_sum(
            arrays.product_across(c.b, d, patches, groups, C_out // groups, n, depth)
        )
    by_place = places.reshape(groups, depth, n).transpose(0, 2, 1)  # [groups, places, C · taps]
    patches = arrays.take(c.b, x, by_place.ravel())
    if groups * n > MOST_PRODUCTS:  # sum within each row first
        of_row = arrays.product(c.b, d, patches, groups, C_out // groups, n, depth)
        return c.b.column_sum(of_row)
    left = arrays.permuted(c.b, d, (groups, C_out // groups, n), (0, 2, 1))
    return outer_products(c, left, patches, (groups, C_out // groups, n, depth))
