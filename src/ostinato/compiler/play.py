"""Playing the plans of a recorded step on tensors: what `scan`'s autograd function calls."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.bind import Bound
from ostinato.compiler.gradients import Gradients
from ostinato.compiler.graph import Node
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.compiler.plan import BackwardPlan, ForwardPlan, Planner

# Below this many rows the products of xs are taken ahead of the loop, for many steps at once: a
# handful of rows does not fill the register tiles, and reloads the weights for each.
HOIST_BELOW = 16


@dataclass(frozen=True)
class Rows:
    """How the rows of a ragged batch lie in the engine: by length, dealt to groups like cards."""

    lengths: Tensor  # [B], of the caller's rows
    order: list[int]  # the engine's row → the caller's row; empty: the same
    ordered_lengths: list[int]  # of the engine's rows

    @staticmethod
    def of(lengths: Tensor) -> Rows:
        of_row: list[int] = lengths.tolist()
        if len(set(of_row)) == 1:
            return Rows(lengths, [], of_row)
        by_length = sorted(range(len(of_row)), key=of_row.__getitem__, reverse=True)
        order = [0] * len(of_row)
        for seat, row in zip(_seats(len(of_row)), by_length, strict=True):
            order[seat] = row
        return Rows(lengths, order, [of_row[row] for row in order])

    def silenced(self, y: Tensor) -> Tensor:
        """The carries before each step `[T, B, …]` as outputs of a scan in reverse.

        A row's first carry lies just beyond its last element, where outputs are zero; the backward
        pass reads it there, so these are copies.
        """
        y = y.clone()
        short = (self.lengths < y.shape[0]).nonzero().flatten()
        y[self.lengths[short], short] = 0
        return y


@functools.lru_cache(maxsize=64)
def _seats(n_rows: int) -> tuple[int, ...]:
    """The engine's rows as they are dealt: the first of each group, the second of each, …

    Every other round goes back from the last group to the first: else the first groups, and the
    thread that plays them, had the longest rows of every round.
    """
    groups = native.n_groups(n_rows)
    begins = [n_rows * g // groups for g in range(groups + 1)]
    members = [list(range(first, end)) for first, end in pairwise(begins)]
    seats: list[int] = []
    for i in range(max(map(len, members))):
        dealt = [group[i] for group in members if i < len(group)]
        seats += dealt if i % 2 == 0 else reversed(dealt)
    return tuple(seats)


@dataclass(eq=False, slots=True)
class Tape:
    """What the backward pass needs of the forward pass."""

    player: Player
    tensors: list[Tensor]  # x…, init…, carry…
    memory: Tensor | None  # of the saved values; None where there are none
    lent: Any  # gives it back when the tape is gone
    once: dict[Node, Tensor]
    plan: ForwardPlan
    n_steps: int
    n_rows: int
    rows: Rows | None
    n_threads: int  # which the order in `memory` depends on

    def holds(self) -> bool:
        """Whether all is as it was played: outputs are the carries that the backward pass reads."""
        return all(carry._version == 0 for carry in self.tensors[self.player.carries])


@functools.cache
def _keep_freed_pages() -> None:
    """Have freed memory stay in the process, for the next call.

    glibc hands a freed piece back to the kernel, and every page of the next one costs a fault: 8 %
    of an LSTM's training. It stops doing so up to the size of the largest piece (below 32 MB) that
    it has seen freed; this one is never touched.
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8, device="cpu")


