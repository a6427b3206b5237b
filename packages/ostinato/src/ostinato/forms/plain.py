"""Forms that change the call by a few lines: the axis of time, restarts."""

from __future__ import annotations

from typing import Any

from ostinato import tree
from ostinato.arguments import Arguments, Results
from ostinato.eager import RowSpans, Tree, check_output_axes, chosen
from ostinato.forms.form import Outcome, Rest


def has_another_axis(a: Arguments) -> bool:
    """Whether time is not the first axis."""
    return a.dim != 0


def time_first(a: Arguments, rest: Rest) -> Outcome:
    """The call with its axis of time at the front."""

    def back(of: Results) -> Results:
        check_output_axes([y[0] for y in of.ys], a.dim)
        return of._replace(ys=[y.movedim(0, a.dim) for y in of.ys])

    leaves = [leaf.movedim(a.dim, 0) for leaf in a.xs_leaves]
    return rest(a.in_form("time first", back, xs_leaves=leaves, dim=0))


def has_restarts(a: Arguments) -> bool:
    """Whether rows restart within the sequence."""
    return a.ragged.starts is not None


def restarts(a: Arguments, rest: Rest) -> Outcome:
    """The call with the resets made a part of the step.

    The new step replaces the carry of rows that restart, then calls the given step. The marks
    `[T, B]` and the restart values, repeated to `[T, B, …]`, become further leaves of xs.
    """
    ragged, step, carry_spec, xs_spec = a.ragged, a.step, a.carry_spec, a.xs_spec
    assert ragged.starts is not None
    values = [r.expand(ragged.n_steps, *r.shape) for r in ragged.restart_leaves]
    n = len(a.xs_leaves)
    both = tree.flatten((list(range(n)), 0, list(range(len(values)))))[1]

    def restarting(carry: Tree, x: Tree) -> Any:
        leaves, start, restart = x
        new = chosen(start, restart, tree.leaves(carry))
        return step(tree.unflatten(new, carry_spec), tree.unflatten(leaves, xs_spec))

    xs_leaves = [*a.xs_leaves, ragged.starts, *values]
    spans = RowSpans(ragged.lengths, None, [], ragged.n_steps)
    return rest(
        a.in_form(
            "restarts in the step", step=restarting, xs_leaves=xs_leaves, xs_spec=both, ragged=spans
        )
    )
