"""Playing the plans of a recorded step on tensors: what `scan`'s autograd function calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.compiler.graph import SUM, Node, Slot
from ostinato.compiler.passes import Lowered, SumPart
from ostinato.compiler.plan import Planner
from ostinato.engine import native

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

    player: Player
    tensors: dict[str, Tensor]  # x…, init…, carry…, tape…
    once: dict[Node, Tensor]
    plan: Any
    n_steps: int
    n_rows: int
    rows: Rows | None

    def __del__(self) -> None:
        self.player.take_back(self)


class Player:
    """One recorded step, ready to be played."""

    def __init__(self, planner: Planner, dtype: torch.dtype, engine: str):
        self.planner = planner
        self.dtype = dtype
        self.engine = engine  # "native" or "reference"
        self._bound: dict[int, _Bound] = {}
        self._spare: dict[Any, list[Tensor]] = {}

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
            tensors[name] = self._tape((n_steps, n_rows, (width + 15) // 16 * 16))
        once: dict[Node, Tensor] = {}
        self._play(plan.lowered, tensors, captured, once, n_steps, n_rows, rows)
        ys = []
        for i, leaf_index in enumerate(plan.y_is_carry):
            if leaf_index is None:
                y = tensors[f"y{i}"]
            else:
                carry = tensors[f"carry{leaf_index}"]
                y = _detached_view(carry[:-1] if reverse else carry[1:])
                if leaf_index in plan.y_is_carry[:i]:  # outputs share no memory
                    y = y.clone()
            ys.append(
                y
                if rows is None
                else rows.restored(y, zero_at_end=reverse and leaf_index is not None)
            )
        # Outputs stay out of the tape: they hold the graph, and the graph holds the tape.
        kept = {name: t for name, t in tensors.items() if not name.startswith(("y", "final"))}
        return ys, finals, Tape(self, kept, once, plan, n_steps, n_rows, rows)

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
        once = dict(tape.once)
        bound = self._bind(plan.lowered)
        sums = {name: bound.new_sum(name, node) for name, node in plan.sum_nodes.items()}
        self._play(plan.lowered, tensors, captured, once, tape.n_steps, tape.n_rows, rows, sums)
        d_captured: list[Tensor | None] = []
        for node in plan.sums:
            d_captured.append(None if node is None else bound.gradient(node, sums, captured, once))
        if rows is not None:
            d_xs = [None if d is None else d.index_select(1, rows.inverse) for d in d_xs]
        return d_captured, d_init, d_xs

    def _new(self, shape: tuple[int, ...], rows: Rows | None) -> Tensor:
        make = torch.empty if rows is None else torch.zeros  # beyond a row's length: zero
        return make(shape, dtype=self.dtype)

    def _tape(self, shape: tuple[int, ...]) -> Tensor:
        """Memory for saved values: what the last call gave back, if it fits (new pages cost)."""
        try:
            return self._spare[shape].pop()
        except (KeyError, IndexError):
            return torch.empty(shape, dtype=self.dtype)

    def take_back(self, tape: Tape) -> None:
        kept: dict[Any, list[Tensor]] = {}
        for name in tape.plan.lowered.tapes:
            t = tape.tensors[name]
            kept.setdefault(tuple(t.shape), []).append(t)
        self._spare = kept  # of the last call only: memory stays bounded

    def _bind(self, lowered: Lowered) -> _Bound:
        bound = self._bound.get(id(lowered))
        if bound is None:
            bound = self._bound[id(lowered)] = _Bound(lowered, self.dtype, self.engine)
        return bound

    def _play(
        self,
        lowered: Lowered,
        tensors: dict[str, Tensor],
        captured: Sequence[Tensor],
        once: dict[Node, Tensor],
        n_steps: int,
        n_rows: int,
        rows: Rows | None,
        sums: dict[str, list[Tensor]] | None = None,
    ) -> None:
        bound = self._bind(lowered)
        if self.engine == "reference":
            from ostinato.engine import reference  # for tests: not a part of every start

            reference.play(
                lowered.program,
                [t.detach().numpy() for t in bound.tensors(tensors, captured, once, sums)],
                n_steps,
                n_rows,
                rows.order_list if rows else None,
                rows.lengths_list if rows else None,
            )
            return
        bound.program.play(
            bound.numbers(tensors, captured, once, sums),
            n_steps,
            n_rows,
            rows.order_list if rows else [],
            rows.lengths_list if rows else [],
            native.threads_from_environment() or torch.get_num_threads(),
            native.best_isa(),
        )


class _Bound:
    """A lowered pass with its native program, and how its arguments are found among tensors."""

    def __init__(self, lowered: Lowered, dtype: torch.dtype, engine: str):
        self.lowered = lowered
        self.dtype = dtype
        if engine == "native":
            kind = np.dtype(np.float32 if dtype == torch.float32 else np.float64)
            self.program = native.make(lowered.program, kind)
        self.sizes = {lowered.arguments[g.argument]: (g.K, g.N) for g in lowered.program.gradients}
        self.parts: dict[str, list[SumPart]] = {}
        for key in self.sizes:
            self.parts.setdefault(key.name, []).append(key)

    def numbers(self, tensors: Any, captured: Any, once: Any, sums: Any) -> list[int]:
        """(address, stride, stride) of each argument, in elements; see `native/executor.h`."""
        out: list[int] = []
        for key in self.lowered.arguments:
            if type(key) is str:
                t = tensors[key]
                s = t.stride()
                if key.startswith(_WITHOUT_TIME):
                    out += (t.data_ptr(), 0, s[0])
                else:
                    out += (t.data_ptr(), s[0], s[1])
            elif type(key) is Node:
                if key.op == "aten.t.default" and key.inputs[0].op == "captured":
                    t = captured[key.inputs[0].attrs[0]]
                    s = t.stride()
                    out += (t.data_ptr(), s[1], s[0])
                    continue
                t = self.once_tensor(key, captured, once)
                s = t.stride()
                out += (t.data_ptr(), s[0], s[1]) if len(s) == 2 else (t.data_ptr(), 0, 0)
            else:
                t = sums[key.name][key.layer]
                ld = t.stride(0)
                offset = (key.row * ld + key.column) * t.element_size()
                out += (t.data_ptr() + offset, ld, 1)
        return out

    def tensors(self, tensors: Any, captured: Any, once: Any, sums: Any) -> list[Tensor]:
        """The arguments as tensors."""
        out = []
        for key in self.lowered.arguments:
            if isinstance(key, Node):
                out.append(self.once_tensor(key, captured, once))
            elif isinstance(key, SumPart):
                K, N = self.sizes[key]
                layer = sums[key.name][key.layer]
                out.append(layer[key.row : key.row + K, key.column : key.column + N])
            else:
                out.append(tensors[key])
        return out

    def once_tensor(self, node: Node, captured: Any, once: dict[Node, Tensor]) -> Tensor:
        if node.op == "captured":
            t = captured[node.attrs[0]].detach()
        else:
            t = _evaluate(node, captured, once, self.dtype)
        if t.dim() != 2 and t.stride()[-1:] != (1,):
            t = once[node] = t.contiguous()
        return t

    def new_sum(self, name: str, node: Node) -> list[Tensor]:
        """Tensors to collect a sum in: one for each layer of its parts."""
        parts = self.parts.get(name, [])
        K, N = node.shape
        if parts and parts[0].transposed:
            K, N = N, K
        covered = sum(k * n for k, n in (self.sizes[p] for p in parts))
        if covered == K * N and all(p.layer == 0 for p in parts):
            return [torch.empty((K, N), dtype=self.dtype)]
        n_layers = 1 + max((p.layer for p in parts), default=0)
        return [torch.zeros((K, N), dtype=self.dtype) for _ in range(n_layers)]

    def gradient(
        self, node: Node, sums: dict[str, list[Tensor]], captured: Any, once: dict[Node, Tensor]
    ) -> Tensor:
        """The gradient of a captured tensor, from the sums it is made of."""
        if node in once:
            return once[node]
        name = f"sum{node.index}"
        if name in sums:
            total = sums[name][0]
            for layer in sums[name][1:]:
                total = total + layer
            transposed = bool(self.parts.get(name)) and self.parts[name][0].transposed
            value = total.t() if transposed else total
        elif node.kind == SUM and node.op in ("aten.view.default", "aten._unsafe_view.default"):
            value = self.gradient(node.inputs[0], sums, captured, once).reshape(node.shape)
        elif node.kind == SUM and node.op == "aten.t.default":
            value = self.gradient(node.inputs[0], sums, captured, once).t()
        else:
            for n in node.inputs:
                if n.kind == SUM:
                    self.gradient(n, sums, captured, once)
            value = _evaluate(node, captured, once, self.dtype)
        once[node] = value
        return value


_WITHOUT_TIME = ("init", "final", "d_init", "d_final")  # [B, …]


def _row_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if isinstance(n, int))


def _detached_view(view: Tensor) -> Tensor:
    """The same memory without being a view to autograd, which would tie the base to the graph."""
    own = torch.empty(0, dtype=view.dtype)
    return own.set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


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
