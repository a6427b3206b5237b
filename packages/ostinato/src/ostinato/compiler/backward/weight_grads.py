"""The gradients of captured tensors, from the sums over rows and steps of a backward pass."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.capture.recording import VIEWS
from ostinato.compiler.graph.evaluate import evaluate
from ostinato.compiler.graph.node import Node, reachable

if TYPE_CHECKING:
    from ostinato.compiler.lower.spec import Lowered, SumPart

Gradients = Sequence[Node | None]  # of captured tensors, where they have one
_COLLECTED = ("outer", "column_sum")


def sums_in(gradients: Gradients) -> dict[str, Node]:
    """The sums that gradients of captured tensors are computed from, by name."""
    there = [n for n in gradients if n is not None]
    nodes = reachable(there, lambda n: n.op in _COLLECTED)
    return {f"sum{n.index}": n for n in nodes if n.op in _COLLECTED}


@dataclass(frozen=True)
class SumMemory:
    """The tensors in which a sum is collected: its layers, which are added at the end."""

    first: int  # the position of the first layer among the tensors of all sums
    n_layers: int
    shape: tuple[int, ...]
    zeros: bool  # whether they must begin as zeros, because the parts of the sum do not cover them


class WeightGradients:
    """How gradients follow from sums. Most are one sum, which is collected in the gradient itself.

    Args:
        lowered: the backward pass.
        sums: by name, as the pass knows them.
        d_captured: the gradient of each captured tensor, if it has one.

    Attributes:
        sums: the shape of each tensor in which a sum is collected, and whether it begins as zeros.
        positions: the position of the first tensor of each sum, by name.
    """

    def __init__(self, lowered: Lowered, sums: Mapping[str, Node], d_captured: Gradients):
        self._memory = _memory(lowered, sums, d_captured)
        self._gradients = [(n, self._is_a_sum(n)) for n in d_captured]
        self._computes = any(n is not None and itself is None for n, itself in self._gradients)
        self.positions = {name: self._memory[n].first for name, n in sums.items()}
        self.sums = [(m.shape, m.zeros) for m in self._memory.values() for _ in range(m.n_layers)]

    def of(
        self, sums: Sequence[Tensor], captured: Sequence[Tensor], once: dict[Node, Tensor]
    ) -> list[Tensor | None]:
        """The gradient of each captured tensor, after the backward pass was played.

        Args:
            once: the tensors known so far; those computed here are added.
        """
        if self._computes:
            for of_sum, m in self._memory.items():
                layers = sums[m.first : m.first + m.n_layers]
                once[of_sum] = functools.reduce(torch.add, layers).view(of_sum.shape)
        found: list[Tensor | None] = []
        for node, itself in self._gradients:
            if node is None:
                found.append(None)
            elif itself is not None:
                found.append(sums[itself])
            else:
                # autograd's are dense; this one may be a view of a transposed sum
                found.append(evaluate(node, captured, once).contiguous())
        return found

    def of_units(
        self, sums: Sequence[Tensor], captured: Sequence[Tensor], once: dict[Node, Tensor]
    ) -> list[Tensor | None]:
        """The same of sums that have an axis of units in front, as their gradients then do."""
        if not self._computes:
            return self.of(sums, captured, once)
        places = [i for i, (node, _) in enumerate(self._gradients) if node is not None]

        def of_a_unit(sums: Sequence[Tensor]) -> list[Any]:
            found = self.of(sums, captured, dict(once))
            return [found[i] for i in places]

        found = dict(zip(places, torch.func.vmap(of_a_unit)(list(sums)), strict=True))
        return [found.get(i) for i in range(len(self._gradients))]

    def _is_a_sum(self, node: Node | None) -> int | None:
        """The position of the tensor that is this gradient, or None."""
        memory = None if node is None else self._memory.get(_viewed(node))
        if node is None or memory is None or memory.n_layers > 1 or memory.shape != node.shape:
            return None
        return memory.first


def _viewed(node: Node) -> Node:
    """The node that `node` is a view of; `node` itself if it is not a view."""
    while node.op in VIEWS:
        node = node.inputs[0]
    return node


def _memory(
    lowered: Lowered, sums: Mapping[str, Node], d_captured: Gradients
) -> dict[Node, SumMemory]:
    """The memory of each sum; a gradient that is a view of it decides the shape."""
    n_layers, covered = Counter(sums.keys()), Counter[str]()  # at least one layer each
    for g in lowered.program.gradients:
        part: SumPart = lowered.arguments[g.argument]
        n_layers[part.name] = max(n_layers[part.name], part.layer + 1)
        covered[part.name] += g.K * g.N
    # The sum has the shape of the first of the gradients that are views of it.
    shapes = {_viewed(n): n.shape for n in reversed(d_captured) if n is not None}
    memory: dict[Node, SumMemory] = {}
    first = 0
    for name, node in sums.items():
        layers, whole = n_layers[name], covered[name] == math.prod(node.shape)
        shape = shapes.get(node, node.shape) if layers == 1 else node.shape
        memory[node] = SumMemory(first, layers, shape, zeros=layers > 1 or not whole)
        first += layers
    return memory
