"""Which leaves of the carry a gradient reaches, from the last step backwards.

Autograd multiplies no gradient that is not there. Where the last carry is not used, or a leaf of it
never counts, the first steps of the backward pass have less to do than the later ones; and what no
gradient reaches has none, which is not a gradient of zeros: an optimizer with weight decay moves a
parameter of the one and not of the other.

The engine plays all steps alike: a leaf that some step reaches has a gradient of zeros before. That
is the same but for 0 · inf, where the derivative of a step has a pole.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from typing import Any

from ostinato.compiler.capture.recording import Recording, Ref
from ostinato.compiler.graph.from_aten import Backward

Leaves = tuple[bool, ...]  # of the carry

# What makes zeros of zeros, whatever else it is given.
_MOVES = {
    "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "detach",
    "alias", "clone", "expand", "squeeze", "unsqueeze", "slice", "select", "narrow", "split",
    "unbind", "slice_backward", "select_backward", "cat", "stack", "sum", "neg", "add", "sub",
    "where", "masked_fill",
}  # fmt: skip
_SCALES = {"mul", "div"}  # so do these, by a number


class Flow:
    """Where gradients flow, given which leaves of the last carry have one.

    Args:
        graph: the backward graph of a step of whose new carry these leaves have a gradient.
        ragged: rows end at different steps, and hand on what they were given.

    Attributes:
        leaves: those of the carry that a gradient ever reaches.
        risky: a step that multiplies nothing by autograd multiplies zeros here.
    """

    def __init__(
        self, recording: Recording, graph: Callable[[Leaves], Backward], last: Leaves, ragged: bool
    ):
        self._graph = graph
        self._sets = [last]
        while True:
            before = tuple([n.op != "absent" for n in graph(self._sets[-1]).d_states])
            if ragged:
                before = _either(before, self._sets[-1])
            if before in self._sets:
                self._again = self._sets.index(before)
                break
            self._sets.append(before)
        self.leaves = last
        for some in self._sets:
            self.leaves = _either(self.leaves, some)
        self.risky = any(_multiplies(recording, graph, s, self.leaves) for s in self._sets)
        # After so many steps nothing changes any more; of a cycle there is no such number.
        n = len(self._sets)
        self.settled = n if self._again == n - 1 else sys.maxsize

    def unreached(self, n_steps: int) -> list[int]:
        """The tensors that have no gradient: of captured ones, leaves of init, leaves of xs."""
        graphs = [self._graph(s) for s in self._sets[:n_steps]]
        captured = [_any(g.d_captured[i] for g in graphs) for i in range(len(graphs[0].d_captured))]
        xs = [_any(g.d_xs[i] for g in graphs) for i in range(len(graphs[0].d_xs))]
        at = n_steps
        if at >= len(self._sets):
            at = self._again + (at - self._again) % (len(self._sets) - self._again)
        return [i for i, there in enumerate((*captured, *self._sets[at], *xs)) if not there]


def _either(a: Leaves, b: Leaves) -> Leaves:
    return tuple(map(operator.or_, a, b))


def _any(nodes: Any) -> bool:
    return any(n is not None for n in nodes)


def _multiplies(
    recording: Recording, graph: Callable[[Leaves], Backward], some: Leaves, all_of_them: Leaves
) -> bool:
    """Whether a gradient that `some` do not have is multiplied where it is zeros."""
    zeros = graph(some).absent - graph(all_of_them).absent
    for call in recording.calls[recording.n_forward :]:
        if zeros.isdisjoint(i for i in call.outs if i is not None):
            continue
        name = call.name.removeprefix("aten.").rsplit(".", 1)[0]
        numbers = [x for x in call.args[1:] if not isinstance(x, Ref)]
        scaled = len(numbers) == len(call.args) - 1 and all(
            isinstance(x, (int, float)) and math.isfinite(x) and x != 0 for x in numbers
        )
        if name not in _MOVES and not (name in _SCALES and scaled):
            return True
    return False
