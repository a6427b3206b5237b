"""`equations`: a step graph as formulas, for people.

    s_t = 0.9 * s_{t-1} + 0.1 * tanh(x_t @ into.weight.T + into.bias)

A value that is used once stands where it is used; one that is used twice, or long, has a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ostinato.compiler.graph.node import Node
from ostinato.engine.ops import OPS
from ostinato.runtime.step_graph import StepGraph

LONGEST = 60  # characters of a value without a name

# How closely operators bind: an operand that binds less than its operator needs parentheses.
COMPARED, ADDED, MULTIPLIED, RAISED, ALONE = range(5)


class _Text(NamedTuple):
    text: str
    binds: int = ALONE


_BINARY = {
    "add": ("+", ADDED), "sub": ("-", ADDED), "mul": ("*", MULTIPLIED), "div": ("/", MULTIPLIED),
    "matmul": ("@", MULTIPLIED), "pow": ("**", RAISED), "lt": ("<", COMPARED),
    "le": ("<=", COMPARED), "eq": ("==", COMPARED), "ne": ("!=", COMPARED),
}  # fmt: skip
_WITH_NUMBER = {
    "add_s": ("+", ADDED), "pow_s": ("**", RAISED), "lt_s": ("<", COMPARED),
    "gt_s": (">", COMPARED), "le_s": ("<=", COMPARED), "ge_s": (">=", COMPARED),
    "eq_s": ("==", COMPARED),
}  # fmt: skip
_NUMBER_FIRST = {"mul_s": ("*", MULTIPLIED), "rsub_s": ("-", ADDED), "rdiv_s": ("/", MULTIPLIED)}
_FUNCTIONS_OF_A_NUMBER = {"max_s": "max", "min_s": "min"}


def equations(
    step: StepGraph,
    x: str = "x_t",
    state: str = "s",
    output: str = "y_t",
    short: Callable[[str], str] = str,
) -> list[str]:
    """The new states and outputs of a step, a line for each and for what has a name.

    Args:
        x, state, output: what the inputs, states and outputs are called; with a number behind if
            there are several.
        short: what a tensor is called, by its name.
    """
    return _Lines(step, x, state, output, short).lines


class _Lines:
    """The lines of a step, made in the order of computing."""

    def __init__(
        self, step: StepGraph, x: str, state: str, output: str, short: Callable[[str], str]
    ):
        self.lines: list[str] = []
        self._short = short
        self._known: dict[Node, _Text] = {}
        uses = Counter(i for n in step.nodes for i in n.inputs)
        uses.update([*step.new_states, *step.outputs])
        states = _numbered(state, len(step.states))
        given = dict(zip(step.inputs, _numbered(x, len(step.inputs)), strict=True))
        given |= dict(zip(step.states, [f"{s}_{{t-1}}" for s in states], strict=True))
        results: dict[Node, list[str]] = {}
        for names, nodes in (
            ([f"{s}_t" for s in states], step.new_states),
            (_numbered(output, len(step.outputs)), step.outputs),
        ):
            for name, node in zip(names, nodes, strict=True):
                results.setdefault(node, []).append(name)
        for n in step.nodes:
            self._add(n, given, results.get(n, []), uses[n])

    def _add(self, n: Node, given: Mapping[Node, str], results: list[str], uses: int) -> None:
        if n in given:
            self._known[n] = _Text(given[n])
        else:
            self._known[n] = self._formula(n)
            named = bool(results) or (uses > 1 and n.inputs and n.op not in ("transpose", "copy"))
            if named or len(self._known[n].text) > LONGEST:
                results = results or [f"v{len(self.lines) + 1}"]
        for name in results:
            self.lines.append(f"{name} = {self._known[n].text}")
            self._known[n] = _Text(results[0])

    def _formula(self, n: Node) -> _Text:
        read = [self._known[i] for i in n.inputs]
        if n.op in _BINARY:
            sign, binds = _BINARY[n.op]
            return self._infix(read[0], sign, read[1], binds)
        if n.op in _WITH_NUMBER:
            sign, binds = _WITH_NUMBER[n.op]
            return self._infix(read[0], sign, _number(n.s), binds)
        if n.op in _NUMBER_FIRST:
            sign, binds = _NUMBER_FIRST[n.op]
            return self._infix(_number(n.s), sign, read[0], binds)
        if n.op == "fma":
            product = self._infix(read[0], "*", read[1], MULTIPLIED)
            return self._infix(product, "+", read[2], ADDED)
        if n.op == "const":
            return _number(n.s)
        if n.op == "tensor":
            return _Text(self._short(n.attrs[0]))
        if n.op == "copy":
            return read[0]
        if n.op == "neg":
            return _Text(f"-{_within(read[0], RAISED)}", MULTIPLIED)
        if n.op == "transpose":
            return _Text(f"{_within(read[0], ALONE)}.T")
        if n.op in ("slice", "part", "block"):
            cuts = [f"{a}:{a + w}" for a, w in zip(n.attrs, n.shape, strict=True)]
            every = [":"] if n.op == "slice" else []  # of the rows
            return _Text(f"{_within(read[0], ALONE)}[{', '.join([*every, *cuts])}]")
        if n.op == "concat":
            return _Text(f"[{', '.join(r.text for r in read)}]")
        return self._function(n, read)

    def _function(self, n: Node, read: list[_Text]) -> _Text:
        """An operation by its name, with what it reads and its numbers."""
        arguments = [r.text for r in read]
        if n.op not in OPS:
            arguments += map(str, n.attrs)
        elif n.op.endswith("_s"):
            arguments.append(_number(n.s).text)
        return _Text(f"{_FUNCTIONS_OF_A_NUMBER.get(n.op, n.op)}({', '.join(arguments)})")

    @staticmethod
    def _infix(a: _Text, sign: str, b: _Text, binds: int) -> _Text:
        """a and b with a sign between them; Python would compute them in the same order, but +."""
        left = binds + (binds in (COMPARED, RAISED))
        return _Text(f"{_within(a, left)} {sign} {_within(b, binds + (sign != '+'))}", binds)


def _within(value: _Text, binds: int) -> str:
    return value.text if value.binds >= binds else f"({value.text})"


def _number(value: float) -> _Text:
    return _Text(f"{value:.7g}", ALONE if value >= 0 else MULTIPLIED)


def _numbered(name: str, n: int) -> list[str]:
    """The name, or with several the names: a number stands before what follows "_"."""
    if n == 1:
        return [name]
    head, mark, tail = name.partition("_")
    return [f"{head}{i + 1}{mark}{tail}" for i in range(n)]
