"""Captured tensors with a row for each of the batch: an encoder's states, a mask drawn before.

They are played as leaves of the carry that the step hands on, which costs no memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato import tree

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

Run = Callable[[tuple[int, ...]], tuple[list[Tensor], Any]]
MOST_TRIES = 64


def captured_rows(a: Arguments, captured: list[Tensor], n_rows: int, run: Run) -> tuple[int, ...]:
    """The captured tensors that have a row for each of the batch, by position.

    A matrix may have as many rows as the batch by chance: these are the fewest tensors that must
    get other rows with the batch for the step to run on another one. () where that is of no use.

    Args:
        n_rows: the other number of rows.
        run: runs the step on so many rows, of which the captured tensors at these positions have as
            many; gives its new carry, as leaves, and its output.
    """
    if a.shared is not None or a.weights is not None:
        return ()
    given = a.init_leaves[0].shape[0]
    fitting = [
        i for i, t in enumerate(captured) if t.dim() and len(t) == given and not t.is_complex()
    ]
    fitting.sort(key=lambda i: (isinstance(captured[i], torch.nn.Parameter), -captured[i].dim()))
    sizes = range(len(fitting) + 1)
    sets = itertools.chain.from_iterable(itertools.combinations(fitting, n) for n in sizes)
    if fitting:
        for positions in itertools.islice(sets, MOST_TRIES):
            if _runs(a, given, n_rows, run, positions):
                return positions
    return ()


def _runs(a: Arguments, given: int, n_rows: int, run: Run, positions: tuple[int, ...]) -> bool:
    try:
        new_states, y = run(positions)
    except Exception:  # a shape does not fit; if it is a mistake in the step, recording says so
        return False
    carry = zip(new_states, a.init_leaves, strict=True)
    fits = all(new.shape == (n_rows, *leaf.shape[1:]) for new, leaf in carry)
    return fits and not any(t.dim() and len(t) == given for t in tree.leaves(y))
