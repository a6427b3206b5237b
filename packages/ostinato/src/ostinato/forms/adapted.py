"""Calls whose leaves are not rows of real numbers, turned into calls whose leaves are.

    pairs     a complex leaf is a real one with a last axis of two
    turned    a leaf `[L, B, H]`, as torch.nn.GRU has its carry, or an output is `[B, L, H]`

The step is wrapped: it takes and returns the caller's leaves, and the conversions are recorded. In
the structures of the wrapped call such a leaf is a `Pairs` or a `Turned`, so that its recordings
differ from those of a step on real leaves, and its outputs can be converted back.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato import tree
from ostinato.arguments import Arguments, Results
from ostinato.compiler.errors import BatchNotFirst, Unsupported
from ostinato.compiler.steps import code_key
from ostinato.eager import RowSpans, split_result
from ostinato.forms.form import Outcome, Rest


class Pairs(NamedTuple):
    """A complex leaf `[B, …]` as `[B, …, 2]`."""

    leaf: Tensor


class Turned(NamedTuple):
    """A leaf `[L, B, …]` as `[B, L, …]`."""

    leaf: Tensor


Kind = type[Pairs] | type[Turned] | None


def _as_given(leaf: Tensor, kind: Kind, axis: int = 0) -> Tensor:
    """The caller's form of the leaf; axis: that of the batch."""
    if kind is Pairs:
        return torch.view_as_complex(leaf)
    return leaf if kind is None else leaf.transpose(axis, axis + 1)


def _as_played(leaf: Tensor, kind: Kind) -> Tensor:
    if kind is Pairs:
        return torch.view_as_real(leaf.resolve_conj())
    return leaf if kind is None else leaf.transpose(0, 1)


def _all_as_played(leaves: Iterable[Tensor], kinds: Sequence[Kind]) -> list[Tensor]:
    return [_as_played(leaf, kind) for leaf, kind in zip(leaves, kinds, strict=True)]


def has_complex(a: Arguments) -> bool:
    """Whether a leaf of init or of xs is complex."""
    return any(map(torch.is_complex, (*a.leaves, *a.xs_leaves)))


def pairs(a: Arguments, rest: Rest) -> Outcome:
    """The call on real leaves."""
    kinds: list[Kind] = [Pairs if leaf.is_complex() else None for leaf in a.leaves]
    return rest(_adapted(a, "complex numbers as pairs", kinds, _pair_kind))


def _pair_kind(i: int, leaf: Tensor, n_rows: int) -> Kind:
    return Pairs if leaf.is_complex() else None


def turned(a: Arguments, refusal: Unsupported, rest: Rest) -> Outcome:
    """The call with the batch first, if leaves have it second."""
    for form in _ways(a, isinstance(refusal, BatchNotFirst)):
        found = rest(form)
        if not isinstance(found, Unsupported) or found.is_final:
            return found
    return refusal


def _ways(a: Arguments, outputs: bool) -> Iterator[Arguments]:
    """The calls to be tried, in this order.

    In a leaf with two axes of that size, either may be the batch. Leaves of xs without a batch
    must be numbers, one for each step, which all rows share.

    Args:
        outputs: whether only outputs may have it second, not leaves of the carry.
    """
    n_rows = next((leaf.shape[1] for leaf in a.xs_leaves if leaf.dim() > 1), 0)
    batched = all(leaf.dim() < 2 or leaf.shape[1] == n_rows for leaf in a.xs_leaves)
    second = [leaf.dim() > 1 and leaf.shape[1] == n_rows for leaf in a.leaves]
    first = [leaf.dim() > 0 and leaf.shape[0] == n_rows for leaf in a.leaves]
    batched &= all(map(operator.or_, first, second))
    ragged = a.ragged.lengths is not None or a.ragged.starts is not None
    if not batched or ragged or a.of_layer or a.weights is not None or is_adapted(a):
        return
    not_first = [not of_first for of_first in first]
    for turns in [second, not_first] if second != not_first else [second]:
        if outputs or any(turns):
            kinds: list[Kind] = [Turned if of_turned else None for of_turned in turns]
            yield _adapted(a, "batch second", kinds, _output_kinds(code_key(a.given)))


