"""Parts of the graphs of saved networks: readouts as steps, and what is composed of nodes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ostinato.internal import ONCE, ROWS, Node, TensorNames
from ostinato_learn.models.readout import Readout
from ostinato_learn.runtime import model_graph
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.step_graph import StepGraph


def readout_of(pool: Readout, names: TensorNames, width: int) -> model_graph.ReadoutGraph:
    """`models/readout.py`, step by step, from a carry of zeros.

    mean        total' = total + s,  count' = count + 1;            total / count
    max         largest' = max(largest, s), at the first step s;    largest
    attention   with the score a = v · s and the largest score so far, m' = max(m, a):
                z' = z e^(m − m') + e^(a − m'),  total' = total e^(m − m') + s e^(a − m');
                total / z
    """
    c = Composer()
    s = c.input(width)

    def op(name: str, *inputs: Node, scalar: float = 0.0) -> Node:
        columns = max(n.width for n in inputs)
        return c.node(name, inputs, (scalar,), ROWS, (columns,))

    if pool.kind == "max":
        largest, begun = c.state(width), c.state(1)
        states = [largest, begun]
        new = [
            op("select", begun, op("max", largest, s), s),
            c.node("const", [], (1.0,), ROWS, (1,)),
        ]
    elif pool.kind == "mean":
        total, count = c.state(width), c.state(1)
        states = [total, count]
        new = [op("add", total, s), op("add_s", count, scalar=1.0)]
    else:
        assert pool.query is not None
        total, z, top = c.state(width), c.state(1), c.state(1)
        states = [total, z, top]
        products = op("mul", s, tensor_of(c, pool.query.detach(), names))
        score = c.node("row_sum", [products], (), ROWS, (1,))
        before = op("select", z, top, score)  # z ≥ 1 after the first step
        largest = op("max", before, score)
        decay, weight = (op("exp", op("sub", a, largest)) for a in (before, score))
        new = [
            op("add", op("mul", total, decay), op("mul", s, weight)),
            op("add", op("mul", z, decay), weight),
            largest,
        ]
    step = StepGraph((s,), tuple(states), tuple(new), ())
    c = Composer()
    carry = [c.input(n.width) for n in states]
    is_max = pool.kind == "max"
    answer = carry[0] if is_max else c.node("div", carry[:2], (0.0,), ROWS, (width,))
    return model_graph.ReadoutGraph("scan", step, map_of(carry, answer))


# ---- maps, and their nodes


def map_of(inputs: Sequence[Node], output: Node) -> StepGraph:
    """A graph without states: the output of these inputs."""
    return StepGraph(tuple(inputs), (), (), (output,))


def elementwise(c: Composer, op: str, *inputs: Node) -> Node:
    """An elementwise operation on rows; inputs of one column broadcast."""
    return c.node(op, inputs, (0.0,), ROWS, (max(n.width for n in inputs),))


def tensor_of(c: Composer, tensor: Tensor, names: TensorNames) -> Node:
    """A tensor of the model as a node; it is saved under its name."""
    return c.node("tensor", [], (named(tensor, names),), ONCE, tensor.shape)


def named(tensor: Tensor, names: TensorNames) -> str:
    """The name of a tensor of the network; a computed tensor is folded into the graph."""
    return names.of(tensor) or names.fold(tensor)
