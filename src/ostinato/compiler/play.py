"""Playing the plans of a recorded step on tensors: what `scan`'s autograd function calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.compiler.graph import Node, Slot
from ostinato.compiler.lower import Lowered, SumPart
from ostinato.compiler.plan import Planner
from ostinato.engine import native, reference

# Below this many rows the products of xs are taken ahead of the loop, for many steps at once: a
# handful of rows does not fill the register tiles, and reloads the weights for each.
HOIST_BELOW = 16


@dataclass(frozen=True)
class Rows:
    """How the rows of a ragged batch lie in the buffers: by length, dealt to groups like cards."""

    lengths: Tensor  # [B], of the caller's rows
    order: Tensor  # [B]: buffer row → the caller's row
    inverse: Tensor
    order_list: list[int]
    lengths_list: list[int]  # of buffer rows

    def restored(self, y: Tensor, zero_at_end: bool) -> Tensor:
        """y `[T, B, …]` in the caller's order.

        Played in reverse, a row's first carry lies just beyond its last element, where a carry that
        is the output must read zero.
        """
        y = y.index_select(1, self.inverse)
        if zero_at_end:
            short = (self.lengths < y.shape[0]).nonzero().flatten()
            y[self.lengths[short], short] = 0
        return y

    @staticmethod
    def of(lengths: Tensor) -> Rows:
        n = len(lengths)
        groups = native.n_groups(n)
        begins = [n * g // groups for g in range(groups + 1)]
        seats = sorted(
            (row - begins[g], row) for g in range(groups) for row in range(begins[g], begins[g + 1])
        )
        by_length = torch.argsort(lengths, descending=True, stable=True).tolist()
        order = [0] * n
        for (_, seat), row in zip(seats, by_length, strict=True):
            order[seat] = row
        index = torch.tensor(order)
        inverse = torch.empty_like(index)
        inverse[index] = torch.arange(n)
        return Rows(lengths, index, inverse, order, lengths[index].tolist())


@dataclass
class Tape:
    """What the backward pass needs of the forward pass."""

    tensors: dict[str, Tensor]  # x…, carry…, tape…
    once: dict[Node, Tensor]
    plan: Any
    n_steps: int
    n_rows: int
    rows: Rows | None


class Player:
    """One recorded step, ready to be played."""

    def __init__(self, planner: Planner, dtype: torch.dtype, engine: str):
        self.planner = planner
        self.dtype = dtype
        self.engine = engine  # "native" or "reference"
        self._programs: dict[int, Any] = {}

    def forward(
        self,
        captured: Sequence[Tensor],
        init: Sequence[Tensor],
        xs: Sequence[Tensor],
        reverse: bool,
        rows: Rows | None,
        train: bool,
    ) -> tuple[list[Tensor], list[Tensor], Tape]:
        """Outputs `[T, B, …]`, last carry `[B, …]`, and the tape.

        Args:
            xs: leaves `[T, B, …]`.
            train: whether a backward pass may follow.
        """
        n_steps, n_rows = xs[0].shape[0], xs[0].shape[1]
        plan = self.planner.forward(train, reverse, n_rows < HOIST_BELOW)
        tensors: dict[str, Tensor] = {}
        for i, x in enumerate(xs):
            x = x if x.dtype == self.dtype else x.to(self.dtype)
            tensors[f"x{i}"] = _by_rows(x if rows is None else x.index_select(1, rows.order))
        finals = []
        for i, leaf in enumerate(init):
            tensors[f"init{i}"] = leaf.contiguous()
            tensors[f"carry{i}"] = self._new((n_steps + 1, n_rows, *leaf.shape[1:]), rows)
            finals.append(torch.empty_like(tensors[f"init{i}"]))
            tensors[f"final{i}"] = finals[-1]
        shapes = self.planner.graph.recording.shapes
        for i, number in enumerate(self.planner.graph.recording.ys):
            if plan.y_is_carry[i] is None:
                tensors[f"y{i}"] = self._new((n_steps, n_rows, *_row_shape(shapes[number])), rows)
        for name, width in plan.lowered.tapes.items():
            tensors[name] = torch.empty(
                (n_steps, n_rows, (width + 15) // 16 * 16), dtype=self.dtype
            )
        once: dict[Node, Tensor] = {}
        self._play(plan.lowered, tensors, captured, once, n_steps, n_rows, rows)
        ys = []
        for i, leaf_index in enumerate(plan.y_is_carry):
            if leaf_index is None:
                y = tensors[f"y{i}"]
            else:
                carry = tensors[f"carry{leaf_index}"]
                y = carry[:-1] if reverse else carry[1:]
            ys.append(
                y
                if rows is None
                else rows.restored(y, zero_at_end=reverse and leaf_index is not None)
            )
        return ys, finals, Tape(tensors, once, plan, n_steps, n_rows, rows)

    def backward(
        self,
        tape: Tape,
        captured: Sequence[Tensor],
        d_ys: Sequence[Tensor | None],
        d_finals: Sequence[Tensor | None],
        x_wanted: tuple[bool, ...],
        reverse: bool,
    ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """Gradients of captured tensors, of init and of xs."""
        y_used = tuple(d is not None for d in d_ys)
        hoist = tape.n_rows < HOIST_BELOW
        plan = self.planner.backward(y_used, x_wanted, tape.plan, reverse, hoist)
        tensors = dict(tape.tensors)
        rows = tape.rows
        for i, d in enumerate(d_ys):
            if d is not None:
                tensors[f"d_y{i}"] = _by_rows(d if rows is None else d.index_select(1, rows.order))
        d_init: list[Tensor | None] = []
        for i, d in enumerate(d_finals):
            like = tensors[f"init{i}"]
            tensors[f"d_final{i}"] = torch.zeros_like(like) if d is None else d.contiguous()
            out = torch.empty_like(like)
            tensors[f"d_init{i}"] = out
            d_init.append(out)
        d_xs: list[Tensor | None] = []
        for i, wanted in enumerate(plan.d_xs):
            x = tensors[f"x{i}"]
            d_xs.append(self._new(tuple(x.shape), rows) if wanted else None)
            if wanted:
                tensors[f"d_x{i}"] = d_xs[-1]  # type: ignore[assignment]
        sums = {
            name: _SumResult(
                node,
                [a for a in plan.lowered.arguments if isinstance(a, SumPart) and a.name == name],
                self.dtype,
            )
            for name, node in plan.sum_nodes.items()
        }
        once = dict(tape.once)
        self._play(plan.lowered, tensors, captured, once, tape.n_steps, tape.n_rows, rows, sums)
        results: dict[Node, Tensor] = {
            node: sums[name].tensor() for name, node in plan.sum_nodes.items()
        }
        d_captured = [
            None if node is None else _evaluate(node, captured, {**once, **results}, self.dtype)
            for node in plan.sums
        ]
        if rows is not None:
            d_xs = [None if d is None else d.index_select(1, rows.inverse) for d in d_xs]
        return d_captured, d_init, d_xs

    def _new(self, shape: tuple[int, ...], rows: Rows | None) -> Tensor:
        make = torch.empty if rows is None else torch.zeros  # beyond a row's length: zero
        return make(shape, dtype=self.dtype)

    def _play(
        self,
        lowered: Lowered,
        tensors: dict[str, Tensor],
        captured: Sequence[Tensor],
        once: dict[Node, Tensor],
        n_steps: int,
        n_rows: int,
        rows: Rows | None,
        sums: dict[str, _SumResult] | None = None,
    ) -> None:
        bound = []
        for key in lowered.arguments:
            if isinstance(key, Node):
                t = _evaluate(key, captured, once, self.dtype)
                if t.dim() != 2 and t.stride()[-1:] != (1,):
                    t = t.contiguous()
                    once[key] = t
                bound.append(t)
            elif isinstance(key, SumPart):
                assert sums is not None
                bound.append(sums[key.name].part(key, lowered))
            else:
                bound.append(tensors[key])
        if self.engine == "reference":
            reference.play(
                lowered.program, [t.detach().numpy() for t in bound], n_steps, n_rows,
                rows.order_list if rows else None, rows.lengths_list if rows else None,
            )  # fmt: skip
            return
        numbers: list[int] = []
        for t in bound:
            s = t.stride()
            # [slots, B, …]: time and row stride; [K, N] and [B, …]: their two strides; [W]: none
            numbers += [t.data_ptr(), s[0] if s else 0, s[1] if len(s) > 1 else 0]
        for i, key in enumerate(lowered.arguments):
            if isinstance(key, str) and key.startswith(("init", "final", "d_init", "d_final")):
                numbers[3 * i + 2] = numbers[3 * i + 1]  # [B, …]: the row stride comes first
        program = self._programs.get(id(lowered))
        if program is None:
            kind = np.dtype(np.float32 if self.dtype == torch.float32 else np.float64)
            program = self._programs[id(lowered)] = native.make(lowered.program, kind)
        program.play(
            numbers, n_steps, n_rows,
            rows.order_list if rows else [], rows.lengths_list if rows else [],
            native.threads_from_environment() or torch.get_num_threads(), native.best_isa(),
        )  # fmt: skip


class _SumResult:
    """The tensor that a sum is collected in: one for each layer of its parts."""

    def __init__(self, node: Node, parts: list[SumPart], dtype: torch.dtype):
        self.transposed = bool(parts) and parts[0].transposed
        n_layers = 1 + max((p.layer for p in parts), default=0)
        K, N = node.shape
        shape = (N, K) if self.transposed else (K, N)
        self.layers = [torch.zeros(shape, dtype=dtype) for _ in range(n_layers)]

    def part(self, part: SumPart, lowered: Lowered) -> Tensor:
        gradient = next(
            g for g in lowered.program.gradients if lowered.arguments[g.argument] == part
        )
        layer = self.layers[part.layer]
        return layer[part.row : part.row + gradient.K, part.column : part.column + gradient.N]

    def tensor(self) -> Tensor:
        total = self.layers[0]
        for layer in self.layers[1:]:
            total = total + layer
        return total.t() if self.transposed else total


def _row_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if isinstance(n, int))


def _by_rows(x: Tensor) -> Tensor:
    """x `[T, B, …]` with dense rows; time and rows may have any stride."""
    expected = 1
    for size, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if size != 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x


def _evaluate(
    node: Node, captured: Sequence[Tensor], known: dict[Node, Tensor], dtype: torch.dtype
) -> Tensor:
    """A tensor without batch: ATen calls that the recording left to PyTorch."""
    if node in known:
        return known[node]
    if node.op == "captured":
        value = captured[node.attrs[0]].detach()
    elif node.op == "full":
        value = torch.full(node.shape, node.attrs[0], dtype=dtype)
    elif node.op == "zeros":
        value = torch.zeros(node.shape, dtype=dtype)
    elif node.op == "part":
        start = node.attrs[0]
        value = _evaluate(node.inputs[0], captured, known, dtype)[start : start + node.width]
    elif node.op == "block":
        r, c = node.attrs
        whole = _evaluate(node.inputs[0], captured, known, dtype)
        value = whole[r : r + node.shape[0], c : c + node.shape[1]]
    else:
        inputs = [_evaluate(n, captured, known, dtype) for n in node.inputs]

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Slot):
                return inputs[leaf.index]
            return [filled(x) for x in leaf] if isinstance(leaf, tuple) else leaf

        (args, kwargs), out = node.attrs
        _, name, overload = node.op.split(".")
        result = getattr(getattr(torch.ops.aten, name), overload)(
            *(filled(a) for a in args), **{k: filled(v) for k, v in kwargs}
        )
        value = result[out] if isinstance(result, (tuple, list)) else result
    known[node] = value
    return value
