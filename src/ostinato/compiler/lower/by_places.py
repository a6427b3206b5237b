"""Products that find an operand by its places, where a take would write it first.

    product(a, take(v))               becomes a product of a and v, with the runs of the take
    column_sum(product(a, take(v)))   becomes a sum of products, where the product is `across`

The patches of an image are the case this is for: nine times the image, which they are read from.
"""

from __future__ import annotations

from ostinato.compiler.graph.arrays import in_stretches, places_of
from ostinato.compiler.graph.node import SUM, Node
from ostinato.compiler.lower.spec import NodeMaker, PassSpec, Roots


def find_by_places(spec: PassSpec, roots: Roots) -> Roots:
    """The roots, with such products in place of their takes."""
    if not spec.by_places:
        return roots
    make = NodeMaker(spec, roots)
    found: dict[Node, Node] = {}

    def new(n: Node) -> Node:
        return found.get(n, n)

    for n in spec.nodes_of(roots.nodes):
        if spec.is_leaf(n):
            continue
        here = make.with_inputs(n, new)
        if here.op == "product" and _is_found(spec, n.inputs[1], here):
            taken = here.inputs[1]
            inputs = (here.inputs[0], taken.inputs[0])
            here = make.like(here, "product", inputs, (*here.attrs, taken.attrs))
        elif here.op == "column_sum" and _is_of_a_product(here):
            (product,) = here.inputs
            here = make.like(here, "product_sum", product.inputs, product.attrs)
        if here is not n:
            found[n] = here
    return roots.mapped(new)


def _is_found(spec: PassSpec, taken: Node, product: Node) -> bool:
    """Whether the product finds its second operand, which is one of elements taken from a row."""
    if taken.op != "take" or spec.is_leaf(taken):
        return False
    _, _, K, N, across = product.attrs
    return in_stretches(places_of(taken.attrs), K if across else N)


def _is_of_a_product(n: Node) -> bool:
    """Whether a sum over rows is one of products that find their operand, and of nothing else."""
    if n.kind != SUM or len(n.inputs) != 1 or n.inputs[0].op != "product":
        return False
    attrs = n.inputs[0].attrs
    return len(attrs) == 6 and attrs[4]
