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
from ostinato.compiler.graph.node import ROWS, Node, depends_on, reachable, readers
from ostinato.engine.ops import OPS

_CHEAP = {name for name, op in OPS.items() if not op.expensive} | {
    "spread",
    "concat",
    "slice",
    "take",
}


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
    roots = [n for n in (*g.d_captured, *g.d_states, *g.d_xs) if n is not None]
    needed = _Needed(roots, {*g.d_new_states, *g.d_ys})
    pairs = list(zip(f.states, f.new_states, strict=True))
    kept = [old is not new or new in f.ys for old, new in pairs]
    at_hand = _at_hand(f, kept)
    saved = needed.saved(at_hand)
    for i, (_, new) in enumerate(pairs):
        if new in f.ys or not kept[i]:
            continue
        fewer = _at_hand(f, [*kept[:i], False, *kept[i + 1 :]])
        near = needed.around(at_hand - fewer, fewer)
        cut = needed.saved(fewer, near)
        # Only computed values can be saved, not the leaf itself or some of its columns.
        computed = all(n.op not in ("state", "slice") for n in cut)
        if computed and _columns(cut) < new.width + _columns(saved & near):
            kept[i], at_hand, saved = False, fewer, (saved - near) | cut
    return KeptValues(tuple(kept), _in_order(saved))


def _at_hand(f: Forward, kept: Sequence[bool]) -> set[Node]:
    """The values that the backward pass finds: xs, and leaves that are stored or handed on."""
    pairs = zip(f.states, f.new_states, kept, strict=True)
    return {*f.xs, *[n for old, new, there in pairs if there or old is new for n in (old, new)]}


def _columns(nodes: Iterable[Node]) -> int:
    return sum(n.width for n in nodes)


def _in_order(nodes: Iterable[Node]) -> list[Node]:
    return sorted(nodes, key=lambda n: n.index)


def choose_saved(
    backward_roots: list[Node], cotangents: set[Node], at_hand: set[Node]
) -> list[Node]:
    """The values to save for these roots of the backward pass, as few columns as possible.

    Args:
        cotangents: the incoming gradients of the backward pass; a node that depends on one of
            them belongs to the backward pass, every other one to the forward pass.
    """
    return _in_order(_Needed(backward_roots, cotangents).saved(at_hand))


class _Needed:
    """The values of the forward pass that the backward pass reads, and those they come from.

    Attributes:
        wanted: the values that it reads.
        cheap_readers: value → the cheap operations that read it.
    """

    def __init__(self, backward_roots: list[Node], cotangents: set[Node]):
        nodes = reachable(backward_roots)
        backward, roots = depends_on(nodes, cotangents), {*backward_roots}
        self.wanted = {
            n
            for node in nodes
            if node in backward or node in roots
            for n in node.inputs
            if n not in backward
        }
        self.cheap_readers = readers(n for n in nodes if n not in backward and n.op in _CHEAP)

    def saved(self, at_hand: set[Node], near: set[Node] | None = None) -> set[Node]:
        """The values to save, or those of them that are `near`: a set that `around` returned."""
        wanted = {n for n in self.wanted if not _free(n, at_hand)}
        if near is not None:
            wanted &= near
        return _without_slices(_smallest_cut(wanted, at_hand))

    def around(self, nodes: set[Node], at_hand: set[Node]) -> set[Node]:
        """The values whose choice depends on that for these nodes: one is computed cheaply from
        another, or both from a third."""
        found: set[Node] = set()
        todo = [n for n in nodes if not _free(n, at_hand)]
        while todo:
            n = todo.pop()
            if n not in found:
                found.add(n)
                beside = (*self.cheap_readers.get(n, ()), *(n.inputs if n.op in _CHEAP else ()))
                todo += [i for i in beside if not _free(i, at_hand)]
        return found


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
    maximum flow, which is found along shortest paths, all of one length at a time (Dinic 1970).
    """
    cone = reachable(wanted, lambda n: _free(n, at_hand) or n.op not in _CHEAP)
    cone = [n for n in cone if not _free(n, at_hand)]
    left = _capacities(cone, wanted, at_hand)
    while _SOURCE in (distance := _distances(left)):
        _fill(left, distance)
    return [n for n in cone if (n, "out") in distance and (n, "in") not in distance]


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


def _distances(left: Capacities) -> dict[Any, int]:
    """The distance to the sink of each vertex that can still send flow there."""
    found = {_SINK: 0}
    queue = [_SINK]
    for v in queue:
        for u in left[v]:
            if u not in found and left[u][v] > 0:
                found[u] = found[v] + 1
                queue.append(u)
    return found


def _fill(left: Capacities, distance: dict[Any, int]) -> None:
    """Send flow along shortest paths until each of them has a full edge."""
    nearer = {v: [u for u in left[v] if distance.get(u) == d - 1] for v, d in distance.items()}
    path = [_SOURCE]
    while path:
        v = path[-1]
        if v == _SINK:
            flow = min(left[a][b] for a, b in pairwise(path))
            for a, b in pairwise(path):
                left[a][b] -= flow
                left[b][a] += flow
            path = [_SOURCE]
        elif nearer[v] and left[v][nearer[v][-1]] > 0:
            path.append(nearer[v][-1])
        elif nearer[v]:  # full
            nearer[v].pop()
        else:  # a dead end
            path.pop()
            if path:
                nearer[path[-1]].pop()
