"""Nodes in their order of computing, and which of them depend on which."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ostinato.compiler.graph.node import Node


def reachable(roots: Iterable[Node], stop: Callable[[Node], bool] = lambda n: False) -> list[Node]:
    """The nodes that the roots are computed from, the roots included, in order of computing.

    Nodes at which `stop` holds are included; their inputs are not followed.
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
    """The sources, and those of `nodes` (in order of computing) that depend on one of them."""
    found = set(sources)
    for node in nodes:
        if any(n in found for n in node.inputs):
            found.add(node)
    return found
