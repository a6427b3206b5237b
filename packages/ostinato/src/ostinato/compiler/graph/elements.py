"""Elements of captured vectors: `p[0]`, `torch.exp(w[i])`, and their gradients.

Computed one by one, each element would cost some calls of PyTorch in every call of a scan.

    values      a function of one element is the element of that function of the vector:
                exp(w[3]) is exp(w)[3]. The engine reads elements where they lie in a vector
    gradients   sums that go into elements of one vector are collected side by side: exp(w[0])
                and exp(w[1]) have the gradient exp(w) · [Σ g₀, Σ g₁]
"""

from __future__ import annotations

import functools
from typing import Any

from ostinato.compiler.capture.recording import VIEWS, Call, Recording
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import ONCE, SUM, Node, Slot

# A longer vector is not computed whole: a step may use few of its elements.
LONGEST = 1024
_OF_ELEMENTS = {
    *[f"aten.{name}.default" for name in (
        "abs", "cos", "exp", "expm1", "log", "log1p", "neg", "reciprocal", "relu", "rsqrt",
        "sigmoid", "sin", "sqrt", "square", "tanh",
    )],
    *[f"aten.{name}.Tensor" for name in ("add", "div", "mul", "sub")],
    "aten.pow.Tensor_Scalar", "aten.rsub.Scalar",
}  # fmt: skip
_LINEAR = {"aten.mul.Tensor", "aten.div.Tensor", "aten.neg.default"}
_COLLECTED = ("column_sum", "outer")


def element(b: Builder, vector: Node, i: int) -> Node:
    """`vector[i]`, a number."""
    return b.view(b.block(vector, (i % vector.shape[0],), (1,)), ())


def place_of(node: Node) -> tuple[Node, int] | None:
    """The vector and the position of a number that `element` has made; None of others."""
    of = node.inputs[0] if node.op in VIEWS and node.shape == () else node
    if of.op == "part" and of.shape == (1,):
        return of.inputs[0], of.attrs[0]
    if of.kind == ONCE and of.op != "part" and of.shape == (1,) and of is not node:
        return of, 0  # a vector of one element is its own part
    return None


def selected(b: Builder, read: list[Node], call: Call) -> Node | None:
    """The node of `aten.select.int` on a vector; None of other calls."""
    (vector,), args = read, call.args
    is_vector = vector.kind == ONCE and len(vector.shape) == 1 and len(args) == 3
    return element(b, vector, args[2]) if is_vector else None


def of_element(b: Builder, r: Recording, call: Call, read: list[Node]) -> Node | None:
    """A function of elements at one position, as the element of a function of vectors.

    None of other calls.
    """
    if call.name not in _OF_ELEMENTS or call.kwargs:
        return None
    places = [place for place in map(place_of, read) if place is not None]
    if not places or len(places) < len(read):
        return None
    vectors, positions = zip(*places, strict=True)
    alike = len({*positions}) == len({v.shape for v in vectors}) == 1
    dtypes = {r.dtypes[i] for i in (*call.refs, *call.outs) if i is not None}
    shape = vectors[0].shape
    if not alike or len(dtypes) > 1 or shape[0] > LONGEST:
        return None
    given = iter(vectors)
    args = [a if isinstance(a, (int, float)) else next(given) for a in call.args]
    if next(given, None) is not None:
        return None
    return element(b, b.call(call.name, *args, shape=shape), positions[0])


# ---- gradients


def gathered(b: Builder, gradient: Node) -> Node:
    """The gradient of a captured tensor with fewer terms: sums of one form are collected as one."""
    terms = _terms(gradient)
    groups: dict[Any, list[tuple[Node, Node]]] = {}  # chain → the terms, and their sums
    chains: dict[Any, list[tuple[str, Any]]] = {}
    for term in terms:
        chain, collected = _parted(b, term)
        key = (
            [(name, of.index if isinstance(of, Node) else repr(of)) for name, of in chain],
            collected.op,
            collected.shape,
        )
        groups.setdefault(repr(key), []).append((term, collected))
        chains[repr(key)] = chain
    total: list[Node] = []
    for key, group in groups.items():
        merged = _merged(b, [collected for _, collected in group])
        if merged is None or (chains[key] and not _covers(merged)):
            total += [term for term, _ in group]
            continue
        node = b.view(merged, gradient.shape)
        for name, of in reversed(chains[key]):
            operands = [node] if of is None else [node, of]
            node = b.call(name, *operands, shape=gradient.shape, kind=SUM)
        total.append(node)
    if len(total) == len(terms):
        return gradient
    add = functools.partial(b.call, "aten.add.Tensor", shape=gradient.shape, kind=SUM)
    return functools.reduce(add, total)


def _terms(node: Node) -> list[Node]:
    is_sum = node.op == "aten.add.Tensor" and len(node.inputs) == 2
    if is_sum and all(n.kind == SUM and n.shape == node.shape for n in node.inputs):
        return [term for n in node.inputs for term in _terms(n)]
    return [node]


def _parted(b: Builder, term: Node) -> tuple[list[tuple[str, Any]], Node]:
    """A term as linear functions, the last one first, of a sum that is collected.

    For the gradient of an element these are functions of whole vectors.
    """
    node, chain, at = _unviewed(term), list[tuple[str, Any]](), None
    if node.op == "aten.select_backward.default" and len(term.shape) == 1:
        (slots, _), _ = node.attrs
        at = slots[3] % term.shape[0]
        node = _unviewed(node.inputs[0])
        while node.op in _LINEAR and not node.attrs[0][1]:
            found = _linear(node, at, term.shape)
            if found is None:
                return [], term
            chain.append((node.op, found[1]))
            node = _unviewed(found[0])
        if node.op != "column_sum" or node.shape != (1, 1):
            return [], term
        places = tuple([(0, at)] * len(node.inputs))
        node = b.node("column_sum", node.inputs, places, SUM, (1, *term.shape))
    return (chain, node) if node.op in _COLLECTED else ([], term)


def _linear(node: Node, at: int, shape: tuple[int, ...]) -> tuple[Node, Any] | None:
    """The sum that a function is linear in, and its other operand; None of other functions."""
    (slots, _), _ = node.attrs
    if len(slots) == 1:
        return node.inputs[0], None
    first, second = [node.inputs[s.index] if isinstance(s, Slot) else s for s in slots]
    if not isinstance(first, Node) or first.kind != SUM:
        if node.op == "aten.div.Tensor":
            return None
        first, second = second, first
    if not isinstance(first, Node) or first.kind != SUM or first.shape != ():
        return None
    if not isinstance(second, Node):
        return first, second
    if second.kind != ONCE or second.shape != ():
        return None
    place = place_of(second)
    is_element = place is not None and place[1] == at and place[0].shape == shape
    return first, place[0] if place is not None and is_element else second


def _unviewed(node: Node) -> Node:
    while node.op in VIEWS:
        node = node.inputs[0]
    return node


def _merged(b: Builder, sums: list[Node]) -> Node | None:
    """The total of sums in one accumulator; None if there cannot be one."""
    if sums[0].op not in _COLLECTED:
        return None
    return functools.reduce(lambda a, other: b.add_sums(a, other) or a, sums)


def _covers(collected: Node) -> bool:
    """Whether terms go into each column: others would be 0 · inf where autograd has no gradient."""
    return {column for _, column in collected.attrs} == {*range(collected.shape[1])}
