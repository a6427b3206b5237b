"""Playing the plans of a recorded step on tensors, for `scan`'s autograd function."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import QUOTIENT, Node
from ostinato.compiler.play.bindings import Bound
from ostinato.compiler.play.parts import place_of_gradient
from ostinato.compiler.play.tape import (
    BoundBackward,
    BoundForward,
    Flags,
    RowOrder,
    SavedForward,
    Tensors,
)
from ostinato.eager import is_integer
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.compiler.capture.recording import Recording
    from ostinato.compiler.plan import Planner, Scale


def _keep_freed_pages() -> None:
    """Make freed memory stay in the process, for the next call.

    glibc returns a freed piece to the kernel, and every page of the next one costs a fault: 8 % of
    an LSTM's training. It stops doing so up to the size of the largest piece (below 32 MB) that was
    freed; this one is never used.
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8, device="cpu")


_keep_freed_pages()


def _without_path(recording: Recording) -> list[tuple[int, bool]]:
    """The given tensors that no gradient ever reaches, each with whether it is a leaf of init.

    They are detached, since hooks on their origins would be called with None.
    """
    if recording.runs_python_backward:  # it may give no gradient, and is a path all the same
        return []
    kinds = (recording.d_captured, False), (recording.d_states, True), (recording.d_xs, False)
    gradients = [(at, of_init) for found, of_init in kinds for at in found]
    return [(i, of_init) for i, (at, of_init) in enumerate(gradients) if at is None]


