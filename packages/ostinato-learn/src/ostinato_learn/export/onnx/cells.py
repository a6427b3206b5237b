"""Recognises steps that are the RNN, GRU or LSTM of ONNX, by proof from their nodes.

A cell is a pattern over the nodes of the new carry. A pattern is

    a text                    a variable: any node, and the same node wherever the text occurs
    (operation, patterns…)    a node of that operation; for add and mul the operands in any order
    (operation, pattern, s)   the same, with this scalar

and the variables of gates must then be *affine*, Σ a W + b over the inputs that the gate may read.
So a user's own step that computes an LSTM is recognised, in whatever order it writes its gates; a
step that differs in one operation becomes a Scan.

Equations: see nn/steps.py, and the operators RNN, GRU and LSTM of the ONNX specification, whose
weights are W `[1, G·H, F]`, R `[1, G·H, H]` and B `[1, 2·G·H]`: biases of W, then of R.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

from ostinato.internal import ONCE, Node
from ostinato_learn.export import once
from ostinato_learn.export.onnx.step import Tensors
from ostinato_learn.runtime.step_graph import StepGraph

Pattern = Any
Found = Mapping[str, Node]


@dataclass(frozen=True)
class OnnxCell:
    """A recurrent operator of ONNX.

    Attributes:
        op: "RNN", "GRU" or "LSTM".
        W, R, B: its weights, `[1, G·H, F]`, `[1, G·H, H]`, `[1, 2·G·H]`.
        states: which states of the step are the operator's, h first.
        attrs: its attributes beside the direction.
    """

    op: str
    W: np.ndarray
    R: np.ndarray
    B: np.ndarray
    states: tuple[int, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hidden_size(self) -> int:
        return self.R.shape[2]


def recognised(step: StepGraph, tensors: Tensors) -> OnnxCell | None:
    """The operator that computes the step, or None.

    The output must be the new h: no operator of ONNX has another.
    """
    states, xs = step.states, step.inputs
    if len(xs) != 1 or len(step.outputs) != 1 or len({n.width for n in states}) != 1:
        return None
    for order in permutations(range(len(states))):
        now = tuple(states[i] for i in order)
        new = tuple(step.new_states[i] for i in order)
        if step.outputs[0] is not new[0]:
            continue
        for of in {1: (_rnn, _gru), 2: (_lstm,)}.get(len(states), ()):
            cell = of(xs[0], now, new, order, tensors)
            if cell is not None:
                return cell
    return None


# ---- the cells


def _rnn(x: Node, now: Any, new: Any, order: tuple[int, ...], tensors: Tensors) -> OnnxCell | None:
    for pattern, name in ((("tanh", "a"), "Tanh"), (("max_s", "a", 0.0), "Relu")):
        for found in matches(pattern, new[0], {}):
            gate = _affine(found["a"], (x, now[0]), tensors)
            if gate is not None:
                return _cell("RNN", [gate], order, activations=[name])
    return None


_Z = ("sigmoid", "z")
_KEEPS = (  # z is the share of the old state
    ("add", "n", ("mul", _Z, ("sub", "h", "n"))),
    ("add", ("mul", ("rsub_s", _Z, 1.0), "n"), ("mul", _Z, "h")),
    ("lerp", "n", "h", _Z),
)
_RENEWS = (  # z is the share of the new one: 1 − σ(a) = σ(−a)
    ("add", "h", ("mul", _Z, ("sub", "n", "h"))),
    ("add", ("mul", ("rsub_s", _Z, 1.0), "h"), ("mul", _Z, "n")),
    ("lerp", "h", "n", _Z),
)


def _gru(x: Node, now: Any, new: Any, order: tuple[int, ...], tensors: Tensors) -> OnnxCell | None:
    h = now[0]
    for sign, patterns in ((1, _KEEPS), (-1, _RENEWS)):
        for found in (f for p in patterns for f in matches(p, new[0], {"h": h})):
            z = _affine(found["z"], (x, h), tensors)
            candidate = _candidate(found["n"], x, h, tensors)
            if z is not None and candidate is not None:
                r, n, after = candidate
                z = _Gate(sign * z.W, sign * z.R, sign * z.Wb, sign * z.Rb)
                return _cell("GRU", [z, r, n], order, linear_before_reset=int(after))
    return None


def _candidate(n: Node, x: Node, h: Node, tensors: Tensors) -> tuple[_Gate, _Gate, bool] | None:
    """The reset gate, the candidate, and whether the gate comes after the product (Cho: before).

    tanh(W x + b + r ⊙ (R h + d)),   or   tanh(W x + b + R (r ⊙ h))
    """
    if n.op != "tanh":
        return None
    terms = _terms(n.inputs[0])
    for i, term in enumerate(terms):
        rest = terms[:i] + terms[i + 1 :]
        for found in matches(("mul", ("sigmoid", "r"), "of_h"), term, {}):
            reset = _affine(found["r"], (x, h), tensors)
            own = _affine_terms(rest, (x, None), n.shape, tensors)
            inner = _affine(found["of_h"], (None, h), tensors)
            if reset is not None and own is not None and inner is not None:
                return reset, _Gate(own.W, inner.R, own.Wb + own.Rb, inner.Wb + inner.Rb), True
        if term.op == "matmul":
            for found in matches(("mul", ("sigmoid", "r"), "h"), term.inputs[0], {"h": h}):
                reset = _affine(found["r"], (x, h), tensors)
                whole = _affine_terms(terms, (x, term.inputs[0]), n.shape, tensors)
                if reset is not None and whole is not None:
                    return reset, whole, False
    return None


def _lstm(x: Node, now: Any, new: Any, order: tuple[int, ...], tensors: Tensors) -> OnnxCell | None:
    h, c = now
    written = ("mul", ("sigmoid", "i"), ("tanh", "g"))
    carried = ("add", ("mul", ("sigmoid", "f"), "c"), written)
    for shown in matches(("mul", ("sigmoid", "o"), ("tanh", "new_c")), new[0], {"new_c": new[1]}):
        for found in matches(carried, new[1], {**shown, "c": c}):
            gates = [_affine(found[name], (x, h), tensors) for name in ("i", "o", "f", "g")]
            if all(g is not None for g in gates):
                return _cell("LSTM", gates, order)
    return None


def _cell(op: str, gates: Sequence[Any], order: tuple[int, ...], **attrs: Any) -> OnnxCell:
    W, R = (np.concatenate([getattr(g, part) for g in gates])[None] for part in ("W", "R"))
    B = np.concatenate([*(g.Wb for g in gates), *(g.Rb for g in gates)])[None]
    return OnnxCell(op, W, R, B, order, attrs)


# ---- gates


@dataclass(frozen=True)
class _Gate:
    """W x + Wb + R h + Rb, with W `[H, F]` and R `[H, H]`; None for an input that it may not
    read."""

    W: Any
    R: Any
    Wb: np.ndarray
    Rb: np.ndarray


Sources = tuple[Node | None, Node | None]  # x and h; None: the gate may not read it


def _affine(node: Node, sources: Sources, tensors: Tensors) -> _Gate | None:
    return _affine_terms(_terms(node), sources, node.shape, tensors)


def _affine_terms(
    terms: Sequence[Node], sources: Sources, shape: tuple[int, ...], tensors: Tensors
) -> _Gate | None:
    """The terms as a gate, if each is a product of a source with weights, or a vector.

    At most one product per source: two would be added in another order than the step's.
    """
    products: dict[Node, np.ndarray] = {}
    vectors: list[np.ndarray] = []
    for term in terms:
        if term.op == "matmul" and term.inputs[0] in sources and term.inputs[0] not in products:
            products[term.inputs[0]] = once(term.inputs[1], tensors).T
        elif term.op == "const":
            vectors.append(np.full(shape, term.s, np.float32))
        elif term.kind == ONCE and term.shape in (shape, (1,)):
            vectors.append(np.broadcast_to(once(term, tensors), shape))
        else:
            return None
    zeros = np.zeros(shape, np.float32)
    first, *rest = vectors or [zeros]
    W, R = (
        products.get(s, np.zeros((shape[0], s.width), np.float32)) if s else None for s in sources
    )
    return _Gate(W, R, first, sum(rest, zeros))


def _terms(node: Node) -> list[Node]:
    """The terms of a sum; a scalar that is added is a constant of width 1."""
    if node.op == "add":
        return [t for n in node.inputs for t in _terms(n)]
    if node.op == "add_s":
        scalar = Node("const", (), (node.s,), node.kind, (1,), -1)
        return [*_terms(node.inputs[0]), scalar]
    return [node]


# ---- patterns


def matches(pattern: Pattern, node: Node, found: Found) -> Iterator[Found]:
    """Each way in which the node matches the pattern, as the nodes of its variables.

    Args:
        found: the variables found so far.
    """
    if isinstance(pattern, str):
        if found.get(pattern, node) is node:
            yield {**found, pattern: node}
        return
    op, *operands = pattern
    if node.op != op:
        return
    scalars = [o for o in operands if isinstance(o, float)]
    operands = [o for o in operands if not isinstance(o, float)]
    if scalars and scalars != [node.s]:
        return
    orders = permutations(operands) if op in ("add", "mul") else (tuple(operands),)
    for order in orders:
        yield from _all(order, node.inputs, found)


def _all(patterns: Sequence[Pattern], nodes: Sequence[Node], found: Found) -> Iterator[Found]:
    if not patterns:
        yield found
        return
    for first in matches(patterns[0], nodes[0], found):
        yield from _all(patterns[1:], nodes[1:], first)
