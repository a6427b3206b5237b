"""Plans: a recorded step, lowered for the needs of one call of `scan`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple, TypeVar, cast

from ostinato.compiler import shared
from ostinato.compiler.backward.liveness import Liveness
from ostinato.compiler.backward.rematerialize import KeptValues, choose_stored
from ostinato.compiler.backward.weight_grads import WeightGradients, sums_in
from ostinato.compiler.capture.recording import Recording
from ostinato.compiler.graph.from_aten import Backward, DifferentiableGraph
from ostinato.compiler.graph.node import Node, reachable
from ostinato.compiler.lock import one_at_a_time
from ostinato.compiler.lower.hoist import HOIST_BELOW
from ostinato.compiler.lower.lower import lower
from ostinato.compiler.lower.spec import CarrySpec, Leaf, Lowered, Output, PassSpec
from ostinato.engine import native

F = TypeVar("F", bound=Callable[..., Any])
Flags = tuple[bool, ...]

# Up to this many bytes of a step, if threads share its rows, a carry that is an output is stored
# apart from that output. Otherwise the rows of all threads lie in a page or two, in which a
# processor prefetches what another core is about to write. Measured on an RNN, stored apart: where
# a line takes 190 ns from core to core, up to a fifth less time, at 16 KB a tenth; where it takes
# 40 ns, 1 % less, at 16 KB 1 % more.
SEPARATE_BELOW = 1 << 13


class Scale(NamedTuple):
    """How plans depend on the number of rows."""

    hoist: bool  # products of xs are taken ahead of the loop
    separate: bool  # carries that are outputs are stored in memory of their own


@dataclass(frozen=True, eq=False)  # each is made once, and is a part of keys
class ForwardPlan:
    """A forward program, and the facts needed to play it."""

    reverse: bool
    scale: Scale
    lowered: Lowered
    saved: tuple[Node, ...]  # in the order of lowered.saved
    keeps: Flags  # for each leaf of the carry: whether it is stored at every step
    y_is_carry: tuple[int | None, ...]  # the leaf of the carry that an output is, at every step


@dataclass(frozen=True)
class BackwardPlan:
    """A backward program, and the gradients that it gives."""

    lowered: Lowered
    gradients: WeightGradients
    d_xs: Flags  # for each leaf of xs: whether its gradient is computed


def _once(method: F) -> F:
    """Each result of a method is made once, and kept.

    One thread at a time does this, since a graph's builder is not thread-safe.
    """

    @functools.wraps(method)
    def made(self: Planner, *args: Any) -> Any:
        key = method, *args
        with one_at_a_time:
            if key not in self._made:
                self._made[key] = method(self, *args)
            return self._made[key]

    return cast(F, made)


class Planner:
    """Makes the plans of one recorded step."""

    def __init__(self, recording: Recording, graph: DifferentiableGraph):
        self.recording, self.graph = recording, graph
        self._made: dict[Any, Any] = {}

    def check(self, reverse: bool, n_rows: int) -> None:
        """Lower both passes now, so that Unsupported is raised before anything is played."""
        forward = self.forward(True, reverse, self.scale(n_rows))
        n_ys, n_xs = len(self.graph.forward.ys), len(self.graph.forward.xs)
        leaves = self.all_leaves
        self.backward((True,) * n_ys, leaves, (True,) * n_xs, leaves, forward)

    @property
    def all_leaves(self) -> Flags:
        return (True,) * len(self.graph.forward.states)

    @functools.cached_property
    def is_narrow(self) -> bool:
        """Whether the whole batch is better played as one row, if it was recorded as one."""
        return shared.is_narrow(self.recording)

    def scale(self, n_rows: int) -> Scale:
        """How the size of a batch of n rows changes the program."""
        f = self.graph.forward
        width = max((n.width for n in f.new_states if n in f.ys), default=0)
        small = n_rows * width * self.graph.dtype.itemsize <= SEPARATE_BELOW
        return Scale(n_rows < HOIST_BELOW, small and native.n_groups(n_rows) > 1)

    @_once
    def gradients(self, y_used: Flags, leaves: Flags) -> Backward:
        return self.graph.backward(y_used, leaves)

    @_once
    def liveness(self, y_used: Flags, last: Flags, ragged: bool) -> Liveness:
        """Which gradients exist, given the outputs and leaves of the last carry that have one."""
        return Liveness(self.recording, y_used, last, ragged)

    # ---- the stored values, and their places

    @functools.cached_property
    def handed_on(self) -> dict[int, Node]:
        """Leaves of the carry that the step hands on unchanged, and that are not outputs.

        They are the same at every step, so that they are read from init and not stored.
        """
        f = self.graph.forward
        leaves = enumerate(zip(f.states, f.new_states, strict=True))
        return {i: n for i, (n, new) in leaves if n is new and n not in f.ys}

    def _handed_on_leaves(self) -> dict[Node, Leaf]:
        return _leaves("init", self.handed_on.items())

    @_once
    def _stored(self) -> KeptValues:
        f = self.graph.forward
        return choose_stored(f, self.gradients((True,) * len(f.ys), self.all_leaves))

    def _shown(self, scale: Scale) -> list[Node]:
        """The leaves of the carry that are stored where the caller finds an output."""
        f = self.graph.forward
        return [] if scale.separate else [n for n in f.new_states if n in f.ys]

    def _hidden(self, scale: Scale) -> frozenset[str]:
        shown, leaves = self._shown(scale), self.graph.forward.new_states
        return frozenset(f"carry{i}" for i, n in enumerate(leaves) if n not in shown)

    # ---- the two passes

    @_once
    def forward(self, train: bool, reverse: bool, scale: Scale) -> ForwardPlan:
        """With `train`, a backward pass may follow."""
        f = self.graph.forward
        shown = self._shown(scale)
        nothing = KeptValues(tuple([n in shown for n in f.new_states]), [])
        stored = self._stored() if train else nothing
        # An output that is the same leaf as an earlier one is written apart: they share no memory.
        first = [y in shown and y not in f.ys[:i] for i, y in enumerate(f.ys)]
        pairs = zip(f.ys, first, strict=True)
        y_is_carry = tuple([f.new_states.index(y) if is_first else None for y, is_first in pairs])
        leaves = _leaves("x", enumerate(f.xs)) | self._handed_on_leaves()
        leaf = enumerate(zip(stored.leaves, f.states, f.new_states, strict=True))
        carries = [
            CarrySpec(f"carry{i}", kept, f"init{i}", f"final{i}", old, new)
            for i, (kept, old, new) in leaf
            if i not in self.handed_on
        ]
        outputs = [Output(y, f"y{i}") for i, y in enumerate(f.ys) if y_is_carry[i] is None]
        spec = PassSpec(
            leaves,
            tuple(carries),
            tuple(outputs),
            tuple(stored.saved),
            hidden=self._hidden(scale),
            descending=reverse,
            hoist=scale.hoist,
            handed_on=frozenset(self.handed_on.values()),
        )
        return ForwardPlan(reverse, scale, lower(spec), spec.saved, stored.leaves, y_is_carry)

    @_once
    def backward(
        self,
        y_used: Flags,
        reached: Flags,
        x_wanted: Flags,
        init_wanted: Flags,
        forward: ForwardPlan,
    ) -> BackwardPlan:
        """The pass that reads the tape of `forward`.

        Args:
            y_used: the outputs that have a gradient.
            reached: the leaves of the carry that a gradient ever reaches.
            x_wanted: the leaves of xs whose gradient is wanted.
            init_wanted: the leaves of init whose gradient is wanted.
        """
        g = self.gradients(y_used, reached)
        d_xs = {i: n for i, n in enumerate(g.d_xs) if n is not None and x_wanted[i]}
        sums = sums_in(g.d_captured)
        needed = _needed_carries(g, [*sums.values(), *d_xs.values()], init_wanted)
        descending = not forward.reverse
        # The gradient of the carry is a carry that runs the other way.
        carries = [
            CarrySpec(f"d_state{i}", False, f"d_final{i}", f"d_init{i}", new, old)
            for i, (new, old) in enumerate(zip(g.d_new_states, g.d_states, strict=True))
            if reached[i] and i in needed
        ]
        leaves = self._forward_leaves(forward)
        leaves |= _leaves("d_y", [(i, n) for i, n in enumerate(g.d_ys) if n.op != "absent"])
        outputs = [Output(n, f"d_x{i}") for i, n in d_xs.items()]
        spec = PassSpec(
            leaves,
            tuple(carries),
            tuple(outputs),
            sums=sums,
            hidden=self._hidden(forward.scale),
            descending=descending,
            hoist=forward.scale.hoist,
        )
        lowered = lower(spec)
        gradients = WeightGradients(lowered, sums, g.d_captured)
        return BackwardPlan(lowered, gradients, tuple([i in d_xs for i in range(len(g.d_xs))]))

    def _forward_leaves(self, forward: ForwardPlan) -> dict[Node, Leaf]:
        """The places of the forward pass's values for the backward pass.

        A step may return its carry or its input unchanged: such a node is read from xs, or else
        from the old carry.
        """
        f, reverse = self.graph.forward, forward.reverse
        leaves = dict(zip(forward.saved, forward.lowered.saved, strict=True))
        for states, dt in ((f.new_states, not reverse), (f.states, reverse)):
            leaves |= _leaves("carry", compress(enumerate(states), forward.keeps), dt)
        return leaves | self._handed_on_leaves() | _leaves("x", enumerate(f.xs))


def _leaves(name: str, nodes: Iterable[tuple[int, Node]], dt: bool = False) -> dict[Node, Leaf]:
    """All columns of the arguments name0, name1, …"""
    return {n: Leaf(f"{name}{i}", n.width, int(dt)) for i, n in nodes}


def _needed_carries(g: Backward, results: list[Node], init_wanted: Flags) -> set[int]:
    """The leaves of the carry whose gradient is needed: for results, or because it is wanted.

    The gradient of an encoded sequence that each step hands on is added up over all steps; where
    nobody wants it, no other gradient needs it.
    """
    needed = {i for i, wanted in enumerate(init_wanted) if wanted}
    while True:
        found = {*reachable([*results, *(g.d_states[i] for i in needed)])}
        more = {i for i, n in enumerate(g.d_new_states) if n in found} | needed
        if more == needed:
            return needed
        needed = more
