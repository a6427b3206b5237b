"""One step composed of others: `Composer` makes its nodes; `side_by_side` joins several steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ostinato.internal import ONCE, ROWS, Node
from ostinato_learn.runtime.step_graph import StepGraph


class Composer:
    """Makes the nodes of a step composed of others."""

    def __init__(self) -> None:
        self.n_nodes = self.n_inputs = self.n_states = 0
        self._once: dict[Any, Node] = {}
        self.joints: set[Node] = set()

    def node(
        self, op: str, inputs: Sequence[Node], attrs: tuple[Any, ...], kind: str, shape: Any
    ) -> Node:
        """A new node with these arguments of `Node`; nodes are numbered as they are made."""
        self.n_nodes += 1
        return Node(op, tuple(inputs), attrs, kind, tuple(shape), self.n_nodes - 1)

    def input(self, width: int) -> Node:
        self.n_inputs += 1
        return self.node("x", (), (self.n_inputs - 1,), ROWS, (width,))

    def state(self, width: int) -> Node:
        self.n_states += 1
        return self.node("state", (), (self.n_states - 1,), ROWS, (width,))

    def joint(self, node: Node) -> Node:
        """A copy of a value that one step passes to the next; see `StepGraph.joints`."""
        copy = self.node("copy", (node,), (0.0,), ROWS, node.shape)
        self.joints.add(copy)
        return copy

    def slice(self, node: Node, start: int, width: int) -> Node:
        """Columns start … start + width of a node; the node itself if these are all."""
        if width == node.width:
            return node
        return self.node("slice", (node,), (start,), ROWS, (width,))

    def concat(self, nodes: Sequence[Node]) -> Node:
        width = sum(n.width for n in nodes)
        return nodes[0] if len(nodes) == 1 else self.node("concat", nodes, (), ROWS, (width,))

    def inlined(
        self, graph: StepGraph, inputs: Sequence[Node], states: Sequence[Node]
    ) -> tuple[list[Node], list[Node]]:
        """New states and outputs of a step on these inputs and states; it was not composed."""
        new = dict(zip(graph.inputs, inputs, strict=True))
        new |= dict(zip(graph.states, states, strict=True))
        for n in graph.nodes:
            if n not in new:
                new[n] = self._again(n, [new[i] for i in n.inputs])
        return [new[n] for n in graph.new_states], [new[n] for n in graph.outputs]

    def _again(self, n: Node, inputs: list[Node]) -> Node:
        if n.kind != ONCE:
            return self.node(n.op, inputs, n.attrs, n.kind, n.shape)
        key = n.op, tuple(inputs), n.attrs, n.shape
        if key not in self._once:
            self._once[key] = self.node(n.op, inputs, n.attrs, n.kind, n.shape)
        return self._once[key]


Cut = Callable[[Composer, Sequence[Node], int], list[Node]]


def side_by_side(steps: Sequence[StepGraph], widths: Sequence[int], cut: Cut) -> StepGraph:
    """Several steps as one: the first outputs of all in one output, the second in the next, …

    Args:
        steps: all with the same numbers of states and outputs, which may differ in width.
        widths: the widths of the inputs of the composed step.
        cut: `cut(composer, inputs, i)` gives the inputs of the i-th step.
    """
    c = Composer()
    inputs = [c.input(width) for width in widths]
    joined = zip(*(step.states for step in steps), strict=True)
    states = [c.state(sum(n.width for n in pieces)) for pieces in joined]
    column = [0] * len(states)
    found = []
    for i, step in enumerate(steps):
        own = []
        for k, n in enumerate(step.states):
            own.append(c.slice(states[k], column[k], n.width))
            column[k] += n.width
        found.append(c.inlined(step, cut(c, inputs, i), own))
    new_states, outputs = (
        tuple([c.concat(pieces) for pieces in zip(*part, strict=True)])
        for part in zip(*found, strict=True)
    )
    return StepGraph(tuple(inputs), tuple(states), new_states, outputs)
