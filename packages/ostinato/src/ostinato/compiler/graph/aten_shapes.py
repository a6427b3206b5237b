"""Rules of calls that view, move and make.

A row is flat in its node, so a view costs nothing, and so does moving the batch: `[H, B, D]` and
`[B, H, D]` are one node. A piece along the outermost axis of a row is a slice of columns; a piece
along another axis is taken element by element.
"""

from __future__ import annotations

import math
from typing import Any

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph.moves import moved
from ostinato.compiler.graph.node import ROWS, Node
from ostinato.compiler.graph.rules import Context, Value, batch_axis, columns, of_row, rule

# ---- views


rule("detach", "alias", "clone", "lift_fresh", "lift_fresh_copy")(lambda c, a, *_, **__: a)


@rule("view", "_unsafe_view", "unsqueeze", "squeeze", "_reshape_alias")
def _view(c: Context, a: Value, *_: Any) -> Any:
    shape = c.shapes[0]
    if a.constant:
        return Value(a.node, shape)
    before, now = batch_axis(a.shape), batch_axis(shape)
    if a.node.kind == ROWS and before is None and now is None:  # shared by all rows
        return Value(a.node, shape)
    if a.node.kind != ROWS or before is None or now is None:
        raise c.refuse(f"makes {list(shape)} of {list(a.shape)}")
    # The number of elements of a row before the batch, which a view does not change.
    ahead = math.prod(of_row(a.shape[:before])) * a.outer
    outer, rest = divmod(ahead, math.prod(of_row(shape[:now])))
    if rest or outer == 0 or shape[now].times % outer:
        raise c.refuse(f"makes {list(shape)} of {list(a.shape)}, where rows of the batch mix")
    return Value(a.node, shape, outer)


@rule("expand")
def _expand(c: Context, a: Value, *_: Any, **__: Any) -> Any:
    node, shape = c.node(a), c.shapes[0]
    if node.width not in (1, columns(shape)):
        raise c.refuse(f"broadcasts {list(a.shape)} to {list(shape)}")
    return Value(c.b.widen(node, node.width), shape, a.outer)


# ---- moves

rule(
    "cat", "diagonal", "diagonal_backward", "diagonal_scatter", "flip", "permute", "repeat",
    "select", "select_backward", "slice", "slice_backward", "slice_scatter", "split",
    "split_with_sizes", "stack", "t", "transpose", "unbind", "unfold", "unsafe_split",
    "unsafe_split_with_sizes",
)(moved)  # fmt: skip
rule("constant_pad_nd")(lambda c, x, sizes, value=0: moved(c, x, sizes, beyond=value))


# ---- constants


def _number(c: Context, value: Any) -> Node:
    if isinstance(value, Value):
        if value.node.op != "const":
            raise c.refuse("needs a number that is known when the step is recorded")
        value = value.node.s
    if isinstance(value, Batch):
        raise c.refuse("computes with the batch size")
    return c.b.const(float(value))


rule(
    "zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty", "_efficientzerotensor"
)(lambda c, *_: c.b.const(0.0))
rule("ones", "ones_like", "new_ones")(lambda c, *_: c.b.const(1.0))
rule("full", "full_like", "fill")(lambda c, _, value: _number(c, value))
rule("new_full")(lambda c, a, size, value: _number(c, value))
rule("scalar_tensor")(_number)
