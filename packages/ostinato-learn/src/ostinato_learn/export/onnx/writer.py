"""Writing an ONNX graph node by node, with new names; each constant is stored once a graph."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.internal import needs

if TYPE_CHECKING:
    import onnx

# TensorProto's numbers of element types.
FLOAT, INT32, INT64, BOOL, DOUBLE = 1, 6, 7, 9, 11
OPSET, IR_VERSION = 18, 8  # read by onnx 1.13, ONNX Runtime 1.14 and OpenVINO 2023.1, and newer


class Writer:
    """The nodes of one graph, in their order; a body of a Scan is a graph of its own.

    Args:
        above: for a body, the writer of the graph around it. Names are unique across both.
    """

    def __init__(self, above: Writer | None = None):
        with needs("ostinato-learn[onnx]", "onnx"):
            import onnx
        self._helper: Any = onnx.helper
        self._numbers: Any = count() if above is None else above._numbers
        self.nodes: list[onnx.NodeProto] = []
        self.operators: list[str] = []  # of each direction of each layer: RNN, GRU, LSTM or Scan
        self._constants: dict[Any, tuple[str, np.ndarray]] = {}  # by type, shape and digest

    # ---- values

    def name(self, kind: str) -> str:
        return f"{kind.lower()}_{next(self._numbers)}"

    def nodes_of(self, op: str, inputs: Sequence[str], n_outputs: int, **attrs: Any) -> list[str]:
        """An operation with several results; an omitted input has the name ""."""
        outputs = [self.name(op) for _ in range(n_outputs)]
        self.nodes.append(self._helper.make_node(op, list(inputs), outputs, outputs[0], **attrs))
        return outputs

    def node(self, op: str, *inputs: str, **attrs: Any) -> str:
        return self.nodes_of(op, inputs, 1, **attrs)[0]

    def called(self, name: str, value: str) -> None:
        """Give a value a second name, as an output of the graph."""
        self.nodes.append(self._helper.make_node("Identity", [value], [name], name))

    def constant(self, value: np.ndarray, kind: str = "constant") -> str:
        """The name of a constant of the graph; equal arrays are stored once."""
        key = (value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = self.name(kind), value
        return self._constants[key][0]

    def number(self, s: float) -> str:
        return self.constant(np.array(s, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    # ---- short forms

    def float(self, truth: str) -> str:
        """1 for true, 0 for false."""
        return self.node("Cast", truth, to=FLOAT)

    def truth(self, a: str) -> str:
        """a ≠ 0."""
        return self.node("Not", self.node("Equal", a, self.number(0)))

    def slice(self, a: str, start: int, stop: int) -> str:
        """Columns start … stop−1 of the last axis."""
        return self.node("Slice", a, self.integers(start), self.integers(stop), self.integers(-1))

    def expand(self, a: str, like: str, width: int) -> str:
        """a broadcast to `width` columns and the leading axes of `like`."""
        leading = self.node("Shape", like, start=0, end=-1)
        shape = self.node("Concat", leading, self.integers(width), axis=0)
        return self.node("Expand", a, shape)

    # ---- the graph

    def graph(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.GraphProto:
        """The graph of the nodes that its outputs need; a body reads nothing of the graph above."""
        from onnx import numpy_helper

        needed = {o.name for o in outputs}
        nodes = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        named = {n: v for n, v in self._constants.values() if n in needed}
        kept = [numpy_helper.from_array(v, n) for n, v in named.items()]
        return self._helper.make_graph(nodes[::-1], name, list(inputs), list(outputs), kept)

    def value(self, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> Any:
        """The description of an input or output of a graph; a string in `shape` is an open size."""
        return self._helper.make_tensor_value_info(name, kind, list(shape))
