"""When each value of a pass is computed: its *section*.

    before   products that the loop needs and that do not depend on the carry: many steps at once
    loop     what the next carry depends on: step by step
    after    what it does not depend on, such as a product for an output: many steps at once

The backward pass has the same sections: its carry is the gradient of the carry. The gradients of
weights fall into `after`, so that each is one product over all rows and steps. Only the sums of
columns of an array are taken in the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostinato.compiler.graph.node import WITHIN_ROWS, Node, depends_on, reachable
from ostinato.compiler.lower.spec import NodeMaker, PassSpec, Roots
from ostinato.engine.ops import OPS

BEFORE, LOOP, AFTER = "before", "loop", "after"
ARRAY = 1024  # columns: 4 KB, so that a few operands of a few rows fill L1

# Products come into the loop beside an array of this many times their columns: then reading the
# array again, after the loop, would take longer than their fewer rows at once.
MUCH_WIDER = 8

_OF_ARRAYS = {"spread", *WITHIN_ROWS}
# A matmul that is left is a leaf: a saved product. With it goes what it was computed from, if the
# backward pass computes that again.
_HEAVY = {"accumulate", "matmul", *WITHIN_ROWS}


@dataclass(frozen=True)
class Sections:
    """The nodes of a pass, in order of computing, each with its section.

    Attributes:
        computed: the nodes that are neither leaves nor constants.
    """

    roots: Roots
    of: Mapping[Node, str]
    computed: tuple[Node, ...]

    @staticmethod
    def made(spec: PassSpec, roots: Roots, section: Mapping[Node, str]) -> Sections:
        computed = [n for n in section if not spec.is_leaf(n) and n.op != "const"]
        return Sections(roots, section, tuple(computed))


def hoist(spec: PassSpec, roots: Roots) -> Sections:
    """The section of every node.

    Products and reductions go ahead of the loop, with all that they need; an elementwise operation
    alone is better computed where its result is used. After the loop goes what no carry needs,
    except for an operation on elements or arrays of a value of the loop: later, that value would
    have to come from memory.
    """
    nodes = spec.nodes_of(roots.nodes)
    within, carry_in = set(nodes), spec.carried
    ahead: set[Node] = set()
    if spec.hoist:
        carried = depends_on(nodes, carry_in)
        heavy = [n for n in nodes if n.op in _HEAVY and n not in carried]
        ahead = set(reachable(heavy, lambda n: n not in within))
    carry_out = [o.node for o in roots.outputs if o.argument in spec.carry_by_name]
    for_the_carry = set(reachable(carry_out, lambda n: n not in within or n in carry_in))
    section: dict[Node, str] = {}
    for n in nodes:
        if n in for_the_carry:
            section[n] = BEFORE if n in ahead else LOOP
            continue
        read = {section[i] for i in n.inputs if i in section and not spec.is_leaf(i)}
        if n.op == "column_sum" and read == {LOOP} and n.shape[1] >= ARRAY:
            section[n] = LOOP  # a chunk of such rows would go to memory and come back
            continue
        light = (n.op in OPS or (n.op in _OF_ARRAYS and n.width > 1)) and not spec.is_leaf(n)
        late = _late(spec, section, n) if light and LOOP in read else None
        section[n] = AFTER if late is None else LOOP
        section.update({i: BEFORE if i in ahead else LOOP for i in late or ()})
    section.update(dict.fromkeys(_of_near_arrays(spec, section), LOOP))
    return Sections.made(spec, roots, section)


def _of_near_arrays(spec: PassSpec, section: Mapping[Node, str]) -> list[Node]:
    """Reductions and products within rows of a stored array that the loop reads too.

    An example is the gradient of a query by which a memory was read: it needs the memory, which
    the loop has near.
    """
    loop = [n for n in section if section[n] == LOOP and not spec.is_leaf(n)]
    near = {spec.leaves[i].argument for n in loop for i in n.inputs if spec.is_leaf(i)}
    found = []
    for n in section:
        if section[n] != AFTER or n.op not in WITHIN_ROWS or n.width == 1 or spec.is_leaf(n):
            continue
        arrays = [i for i in n.inputs if spec.is_leaf(i) and i.width >= MUCH_WIDER * n.width]
        others = [i for i in n.inputs if section.get(i) == AFTER and not spec.is_leaf(i)]
        if not others and any(spec.leaves[i].argument in near for i in arrays):
            found.append(n)
    return found


def _late(spec: PassSpec, section: Mapping[Node, str], n: Node) -> list[Node] | None:
    """The inputs of n after the loop, and all that they are computed from, if light beside n.

    n reads an array of the loop, which is near there and far after it. Light are elementwise
    operations, and products much narrower than the array, such as the query that a memory is read
    by.
    """
    found: list[Node] = []
    stack = [i for i in n.inputs if section.get(i) == AFTER and not spec.is_leaf(i)]
    array = max(i.width for i in n.inputs if section.get(i) == LOOP)
    products = 0  # columns of them
    while stack:
        i = stack.pop()
        if i.op == "accumulate":
            products += i.width
        elif i.op not in OPS and i.op != "spread":
            return None
        found.append(i)
        stack += [j for j in i.inputs if section.get(j) == AFTER and not spec.is_leaf(j)]
    return found if products * MUCH_WIDER <= array else None


def bridge_carries(spec: PassSpec, sections: Sections) -> Sections:
    """Copies, made in the loop, of what is read after it and lies in a carry of two slots."""
    roots = sections.roots
    short = {c.name for c in spec.carries if not c.kept}
    in_two_slots = {c.read for c in spec.carries if not c.kept}
    in_two_slots |= {o.node for o in roots.outputs if o.argument in short}
    make = NodeMaker(spec, roots)
    section: dict[Node, str] = {}
    new: dict[Node, Node] = {}
    copies: dict[Node, Node] = {}

    def within(i: Node) -> Node:
        return new.get(i, i)

    def behind(i: Node) -> Node:
        if _whole(i) not in in_two_slots:
            return within(i)
        if i not in copies:
            copies[i] = make.copy(within(i))
            section[copies[i]] = LOOP
        return copies[i]

    for n, when in sections.of.items():
        if not spec.is_leaf(n):  # of a slice, a view, the readers read a copy
            reads = behind if when == AFTER and n.op != "slice" else within
            new[n] = make.with_inputs(n, reads)
        section[within(n)] = when
    roots = roots.mapped(within)
    return Sections.made(spec, roots, {n: section[n] for n in spec.nodes_of(roots.nodes)})


def _whole(n: Node) -> Node:
    """The node that n is a slice of; n itself if it is none."""
    while n.op == "slice":
        n = n.inputs[0]
    return n
