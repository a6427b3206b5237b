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
    from ostinato.compiler.plan import ForwardPlan, Planner, Scale


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
    """What the backward pass needs of the forward pass, and how that was played."""

    held: Any  # tensors, and the memory of saved values
    once: dict[Node, Tensor]
    plan: ForwardPlan
    scale: Scale


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
        self._scales: dict[int, Scale] = {}
        # (train, reverse, scale) → …; (y_used, x_wanted, reverse, scale) → …
        self._forward: dict[Any, tuple[ForwardPlan, Bound, Any]] = {}
        self._backward: dict[Any, tuple[Bound, Any, Gradients]] = {}
        recording = planner.graph.recording
        self.y_dtypes = [recording.dtypes[i] for i in recording.ys]
        # The engine computes truth values as 0 and 1: what the step returned is given back.
        self.ys_of_other_types = [i for i, d in enumerate(self.y_dtypes) if d is not dtype]
        self.state_dtypes = [recording.dtypes[i] for i in recording.states]
        self.finals_of_other_types = [i for i, d in enumerate(self.state_dtypes) if d is not dtype]
        needs = recording.output_needs_grad[len(recording.states) :]
        self.ys_without_grad = [i for i, need in enumerate(needs) if not need]
        self._y_shapes = [_row_shape(recording.shapes[i]) for i in recording.ys]
        self._state_shapes = [_row_shape(recording.shapes[i]) for i in recording.states]
        n_xs, n_states, n_ys = len(recording.xs), len(recording.states), len(recording.ys)
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
        n_rows = xs[0].shape[1]
        scale = self._scales.get(n_rows)
        if scale is None:
            scale = self._scales[n_rows] = self.planner.scale(n_rows)
        key = train, reverse, scale
        plan, bound, played = self._forward.get(key) or self._make_forward(key)
        once: dict[Node, Tensor] = {}
        order, lengths = (rows.order, rows.ordered_lengths) if rows else ([], [])
        n_threads = native.threads_from_environment() or torch.get_num_threads()
        ys, finals, tape = played.play(
            captured, init, xs, bound.once(captured, once), order, lengths, n_threads,
            native.best_isa(),
        )  # fmt: skip
        for i in plan.repeated:  # outputs share no memory
            ys[i] = ys[i].clone()
        if rows is not None and reverse:
            for i, leaf_index in enumerate(plan.y_is_carry):
                if leaf_index is not None:
                    ys[i] = rows.silenced(ys[i])
        return ys, finals, Tape(tape, once, plan, scale)

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
        key = tuple([d is not None for d in d_ys]), x_wanted, reverse, tape.scale
        bound, played, gradients = self._backward.get(key) or self._make_backward(key, tape.plan)
        once = dict(tape.once)
        sums, d_init, d_xs = played.play(
            tape.held, captured, bound.once(captured, once), d_ys, d_finals, init_wanted,
            native.best_isa(),
        )  # fmt: skip
        return gradients.of(sums, captured, once), d_init, d_xs

    def _make_forward(self, key: tuple[bool, bool, Scale]) -> tuple[ForwardPlan, Bound, Any]:
        plan = self.planner.forward(*key)
        tapes = plan.lowered.tapes
        bound = Bound(plan.lowered, self._forward_at, tapes, None, self.dtype, self.engine)
        played = native.forward_pass(
            bound.program,
            bound.sources,
            self.dtype,
            state_shapes=self._state_shapes,
            y_shapes=self._y_shapes,
            keeps=plan.keeps,
            y_is_carry=[-1 if i is None else i for i in plan.y_is_carry],
            reverse=key[1],
            tape_width=bound.tape_width,
        )
        made = self._forward[key] = plan, bound, played
        return made

    def _make_backward(self, key: Any, forward: ForwardPlan) -> tuple[Bound, Any, Gradients]:
        """forward: the pass whose tape it reads."""
        y_used, x_wanted, reverse, scale = key
        plan = self.planner.backward(y_used, x_wanted, forward, reverse, scale)
        gradients, tapes = Gradients(plan, self.dtype), forward.lowered.tapes
        at = self._backward_at
        bound = Bound(plan.lowered, at, tapes, gradients, self.dtype, self.engine)
        played = native.backward_pass(
            bound.program, bound.sources, self.dtype, plan.d_xs, gradients.sums
        )
        made = self._backward[key] = bound, played, gradients
        return made


def _positions(counts: dict[str, int]) -> dict[str, int]:
    """Of x0, x1, …, init0, … in a list of them all."""
    names = [f"{name}{i}" for name, count in counts.items() for i in range(count)]
    return {name: i for i, name in enumerate(names)}


def _row_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if isinstance(n, int))
