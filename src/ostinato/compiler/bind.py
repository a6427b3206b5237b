"""Finding a program's arguments among the tensors of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ostinato.compiler.gradients import Sums
from ostinato.compiler.graph import Node
from ostinato.compiler.once import evaluate
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.compiler.passes import Lowered

# Where an argument comes from: a case of `Bound.numbers`.
_TIME, _ROWS, _TAPE, _MATRIX, _TRANSPOSED, _SUM, _ONCE = range(7)
_WITHOUT_TIME = ("init", "final", "d_init", "d_final")  # [B, …]


class Bound:
    """A lowered pass with its native program, and how its arguments are found among tensors.

    Args:
        tapes: the widths of the tapes that lie one after the other in the tape's memory.
    """

    def __init__(self, lowered: Lowered, tapes: dict[str, int], dtype: torch.dtype, engine: str):
        self.lowered = lowered
        self.dtype = dtype
        if engine == "native":
            kind = np.dtype(np.float32 if dtype == torch.float32 else np.float64)
            self.program = native.make(lowered.program, kind)
        self.sizes = {
            lowered.arguments[g.argument]: (g.N, g.K) if g.transposed else (g.K, g.N)
            for g in lowered.program.gradients
        }
        self.tapes: dict[str, tuple[int, int]] = {}  # name → width, and width of those before it
        self.tape_width = 0
        for name, width in tapes.items():
            self.tapes[name] = (width + 15) // 16 * 16, self.tape_width
            self.tape_width += self.tapes[name][0]
        self.sources = [self._source(key) for key in lowered.arguments]

    def _source(self, key: Any) -> tuple[int, Any]:
        """How the argument is found: a case of `numbers`, and what that needs."""
        if isinstance(key, Node):
            if key.op == "captured" and len(key.shape) == 2:
                return _MATRIX, key.attrs[0]
            if key.op == "aten.t.default" and key.inputs[0].op == "captured":
                return _TRANSPOSED, key.inputs[0].attrs[0]
            return _ONCE, key
        if not isinstance(key, str):  # a SumPart
            return _SUM, (key.name, key.layer, key.row * key.n_columns + key.column, key.n_columns)
        if key in self.tapes:
            return _TAPE, self.tapes[key]
        return (_ROWS if key.startswith(_WITHOUT_TIME) else _TIME), key

    def numbers(
        self,
        tensors: dict[str, Any],
        memory: Tensor,
        captured: Sequence[Tensor],
        once: dict[Node, Tensor],
        sums: Sums | None,
        n_steps: int,
        n_rows: int,
    ) -> list[int]:
        """(address, stride, stride) of each argument, in elements; see `native/executor.h`.

        The first and the last value of a carry may be None: zeros, and not wanted.

        Played with every call: each case is what it needs and no more.
        """
        out: list[int] = []
        for case, key in self.sources:
            if case == _TIME:
                t = tensors[key]
                s = t.stride()
                out += (t.data_ptr(), s[0], s[1])
            elif case == _MATRIX:
                t = captured[key]
                s = t.stride()
                out += (t.data_ptr(), s[0], s[1])
            elif case == _TRANSPOSED:
                t = captured[key]
                s = t.stride()
                out += (t.data_ptr(), s[1], s[0])
            elif case == _ROWS:
                carry = tensors[key]
                out += (0, 0, 0) if carry is None else (carry.data_ptr(), 0, carry.stride()[0])
            elif case == _TAPE:
                width, before = key
                start = before * n_steps * n_rows * memory.element_size()
                out += (memory.data_ptr() + start, n_rows * width, width)
            elif case == _SUM:
                name, layer, offset, n_columns = key
                t = sums[name][layer]  # type: ignore[index]
                out += (t.data_ptr() + offset * t.element_size(), n_columns, 1)
            else:
                t = self.once_tensor(key, captured, once)
                s = t.stride()
                out += (t.data_ptr(), s[0], s[1]) if len(s) == 2 else (t.data_ptr(), 0, 0)
        return out

    def tapes_as_tensors(self, memory: Tensor, n_steps: int, n_rows: int) -> dict[str, Tensor]:
        rows = n_steps * n_rows
        return {
            name: memory[before * rows : (before + width) * rows].view(n_steps, n_rows, width)
            for name, (width, before) in self.tapes.items()
        }

    def tensors(self, tensors: Any, captured: Any, once: Any, sums: Any) -> list[Tensor | None]:
        """The arguments as tensors; None where a carry has none."""
        out: list[Tensor | None] = []
        for key in self.lowered.arguments:
            if isinstance(key, Node):
                out.append(self.once_tensor(key, captured, once))
            elif isinstance(key, str):
                out.append(tensors[key])
            else:
                K, N = self.sizes[key]
                layer = sums[key.name][key.layer].view(-1, key.n_columns)
                out.append(layer[key.row : key.row + K, key.column : key.column + N])
        return out

    def once_tensor(self, node: Node, captured: Any, once: dict[Node, Tensor]) -> Tensor:
        if node.op == "captured":
            t = captured[node.attrs[0]]
        else:
            t = evaluate(node, captured, once, self.dtype)
        if t.dim() != 2 and t.stride()[-1:] != (1,):
            t = once[node] = t.detach().contiguous()
        return t
