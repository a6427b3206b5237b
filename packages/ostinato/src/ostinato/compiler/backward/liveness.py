"""Which gradients exist, step by step from the last one backwards.

Autograd does not compute with a gradient that does not exist. If the last carry is not used, or a
leaf of it never contributes to the loss, the first steps of the backward pass have less to do than
the later ones. A tensor that no gradient reaches gets None, which differs from zeros: an optimizer
with weight decay moves a parameter whose gradient is zeros, and leaves one alone whose gradient is
None.

The engine runs all steps in the same way: a leaf of the carry that some step reaches begins with a
gradient of zeros. The result is the same, except for 0 · inf where the derivative of a step has a
pole.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Iterable

from ostinato.compiler.capture.recording import Recording
from ostinato.compiler.graph.from_aten import absent_gradients

Leaves = tuple[bool, ...]  # for each leaf of the carry: whether it has a gradient
# The recorded gradients that do not exist, given the new carry's leaves with one.
AbsentOf = Callable[[Leaves], frozenset[int]]

# Calls that give zeros for zeros, whatever their other arguments are.
_KEEP_ZEROS = {
    "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "detach",
    "alias", "clone", "expand", "squeeze", "unsqueeze", "slice", "select", "narrow", "split",
    "unbind", "slice_backward", "select_backward", "cat", "stack", "sum", "neg", "add", "sub",
    "where", "masked_fill",
}  # fmt: skip


class Liveness:
    """Which gradients exist, given which leaves of the last carry have one.

    Args:
        y_used: the outputs that have a gradient.
        last: the leaves of the last carry that have a gradient.
        ragged: rows end at different steps; a row that has ended hands on the gradient of its last
            carry.

    Attributes:
        leaves: the leaves of the carry that have a gradient at any step.
        risky: some step multiplies zeros where autograd has no gradient to multiply.
        settled: the number of steps after which nothing more is reached; sys.maxsize if that never
            happens, because leaves take turns.
    """

    def __init__(self, recording: Recording, y_used: tuple[bool, ...], last: Leaves, ragged: bool):
        self._recording = recording
        self._absent = absent = functools.cache(
            functools.partial(absent_gradients, recording, y_used)
        )
        # The leaves after 0, 1, … steps back; then those from step `_again` on, repeated.
        self._after, self._again = _followed(recording, absent, last, ragged)
        self.leaves = functools.reduce(_either, self._after)
        self.risky = any(
            _multiplies(recording, absent(s) - absent(self.leaves)) for s in self._after
        )
        n = len(self._after)
        self.settled = n if self._again == n - 1 else sys.maxsize
        self._unreached: dict[int, list[int]] = {}  # by steps

    def unreached(self, n_steps: int) -> list[int]:
        """The tensors without a gradient: captured ones, leaves of init, leaves of xs."""
        n_steps = min(n_steps, self.settled)
        if n_steps not in self._unreached:
            self._unreached[n_steps] = self._without_gradient(n_steps)
        return self._unreached[n_steps]

    def _without_gradient(self, n_steps: int) -> list[int]:
        absent = [self._absent(leaves) for leaves in self._after[:n_steps]]
        always = absent[0].intersection(*absent)
        captured = _exist(self._recording.d_captured, always)
        xs = _exist(self._recording.d_xs, always)
        at = n_steps
        if at >= len(self._after):
            at = self._again + (at - self._again) % (len(self._after) - self._again)
        return [i for i, there in enumerate((*captured, *self._after[at], *xs)) if not there]


def _followed(
    recording: Recording, absent: AbsentOf, last: Leaves, ragged: bool
) -> tuple[list[Leaves], int]:
    """The leaves with a gradient after 0, 1, … steps back, and where the sequence repeats."""
    found = [last]
    while True:
        before = _exist(recording.d_states, absent(found[-1]))
        if ragged:
            before = _either(before, found[-1])
        if before in found:
            return found, found.index(before)
        found.append(before)


def _either(a: Leaves, b: Leaves) -> Leaves:
    return tuple(map(operator.or_, a, b))


def _exist(gradients: Iterable[int | None], absent: frozenset[int]) -> tuple[bool, ...]:
    return tuple([i is not None and i not in absent for i in gradients])


def _multiplies(recording: Recording, zeros: frozenset[int]) -> bool:
    """Whether a gradient that does not exist at some step is multiplied, as zeros."""
    return any(
        call.name.removeprefix("aten.").rsplit(".", 1)[0] not in _KEEP_ZEROS
        for call in recording.calls[recording.n_forward :]
        if not zeros.isdisjoint(i for i in call.outs if i is not None)
    )
