"""The members of a call that vmap maps over, as rows of one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ostinato.compiler.play.tape import RowOrder
from ostinato.eager import RowSpans
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.compiler.play.autograd import ScanCall

Axes = Sequence["int | None"]  # of the members; None: all share a tensor
Optional = Sequence["Tensor | None"]


def can_fold(call: ScanCall, dims: Axes) -> bool:
    """Whether members with these axes are rows of one batch: they share all captured tensors.

    No output may be a sum over the batch. A budget of memory is that of a member.
    """
    captured, _, _ = call.split(dims)
    separate = call.compiled.totals or call.arguments.memory is not None
    return not separate and all(dim is None for dim in captured)


def has_units(call: ScanCall, n: int) -> bool:
    """Whether the engine can sum the gradients of captured tensors by member."""
    whole = call.rows is None and call.arguments.truncate is None
    enough = n >= native.n_groups(n * call.n_rows)  # a member lies in one group of rows
    return whole and enough and call.compiled.engine == "native"


def folded_call(call: ScanCall, n: int) -> ScanCall:
    """The call of n batches as one."""
    a, rows = call.arguments, call.rows
    lengths = None if rows is None else rows.lengths.repeat(n)
    ragged = RowSpans(lengths, None, [], a.ragged.n_steps)
    return replace(
        call,
        n_rows=n * call.n_rows,
        unit_rows=call.n_rows if has_units(call, n) else 1,
        rows=None if lengths is None else RowOrder.of(lengths),
        arguments=a._replace(ragged=ragged, shared=None, stand_ins=None),
    )


class RowsOfMembers:
    """The tensors of n members, folded into those of one call.

    Attributes:
        call: that call.
        tensors: captured tensors as given; init `[N · B, …]`; xs `[T, N · B, …]`.
    """

    def __init__(self, call: ScanCall, n: int, given: Sequence[Tensor], dims: Axes):
        self.call, self.n, self._given, self._dims = folded_call(call, n), n, given, tuple(dims)
        _, init, xs = call.split(range(len(given)))
        # A first and a last carry may have torch.nn's axis of layers in front.
        of_layer = call.arguments.of_layer
        n_leaves = len(call.arguments.leaves)
        self._of_states = [1 if of_layer and i < n_leaves else 0 for i in range(len(init))]
        self._of_outputs = [1] * call.compiled.n_ys + self._of_states
        at: list[int | None] = [None] * (len(given) - len(init) - len(xs))
        self._axes = [*at, *self._of_states, *[1] * len(xs)]
        self.tensors = self._folded(given, dims, self._axes)

    def is_of(
        self, n: int, given: Sequence[Tensor], dims: Axes, is_same: Callable[..., bool]
    ) -> bool:
        """Whether these members are the same ones."""
        alike = n == self.n and tuple(dims) == self._dims
        return alike and all(map(is_same, self._given, given))

    def of_outputs(self, grads: Optional, dims: Axes) -> Optional:
        """The gradients of outputs and last carry, folded as these are."""
        return self._folded(grads, dims, self._of_outputs)

    def unfolded_outputs(self, outs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Axes]:
        """Outputs and last carry with an axis of the members, and these axes."""
        pairs = zip(outs, self._of_outputs, strict=True)
        return tuple([self._unfolded(t, axis) for t, axis in pairs]), tuple(self._of_outputs)

    def unfolded(self, found: Optional) -> tuple[list[Tensor | None], Axes]:
        """The gradients of the tensors, and the members' axes: of captured ones the first."""
        pairs = zip(found, self._axes, strict=True)
        separate = [
            g if g is None or axis is None else self._unfolded(g, axis) for g, axis in pairs
        ]
        return separate, [0 if axis is None else axis for axis in self._axes]

    def _folded(self, given: Sequence[Any], dims: Axes, axes: Axes) -> list[Any]:
        folded = []
        for t, dim, axis in zip(given, dims, axes, strict=True):
            if t is None or axis is None:
                folded.append(t)
                continue
            if dim is None:
                t = t.unsqueeze(axis)
                t = t.expand(*t.shape[:axis], self.n, *t.shape[axis + 1 :])
            else:
                t = t.movedim(dim, axis)
            folded.append(t.flatten(axis, axis + 1))
        return folded

    def _unfolded(self, t: Tensor, axis: int) -> Tensor:
        return t.unflatten(axis, (self.n, t.shape[axis] // self.n))