class Player:
    """One recorded step, ready to be played."""

    def __init__(self, planner: Planner, dtype: torch.dtype, engine: str):
        _keep_freed_pages()
        self.planner = planner
        self.dtype = dtype
        self.engine = engine  # "native" or "reference"
        # (train, reverse, hoist) → …; (y_used, x_wanted, reverse, hoist) → …
        self._forward: dict[Any, tuple[ForwardPlan, Bound]] = {}
        self._backward: dict[Any, tuple[BackwardPlan, Bound, Gradients]] = {}
        self._spare: list[Tensor] = []
        recording = planner.graph.recording
        self.y_dtypes = [recording.dtypes[i] for i in recording.ys]
        # The engine computes truth values as 0 and 1: what the step returned is given back.
        self.ys_of_other_types = [i for i, d in enumerate(self.y_dtypes) if d is not dtype]
        needs = recording.output_needs_grad[len(recording.states) :]
        self.ys_without_grad = [i for i, need in enumerate(needs) if not need]
        self._y_shapes = [_row_shape(recording.shapes[i]) for i in recording.ys]
        self._state_shapes = [_row_shape(recording.shapes[i]) for i in recording.states]
        n_xs, n_states, n_ys = len(recording.xs), len(recording.states), len(recording.ys)
        self.carries = slice(n_xs + n_states, n_xs + 2 * n_states)  # among the tensors of a tape
        taped: dict[str, int] = {"x": n_xs, "init": n_states, "carry": n_states}
        self._forward_at = _positions({**taped, "final": n_states, "y": n_ys})
        self._backward_at = _positions(
            {**taped, "d_y": n_ys, "d_final": n_states, "d_init": n_states, "d_x": n_xs}
        )

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
            init: leaves `[B, …]`; `[1, B, …]` make a last carry that has this axis, too.
            xs: leaves `[T, B, …]`.
            train: whether a backward pass may follow.
        """
        shape, dtype = xs[0].shape, self.dtype
        n_steps, n_rows = shape[0], shape[1]
        key = train, reverse, n_rows < HOIST_BELOW
        plan, bound = self._forward.get(key) or self._make_forward(key)
        tensors: list[Any] = []
        for x in xs:
            tensors.append(_by_rows(x if x.dtype is dtype else x.to(dtype)))
        carries, finals = [], []
        for i, leaf in enumerate(init):
            leaf = leaf.contiguous()
            tensors.append(leaf)
            shown = rows is not None and i in plan.y_is_carry
            carries.append(self._new((n_steps + 1, n_rows, *self._state_shapes[i]), shown))
            finals.append(torch.empty_like(leaf))
        tensors += carries
        ys = []
        for y_shape, leaf_index in zip(self._y_shapes, plan.y_is_carry, strict=True):
            if leaf_index is None:
                ys.append(self._new((n_steps, n_rows, *y_shape), rows is not None))
            else:
                # Not a view to autograd, which would tie the base to the graph; a change in place
                # shows in the base's version. Before the engine drives this code from the caches.
                carry = carries[leaf_index]
                ys.append((carry[:-1] if reverse else carry[1:]).detach())
        memory = lent = None
        if bound.tape_width:
            memory = self._tape(bound.tape_width * n_steps * n_rows)
            lent = native.Lent(self._spare, memory)
        once: dict[Node, Tensor] = {}
        lists = bound.lists([*tensors, *finals, *ys], captured, (), memory, once)
        n_threads = native.threads_from_environment() or torch.get_num_threads()
        self._play(bound, lists, n_steps, n_rows, rows, n_threads)
        for i in plan.repeated:  # outputs share no memory
            ys[i] = ys[i].clone()
        if rows is not None and reverse:
            for i, leaf_index in enumerate(plan.y_is_carry):
                if leaf_index is not None:
                    ys[i] = rows.silenced(ys[i])
        # Outputs stay out of the tape: they hold the graph, and the graph holds the tape.
        tape = Tape(self, tensors, memory, lent, once, plan, n_steps, n_rows, rows, n_threads)
        return ys, finals, tape

    def backward(
        self,
        tape: Tape,
        captured: Sequence[Tensor],
        d_ys: Sequence[Tensor | None],
        d_finals: Sequence[Tensor | None],
        init_wanted: tuple[bool, ...],
        x_wanted: tuple[bool, ...],
        reverse: bool,
    ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """Gradients of captured tensors, of init and of xs; None for those not wanted."""
        tensors: list[Any] = [*tape.tensors]
        y_used = []
        for d in d_ys:
            y_used.append(d is not None)
            tensors.append(None if d is None else _by_rows(d.resolve_neg()))
        key = tuple(y_used), x_wanted, reverse, tape.n_rows < HOIST_BELOW
        found = self._backward.get(key) or self._make_backward(key, tape.plan)
        plan, bound, gradients = found
        d_init: list[Tensor | None] = []
        for i, (d, wanted) in enumerate(zip(d_finals, init_wanted, strict=True), len(x_wanted)):
            tensors.append(None if d is None else d.resolve_neg().contiguous())
            d_init.append(torch.empty_like(tape.tensors[i]) if wanted else None)
        d_xs: list[Tensor | None] = []
        for x, wanted in zip(tape.tensors, plan.d_xs, strict=False):
            d_xs.append(self._new(tuple(x.shape), tape.rows is not None) if wanted else None)
        tensors += d_init
        tensors += d_xs
        once = dict(tape.once)
        sums = gradients.new_sums()
        lists = bound.lists(tensors, captured, sums, tape.memory, once)
        self._play(bound, lists, tape.n_steps, tape.n_rows, tape.rows, tape.n_threads)
        return gradients.of(sums, captured, once), d_init, d_xs

    def _new(self, shape: tuple[int, ...], ragged: bool) -> Tensor:
        make = torch.zeros if ragged else torch.empty  # beyond a row's length: zero
        return make(shape, dtype=self.dtype, device="cpu")

    def _tape(self, size: int) -> Tensor:
        """Memory for saved values: what an earlier call gave back, if it fits (new pages cost)."""
        try:
            memory = self._spare.pop()
        except IndexError:
            return torch.empty(size, dtype=self.dtype, device="cpu")
        if memory.numel() == size:
            return memory
        self._spare.clear()  # of calls of another size: never more is kept than was in use at once
        return torch.empty(size, dtype=self.dtype, device="cpu")

    def _make_forward(self, key: tuple[bool, bool, bool]) -> tuple[ForwardPlan, Bound]:
        plan = self.planner.forward(*key)
        tapes = plan.lowered.tapes
        bound = Bound(plan.lowered, self._forward_at, tapes, None, self.dtype, self.engine)
        made = self._forward[key] = plan, bound
        return made

    def _make_backward(
        self, key: Any, forward: ForwardPlan
    ) -> tuple[BackwardPlan, Bound, Gradients]:
        """forward: the pass whose tape it reads."""
        y_used, x_wanted, reverse, hoist = key
        plan = self.planner.backward(y_used, x_wanted, forward, reverse, hoist)
        gradients, tapes = Gradients(plan, self.dtype), forward.lowered.tapes
        at = self._backward_at
        bound = Bound(plan.lowered, at, tapes, gradients, self.dtype, self.engine)
        made = self._backward[key] = plan, bound, gradients
        return made

    def _play(
        self,
        bound: Bound,
        lists: Any,
        n_steps: int,
        n_rows: int,
        rows: Rows | None,
        n_threads: int,
    ) -> None:
        order, lengths = (rows.order, rows.ordered_lengths) if rows else ([], [])
        if not order and lengths and lengths[0] == n_steps:  # all rows are whole
            lengths = []
        if self.engine == "reference":
            from ostinato.engine import reference  # for tests: not a part of every start

            views = bound.views(lists, n_steps, n_rows)
            arrays = [None if t is None else t.detach().numpy() for t in views]
            program = bound.lowered.program
            reference.play(program, arrays, n_steps, n_rows, order or None, lengths or None)
            return
        bound.program.play(
            bound.sources.addresses(lists, n_steps, n_rows),
            n_steps,
            n_rows,
            order,
            lengths,
            n_threads,
            native.best_isa(),
        )


def _positions(counts: dict[str, int]) -> dict[str, int]:
    """Of x0, x1, …, init0, … in a list of them all."""
    names = [f"{name}{i}" for name, count in counts.items() for i in range(count)]
    return {name: i for i, name in enumerate(names)}


def _row_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if isinstance(n, int))


def _by_rows(x: Tensor) -> Tensor:
    """x `[T, B, …]` with dense rows; time and rows may have any stride."""
    if x.is_contiguous():
        return x
    expected = 1
    for size, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if size != 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x
