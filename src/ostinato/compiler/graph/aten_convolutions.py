"""Rules of convolutions: a small image in each row, and a captured kernel.

x `[B, C, …]`, kernel `[C_out, C / groups, …]`, result `[B, C_out, …]`. The patches of x, one for
each place of the result, are elements of its row: `[C, taps, places]`, zeros where the padding is.
So the result is a product within the row, and so is the gradient of x, of the patches of its own.
Patches that are stretches of the image (`arrays.in_stretches`) are not written by the engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.aten_products import MOST_PRODUCTS
from ostinato.compiler.graph.node import ONCE, SUM, Node, Slot
from ostinato.compiler.graph.rules import Context, Value, rule

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """The sizes of a convolution: of x, the kernel and the result, along each axis."""

    x: Sizes
    taps: Sizes
    out: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes

    def _places(self, x: Any, tap: Any, axis: int) -> Any:
        """Whether tap and element of x meet in a place of the result, and which."""
        start = x + self.padding[axis] - tap * self.dilation[axis]
        place = start // self.stride[axis]
        there = (start % self.stride[axis] == 0) & (place >= 0) & (place < self.out[axis])
        return there, place

    def patches(self) -> arrays.Places:
        """`[taps, places]`: the element of x under each tap at each place; −1: none."""
        taps, places = np.indices(self.taps), np.indices(self.out)
        return self._flat(
            self.x,
            [
                places[i].reshape(1, -1) * self.stride[i]
                - self.padding[i]
                + taps[i].reshape(-1, 1) * self.dilation[i]
                for i in range(len(self.x))
            ],
        )

    def patches_of_gradient(self) -> arrays.Places:
        """`[taps, elements of x]`: the place of the result at which a tap lies on an element."""
        taps, x = np.indices(self.taps), np.indices(self.x)
        axes = []
        for i in range(len(self.x)):
            there, place = self._places(x[i].reshape(1, -1), taps[i].reshape(-1, 1), i)
            axes.append(np.where(there, place, -1))
        return self._flat(self.out, axes)

    @staticmethod
    def _flat(sizes: Sizes, axes: Sequence[Any]) -> arrays.Places:
        inside = np.logical_and.reduce(
            [(a >= 0) & (a < n) for a, n in zip(axes, sizes, strict=True)]
        )
        flat = np.zeros(inside.shape, np.intp)
        for a, n in zip(axes, sizes, strict=True):
            flat = flat * n + a
        return np.where(inside, flat, -1)


def _of_channels(places: arrays.Places, channels: int, size: int) -> arrays.Places:
    """The same places in each of the channels: `[channels, taps, places]`."""
    first = np.arange(channels).reshape(-1, 1, 1) * size
    return np.where(places < 0, -1, places + first)


def _checked(
    c: Context, x: Value, kernel: Value, out: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool,
) -> Geometry:  # fmt: skip
    if transposed:
        raise c.refuse("a transposed convolution; wanted conv1d, conv2d or conv3d")
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
    matrix = c.b.view(kernel.node, (groups, C_out, C, taps), ONCE)
    if turned:
        shape = (groups, C, C_out, taps)
        matrix = c.b.call("aten.transpose.int", (matrix,), (Slot(0), 1, 2), ONCE, shape)
    n = groups * C_out * C * taps
    return c.b.call("aten.reshape.default", (matrix,), (Slot(0), (n,)), ONCE, (n,))


@rule("convolution", "_convolution")
def _convolution(
    c: Context, x: Value, kernel: Value, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, _: Any, groups: int, *__: Any,
) -> Any:  # fmt: skip
    g = _checked(c, x, kernel, c.shapes[0], stride, padding, dilation, transposed)
    C, C_out = x.shape[1], kernel.shape[0]
    places = _of_channels(g.patches(), C, math.prod(g.x))
    patches = arrays.take(c.b, c.as_rows(x), places.ravel())
    taps, n = places.shape[1:]
    weights = _flat_kernel(c, kernel, groups, turned=False)
    out = arrays.product(c.b, weights, patches, groups, C_out // groups, C // groups * taps, n)
    if bias is None:
        return out
    each = Value(bias.node, (C_out, *[1] * len(g.out)))
    return c.op("add", out, c.node(each))


@rule("convolution_backward")
def _convolution_backward(
    c: Context, d: Value, x: Value, kernel: Value, _: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, __: Any, groups: int, wanted: Sequence[bool],
) -> Any:  # fmt: skip
    g = _checked(c, x, kernel, d.shape, stride, padding, dilation, transposed)
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
        dw = c.b.view(dw, tuple(kernel.shape), SUM)
    if wanted[2]:
        of_channel = arrays.reduce(c.b, "row_sum", node, n, 1)
        db = c.b.view(c.b.column_sum(of_channel), (C_out,), SUM)
    return [dx, dw, db]


def _gradient_of_kernel(
    c: Context, d: Node, x: Node, g: Geometry, C: int, C_out: int, groups: int
) -> Node:
    """Over the batch and all places: of each, its gradient `[C_out]` by its patch `[C · taps]`."""
    n = math.prod(g.out)
    places = _of_channels(g.patches(), C, math.prod(g.x))
    depth = places.shape[0] * places.shape[1] // groups
    patches = arrays.take(c.b, x, places.ravel())
    # Fewer places fill no stretch, and a product of patches that are no take would be written.
    if n >= arrays.STRETCH and patches.op == "take" and arrays.in_stretches(places, n):
        return c.b.column_sum(
            arrays.product_across(c.b, d, patches, groups, C_out // groups, n, depth)
        )
    by_place = places.reshape(groups, depth, n).transpose(0, 2, 1)  # [groups, places, C · taps]
    patches = arrays.take(c.b, x, by_place.ravel())
    if groups * n > MOST_PRODUCTS:  # a row's own sum first
        of_row = arrays.product(c.b, d, patches, groups, C_out // groups, n, depth)
        return c.b.column_sum(of_row)
    left = arrays.permuted(c.b, d, (groups, C_out // groups, n), (0, 2, 1))
    total, rows = c.b.absent(), C_out // groups
    for i in range(groups * n):
        p = c.b.slice(left, i * rows, (i + 1) * rows)
        q = c.b.slice(patches, i * depth, (i + 1) * depth)
        total = c.b.outer(p, q, i // n * rows, C_out, total)
    return total


# ---- means of neighbours


def _pooling(c: Context, x: Any, out: Any, kernel: Any, stride: Any, padding: Any) -> Geometry:
    """The sizes of a pooling, which has no kernel of its own."""
    n = len(kernel)
    return Geometry(
        tuple(x[-n:]), tuple(kernel), tuple(out[-n:]), tuple(stride or kernel), tuple(padding),
        (1,) * n,
    )  # fmt: skip


def _divisor(c: Context, g: Geometry, ceil: bool, with_padding: bool, divisor: Any) -> float:
    if ceil or (any(g.padding) and not with_padding):
        raise c.refuse("ceil_mode, or a padding that is not counted, is not supported")
    return float(divisor or math.prod(g.taps))


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _mean_pool(
    c: Context, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False,
    with_padding: bool = True, divisor: Any = None,
) -> Any:  # fmt: skip
    padding = [padding] * len(kernel) if isinstance(padding, int) else padding
    g = _pooling(c, x.shape, c.shapes[0], kernel, stride, padding)
    by = _divisor(c, g, ceil, with_padding, divisor)
    return _sum_of_taps(c, x, g.patches(), math.prod(g.x), by)


@rule("avg_pool2d_backward", "avg_pool3d_backward")
def _mean_pool_backward(
    c: Context, d: Value, x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool,
    with_padding: bool, divisor: Any,
) -> Any:  # fmt: skip
    g = _pooling(c, x.shape, d.shape, kernel, stride, padding)
    by = _divisor(c, g, ceil, with_padding, divisor)
    return _sum_of_taps(c, d, g.patches_of_gradient(), math.prod(g.out), by)


def _sum_of_taps(c: Context, v: Value, places: arrays.Places, size: int, divisor: float) -> Node:
    places_of_all = _of_channels(places, v.width // size, size)
    patches = arrays.take(c.b, c.as_rows(v), places_of_all.ravel())
    total = arrays.reduce(c.b, "row_sum", patches, *places.shape)
    return c.op("mul_s", total, s=1 / divisor)


# ---- the largest of neighbours


def _windows(
    c: Context, x: Any, out: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> Geometry:
    if ceil:
        raise c.refuse("ceil_mode is not supported")
    g = _pooling(c, x, out, kernel, stride, padding)
    return replace(g, dilation=tuple(dilation))


def _numbers(c: Context, places: arrays.Places) -> Node:
    """Places as a vector without a batch."""
    flat = places.ravel().tolist()
    return c.b.node("whole_numbers", (), tuple(flat), ONCE, (len(flat),))


@rule("max_pool2d_with_indices")
def _max_pool(
    c: Context, x: Value, kernel: Any, stride: Any = (), padding: Any = (0, 0),
    dilation: Any = (1, 1), ceil: bool = False,
) -> Any:  # fmt: skip
    """The largest element of each window, and the first place that it has in its image."""
    g = _windows(c, x.shape, c.shapes[0], kernel, stride, padding, dilation, ceil)
    size, patches = math.prod(g.x), g.patches()
    channels = x.width // size
    places = _of_channels(patches, channels, size)
    beyond = c.b.const(-math.inf, 1)  # what the padding counts as
    with_padding = c.b.concat([c.as_rows(x), beyond])
    each = arrays.take(c.b, with_padding, np.where(places < 0, x.width, places).ravel())
    largest = arrays.reduce(c.b, "row_max", each, *places.shape[1:])
    is_it = c.op("eq", each, arrays.spread(c.b, largest, *places.shape[1:]))
    number = _numbers(c, np.broadcast_to(np.where(patches < 0, size, patches), places.shape))
    before = c.op("select", is_it, c.op("neg", number), c.b.const(-float(size)))
    first = arrays.reduce(c.b, "row_max", before, *places.shape[1:])
    return [largest, c.op("neg", first)]


@rule("max_pool2d_with_indices_backward")
def _max_pool_backward(
    c: Context, d: Value, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any,
    ceil: bool, chosen: Value,
) -> Any:  # fmt: skip
    """The gradient of an element is the sum of those of the windows that chose it."""
    g = _windows(c, x.shape, d.shape, kernel, stride, padding, dilation, ceil)
    n, size = math.prod(g.out), math.prod(g.x)
    places = _of_channels(g.patches_of_gradient(), x.width // size, n)
    gradients, chose = (
        arrays.take(c.b, c.as_rows(v), places.ravel()) for v in (d, chosen)
    )  # zeros where there is no window
    numbers = _numbers(c, np.broadcast_to(np.arange(size), places.shape))
    mine = c.op("select", c.op("eq", chose, numbers), gradients, c.b.const(0.0))
    return arrays.reduce(c.b, "row_sum", mine, *places.shape[1:])