class CompiledStep:
    """A recorded step, ready to be played."""

    def __init__(self, planner: Planner, small: Recording, dtype: torch.dtype, engine: str):
        """small: the recording on few rows, which other batch sizes are compared with."""
        self.planner, self.small, self.engine = planner, small, engine
        self.tangents: dict[Any, Any] = {}  # the step's jvps: see `tangents.py`
        # Batch size, and whether there are several steps → None if these were compared with the
        # Python loop, or why the Python loop must run them.
        self.verified: dict[tuple[int, bool], Unsupported | None] = {}
        self.y_shapes: list[Any] = []  # of the outputs of one step, if leaves have no batch
        self.dtype = dtype
        self._by_rows: dict[tuple[bool, bool, int], BoundForward] = {}  # train, reverse, rows
        self._forward: dict[tuple[bool, bool, Scale], BoundForward] = {}
        recording = planner.graph.recording
        self.n_captured = len(recording.captured)
        captured = enumerate(recording.captured)
        as_they_are = {at for at, i in captured if recording.dtypes[i] is dtype}
        self._bound = functools.partial(Bound, as_they_are, dtype, engine)
        self.n_states, self.n_ys = len(recording.states), len(recording.ys)
        self.handed_on = tuple(planner.handed_on)  # by the step, not by the engine
        self.without_path = _without_path(recording)
        self.y_spec = recording.y_spec
        # The engine computes truth values as 0 and 1; outputs get the step's types back.
        dtypes = self.out_dtypes = [recording.dtypes[i] for i in (*recording.ys, *recording.states)]
        self._of_other_types = [(i, d) for i, d in enumerate(dtypes) if d is not dtype]
        totals = enumerate(planner.graph.total_ys)
        self.totals = [(i, power) for i, power in totals if power is not None]
        first, given = self.n_captured, (*recording.states, *recording.xs)
        kinds = [recording.dtypes[i] for i in given]
        self._whole = [first + i for i, d in enumerate(kinds) if is_integer(d)]
        self._sized = recording.sized
        halves = {torch.bfloat16, torch.float16}  # the loop rounds after every operation
        self.coarse = not halves.isdisjoint(recording.dtypes)
        self.all_need_grad = not self.without_grad(1, False)  # then after any number of steps
        self.row_shapes = [_row_shape(recording.shapes[i]) for i in recording.ys]
        for i, power in self.totals:
            if power == QUOTIENT:
                self.row_shapes[i] = (2,)  # a row's part of the dividend and of the divisor
        self._state_shapes = [_row_shape(recording.shapes[i]) for i in recording.states]
        n_xs, n, n_ys = len(recording.xs), self.n_states, self.n_ys
        self._forward_at = _positions(x=n_xs, init=n, carry=n, y=n_ys, final=n)
        self._backward_at = _positions(
            x=n_xs, init=n, carry=n, d_y=n_ys, d_final=n, d_init=n, d_x=n_xs
        )

    def without_grad(self, n_steps: int, ragged: bool) -> list[int]:
        """The outputs and last carries without a gradient in the Python loop, after `n_steps`
        steps.

        A counter in the carry needs no gradient; a leaf that takes over another's value needs one a
        step later.
        """
        recording = self.planner.graph.recording
        carry, ys = recording.init_needs_grad, (False,) * self.n_ys
        for _ in range(n_steps):
            needs = [
                of.outside or any(carry[i] for i in of.states) for of in recording.differentiable_in
            ]
            before, carry = carry, tuple(needs[: self.n_states])
            ys = tuple(map(operator.or_, ys, needs[self.n_states :]))
            if ragged:  # a row that has ended keeps its carry
                carry = tuple(map(operator.or_, carry, before))
            if carry == before:
                break
        return [i for i, need in enumerate((*ys, *carry)) if not need]

    def forward(
        self,
        given: Tensors,
        n_rows: int,
        reverse: bool,
        rows: RowOrder | None,
        train: bool,
        as_computed: bool = False,
        n_threads: int | None = None,
        room_steps: int = 0,
        unit_rows: int = 1,
    ) -> tuple[list[Tensor], SavedForward]:
        """Outputs `[T, B, …]` and last carry `[B, …]`, in one list; and the tape.

        Args:
            given: captured tensors; leaves of init, `[B, …]`, or `[1, B, …]` to make a last carry
                that has this axis, too; leaves of xs, `[T, B, …]`.
            train: whether a backward pass may follow.
            as_computed: whether all results have the engine's type, not `out_dtypes`.
            n_threads: the largest number of threads; None: that of PyTorch.
            room_steps: the number of steps that the tape has room for, if there are fewer.
            unit_rows: the rows of a unit, if the backward pass may want sums by unit.
        """
        for i in self._whole:
            low, high = given[i].aminmax()
            self._check_whole(max(-float(low), float(high)))
        way = self.forward_way(train, reverse, n_rows)
        once: dict[Node, Tensor] = {}
        order, lengths = (rows.order, rows.ordered_lengths) if rows else ([], [])
        n_threads = n_threads or native.n_threads(torch.get_num_threads())
        outs, held = way.played.play(
            given,
            way.bound.once(given, once),
            order,
            lengths,
            n_threads,
            native.best_isa(),
            room_steps,
            unit_rows,
        )
        for i in self.handed_on:
            outs[self.n_ys + i].copy_(given[self.n_captured + i])
        if rows is not None and reverse:
            for i, leaf_index in enumerate(way.plan.y_is_carry):
                if leaf_index is not None:
                    outs[i] = rows.silenced(outs[i])
        divisors: dict[int, Tensor] = {}
        for i, power in self.totals:  # sums, or means, over the batch
            if rows is not None:
                raise Unsupported("an output is a sum over the batch, of which some rows ended")
            of_whole = torch.float64 if is_integer(self.out_dtypes[i]) else None
            outs[i] = outs[i].sum(1, dtype=of_whole)
            if power == QUOTIENT:
                outs[i], divisors[i] = outs[i].unbind(-1)
                outs[i] = outs[i] / divisors[i]
            else:
                outs[i] = outs[i] * float(n_rows) ** power
        if self._sized:
            self._check_whole(float(outs[-1].max()))
        for i, dtype in () if as_computed else self._of_other_types:
            outs[i] = outs[i].to(dtype)
        return outs, SavedForward(held, once, way, divisors)

    def _check_whole(self, size: float) -> None:
        """Raise Unsupported if a whole number is too large for the step's type."""
        most = 1 << (24 if self.dtype is torch.float32 else 53)
        if not size < most:  # a rounded one may be just that
            raise Unsupported(
                f"a whole number reaches ±{most}, up to which {self.dtype} is exact: keep "
                "such numbers out of the step, or give it float64"
            )

    def backward(
        self,
        tape: SavedForward,
        given: Tensors,
        grads: Any,
        used: Flags,
        wanted: Flags,
        ragged: bool,
        by_unit: bool = False,
    ) -> list[Tensor | None]:
        """The gradients of the given tensors; None for those not needed or not reached.

        Args:
            grads: of outputs and last carry; None for those not used.
            used: whether each output and leaf of the last carry is.
            wanted: whether the gradient of each tensor given is.
            by_unit: whether those of captured tensors are one for each unit of the tape, `[n, …]`.

        Raises:
            Unsupported: the Python loop must decide. With these outputs unused the graph has
                another form, or a gradient of zeros, where autograd has none, met a pole.
        """
        if self.totals:
            grads = list(grads)
            n_rows = given[-1].shape[1]
            for i, power in self.totals:
                if grads[i] is not None:
                    by = tape.divisors.get(i)
                    g = grads[i] * float(n_rows) ** power if by is None else grads[i] / by
                    grads[i] = g.unsqueeze(1).expand(g.shape[0], n_rows, *g.shape[1:])
        if self._of_other_types:
            grads = [g if g is None or g.dtype is self.dtype else g.to(self.dtype) for g in grads]
        way = self.backward_way(tape.forward, used, wanted, ragged)
        once = dict(tape.once)
        first_x = self.n_captured + self.n_states
        places = [
            place_of_gradient(x, self.dtype) if is_wanted else None
            for x, is_wanted in zip(given[first_x:], wanted[first_x:], strict=True)
        ]
        sums, others = way.played.play(
            tape.held,
            given,
            way.bound.once(given, once),
            grads,
            native.best_isa(),
            d_xs=places,
            by_unit=by_unit,
        )
        of = way.gradients.of_units if by_unit else way.gradients.of
        found = [*of(sums, given, once), *others]
        check_poles(way.flow.risky, found)
        n_steps = 1 if way.flow.settled == 1 else given[-1].shape[0]  # len() takes a µs more
        for i in way.flow.unreached(n_steps):
            found[i] = None
        return found

    def forward_way(self, train: bool, reverse: bool, n_rows: int) -> BoundForward:
        key = train, reverse, n_rows
        return self._by_rows.get(key) or self._make_forward(key)

    def backward_way(
        self, forward: BoundForward, used: Flags, wanted: Flags, ragged: bool
    ) -> BoundBackward:
        """The backward program of a forward one, made at its first use.

        Args:
            forward: the forward program that ran.
            used: for each output and leaf of the last carry, whether it has a gradient.
            wanted: for each tensor, whether its gradient is needed.
            ragged: whether rows have different lengths.
        """
        key = used, wanted, ragged
        return forward.backward.get(key) or self._make_backward(key, forward)

    def _make_forward(self, key: tuple[bool, bool, int]) -> BoundForward:
        train, reverse, n_rows = key
        scale = self.planner.scale(n_rows)
        made = self._forward.get((train, reverse, scale))
        if made is None:
            plan = self.planner.forward(train, reverse, scale)
            bound = self._bound(plan.lowered, self._forward_at, plan.lowered.tapes)
            y_is_carry = [-1 if i is None else i for i in plan.y_is_carry]
            played = native.forward_pass(
                bound.program,
                bound.sources,
                self.dtype,
                self.n_captured,
                self._state_shapes,
                plan.keeps,
                self.row_shapes,
                y_is_carry,
                reverse,
                bound.tape_width,
            )
            made = BoundForward(plan, bound, played, {})
            self._forward[train, reverse, scale] = made
        self._by_rows[key] = made
        return made

    def _make_backward(
        self, key: tuple[Flags, Flags, bool], forward: BoundForward
    ) -> BoundBackward:
        used, wanted, ragged = key
        first_x = self.n_captured + self.n_states
        y_used, x_wanted = used[: self.n_ys], wanted[first_x:]
        flow = self.planner.liveness(y_used, used[self.n_ys :], ragged)
        init_wanted = tuple(map(operator.and_, wanted[self.n_captured : first_x], flow.leaves))
        plan = self.planner.backward(y_used, flow.leaves, x_wanted, init_wanted, forward.plan)
        gradients, tapes = plan.gradients, forward.plan.lowered.tapes
        bound = self._bound(plan.lowered, self._backward_at, tapes, gradients)
        played = native.backward_pass(
            bound.program,
            bound.sources,
            self.dtype,
            self.n_ys,
            init_wanted,
            plan.d_xs,
            gradients.sums,
        )
        forward.backward[key] = BoundBackward(bound, played, gradients, flow)
        return forward.backward[key]


def check_poles(risky: bool, found: Sequence[Tensor | None]) -> None:
    """Raise Unsupported if a gradient of zeros, where autograd has none, met a pole."""
    if risky and any(g is not None and bool(g.isnan().any()) for g in found):
        raise Unsupported("a gradient that autograd does not have met a pole")


def _positions(**counts: int) -> dict[str, int]:
    """The positions of x0, x1, …, init0, … in a list of them all."""
    names = [f"{name}{i}" for name, count in counts.items() for i in range(count)]
    return {name: i for i, name in enumerate(names)}


def _row_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if isinstance(n, int))
