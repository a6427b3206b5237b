"""When each value of a step may be computed, and what the forward pass keeps for the backward.

    before   products that depend on xs only and that the loop needs: for many steps at once
    loop     depends on the carry, and the next carry depends on it: step by step
    after    the rest: for many steps at once

The same for the backward graph, mirrored: there the carry is its gradient. Gradients of weights
fall into `after` by themselves, so they are one product over all rows and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ostinato.compiler.graph import ROWS, Node
from ostinato.engine.ops import OPS

BEFORE, LOOP, AFTER = "before", "loop", "after"

# What costs more to compute again than to keep: a transcendental function, a division, a product,
# a reduction. The others are recomputed when their operands are at hand.
_DEAR = {
    "exp", "log", "log1p", "expm1", "erf", "sin", "cos", "tanh", "sigmoid", "softplus", "pow",
    "pow_s", "div", "rdiv_s", "sqrt",
}  # fmt: skip
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
    dear = {n for n in needed if n.op not in _CHEAP and n not in at_hand and n.op != "const"}

    def recomputable(n: Node) -> bool:
        if n in at_hand or n in dear or n.op == "const" or n.kind != ROWS:
            return True
        return n.op in _CHEAP and all(recomputable(i) for i in n.inputs)

    saved = dear | {n for n in needed if not recomputable(n)}
    return sorted(saved, key=lambda n: n.index)


def sections(
    nodes: list[Node], carry_in: set[Node], carry_out: Iterable[Node], hoist: bool
) -> dict[Node, str]:
    """The section of every node of a pass.

    Ahead of the loop go products and reductions, and what they need; an elementwise operation alone
    is better done where its result is used.
    """
    carried = depends_on(nodes, carry_in)
    within = set(nodes)
    ahead: set[Node] = set()
    if hoist:
        heavy = [n for n in nodes if n.op in _HEAVY and n not in carried]
        ahead = set(reachable(heavy, stop=lambda n: n not in within))
    for_the_carry = set(reachable(carry_out, stop=lambda n: n not in within or n in carry_in))
    found = {}
    for node in nodes:
        if node not in for_the_carry:
            found[node] = AFTER
        else:
            found[node] = BEFORE if node in ahead else LOOP
    return found
