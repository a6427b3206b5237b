"""Products that read an operand's elements by their places, so that no take writes them first.

    product(a, take(v))               becomes a product of a and v, with the runs of the take
    column_sum(product(a, take(v)))   becomes a sum of products if the product is `across`

This serves convolutions: the patches of an image can have nine times as many elements as the image.
"""

from __future__ import annotations

from ostinato.compiler.graph.arrays import in_stretches, places_of
from ostinato.compiler.graph.node import SUM, Node
from ostinato.compiler.lower.spec import NodeMaker, PassSpec


def find_by_places(spec: PassSpec) -> PassSpec:
    """The pass, with products that read by places wherever this is possible."""
    if not spec.by_places:
        return spec
    make = NodeMaker(spec)
    found: dict[Node, Node] = {}

    def new(n: Node) -> Node:
        return found.get(n, n)

    for n in spec.computed:
        here = make.with_inputs(n, new)
        if here.op == "product" and _is_found(spec, here):
            array, taken = here.inputs
            inputs, attrs = (array, *taken.inputs), (*here.attrs, taken.attrs)
            here = make.changed(here, inputs=inputs, attrs=attrs)
        elif here.op == "column_sum" and _is_of_a_product(here):
            (product,) = here.inputs
            here = make.changed(here, op="product_sum", inputs=product.inputs, attrs=product.attrs)
        found[n] = here
    return spec.with_roots(new)


def _is_found(spec: PassSpec, product: Node) -> bool:
    """Whether the second operand is a take that the product can read by places."""
    taken = product.inputs[1]
    if taken.op != "take" or spec.is_leaf(taken):
        return False
    _, _, K, N, across = product.attrs
    return in_stretches(places_of(taken.attrs), K if across else N)


def _is_of_a_product(n: Node) -> bool:
    """Whether n is a sum over rows of one product that reads by places and is `across`."""
    if n.kind != SUM or len(n.inputs) != 1 or n.inputs[0].op != "product":
        return False
    attrs = n.inputs[0].attrs
    return len(attrs) == 6 and attrs[4]
