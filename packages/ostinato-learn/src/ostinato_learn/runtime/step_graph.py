"""`StepGraph`: one step of a network as a value, in memory and in a file.

A step is a list of nodes (`compiler/graph/node.py`), each named by its operation. Its weights are
nodes of the kind `once`:

    tensor      a tensor of model.safetensors; attrs: its name
    transpose   of a matrix
    part        columns of a vector; attrs: the first one
    block       rows and columns of a matrix; attrs: the first row, the first column

Operations on rows are those of `engine/ops.py` and, by the same names, of `compiler/graph/node.py`.
In a file a node is {"op", "inputs", "attrs", "kind", "shape"}, its inputs the places of earlier
nodes in the list. Numbers that JSON lacks are the strings "inf", "-inf" and "nan". A graph is
checked when it is read, and trusted afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ostinato.internal import MAX_WIDTH, ONCE, OPS, ROWS, Node, reachable
from ostinato_learn.runtime.values import entries, fail, items, whole

OPSET = 1  # raised at a release if operations were added or changed
MAX_NODES = 1 << 14
MAX_COLUMNS = 1 << 24  # of all nodes together: 64 MB for a row

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # of tensors, by name


@dataclass(frozen=True, eq=False)
class StepGraph:
    """One step: rows `[B, width]` in and out. Without states it is a map.

    Attributes:
        inputs: nodes `x`, each with its position in attrs.
        states: nodes `state`, the carry before the step; zeros before the first one.
        new_states: the carry after it, as wide as `states`.
        outputs: the results of the step besides the carry.
        joints: in composed steps, copies of the values that one step passes to the next; sums after
            a joint are computed as if it were an input, so that composing changes no bit.
    """

    inputs: tuple[Node, ...]
    states: tuple[Node, ...]
    new_states: tuple[Node, ...]
    outputs: tuple[Node, ...]
    joints: frozenset[Node] = field(default=frozenset())

    @cached_property
    def nodes(self) -> list[Node]:
        """Inputs, states and all that the results are computed from, in order of computing."""
        return reachable([*self.inputs, *self.states, *self.new_states, *self.outputs])

    @cached_property
    def tensors(self) -> dict[str, Shape]:
        """The tensors that the step reads: name → shape."""
        return {n.attrs[0]: n.shape for n in self.nodes if n.op == "tensor"}

    @property
    def multiplies(self) -> int:
        """Multiplications by weights, for one row."""
        return sum(n.inputs[0].width * n.width for n in self.nodes if n.op == "matmul")

    def as_json(self) -> dict[str, Any]:
        """The graph as plain values; nodes refer to one another by their places in the list."""
        place = {n: i for i, n in enumerate(self.nodes)}

        def places(nodes: Sequence[Node]) -> list[int]:
            return [place[n] for n in nodes]

        nodes = [
            {
                "op": n.op,
                "inputs": places(n.inputs),
                "attrs": [_attr_as_json(a) for a in n.attrs],
                "kind": n.kind,
                "shape": list(n.shape),
            }
            for n in self.nodes
        ]
        return {
            "inputs": [n.width for n in self.inputs],
            "states": [n.width for n in self.states],
            "nodes": nodes,
            "new_states": places(self.new_states),
            "outputs": places(self.outputs),
        }

    @staticmethod
    def from_json(value: Any, tensors: Shapes, where: str = "step") -> StepGraph:
        """The reverse of `as_json`.

        Args:
            value: any JSON value.
            tensors: the shapes of the existing tensors, by name.
            where: the origin of the value, for errors.

        Raises:
            ValueError: it is not a step graph that this version knows, or reads other tensors.
        """
        reader = _Reader(value, tensors, where)
        new_states = reader.results("new_states")
        if [n.width for n in new_states] != reader.widths["state"]:
            fail(f"{where}: new_states are not as wide as states")
        outputs = reader.results("outputs")
        return StepGraph(reader.given["x"], reader.given["state"], new_states, outputs)


def _attr_as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, (str, int)) or math.isfinite(value) else str(value)


class _Reader:
    """Nodes from JSON, one after the other."""

    def __init__(self, value: Any, tensors: Shapes, where: str):
        self.where = where
        self.tensors = tensors
        names = {"inputs", "states", "nodes", "new_states", "outputs"}
        self.value = entries(value, where, names)
        self.widths = {
            op: [whole(w, f"{where}: {name}", 1, MAX_WIDTH) for w in self.list(name)]
            for op, name in (("x", "inputs"), ("state", "states"))
        }
        given: dict[tuple[str, int], Node] = {}
        self.nodes: list[Node] = []
        for i, found in enumerate(self.list("nodes")):
            node = self.node(i, found)
            self.nodes.append(node)
            if node.op in self.widths and given.setdefault((node.op, node.attrs[0]), node) != node:
                fail(f"{where}, node {i}: a second {node.op} {node.attrs[0]}")
        if sum(n.width for n in self.nodes if n.kind == ROWS) > MAX_COLUMNS:
            fail(f"{where}: its values have more than {MAX_COLUMNS:,} columns")
        n_given = sum(map(len, self.widths.values()))
        if len(given) != n_given:
            fail(f"{where}: {len(given)} nodes are inputs or states; wanted {n_given}")
        self.given = {
            op: tuple([given[op, i] for i in range(len(widths))])
            for op, widths in self.widths.items()
        }

    def list(self, name: str) -> list[Any]:
        return items(self.value[name], f"{self.where}: {name}", MAX_NODES)

    def results(self, name: str) -> tuple[Node, ...]:
        where = f"{self.where}: {name}"
        nodes = [self.earlier(i, where) for i in self.list(name)]
        if any(n.kind != ROWS for n in nodes):
            fail(f"{where} has a node that is not of the kind rows")
        return tuple(nodes)

    def earlier(self, i: Any, where: str) -> Node:
        return self.nodes[whole(i, where, 0, len(self.nodes) - 1)]

    def node(self, i: int, value: Any) -> Node:
        where = f"{self.where}, node {i}"
        value = entries(value, where, {"op", "inputs", "attrs", "kind", "shape"})
        op, kind = value["op"], value["kind"]
        check = _CHECKS.get(op) if isinstance(op, str) else None
        if check is None:
            fail(f"{where}: opset {OPSET} has no operation {op!r}; a newer ostinato may have it")
        inputs = [
            self.earlier(j, f"{where}: inputs")
            for j in items(value["inputs"], f"{where}: inputs", MAX_NODES)
        ]
        shape = [
            whole(n, f"{where}: shape", 1, MAX_WIDTH)
            for n in items(value["shape"], f"{where}: shape", 2)
        ]
        attrs = tuple(items(value["attrs"], f"{where}: attrs", MAX_NODES))
        if op in _WITH_SCALAR or (op == "spread" and len(attrs) == 1):
            attrs = tuple([_number_from(a, where) for a in attrs])
        elif op == "take":
            attrs = tuple([tuple(items(run, f"{where}: attrs", 3)) for run in attrs])
        node = Node(op, tuple(inputs), attrs, kind, tuple(shape), i)
        if not check(self, node):
            fail(f"{where}: {op} of {[n.shape for n in inputs]} with {attrs} is no {kind}{shape}")
        return node


def _number_from(value: Any, where: str) -> float:
    number = type(value) is float or (type(value) is int and abs(value) <= MAX_WIDTH)
    if not number and value not in ("inf", "-inf", "nan"):
        fail(f"{where}: attrs has {str(value)[:60]!r}; wanted a number")
    return float(value)


# ---- conditions of a valid node, by operation


def _whole_attrs(n: Node, count: int) -> bool:
    return len(n.attrs) == count and all(type(a) is int and 0 <= a <= MAX_WIDTH for a in n.attrs)


def _reads_memory(n: Node) -> bool:
    """Whether the inputs of n are in memory, unlike constants."""
    return all(i.op != "const" for i in n.inputs)


def _is_rows(n: Node, count: int | None) -> bool:
    """Whether n is rows, with this number of inputs that are rows."""
    right = count is None or len(n.inputs) == count
    return right and n.kind == ROWS and len(n.shape) == 1 and _all_rows(n.inputs)


def _all_rows(nodes: Sequence[Node]) -> bool:
    return all(i.kind == ROWS for i in nodes)


def _given(reader: _Reader, n: Node) -> bool:
    widths = reader.widths[n.op]
    known = _is_rows(n, 0) and _whole_attrs(n, 1) and n.attrs[0] < len(widths)
    return known and widths[n.attrs[0]] == n.width


def _has_scalar(n: Node) -> bool:
    return len(n.attrs) == 1


def _elementwise(reader: _Reader, n: Node) -> bool:
    right = n.kind == ROWS and len(n.shape) == 1 and len(n.inputs) == OPS[n.op].arity
    flat = all(len(i.shape) == 1 for i in n.inputs)  # rows, or a vector
    if not (right and flat and _has_scalar(n)):
        return False
    widths = {i.width for i in n.inputs}
    return n.width == max(widths) and widths <= {1, n.width}


def _slice(reader: _Reader, n: Node) -> bool:
    known = _is_rows(n, 1) and _whole_attrs(n, 1) and _reads_memory(n)
    return known and n.attrs[0] + n.width <= n.inputs[0].width


def _concat(reader: _Reader, n: Node) -> bool:
    return _is_rows(n, None) and not n.attrs and n.width == sum(i.width for i in n.inputs)


def _matmul(reader: _Reader, n: Node) -> bool:
    if len(n.inputs) != 2 or n.kind != ROWS or n.attrs or not _reads_memory(n):
        return False
    a, w = n.inputs
    return a.kind == ROWS and w.kind == ONCE and w.shape == (a.width, *n.shape)


def _spread(reader: _Reader, n: Node) -> bool:
    """`[outer, inner]` to `[outer, times, inner]`; by default of one column."""
    if n.kind != ROWS or len(n.shape) != 1 or len(n.inputs) != 1 or len(n.inputs[0].shape) != 1:
        return False
    source = n.inputs[0].width
    if len(n.attrs) == 1:
        return source == 1
    return _is_axis(n) and n.width == source * n.attrs[0] and source % n.attrs[1] == 0


def _reduction(reader: _Reader, n: Node) -> bool:
    """`[outer, times, inner]` to `[outer, inner]`; by default all of a row."""
    if not (_is_rows(n, 1) and _reads_memory(n)):
        return False
    if not n.attrs:
        return n.width == 1
    return _is_axis(n) and n.inputs[0].width == n.width * n.attrs[0] and n.width % n.attrs[1] == 0


def _is_axis(n: Node) -> bool:
    return _whole_attrs(n, 2) and min(n.attrs) > 0


def _take(reader: _Reader, n: Node) -> bool:
    """Elements start, start + step, … of runs (start, count, step); zeros where start is −1."""
    if not (_is_rows(n, 1) and _reads_memory(n)):
        return False
    total, there = 0, n.inputs[0].width
    for run in n.attrs:
        if len(run) != 3 or not all(type(i) is int and abs(i) <= MAX_WIDTH for i in run):
            return False
        start, count, step = run
        last = start + (count - 1) * step
        inside = 0 <= start < there and 0 <= last < there
        if count < 1 or not (inside or (start, step) == (-1, 0)):
            return False
        total += count
    return total == n.width


def _product(reader: _Reader, n: Node) -> bool:
    """`[groups, M, K]` times `[groups, K, N]`, or times the transpose of `[groups, N, K]`."""
    known = n.kind == ROWS and len(n.shape) == 1 and len(n.inputs) == 2 and _reads_memory(n)
    if not known or len(n.attrs) != 5 or type(n.attrs[4]) is not bool:
        return False
    if not all(type(i) is int and 1 <= i <= MAX_WIDTH for i in n.attrs[:4]):
        return False
    groups, M, K, N = n.attrs[:4]
    wanted = [(groups * M * K,), (groups * K * N,)]
    return [i.shape for i in n.inputs] == wanted and n.width == groups * M * N


def _tensor(reader: _Reader, n: Node) -> bool:
    known = n.kind == ONCE and not n.inputs and len(n.attrs) == 1 and isinstance(n.attrs[0], str)
    return known and reader.tensors.get(n.attrs[0]) == n.shape and len(n.shape) in (1, 2)


def _of_once(n: Node, n_axes: int) -> bool:
    known = n.kind == ONCE and len(n.inputs) == 1 and n.inputs[0].kind == ONCE
    return known and len(n.shape) == len(n.inputs[0].shape) == n_axes


def _transpose(reader: _Reader, n: Node) -> bool:
    known = _of_once(n, 2) and not n.attrs and n.shape == n.inputs[0].shape[::-1]
    return known and n.inputs[0].op == "tensor"


def _cut(n: Node, n_axes: int) -> bool:
    whole_one = _of_once(n, n_axes) and n.inputs[0].op in ("tensor", "transpose")
    if not (whole_one and _whole_attrs(n, n_axes)):
        return False
    bounds = zip(n.attrs, n.shape, n.inputs[0].shape, strict=True)
    return all(first + size <= there for first, size, there in bounds)


_WITH_SCALAR = {*OPS, "const"}
_CHECKS: dict[str, Callable[[_Reader, Node], bool]] = {
    **{name: _elementwise for name, op in OPS.items() if op.arity},
    "x": _given,
    "state": _given,
    "const": lambda r, n: _is_rows(n, 0) and _has_scalar(n),
    "spread": _spread,
    "slice": _slice,
    "concat": _concat,
    "matmul": _matmul,
    "row_sum": _reduction,
    "row_max": _reduction,
    "take": _take,
    "product": _product,
    "tensor": _tensor,
    "transpose": _transpose,
    "part": lambda r, n: _cut(n, 1),
    "block": lambda r, n: _cut(n, 2),
}
