"""The forward part of a step graph as it is saved: tensors by name, and no call of PyTorch.

A node of the kind `once` becomes a node of `runtime/step_graph.py`: a tensor, its transpose,
columns of a vector, a block of a matrix. Any other function of weights, as `W * mask`, is computed
now, and its result is saved beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.evaluate import evaluate
from ostinato.compiler.graph.from_aten import DifferentiableGraph, Forward
from ostinato.compiler.graph.node import ONCE, Node, reachable

FOLDED = "folded."  # prefix of the names of computed tensors


class TensorNames:
    """Finds the names of a network's tensors, and names tensors that are computed from them.

    Args:
        named: name → tensor of the network. If a tensor has several names, the first is used.

    Attributes:
        folded: name → computed tensor, to be saved beside the network's tensors.
    """

    def __init__(self, named: Mapping[str, Tensor]):
        self._names: dict[tuple[int, torch.Size], str] = {}
        for name, tensor in named.items():
            self._names.setdefault((tensor.data_ptr(), tensor.shape), name)
        self._kept = list(named.values())  # keeps their memory from being used again
        self.folded: dict[str, Tensor] = {}

    def of(self, tensor: Tensor) -> str | None:
        """The name of a dense float32 tensor of the network; None for any other tensor."""
        if tensor.dtype is not torch.float32 or not tensor.is_contiguous():
            return None
        return self._names.get((tensor.data_ptr(), tensor.shape))

    def fold(self, tensor: Tensor) -> str:
        """Name a tensor that was computed from others, and keep it in float32 for the model."""
        name = f"{FOLDED}{len(self.folded)}"
        self.folded[name] = tensor.detach().to(torch.float32).clone().contiguous()
        return name


def saved_step(
    graph: DifferentiableGraph, captured: Sequence[Tensor], names: TensorNames
) -> Forward:
    """The forward part of a recorded step, on tensors by name.

    Whole numbers are exact up to 2²⁴; larger ones are rounded.

    Args:
        graph: the graph of the recorded step.
        captured: the captured tensors of the step, with their present values.
        names: the names of the network's tensors; computed tensors are added to it.

    Raises:
        Unsupported: the step computes in another type than float32.
    """
    if graph.dtype is not torch.float32:
        raise Unsupported(f"the step computes in {graph.dtype}; a saved graph is float32")
    if any(total is not None for total in graph.total_ys):
        raise Unsupported("an output of the step is a sum over the batch")
    f = graph.forward
    if graph.recording.sized:  # without the largest whole number, which saved models do not use
        f = replace(f, states=f.states[:-1], new_states=f.new_states[:-1])
    return _Saving(captured, names).forward(f)


class _Saving:
    def __init__(self, captured: Sequence[Tensor], names: TensorNames):
        self.captured, self.names = captured, names
        self.known: dict[Node, Tensor] = {}
        self.new: dict[Node, Node] = {}
        self.n_nodes = 0

    def forward(self, f: Forward) -> Forward:
        roots = [*f.states, *f.xs, *f.new_states, *f.ys]
        for n in reachable(roots, lambda n: n.kind == ONCE):
            self.saved(n)
        found = (tuple(map(self.saved, part)) for part in (f.states, f.xs, f.new_states, f.ys))
        return Forward(*found)

    def saved(self, n: Node) -> Node:
        if n not in self.new:
            if n.kind == ONCE:
                self.new[n] = self.once(n)
            else:
                inputs = [self.new[i] for i in n.inputs]
                self.new[n] = self.node(n.op, inputs, n.attrs, n)
        return self.new[n]

    def node(self, op: str, inputs: Sequence[Node], attrs: tuple[object, ...], like: Node) -> Node:
        self.n_nodes += 1
        return Node(op, tuple(inputs), attrs, like.kind, like.shape, self.n_nodes - 1)

    def once(self, n: Node) -> Node:
        if n.op == "captured":
            name = self.names.of(self.captured[n.attrs[0]].detach())
            if name is not None and len(n.shape) in (1, 2):
                return self.node("tensor", (), (name,), n)
        if n.op in ("part", "block"):
            return self.node(n.op, [self.saved(n.inputs[0])], n.attrs, n)
        if n.op == "aten.t.default" and len(n.shape) == 2:
            inner = self.saved(n.inputs[0])
            if inner.op == "tensor":
                return self.node("transpose", [inner], (), n)
        tensor = evaluate(n, self.captured, self.known)
        return self.node("tensor", (), (self.names.fold(tensor),), n)
