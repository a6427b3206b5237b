"""Saved models in other forms: ONNX, and C.

    onnx/         a model as one ONNX file
    c/            a model as one C file, with a header, a self-test and a report
      program.py  a step graph as instructions over named arrays of constants
      prepare.py  from the caller's input to the network's input
      function.py the body of a C function
      write.py    the text of the C file and its header
      ops.py      the operations of the engine as C expressions
      play.py     the arithmetic of the C file in NumPy, and the bound of its rounding
    parity.py     the differences between an exported model and the runtime

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def once(node: Any, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The value of a node of a step graph that is computed from weights alone, float32."""
    if node.op == "tensor":
        return np.asarray(tensors[node.attrs[0]], np.float32).reshape(node.shape)
    value = once(node.inputs[0], tensors)
    if node.op == "transpose":
        return np.ascontiguousarray(value.T)
    corner = zip(node.attrs, node.shape, strict=True)  # of a part or a block
    return np.ascontiguousarray(value[tuple([slice(at, at + size) for at, size in corner])])
