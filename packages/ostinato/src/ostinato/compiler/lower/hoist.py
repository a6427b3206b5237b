"""When each value of a pass is computed: its *section*.

    before   products that the loop needs and that do not depend on the carry: many steps at once
    loop     values that the next carry depends on: step by step
    after    other values, such as a product for an output: many steps at once

The backward pass has the same sections: its carry is the gradient of the carry. The gradients of
weights fall into `after`, so that each is one product over all rows and steps. Only the sums of
columns of an array are taken in the loop.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from ostinato.compiler.graph.node import WITHIN_ROWS, Node, depends_on, reachable
from ostinato.compiler.lower.spec import NodeMaker, PassSpec
from ostinato.engine.ops import OPS

BEFORE, LOOP, AFTER = "before", "loop", "after"

# Below this many rows the products of xs are computed ahead of the loop, for many steps at once. A
# few rows do not fill the register tiles, and every step would load the weights again.
HOIST_BELOW = 16
ARRAY = 1024  # columns: 4 KB, so that a few operands of a few rows fill L1

# A product that is used with an array of this many times its columns is computed in the loop:
# reading the array again after the loop takes longer than the product loses with fewer rows.
MUCH_WIDER = 8

_LIGHT = {"accumulate", "spread", *OPS}
_OF_ARRAYS = {"spread", *WITHIN_ROWS}
# After fuse_gemm, a matmul is a leaf: a saved product. Its operands go with it, if the backward
# pass computes them again.
_HEAVY = {"accumulate", "matmul", *WITHIN_ROWS}


@dataclass(frozen=True)
class Sections:
    """The section of each value that a pass computes, in order of computing."""

    spec: PassSpec
    of: Mapping[Node, str]


def hoist(spec: PassSpec) -> Sections:
    """The section of every node.

    Products and reductions go ahead of the loop, with all values that they need. An elementwise
    operation alone is faster where its result is used. Values that no carry needs go after the
    loop, unless they are faster in the loop, which has their operands in the cache.
    """
    ahead: set[Node] = set()
    if spec.hoist:
        carried = depends_on(spec.nodes, spec.carried)
        ahead = _needed(spec, {n for n in spec.nodes if n.op in _HEAVY} - carried)
    carries = {c.name for c in spec.carries}
    carry_out = {o.node for o in spec.outputs if o.argument in carries}
    section = dict.fromkeys(spec.computed, AFTER)

    def into_loop(nodes: Iterable[Node]) -> None:
        section.update({n: BEFORE if n in ahead else LOOP for n in nodes})

    into_loop(_needed(spec, carry_out, spec.carried).intersection(section))
    for n in section:
        if section[n] == AFTER:
            into_loop(_beside_the_loop(section, n))
    section.update(dict.fromkeys(_of_near_arrays(spec, section), LOOP))
    return Sections(spec, section)


def _needed(spec: PassSpec, of: set[Node], given: Container[Node] = ()) -> set[Node]:
    """The nodes of `of` and all that they are computed from, up to the nodes of `given`."""
    within = set(spec.nodes)
    return set(reachable(of, lambda n: n not in within or n in given))


def _beside_the_loop(section: Mapping[Node, str], n: Node) -> list[Node]:
    """n and the values it needs from after the loop, if the loop computes them faster; else [].

    n reads a value of the loop, which is in the cache there and in memory after the loop. The other
    values must be light: elementwise operations, and products much narrower than that value, such
    as the query for an array of memory.
    """
    read = {section[i] for i in n.inputs if i in section}
    if n.op == "column_sum":  # a chunk of wide rows would go to memory and come back
        return [n] if read == {LOOP} and n.shape[1] >= ARRAY else []
    if LOOP not in read or not (n.op in OPS or (n.op in _OF_ARRAYS and n.width > 1)):
        return []
    array = max(i.width for i in n.inputs if section.get(i) == LOOP)
    after = reachable(n.inputs, lambda i: section.get(i) != AFTER)
    late = [i for i in after if section.get(i) == AFTER]
    return [n, *late] if _are_light(late, array) else []


def _are_light(nodes: list[Node], array: int) -> bool:
    """Whether the nodes take little time compared to reading an array of so many columns."""
    products = sum(i.width for i in nodes if i.op == "accumulate")
    return products * MUCH_WIDER <= array and all(i.op in _LIGHT for i in nodes)


def _of_near_arrays(spec: PassSpec, section: Mapping[Node, str]) -> list[Node]:
    """Reductions and products within rows of a stored array that the loop reads too.

    An example is the gradient of a query for an array of memory. It needs that array, which the
    loop has in the cache.
    """

    def arrays(n: Node, width: int) -> set[str]:
        """The arguments of which n reads at least so many columns."""
        leaves = [spec.leaves[i] for i in n.inputs if spec.is_leaf(i) and i.width >= width]
        return {leaf.argument for leaf in leaves}

    near = set().union(*(arrays(n, 0) for n in section if section[n] == LOOP))
    return [
        n
        for n, when in section.items()
        if when == AFTER
        and n.op in WITHIN_ROWS
        and n.width > 1
        and not any(section.get(i) == AFTER for i in n.inputs)
        and arrays(n, MUCH_WIDER * n.width) & near
    ]


def bridge_carries(sections: Sections) -> Sections:
    """Add copies, in the loop, of values read after it from a carry of two slots."""
    spec = sections.spec
    in_two_slots = {c.read for c in spec.carries if not c.kept}
    short = spec.short_carries
    in_two_slots |= {o.node for o in spec.outputs if o.argument in short}
    make = NodeMaker(spec)
    new: dict[Node, Node] = {}
    copies: dict[Node, Node] = {}

    def within(i: Node) -> Node:
        return new.get(i, i)

    def behind(i: Node) -> Node:
        if _whole(i) not in in_two_slots:
            return within(i)
        if i not in copies:
            copies[i] = make.copy(within(i))
        return copies[i]

    for n, when in sections.of.items():  # a slice is a view: its readers get the copy
        new[n] = make.with_inputs(n, behind if when == AFTER and n.op != "slice" else within)
    spec = spec.with_roots(within)
    section = {new[n]: when for n, when in sections.of.items()}
    section |= dict.fromkeys(copies.values(), LOOP)
    return Sections(spec, {n: section[n] for n in spec.computed})


def _whole(n: Node) -> Node:
    """The node that n is a slice of; n itself if it is not a slice."""
    while n.op == "slice":
        n = n.inputs[0]
    return n
