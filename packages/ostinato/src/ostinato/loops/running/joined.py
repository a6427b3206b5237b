"""Lists whose items are the rows of one tensor: torch.stack and torch.cat use that tensor.

A list that nothing else reads stays empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ostinato.loops.iteration.between import watch


@dataclass(slots=True)
class _KnownList:
    """A tensor whose rows are, or will be, the items of a list from `at` on."""

    of: list[Any]
    at: int
    whole: Tensor
    rows: tuple[Tensor, ...] | None  # None: they are not in the list
    results: list[Tensor]  # of the scan, if the rows are to be watched
    taken: bool = False  # whether a result is this tensor itself


class KnownRows:
    """The lists of one call of a function that are also known as one tensor."""

    def __init__(self) -> None:
        self.known: dict[int, _KnownList] = {}

    def add(
        self,
        to: list[Any],
        whole: Tensor,
        first: bool,
        lazy: bool,
        results: list[Tensor],
    ) -> None:
        """Append the rows of a tensor to a list, or insert them at its begin in reverse order.

        Args:
            lazy: whether the list may stay empty until something reads it.
            results: those of the scan, if the rows are to be watched; see `between.watch`.
        """
        self.settle(to)
        if first:
            whole = whole.flip(0)
        at, rows = 0 if first else len(to), None if lazy else whole.unbind(0)
        if rows is not None:
            to[at:at] = rows
            watch(rows, results)
        self.known[id(to)] = _KnownList(to, at, whole, rows, results)

    def settle(self, of: list[Any]) -> None:
        """Put rows into a list that has stayed empty."""
        known = self.known.get(id(of))
        if known is not None and known.rows is None:
            whole = known.whole.clone() if known.taken else known.whole
            known.rows, known.taken = whole.unbind(0), False
            of[known.at : known.at] = known.rows
            watch(known.rows, known.results)

    def joined(self, function: Any, tensors: Any, *arguments: Any, **named: Any) -> Any:
        """`torch.stack(tensors, …)` or `torch.cat`, without taking a known tensor apart."""
        known = self.known.get(id(tensors))
        if known is not None:
            found = _joined(function, known, arguments, named)
            if found is not None:
                known.results = known.results or [known.whole]  # past the rows
                watch(known.rows or (), [known.whole])
                return found
            self.settle(tensors)
        return function(tensors, *arguments, **named)


def _joined(
    function: Any, known: _KnownList, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Tensor | None:
    if len(arguments) + len(named) > 1 or not named.keys() <= {"dim", "axis"}:
        return None
    dim = arguments[0] if arguments else next(iter(named.values()), 0)
    is_stack = function is torch.stack
    if not is_stack and function not in (torch.cat, torch.concat, torch.concatenate):
        return None
    others = _others(known)
    n_axes = known.whole.dim() - (0 if is_stack else 1)
    if others is None or type(dim) is not int or not -n_axes <= dim < n_axes:
        return None
    dim %= n_axes
    whole = known.whole.movedim(0, dim) if dim else known.whole
    if others == ([], []):
        found = _as_new(whole, known)
    else:  # along their axis in the result: one copy, with the memory order of PyTorch's
        before, after = ([t.unsqueeze(dim) for t in few] for few in others)
        found = torch.cat([*before, whole, *after], dim)
    return found if is_stack else found.flatten(dim, dim + 1)


def _as_new(found: Tensor, known: _KnownList) -> Tensor:
    """A dense tensor, which shares memory with nothing that can be seen."""
    if found.is_contiguous() and known.rows is None and not known.taken:
        known.taken = True
        return found
    return found.clone(memory_format=torch.contiguous_format)


def _others(known: _KnownList) -> tuple[list[Tensor], list[Tensor]] | None:
    """The items of a list before and after the known ones; None if these have changed."""
    of, at, whole, n = known.of, known.at, known.whole, len(known.whole)
    end = at
    if known.rows is not None:
        end = at + n
        now = of[at:end]
        if len(now) != n or not all(a is b for a, b in zip(now, known.rows, strict=True)):
            return None
    others = of[:at], of[end:]
    shape, dtype = whole.shape[1:], whole.dtype
    for few in others:
        for t in few:
            if type(t) is not Tensor or t.shape != shape or t.dtype != dtype:
                return None
    return others
