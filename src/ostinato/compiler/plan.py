"""Plans: a recorded step, lowered for what one call of `scan` needs."""

from __future__ import annotations

import functools
import os
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

from ostinato.compiler.backward.liveness import Flow
from ostinato.compiler.backward.rematerialize import choose_saved, recomputable
from ostinato.compiler.capture.recording import Recording
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.from_aten import Backward, StepGraph
from ostinato.compiler.graph.node import Node
from ostinato.compiler.lower.lower import lower
from ostinato.compiler.lower.spec import CarrySpec, Leaf, Lowered, Output, PassSpec
from ostinato.engine import native

# Below this many rows the products of xs are taken ahead of the loop, for many steps at once: a
# handful of rows does not fill the register tiles, and reloads the weights for each.
HOIST_BELOW = 16
# Up to so many bytes of a step, where threads share its rows, a carry that is an output lies apart
# from it, for each thread. All would lie in a page or two, in which a processor fetches ahead what
# another core is about to write. Where a line takes 190 ns from core to core, an RNN takes up to a
# fifth less so, at 16 KB a tenth; where it takes 40, 1 % less, at 16 KB 1 % more.
APART_BELOW = 1 << 13


# Graphs and plans of one step are made by one thread at a time: mixed up, they stay so.
_planning = threading.RLock()


def _not_held() -> None:
    """In a forked child, where a thread that held it does not go on."""
    global _planning
    _planning = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_not_held)


class Scale(NamedTuple):
    """What plans depend on of how many rows are played."""

    hoist: bool  # products of xs, ahead of the loop
    apart: bool  # carries that are outputs, from these


@dataclass(frozen=True)
class ForwardPlan:
    reverse: bool
    scale: Scale
    lowered: Lowered
    saved: tuple[Node, ...]  # in the order of lowered.saved
    keeps: tuple[bool, ...]  # whether each leaf of the carry lies there at every step
    y_is_carry: tuple[int | None, ...]  # the leaf of the carry that an output is, at every step
    repeated: tuple[int, ...]  # outputs that are a leaf which an earlier one is, too


@dataclass(frozen=True)
class BackwardPlan:
    lowered: Lowered
    sums: tuple[Node | None, ...]  # per captured tensor; leaves are the lowered sums
    sum_nodes: dict[str, Node]
    d_xs: tuple[bool, ...]


