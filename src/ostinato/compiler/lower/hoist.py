"""When each value of a pass is computed: its *section*.

    before   products that the loop needs and that do not depend on the carry: many steps at once
    loop     what the next carry depends on: step by step
    after    what it does not depend on, such as a product for an output: many steps at once

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

# Below this many rows the products of xs are taken ahead of the loop, for many steps at once: a
# handful of rows does not fill the register tiles, and reloads the weights for each.
HOIST_BELOW = 16
ARRAY = 1024  # columns: 4 KB, so that a few operands of a few rows fill L1

# Products come into the loop beside an array of this many times their columns: then reading the
# array again, after the loop, would take longer than their fewer rows at once.
MUCH_WIDER = 8

_LIGHT = {"accumulate", "spread", *OPS}
_OF_ARRAYS = {"spread", *WITHIN_ROWS}
# A matmul that is left is a leaf: a saved product. With it goes what it was computed from, if the
# backward pass computes that again.
_HEAVY = {"accumulate", "matmul", *WITHIN_ROWS}


@dataclass(frozen=True)
class Sections:
    """The section of each value that a pass computes, in order of computing."""

    spec: PassSpec
    of: Mapping[Node, str]


def hoist(spec: PassSpec) -> Sections:
    """The section of every node.

    Products and reductions go ahead of the loop, with all that they need; an elementwise operation
    alone is better computed where its result is used. After the loop goes what no carry needs,
    except for what is better computed where the loop has its operands near.
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
    """The nodes that these are computed from, those included; what is given needs nothing."""
    within = set(spec.nodes)
    return set(reachable(of, lambda n: n not in within or n in given))


def _beside_the_loop(section: Mapping[Node, str], n: Node) -> list[Node]:
    """n, and what it needs of the values after the loop, if the loop had better compute them.

    n reads a value of the loop, which is near there and far after it. What it needs besides is
    light: elementwise operations, and products much narrower than that value, such as the query
    that a memory is read by.
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
    """Whether they take little time beside reading an array of so many columns."""
    products = sum(i.width for i in nodes if i.op == "accumulate")
    return products * MUCH_WIDER <= array and all(i.op in _LIGHT for i in nodes)


def _of_near_arrays(spec: PassSpec, section: Mapping[Node, str]) -> list[Node]:
    """Reductions and products within rows of a stored array that the loop reads too.

    An example is the gradient of a query by which a memory was read: it needs the memory, which
    the loop has near.
    """

    def arrays(n: Node, width: int) -> set[str]:
        """The arguments that n reads so many columns of at least."""
        leaves = [spec.leaves[i] for i in n.inputs if spec.is_leaf(i) and i.width >= width]
        return {leaf.argument for leaf in leaves}

    near = set().union(*(arrays(n, 0) for n in section if section[n] == LOOP))
    return [
        n
        for n, when in section.items()
        if when == AFTER and n.op in WITHIN_ROWS and n.width > 1
        and not any(section.get(i) == AFTER for i in n.inputs)
        and arrays(n, MUCH_WIDER * n.width) & near
    ]  # fmt: skip


def bridge_carries(sections: Sections) -> Sections:
    """Copies, made in the loop, of what is read after it and lies in a carry of two slots."""
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

    for n, when in sections.of.items():  # of a slice, a view, the readers read a copy
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
