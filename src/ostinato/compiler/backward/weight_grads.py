"""The gradients of captured tensors, from the sums of a backward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ostinato.compiler.graph.evaluate import evaluate
from ostinato.compiler.graph.node import SUM, Node

if TYPE_CHECKING:
    from ostinato.compiler.lower.spec import SumPart
    from ostinato.compiler.plan import BackwardPlan

_VIEWS = ("aten.view.default", "aten._unsafe_view.default")


@dataclass
class _Layers:
    """The memory that a sum is collected in."""

    zeros: bool  # it must begin so: the parts do not cover all of it
    shape: tuple[int, ...]
    n: int


class Gradients:
    """How gradients come from sums. Most are one sum, which is collected in the gradient itself.

    Attributes:
        sums: shape, and whether it must begin as zeros, of the layers of all sums, in order.
    """

    def __init__(self, plan: BackwardPlan, dtype: torch.dtype):
        self.dtype = dtype
        lowered = plan.lowered
        parts: dict[str, list[tuple[SumPart, int]]] = {name: [] for name in plan.sum_nodes}
        for g in lowered.program.gradients:
            part: SumPart = lowered.arguments[g.argument]
            parts[part.name].append((part, g.K * g.N))
        self.layers = {name: _layers(node, parts[name]) for name, node in plan.sum_nodes.items()}
        self.positions: dict[str, int] = {}  # of the first layer of each sum
        at = 0
        for name, layers in self.layers.items():
            self.positions[name] = at
            at += layers.n
        self.ways = [self._way(node) for node in plan.sums]
        self.sums = [(x.shape, x.zeros) for x in self.layers.values() for _ in range(x.n)]

    def _way(self, node: Node | None) -> int | Node | None:
        """The position of the sum that is the gradient; or what it must be computed from."""
        base = node
        while base is not None and base.op in _VIEWS:
            base = base.inputs[0]
        layers = None if base is None else self.layers.get(f"sum{base.index}")
        if node is None or base is None or layers is None or layers.n > 1:
            return node
        if layers.shape not in (base.shape, node.shape):  # two gradients of different shapes
            return node
        layers.shape = tuple(node.shape)
        return self.positions[f"sum{base.index}"]

    def of(
        self, sums: Sequence[Tensor], captured: Sequence[Tensor], once: dict[Node, Tensor]
    ) -> list[Tensor | None]:
        """The gradient of each captured tensor, once the backward pass was played."""
        found: list[Tensor | None] = []
        for way in self.ways:
            if way is None:
                found.append(None)
            elif isinstance(way, int):
                found.append(sums[way])
            else:
                # autograd's are dense; this one may be a view of a transposed sum
                found.append(self._computed(way, sums, captured, once).contiguous())
        return found

    def _computed(
        self,
        node: Node,
        sums: Sequence[Tensor],
        captured: Sequence[Tensor],
        once: dict[Node, Tensor],
    ) -> Tensor:
        if node in once:
            return once[node]
        name = f"sum{node.index}"
        if name in self.positions:
            first = self.positions[name]
            total = sums[first]
            for layer in sums[first + 1 : first + self.layers[name].n]:
                total = total + layer
            K, N = node.shape
            value = total.view(K, N)
        elif node.kind == SUM and node.op in _VIEWS:
            value = self._computed(node.inputs[0], sums, captured, once).reshape(node.shape)
        elif node.kind == SUM and node.op == "aten.t.default":
            value = self._computed(node.inputs[0], sums, captured, once).t()
        else:
            for n in node.inputs:
                if n.kind == SUM:
                    self._computed(n, sums, captured, once)
            value = evaluate(node, captured, once, self.dtype)
        once[node] = value
        return value


def _layers(node: Node, parts: list[tuple[SumPart, int]]) -> _Layers:
    n = 1 + max((part.layer for part, _ in parts), default=0)
    covered = n == 1 and sum(size for _, size in parts) == math.prod(node.shape)
    return _Layers(not covered, tuple(node.shape), n)
