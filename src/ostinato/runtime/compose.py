"""One step composed of others: `Composer` makes its nodes.

OneStep         the layers and the readout of a model, one after the other
side_by_side    several steps that read the same inputs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ostinato.compiler.graph.node import ONCE, ROWS, Node
from ostinato.runtime.step_graph import StepGraph

if TYPE_CHECKING:
    from ostinato.runtime.model_graph import ModelGraph


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


class OneStep:
    """The layers and the readout of a model as one step."""

    def __init__(self, model: ModelGraph):
        self.model = model
        self.c = Composer()
        self.x = self.c.input(model.n_inputs)
        self.states: list[Node] = []
        self.new_states: list[Node] = []

    def result(self) -> tuple[StepGraph, StepGraph]:
        """The step, and the map from its new states to the answer."""
        value = self.x
        for i, layer in enumerate(self.model.layers):
            value = self.inlined(layer.directions[0].step, self.c.joint(value) if i else value)[0]
        readout = self.model.readout
        if readout.step is not None:
            first = len(self.states)
            self.inlined(readout.step, self.c.joint(value))
            read = list(range(first, len(self.states)))
        else:
            read = [self.kept(value)]
        step = StepGraph(
            (self.x,), tuple(self.states), tuple(self.new_states), (), frozenset(self.c.joints)
        )
        return step, self.answer(read)

    def inlined(self, step: StepGraph, x: Node) -> list[Node]:
        """A further step's outputs; its states follow those of the steps before."""
        states = [self.c.state(n.width) for n in step.states]
        new_states, outputs = self.c.inlined(step, [x], states)
        self.states += states
        self.new_states += new_states
        return outputs

    def kept(self, value: Node) -> int:
        """The state that holds a value after the step: an existing one, or a new one."""
        if value not in self.new_states:
            self.states.append(self.c.state(value.width))
            self.new_states.append(self.c.joint(value))
            return len(self.states) - 1
        return self.new_states.index(value)

    def answer(self, read: list[int]) -> StepGraph:
        """The model's answer from all states, of which it reads some."""
        c = Composer()
        inputs = [c.input(n.width) for n in self.states]
        outputs = c.inlined(self.model.answer, [inputs[i] for i in read], ())[1]
        return StepGraph(tuple(inputs), (), (), tuple(outputs))


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
