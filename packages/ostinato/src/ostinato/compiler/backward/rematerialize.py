"""The choice of forward values to save; the backward pass computes the others again.

Every value is either *at hand* (xs and most leaves of the carry are stored anyway), or cheap to
compute again from its inputs, or expensive. The values to save are a minimum cut between the
expensive ones and those that the backward pass reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

from ostinato.compiler.graph.from_aten import Backward, Forward
from ostinato.compiler.graph.node import ROWS, Node, depends_on, reachable
from ostinato.engine.ops import OPS

_CHEAP = {name for name, op in OPS.items() if not op.expensive} | {
    "spread", "concat", "slice", "take",
}  # fmt: skip


class KeptValues(NamedTuple):
    """The values that a forward pass stores for the backward pass, besides xs."""

    leaves: tuple[bool, ...]  # for each leaf of the carry: whether it is stored at every step
    saved: Sequence[Node]


def choose_stored(f: Forward, g: Backward) -> KeptValues:
    """The values that training stores.

    A leaf that the step hands on is at hand without being stored.

    A leaf that is not an output is not stored if that does not add other values: a running maximum
    is the larger of two values that are needed anyway.

    Args:
        g: the gradients of all outputs and leaves.
    """
    pairs = zip(f.states, f.new_states, strict=True)
    kept = tuple([old is not new or new in f.ys for old, new in pairs])
    saved = _saved_for(f, g, kept)
    for i, new in enumerate(f.new_states):
        if new in f.ys or not kept[i]:
            continue
        fewer = (*kept[:i], False, *kept[i + 1 :])
        others = _saved_for(f, g, fewer)
        # Only computed values can be saved, not the leaf itself or some of its columns.
        computed = all(n.op not in ("state", "slice") for n in others)
        if computed and _columns(others) < new.width + _columns(saved):
            kept, saved = fewer, others
    return KeptValues(kept, saved)


def _columns(nodes: Iterable[Node]) -> int:
    return sum(n.width for n in nodes)


def _saved_for(f: Forward, g: Backward, kept: tuple[bool, ...]) -> list[Node]:
    """The values to save if these leaves of the carry are stored.

    The backward pass finds xs, and leaves of the carry that are stored or handed on.
    """
    roots = [n for n in (*g.d_captured, *g.d_states, *g.d_xs) if n is not None]
    pairs = zip(f.states, f.new_states, kept, strict=True)
    leaves = [n for old, new, there in pairs if there or old is new for n in (old, new)]
    return choose_saved(roots, {*g.d_new_states, *g.d_ys}, {*f.xs, *leaves})


def choose_saved(
    backward_roots: list[Node], cotangents: set[Node], at_hand: set[Node]
) -> list[Node]:
    """The values to save for these roots of the backward pass, as few columns as possible.

    Args:
        cotangents: the incoming gradients of the backward pass; a node that depends on one of
            them belongs to the backward pass, every other one to the forward pass.
    """
    nodes = reachable(backward_roots)
    backward = depends_on(nodes, cotangents)
    wanted = {
        n
        for node in nodes
        if node in backward or node in backward_roots
        for n in node.inputs
        if n not in backward and not _free(n, at_hand)
    }
    cut = _without_slices(_smallest_cut(wanted, at_hand))
    return sorted(cut, key=lambda n: n.index)


def _without_slices(cut: list[Node]) -> set[Node]:
    """The same values, with those whose columns are all saved as a single one, which exists
    anyway."""
    found = set(cut)
    for source in {n.inputs[0] for n in cut if n.op == "slice"}:
        slices = {n for n in cut if n.op == "slice" and n.inputs[0] is source}
        if _columns(slices) >= source.width:
            found = (found - slices) | {source}
    return found


def _free(n: Node, at_hand: set[Node]) -> bool:
    return n in at_hand or n.op == "const" or n.kind != ROWS


def _smallest_cut(wanted: set[Node], at_hand: set[Node]) -> list[Node]:
    """The fewest columns from which all of `wanted` can be computed again cheaply.

    If there are several minimum cuts, this is the one nearest to `wanted`. The cut follows from a
    maximum flow, which is found along shortest paths (Edmonds and Karp 1972).
    """
    cone = reachable(wanted, lambda n: _free(n, at_hand) or n.op not in _CHEAP)
    cone = [n for n in cone if not _free(n, at_hand)]
    left = _capacities(cone, wanted, at_hand)
    while _SOURCE in (toward_sink := _paths_to_sink(left)):
        path = [_SOURCE]
        while path[-1] != _SINK:
            path.append(toward_sink[path[-1]])
        flow = min(left[a][b] for a, b in pairwise(path))
        for a, b in pairwise(path):
            left[a][b] -= flow
            left[b][a] += flow
    return [n for n in cone if (n, "out") in toward_sink and (n, "in") not in toward_sink]


_SOURCE, _SINK = "expensive", "wanted"
Capacities = dict[Any, dict[Any, float]]  # of the edges, less the flow through them


def _capacities(cone: list[Node], wanted: set[Node], at_hand: set[Node]) -> Capacities:
    """A node is an edge from (n, "in") to (n, "out"), which costs its width to cut."""
    left: Capacities = defaultdict(dict)

    def edge(a: Any, b: Any, capacity: float) -> None:
        left[a][b] = capacity
        left[b].setdefault(a, 0)

    for n in cone:
        edge((n, "in"), (n, "out"), n.width)
        if n.op not in _CHEAP:
            edge(_SOURCE, (n, "in"), inf)
        else:
            for i in n.inputs:
                if not _free(i, at_hand):
                    edge((i, "out"), (n, "in"), inf)
        if n in wanted:
            edge((n, "out"), _SINK, inf)
    return left


def _paths_to_sink(left: Capacities) -> dict[Any, Any]:
    """For each vertex that can still send flow to the sink, the next one on a shortest path."""
    following: dict[Any, Any] = {_SINK: None}
    queue = [_SINK]
    for v in queue:
        for u in left[v]:
            if u not in following and left[u][v] > 0:
                following[u] = v
                queue.append(u)
    return following