def is_adapted(a: Arguments) -> bool:
    """Whether leaves of the carry or of xs are not as given."""
    kinds = *_kinds_in(a.carry_spec)[0], *_kinds_in(a.xs_spec)[0]
    return any(kind is not None for kind in kinds)


@functools.lru_cache(maxsize=128)
def _output_kinds(code: Any) -> Callable[[int, Tensor, int], Kind]:
    """Which outputs have the batch second: seen in a run whose rows are not as many as layers."""
    known: dict[tuple[int, int], Kind] = {}  # by number and axes

    def kind(i: int, leaf: Tensor, n_rows: int) -> Kind:
        sizes = [n == n_rows for n in leaf.shape[:2]]
        if sizes in ([True, False], [False, True]):
            known[i, leaf.dim()] = Turned if sizes[1] else None
        return known.get((i, leaf.dim()))

    return kind


def _adapted(
    a: Arguments, form: str, kinds: list[Kind], kind_of: Callable[[int, Tensor, int], Kind]
) -> Arguments:
    """The call on leaves of these kinds.

    Args:
        kind_of: gives the kind from the number of an output and the number of rows.
    """
    step, carry_spec, xs_spec = a.step, a.carry_spec, a.xs_spec
    x_kinds: list[Kind] = [Pairs if leaf.is_complex() else None for leaf in a.xs_leaves]
    like = tree.unflatten([leaf.detach() for leaf in a.leaves], carry_spec)
    played_spec = _with_kinds(carry_spec, iter(kinds))

    def adapted(carry: Any, x: Any) -> Any:
        rows = tree.leaves(carry)
        leaves = [_as_given(leaf, kind) for leaf, kind in zip(rows, kinds, strict=True)]
        x_leaves = [_as_given(t, kind) for t, kind in zip(tree.leaves(x), x_kinds, strict=True)]
        result = step(tree.unflatten(leaves, carry_spec), tree.unflatten(x_leaves, xs_spec))
        is_carry = tree.flatten(result)[1] == carry_spec
        new, y = split_result(result, like, carry_spec)
        new_carry = tree.unflatten(_all_as_played(new, kinds), played_spec)
        if is_carry:
            return new_carry
        y_leaves, y_spec = tree.flatten(y)
        y_kinds = [kind_of(i, leaf, rows[0].shape[0]) for i, leaf in enumerate(y_leaves)]
        ys = _all_as_played(y_leaves, y_kinds)
        return new_carry, tree.unflatten(ys, _with_kinds(y_spec, iter(y_kinds)))

    ragged = a.ragged
    if ragged.starts is not None:
        restarts = _all_as_played(ragged.restart_leaves, kinds)
        ragged = RowSpans(ragged.lengths, ragged.starts, restarts, ragged.n_steps)

    def back(of: Results) -> Results:
        y_kinds, y_spec = _kinds_in(of.y_spec)
        ys = [_as_given(y, kind, 1) for y, kind in zip(of.ys, y_kinds, strict=True)]
        finals = [_as_given(leaf, kind) for leaf, kind in zip(of.finals, kinds, strict=True)]
        return Results(ys, finals, y_spec)

    return a.in_form(
        form,
        back,
        step=adapted,
        ragged=ragged,
        carry_spec=played_spec,
        xs_spec=_with_kinds(xs_spec, iter(x_kinds)),
        leaves=_all_as_played(a.leaves, kinds),
        xs_leaves=_all_as_played(a.xs_leaves, x_kinds),
    )


def _with_kinds(spec: tree.Spec, kinds: Iterator[Kind]) -> tree.Spec:
    """A structure in which each leaf with a kind is replaced by an object of that kind."""
    if spec is None:
        kind = next(kinds)
        return None if kind is None else (kind, None, (None,))
    of, keys, parts = spec
    return of, keys, tuple([_with_kinds(part, kinds) for part in parts])


def _kinds_in(spec: tree.Spec) -> tuple[list[Kind], tree.Spec]:
    """The kinds of the leaves of a structure, in order, and the structure without them."""
    if spec is None:
        return [None], None
    of, keys, parts = spec
    if of in (Pairs, Turned):
        return [of], None
    found = [_kinds_in(part) for part in parts]
    plain = of, keys, tuple([part for _, part in found])
    return [kind for kinds, _ in found for kind in kinds], plain