class Planner:
    """Makes and keeps the plans of one recorded step."""

    def __init__(self, recording: Recording, dtype: Any):
        self.recording = recording
        self.graph = StepGraph(recording, dtype)
        self._backward_graphs: dict[Any, Backward] = {}
        self._forward: dict[Any, ForwardPlan] = {}
        self._backward: dict[Any, BackwardPlan] = {}
        self._flows: dict[Any, Flow] = {}

    def check(self) -> None:
        """Lower both passes, so that a step that cannot be played is refused before it is.

        Raises:
            Unsupported: see the reason.
        """
        forward = self.forward(True, False, Scale(False, False))
        n_ys, n_xs = len(self.graph.forward.ys), len(self.graph.forward.xs)
        self.backward((True,) * n_ys, self.all_leaves, (True,) * n_xs, forward)

    @property
    def all_leaves(self) -> tuple[bool, ...]:
        return (True,) * len(self.graph.forward.states)

    def flow(self, y_used: tuple[bool, ...], last: tuple[bool, ...], ragged: bool) -> Flow:
        """Where gradients flow, given of which outputs and leaves of the last carry they come."""
        key = y_used, last, ragged
        with _planning:
            if key not in self._flows:
                graph = functools.partial(self._graph, y_used)
                self._flows[key] = Flow(self.recording, graph, last, ragged)
            return self._flows[key]

    def scale(self, n_rows: int) -> Scale:
        f = self.graph.forward
        width = max((n.width for n in f.new_states if n in f.ys), default=0)
        small = n_rows * width * self.graph.dtype.itemsize <= APART_BELOW
        return Scale(n_rows < HOIST_BELOW, small and native.n_groups(n_rows) > 1)

    def forward(self, train: bool, reverse: bool, scale: Scale) -> ForwardPlan:
        key = (train, reverse, scale)
        with _planning:
            if key not in self._forward:
                self._forward[key] = self._plan_forward(train, reverse, scale)
            return self._forward[key]

    def backward(
        self,
        y_used: tuple[bool, ...],
        leaves: tuple[bool, ...],
        x_wanted: tuple[bool, ...],
        forward: ForwardPlan,
    ) -> BackwardPlan:
        """The pass that reads the tape of `forward`. leaves: which a gradient ever reaches."""
        key = (y_used, leaves, x_wanted, forward.reverse, forward.scale)
        with _planning:
            if key not in self._backward:
                g = self._graph(y_used, leaves)
                self._backward[key] = self._plan_backward(g, leaves, x_wanted, forward)
            return self._backward[key]

    def _graph(self, y_used: tuple[bool, ...], leaves: tuple[bool, ...]) -> Backward:
        with _planning:
            if (y_used, leaves) not in self._backward_graphs:
                self._backward_graphs[y_used, leaves] = self.graph.backward(y_used, leaves)
            return self._backward_graphs[y_used, leaves]

    def _saved(self, g: Backward, x_wanted: tuple[bool, ...], at_hand: set[Node]) -> list[Node]:
        roots = [n for n in (*g.d_captured, *g.d_states) if n is not None and n.op != "absent"]
        roots += [n for n, wanted in zip(g.d_xs, x_wanted, strict=True) if wanted and n is not None]
        return choose_saved(roots, {*g.d_new_states, *g.d_ys}, at_hand)

    def _at_hand(self, keeps: tuple[bool, ...]) -> set[Node]:
        """What the backward pass finds: xs, and the leaves of the carry that are kept."""
        f = self.graph.forward
        pairs = zip(f.states, f.new_states, keeps, strict=True)
        return {*f.xs, *(n for old, new, kept in pairs if kept for n in (old, new))}

    @functools.cached_property
    def _kept_and_saved(self) -> tuple[tuple[bool, ...], list[Node]]:
        """What training keeps: leaves of the carry, and further values.

        A leaf that is no output is not kept where the rest is no more for it: a running maximum is
        that of two values which are needed anyway.
        """
        f = self.graph.forward
        all_used = self._graph((True,) * len(f.ys), self.all_leaves), (True,) * len(f.xs)
        keeps = (True,) * len(f.states)
        saved = self._saved(*all_used, self._at_hand(keeps))
        for i, new in enumerate(f.new_states):
            if new in f.ys:
                continue
            fewer = (*keeps[:i], False, *keeps[i + 1 :])
            found = self._saved(*all_used, self._at_hand(fewer))
            # Only what is computed can be saved: neither the leaf itself nor some columns of it.
            computed = all(n.op not in ("state", "slice") for n in found)
            if computed and _width(found) < new.width + _width(saved):
                keeps, saved = fewer, found
        return keeps, saved

    def _shown(self, scale: Scale) -> list[Node]:
        """The leaves of the carry that lie where the caller finds an output."""
        f = self.graph.forward
        return [] if scale.apart else [n for n in f.new_states if n in f.ys]

    def _hidden(self, scale: Scale) -> frozenset[str]:
        shown, leaves = self._shown(scale), self.graph.forward.new_states
        return frozenset(f"carry{i}" for i, n in enumerate(leaves) if n not in shown)

    def _plan_forward(self, train: bool, reverse: bool, scale: Scale) -> ForwardPlan:
        f = self.graph.forward
        shown = self._shown(scale)
        if train:
            keeps, saved = self._kept_and_saved
        else:
            keeps, saved = tuple([n in shown for n in f.new_states]), []
        leaves: dict[Node, Leaf] = {n: Leaf(f"x{i}", n.width) for i, n in enumerate(f.xs)}
        dt_in, dt_out = int(reverse), int(not reverse)
        carries = []
        for i, (old, new) in enumerate(zip(f.states, f.new_states, strict=True)):
            leaves[old] = Leaf(f"carry{i}", old.width, dt_in)
            carries.append(
                CarrySpec(
                    f"carry{i}", old.width, keeps[i], dt_in, dt_out, f"init{i}", f"final{i}",
                    old, new,
                )
            )  # fmt: skip
        y_is_carry = tuple(f.new_states.index(y) if y in shown else None for y in f.ys)
        outputs = tuple(
            Output(y, f"y{i}")
            for i, (y, k) in enumerate(zip(f.ys, y_is_carry, strict=True))
            if k is None
        )
        lowered = lower(
            PassSpec(
                leaves, tuple(carries), outputs, tuple(saved),
                hidden=self._hidden(scale), descending=reverse, hoist=scale.hoist,
            )
        )  # fmt: skip
        repeated = tuple(
            [i for i, k in enumerate(y_is_carry) if k is not None and k in y_is_carry[:i]]
        )
        return ForwardPlan(reverse, scale, lowered, tuple(saved), keeps, y_is_carry, repeated)

    def _plan_backward(
        self,
        g: Backward,
        reached: tuple[bool, ...],
        x_wanted: tuple[bool, ...],
        forward: ForwardPlan,
    ) -> BackwardPlan:
        reverse, scale = forward.reverse, forward.scale
        f = self.graph.forward
        at_hand = self._at_hand(forward.keeps)
        if not recomputable(self._saved(g, x_wanted, at_hand), {*forward.saved, *at_hand}):
            raise Unsupported("the backward pass needs a value that the forward pass did not keep")
        dt_in, dt_out = int(reverse), int(not reverse)
        leaves: dict[Node, Leaf] = {}
        for node, leaf in zip(forward.saved, forward.lowered.saved, strict=True):
            leaves[node] = leaf
        # New before old, and xs last: a step may hand on its carry, or its input, as it is.
        for states, dt in ((f.new_states, dt_out), (f.states, dt_in)):
            for i, (node, kept) in enumerate(zip(states, forward.keeps, strict=True)):
                if kept:
                    leaves[node] = Leaf(f"carry{i}", node.width, dt)
        for i, node in enumerate(f.xs):
            leaves[node] = Leaf(f"x{i}", node.width)
        for i, node in enumerate(g.d_ys):
            if node.op != "absent":
                leaves[node] = Leaf(f"d_y{i}", node.width)
        carries = []
        for i, (new, old) in enumerate(zip(g.d_new_states, g.d_states, strict=True)):
            if not reached[i]:
                continue
            # The gradient of the carry is a carry that runs the other way.
            name = f"d_state{i}"
            leaves[new] = Leaf(name, new.width, dt_out)
            carries.append(
                CarrySpec(
                    name, new.width, False, dt_out, dt_in, f"d_final{i}", f"d_init{i}", new, old
                )
            )
        wanted = tuple(w and n is not None for w, n in zip(x_wanted, g.d_xs, strict=True))
        outputs = tuple(
            Output(n, f"d_x{i}")
            for i, (n, w) in enumerate(zip(g.d_xs, wanted, strict=True))
            if w and n is not None
        )
        sums: dict[str, Node] = {}
        stack = [n for n in g.d_captured if n is not None]
        while stack:
            n = stack.pop()
            if n.op in ("outer", "column_sum"):
                sums[f"sum{n.index}"] = n
            elif n.kind == "sum":
                stack.extend(n.inputs)
        lowered = lower(
            PassSpec(
                leaves, tuple(carries), outputs, (), sums,
                hidden=self._hidden(scale), descending=not reverse, hoist=scale.hoist,
            )
        )  # fmt: skip
        return BackwardPlan(lowered, g.d_captured, sums, wanted)


def _width(nodes: list[Node]) -> int:
    return sum(n.width for n in nodes)
