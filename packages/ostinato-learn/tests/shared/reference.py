"""A step graph run by NumPy: the slow, obvious meaning of every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ostinato.engine.program import ElementRun, IndexTable
from ostinato.internal import (
    OPS,
    ROWS,
    Node,
    axis_of,
    over_axis,
    spread,
    taken,
)
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.runtime.values import Array


def play_step(
    graph: StepGraph,
    inputs: Sequence[Array],
    states: Sequence[Array],
    tensors: Mapping[str, Array],
) -> tuple[list[Array], list[Array]]:
    """The new states and the outputs of one step, `[B, width]` each.

    Args:
        inputs, states: `[B, width]`, all of one floating-point type.
        tensors: by name, of the same type.
    """
    n_rows, dtype = len([*inputs, *states][0]), [*inputs, *states][0].dtype
    known: dict[Node, Array] = {}
    given = zip((*graph.inputs, *graph.states), (*inputs, *states), strict=True)
    known.update(given)
    for n in graph.nodes:
        if n not in known:
            with np.errstate(all="ignore"):
                value = np.asarray(_value(n, [known[i] for i in n.inputs], tensors, dtype))
                # Values computed only from vectors of weights are one row.
                known[n] = np.atleast_2d(value) if n.kind == ROWS else value

    def results(nodes: Sequence[Node]) -> list[Array]:
        return [np.broadcast_to(known[n], (n_rows, n.width)) for n in nodes]

    return results(graph.new_states), results(graph.outputs)


def _value(n: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: Any) -> Any:
    if n.op in OPS:
        return OPS[n.op].meaning(*inputs, dtype.type(n.s))
    if n.op == "const":
        return np.full((1, n.width), n.s, dtype)
    if n.op == "spread":
        return spread(np.atleast_2d(inputs[0]), *axis_of(n))
    if n.op == "slice":
        start = n.attrs[0]
        return inputs[0][:, start : start + n.width]
    if n.op == "concat":
        n_rows = max(map(len, inputs))  # a constant is one row
        return np.concatenate([np.broadcast_to(i, (n_rows, i.shape[1])) for i in inputs], axis=1)
    if n.op == "matmul":
        return inputs[0] @ inputs[1]
    if n.op in ("row_sum", "row_max"):
        return over_axis(np.sum if n.op == "row_sum" else np.max, inputs[0], *axis_of(n))
    if n.op == "take":
        return taken(
            inputs[0], IndexTable(n.inputs[0].width, tuple([ElementRun(*run) for run in n.attrs]))
        )
    if n.op == "product":
        groups, M, K, N, across = n.attrs
        a, b = map(np.atleast_2d, inputs)
        a = a.reshape(-1, groups, M, K)
        b = b.reshape(-1, groups, N, K).swapaxes(2, 3) if across else b.reshape(-1, groups, K, N)
        return (a @ b).reshape(-1, n.width)
    if n.op == "tensor":
        return tensors[n.attrs[0]]
    if n.op == "transpose":
        return inputs[0].T
    if n.op == "part":
        return inputs[0][n.attrs[0] : n.attrs[0] + n.width]
    row, column = n.attrs  # of a block
    return inputs[0][row : row + n.shape[0], column : column + n.shape[1]]
