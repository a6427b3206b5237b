"""When each value of a step may be computed, and what the forward pass keeps for the backward.

    before   products that depend on xs only and that the loop needs: for many steps at once
    loop     depends on the carry, and the next carry depends on it: step by step
    after    products, reductions and sums that it does not depend on: for many steps at once

The same for the backward graph, mirrored: there the carry is its gradient. Gradients of weights
fall into `after` by themselves, so they are one product over all rows and steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from math import inf
from typing import Any

from ostinato.compiler.graph.node import ROWS, Node
from ostinato.engine.ops import OPS

BEFORE, LOOP, AFTER = "before", "loop", "after"

# What costs more to compute again than to keep, which is a line of the caches written, and two
# read, for sixteen values: a product, a reduction, a function slower than exp, tanh or sigmoid.
_DEAR = {"log", "log1p", "expm1", "erf", "sin", "cos", "softplus", "pow", "pow_s"}
_HEAVY = {"accumulate", "matmul", "row_sum", "row_max"}
_CHEAP = {*OPS, "spread", "concat", "slice"} - _DEAR


def reachable(roots: Iterable[Node], stop: Callable[[Node], bool] = lambda n: False) -> list[Node]:
    """Row and sum nodes that the roots are computed from, roots included, in order of computing.

    Nodes at which `stop` holds are included, what lies behind them is not.
    """
    found: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.index in found:
            continue
        found[node.index] = node
        if not stop(node):
            stack.extend(node.inputs)
    return [found[i] for i in sorted(found)]


def depends_on(nodes: list[Node], sources: set[Node]) -> set[Node]:
    """Those of `nodes` (in order of computing) that depend on one of `sources`."""
    found = set(sources)
    for node in nodes:
        if any(n in found for n in node.inputs):
            found.add(node)
    return found


def choose_saved(
    backward_roots: list[Node], cotangents: set[Node], at_hand: set[Node]
) -> list[Node]:
    """The values that the backward pass needs from the forward pass, beyond those `at_hand`.

    Args:
        cotangents: the leaves that make a node belong to the backward pass.
        at_hand: carry and xs: stored anyway.
    """
    nodes = reachable(backward_roots)
    backward = depends_on(nodes, cotangents)
    needed = {
        n
        for node in nodes
        if node in backward or node in backward_roots
        for n in node.inputs
        if n.kind == ROWS and n not in backward
    }
    wanted = {n for n in needed if not _free(n, at_hand)}
    return sorted(_smallest_cut(wanted, at_hand), key=lambda n: n.index)


def recomputable(roots: Iterable[Node], saved: set[Node]) -> bool:
    """Whether what is cheap is enough to compute values from those saved or at hand."""
    found = reachable(roots, lambda n: _free(n, saved))
    return all(_free(n, saved) or n.op in _CHEAP for n in found)


def _free(n: Node, at_hand: set[Node]) -> bool:
    return n in at_hand or n.op == "const" or n.kind != ROWS


def _smallest_cut(wanted: set[Node], at_hand: set[Node]) -> list[Node]:
    """The fewest columns from which all of `wanted` can be recomputed cheaply.

    A minimum cut through values, between those that are dear and those wanted; of several, the one
    nearest to what is wanted. By the largest flow, along shortest paths (Edmonds and Karp 1972).
    """
    ends: tuple[Any, Any] = ("dear", "wanted")
    left: dict[Any, dict[Any, float]] = defaultdict(dict)  # capacity, less what flows

    def edge(a: Any, b: Any, capacity: float) -> None:
        left[a][b] = capacity
        left[b].setdefault(a, 0)

    cone = reachable(wanted, lambda n: _free(n, at_hand) or n.op not in _CHEAP)
    cone = [n for n in cone if not _free(n, at_hand)]
    for n in cone:
        edge((n, "in"), (n, "out"), n.width)
        if n.op not in _CHEAP:
            edge(ends[0], (n, "in"), inf)
        else:
            for i in n.inputs:
                if not _free(i, at_hand):
                    edge((i, "out"), (n, "in"), inf)
        if n in wanted:
            edge((n, "out"), ends[1], inf)

    def search() -> dict[Any, Any]:
        """What can reach the end, by the next step on a shortest path."""
        step: dict[Any, Any] = {ends[1]: None}
        for v in (queue := [ends[1]]):
            for u in left[v]:
                if u not in step and left[u][v] > 0:
                    step[u] = v
                    queue.append(u)
        return step

    while ends[0] in (step := search()):
        path = [ends[0]]
        while step[path[-1]] is not None:
            path.append(step[path[-1]])
        flow = min(left[a][b] for a, b in pairwise(path))
        for a, b in pairwise(path):
            left[a][b] -= flow
            left[b][a] += flow
    return [n for n in cone if (n, "out") in step and (n, "in") not in step]


def sections(
    nodes: list[Node],
    carry_in: set[Node],
    carry_out: Iterable[Node],
    hoist: bool,
    is_leaf: Callable[[Node], bool],
) -> dict[Node, str]:
    """The section of every node of a pass.

    Ahead of the loop go products and reductions, and what they need; an elementwise operation alone
    is better done where its result is used. One on what the loop computes is done there at once:
    behind it, that would come from memory.
    """
    carried = depends_on(nodes, carry_in)
    within = set(nodes)
    ahead: set[Node] = set()
    if hoist:
        heavy = [n for n in nodes if n.op in _HEAVY and n not in carried]
        ahead = set(reachable(heavy, stop=lambda n: n not in within))
    for_the_carry = set(reachable(carry_out, stop=lambda n: n not in within or n in carry_in))
    found: dict[Node, str] = {}
    for node in nodes:
        if node in for_the_carry:
            found[node] = BEFORE if node in ahead else LOOP
            continue
        computed = {found[i] for i in node.inputs if i in found and not is_leaf(i)}
        at_once = node.op in OPS and LOOP in computed and AFTER not in computed
        found[node] = LOOP if at_once and not is_leaf(node) else AFTER
    return found
