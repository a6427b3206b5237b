"""Finding a program's arguments among the tensors of a call."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ostinato.compiler.capture.recording import VIEWS
from ostinato.compiler.graph.evaluate import evaluate
from ostinato.compiler.graph.node import Node
from ostinato.engine import native
from ostinato.engine.program import Kind

if TYPE_CHECKING:
    from ostinato.compiler.backward.weight_grads import WeightGradients
    from ostinato.compiler.lower.spec import Lowered

Tensors = Sequence[Tensor | None]

_TENSORS, _GIVEN, _SUMS, _ONCE, _MEMORY = range(5)  # the lists that arguments come from
_WITHOUT_TIME = ("init", "final", "d_init", "d_final")  # [B, …]


class How(IntEnum):
    """The place of an argument in a tensor; see `native/python/how.def`."""

    STRIDED = 0
    VECTOR = 1
    TRANSPOSED = 2
    ROWS = 3
    TAPE = 4
    PART = 5


def _captured_number(node: Node) -> int | None:
    """The captured tensor `[]` behind a node `[1]`: mostly a Python float that changes.

    It is found without `evaluate`, which would take half of a short call's time.
    """
    (source, *_) = node.inputs or (node,)
    if node.op in VIEWS and source.op == "captured" and source.shape == ():
        number: int = source.attrs[0]
        return number
    return None


class Bound:
    """A lowered pass with its native program, and the places of its arguments among tensors.

    Args:
        as_they_are: captured tensors of the engine's type, by position; the others are truth
            values.
        engine: "native" or "reference".
        positions: the position of each named tensor among those of a pass.
        tapes: the widths of the tapes, which are one after the other in memory.
        gradients: the gradients of a backward pass.

    Attributes:
        program: the native program, or a function that plays the reference.
        sources: for each argument its list, its position there, and its place in the tensor.
        tape_width: the width of all tapes together.
    """

    def __init__(
        self,
        as_they_are: Container[int],
        dtype: torch.dtype,
        engine: str,
        lowered: Lowered,
        positions: Mapping[str, int],
        tapes: dict[str, int],
        gradients: WeightGradients | None = None,
    ):
        self.lowered, self.dtype, self._as_they_are = lowered, dtype, as_they_are
        self.tapes: dict[str, tuple[int, int]] = {}  # name → width, and width of those before it
        self.tape_width = 0
        for name, width in tapes.items():
            self.tapes[name] = (width + 15) // 16 * 16, self.tape_width
            self.tape_width += self.tapes[name][0]
        self._once: list[tuple[Node, int | None]] = []  # with its position, if a captured number
        self.sources = [self._find(key, positions, gradients) for key in lowered.arguments]
        self.program: Any
        if engine == "native":
            kind = np.dtype(np.float32 if dtype == torch.float32 else np.float64)
            self.program = native.make(lowered.program, kind)
        else:
            self.program = self._play_reference

    def _find(
        self, key: Any, positions: Mapping[str, int], gradients: WeightGradients | None
    ) -> tuple[int, int, int, int, int]:
        if isinstance(key, Node):
            if self._lies_there(key) and len(key.shape) <= 2:
                how = How.STRIDED if len(key.shape) == 2 else How.VECTOR
                return _GIVEN, key.attrs[0], how, 0, 0
            if key.op == "aten.t.default" and self._lies_there(key.inputs[0]):
                return _GIVEN, key.inputs[0].attrs[0], How.TRANSPOSED, 0, 0
            self._once.append((key, _captured_number(key)))
            return _ONCE, len(self._once) - 1, How.STRIDED, 0, 0
        if not isinstance(key, str):  # a SumPart
            assert gradients is not None
            at = gradients.positions[key.name] + key.layer
            return _SUMS, at, How.PART, key.row * key.n_columns + key.column, key.n_columns
        if key in self.tapes:
            return _MEMORY, 0, How.TAPE, *self.tapes[key]
        how = How.ROWS if key.startswith(_WITHOUT_TIME) else How.STRIDED
        return _TENSORS, positions[key], how, 0, 0

    def _lies_there(self, node: Node) -> bool:
        return node.op == "captured" and node.attrs[0] in self._as_they_are

    def once(self, captured: Tensors, known: dict[Node, Tensor]) -> list[Tensor]:
        """Compute the tensors that depend only on captured tensors; they are added to `known`."""
        if not self._once:  # most often
            return []
        return [
            self._once_tensor(node, captured, known)
            if number is None
            else captured[number].detach().to(self.dtype).view(1)  # type: ignore[union-attr]
            for node, number in self._once
        ]

    def _once_tensor(self, node: Node, captured: Any, known: dict[Node, Tensor]) -> Tensor:
        t = captured[node.attrs[0]] if node.op == "captured" else evaluate(node, captured, known)
        if t.dtype is not self.dtype:  # truth values, which the engine computes as 0 and 1
            return t.to(self.dtype).contiguous()
        if t.dim() != 2 and t.stride()[-1:] != (1,):
            t = known[node] = t.detach().contiguous()
        return t

    def _play_reference(
        self,
        lists: Any,
        n_steps: int,
        n_rows: int,
        rows: list[int],
        lengths: list[int],
        first: bool,
    ) -> None:
        from ostinato.engine import reference  # for tests: not a part of every start

        views = self._views(lists, n_steps, n_rows)
        arrays = [None if t is None else t.detach().numpy() for t in views]
        program, order = self.lowered.program, rows or None
        reference.play(program, arrays, n_steps, n_rows, order, lengths or None, first)

    def _views(self, lists: Any, n_steps: int, n_rows: int) -> list[Tensor | None]:
        """The arguments, each as a part of its tensor."""
        sizes = {
            g.argument: (g.N, g.K) if g.transposed else (g.K, g.N)
            for g in self.lowered.program.gradients
        }
        at_all_steps = {b.argument for b in self.lowered.program.buffers if b.kind == Kind.TIME}
        views: list[Tensor | None] = []
        for i, (number, at, how, p, q) in enumerate(self.sources):
            t = lists[number][at]
            if how == How.TAPE:
                rows = n_steps * n_rows
                t = t[q * rows : (q + p) * rows].view(n_steps, n_rows, p)
            elif how == How.PART:
                t = t.as_strided(sizes[i], (q, 1), p)
            elif how == How.ROWS and i in at_all_steps:  # a leaf that the step hands on
                t = t.reshape(n_rows, -1).expand(n_steps, n_rows, -1)
            elif how == How.TRANSPOSED:
                t = t.t()
            views.append(t)
        return views
