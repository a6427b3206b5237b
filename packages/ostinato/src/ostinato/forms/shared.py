"""Calls with leaves that have no axis of the batch.

shared    some leaves have no batch: all rows share them; or none has one: the call is one row
folded    a carry `[B]`, with xs `[T, B]` or `[T, B, n]`, is one row: rows of one column take as
          long as rows of a vector each
one row   the rows of a loop's iterations read each other (a mean over the batch, a matrix
          without a batch): the whole batch is one row, tried at last
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ostinato.arguments import Arguments
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.recorded import recorded_call
from ostinato.compiler.shared import Shared
from ostinato.compiler.steps import code_key
from ostinato.forms import known
from ostinato.forms.adapted import has_complex, is_adapted, pairs
from ostinato.forms.form import Outcome, Rest

MOST_FOLDED = 4  # sizes of one step, each with a recording of its own; then rows are rows
MOST_IN_A_ROW = 2**14  # elements of the carry; products of large matrices are better not in a row


def shared(a: Arguments, refusal: Unsupported, rest: Rest) -> Outcome:
    """The call with leaves that all rows share."""
    refusals: list[Unsupported] = []
    for of in ways(a):
        found = rest(_with(a, "leaves without a batch", of))
        if not isinstance(found, Unsupported) or found.is_final:
            return found
        refusals.append(found)
    return refusals[0] if refusals else refusal  # a leaf without a batch is refused first


def has_numbers_alone(a: Arguments) -> bool:
    """Whether no leaf of init can have the batch as its first axis."""
    return all(leaf.dim() == 0 for leaf in a.leaves)


def numbers_alone(a: Arguments, rest: Rest) -> Outcome:
    """The call whose state is numbers: it has no batch, or it is refused."""
    return shared(a, Unsupported("a leaf of init without the batch as its first axis"), rest)


def ways(a: Arguments) -> list[Shared]:
    """The possible meanings of leaves without a batch, to be tried in this order."""
    if not _is_plain(a):
        return []
    if all(leaf.dim() < 2 for leaf in a.leaves):
        return [_alone(a)]
    found = _shared(a)
    return [*found, *[replace(of, aligned=False) for of in found[:1]]]


def may_fold(a: Arguments) -> bool:
    """Whether the leaves may be columns of one row; most calls shall not pay for the others."""
    return a.leaves[0].dim() == 1


def folded(a: Arguments, rest: Rest) -> Outcome:
    """The call as one row of B columns, if the leaves of its carry are `[B]`.

    Where that is not faster it is not tried again.
    """
    if _may_be_columns(a):
        found = recorded_call(_with(a, "a batch of numbers as one row", _alone(a)))
        if not isinstance(found, Unsupported):
            if found.compiled.planner.is_narrow:
                return found
            known.folds[code_key(a.given)] = set(range(-MOST_FOLDED, 0))  # no batch has such sizes
        elif found.is_final:
            return found
    return rest(a)


def _may_be_columns(a: Arguments) -> bool:
    """Whether the batch may be the columns of one row; each size of it has a recording of its own,
    so that only the first few are tried."""
    sizes = {leaf.shape for leaf in a.leaves} | {leaf.shape[1:2] for leaf in a.xs_leaves}
    if len(sizes) > 1 or not _is_plain(a) or is_adapted(a):
        return False
    (size,) = sizes
    if len(size) != 1 or size[0] < 2:
        return False
    tried = known.folds.setdefault(code_key(a.given), set())
    if len(tried) < MOST_FOLDED:
        tried.add(size[0])
    return size[0] in tried


def is_one_row(a: Arguments) -> bool:
    """Whether a loop's iterations of these shapes were recorded with the batch as one row."""
    return bool(known.one_row) and a.of_loop and _shapes(a) in _sizes(a)


def known_row(a: Arguments, rest: Rest) -> Outcome:
    """The call with its whole batch as one row."""
    found = _as_one_row(a)
    return found if not isinstance(found, Unsupported) or found.is_final else rest(a)


def one_row(a: Arguments, refusal: Unsupported, rest: Rest) -> Outcome:
    """The same, if rows read each other, which those of a scan's step do not."""
    is_small = sum(leaf.numel() for leaf in a.leaves) <= MOST_IN_A_ROW
    may_be = a.of_loop and "batch" in refusal.reason and _is_plain(a) and is_small
    if not may_be or len(_sizes(a)) >= MOST_FOLDED:
        return refusal
    found = _as_one_row(a)
    if isinstance(found, Unsupported):
        return refusal
    known.one_row[code_key(a.given)] = _sizes(a) | {_shapes(a)}
    return found


def _sizes(a: Arguments) -> set[Any]:
    found: set[Any] = known.one_row.get(code_key(a.given), set())
    return found


def _as_one_row(a: Arguments) -> Outcome:
    def row(a: Arguments) -> Outcome:
        return recorded_call(_with(a, "the batch as one row", _alone(a)))

    return pairs(a, row) if has_complex(a) else row(a)


def _shapes(a: Arguments) -> tuple[Any, ...]:
    return *[leaf.shape for leaf in a.leaves], *[leaf.shape[1:] for leaf in a.xs_leaves]


def _with(a: Arguments, name: str, shared: Shared) -> Arguments:
    return a.in_form(name, shared=shared)


def _is_plain(a: Arguments) -> bool:
    ragged = a.ragged.lengths is not None or a.ragged.starts is not None
    return not ragged and not a.of_layer and a.weights is None


def _alone(a: Arguments) -> Shared:
    return Shared(1, (True,) * len(a.leaves), (True,) * len(a.xs_leaves), 0, True)


def _shared(a: Arguments) -> list[Shared]:
    """Leaves without a batch as rows of as many axes as those of init have, or of xs."""
    sizes = {leaf.shape[0] for leaf in a.leaves if leaf.dim() > 1}
    if len(sizes) > 1:
        return []
    (n,) = sizes
    states = tuple([not (leaf.dim() and leaf.shape[0] == n) for leaf in a.leaves])
    xs = tuple([not (leaf.dim() > 1 and leaf.shape[1] == n) for leaf in a.xs_leaves])
    if not any(states + xs):
        return []
    ranks = [leaf.dim() - 1 for leaf, of_all in zip(a.leaves, states, strict=True) if not of_all]
    x_ranks = [leaf.dim() - 2 for leaf, of_all in zip(a.xs_leaves, xs, strict=True) if not of_all]
    both = dict.fromkeys([max(ranks), *x_ranks])
    return [Shared(n, states, xs, rank, False) for rank in both]
