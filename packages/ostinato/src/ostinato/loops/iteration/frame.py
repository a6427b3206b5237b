"""What a body finds in the place of its loop while it runs as a step."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.loops.iteration import elements, prefixes
from ostinato.loops.iteration.calls import filled
from ostinato.loops.iteration.emitted import JOINING, Added, Fresh, FreshPieces
from ostinato.loops.iteration.index import (
    Index,
    Number,
    number_of,
    running,
)
from ostinato.loops.iteration.items import table_of as table_of_numbers
from ostinato.loops.iteration.nostep import Narrowed, NoStep
from ostinato.loops.iteration.plan import Read

if TYPE_CHECKING:
    from ostinato.loops.iteration.step import Step

HIDDEN = object()  # in place of a tensor that a step does not name
ANOTHER_NAME = "an iteration keeps a list that iterations append to by another name"
OTHER_INDEX = "an iteration computes an index by other means than plain arithmetic"


class Frame:
    """The object that replaces the loop while its body runs as a step."""

    def __init__(self, step: Step, given: Iterator[Tensor]):
        self.step, self.given = step, list(given)
        self.with_gradients = torch.is_grad_enabled()
        self.counts: dict[int, int] = {}
        self.puts: list[tuple[Read, elements.Parts, Any, Any, Tensor]] = []
        self.lags: list[list[Tensor]] = []
        self.pasts: list[list[Any]] = []
        self.has_prefixes = False
        self.in_parts: list[Any] = []
        self.wholes: list[Tensor] = []  # the lists that the body stacks, with room for all items
        self.by_index: dict[int, list[Any]] = {}  # list → its reads by the loop's variable
        self.about: dict[tuple[Read, str], Any] = {}  # properties of tensors that are written
        self.held: list[Any] = []  # the tensors, lists, dicts and objects of the state
        self.by_length: set[int] = set()  # the lists whose length is asked for

    def numbered(self, number: int) -> Read:
        """A read or write, distinguished from others at the same place in the text."""
        n = self.counts.get(number, 0)
        self.counts[number] = n + 1
        return number, n

    hidden = HIDDEN

    @staticmethod
    def extended(of: Any, by: list[Any], starred: bool) -> Any:
        """`of + by` or `[*of, *by]`, of a list that no other name has."""
        if isinstance(of, Fresh):
            of.extend(by)
            return of
        return [*of, *by] if starred else of + by

    def longer(self, function: Any, parts: Any, *arguments: Any, **named: Any) -> Any:
        """`torch.cat([outs, h], 1)`, where no iteration needs the whole of `outs`."""
        at = next((i for i, p in enumerate(parts) if isinstance(p, FreshPieces)), None)
        if at is None or function not in JOINING:
            return function(parts, *arguments, **named)
        whole = parts[at]
        for piece in reversed(parts[:at]):
            whole.insert(0, self.as_kept(piece, False))
        whole.extend([self.as_kept(piece, False) for piece in parts[at + 1 :]])
        return whole

    def whole(self, of: Any) -> Any:
        """The tensor `outs` where an iteration needs all of it."""
        if isinstance(of, FreshPieces):
            return self.step.joined(self, torch.cat, of, of.axis)
        return of

    number = staticmethod(number_of)
    filled = staticmethod(filled)

    @staticmethod
    def kind(function: Any, of: Any) -> Any:
        """`type(t)`."""
        return of.__class__ if function is type and type(of) in (Index, Number) else function(of)

    @staticmethod
    def within(number: Any, of: Any) -> bool:
        """`number in of`."""
        if isinstance(number, Number) and isinstance(of, (set, frozenset, dict)):
            return any(number == item for item in sorted(of))
        return number in of

    @staticmethod
    def len(of: Any) -> Any:
        return of.length() if isinstance(of, Fresh) else len(of)

    @staticmethod
    def slice(*arguments: Any) -> Any:
        return slice(*arguments)

    def sum(self, in_place: bool, total: Any, value: Any) -> Any:
        """`total += value` or `total + value`, where no iteration reads the total."""
        if isinstance(total, Added):
            total.added.append(self.as_kept(value, in_place))
            return total
        if in_place:
            total += value
            return total
        return total + value

    def as_kept(self, value: Any, in_place: bool) -> Any:
        """A value that goes into a tensor after the scan, in the gradient mode around the loop.

        Raises:
            NoStep: in the present mode, the tensor would have other gradients.
        """
        if torch.is_grad_enabled() == self.with_gradients or not isinstance(value, Tensor):
            return value
        if self.with_gradients and in_place:  # the tensor keeps the gradients that it has
            return value.detach()
        raise NoStep("an iteration turns gradients off or on around a sum or a write")

    def selecting(self, number: int, name: str, base: Any, *arguments: Any, **named: Any) -> Any:
        """`base.select(1, t)` or `base.narrow(1, t, 1)`."""
        if base is HIDDEN:
            base = self.step.base_of((number, self.counts.get(number, 0)), Index(1, 0))
        is_tensor = isinstance(base, Tensor)
        found = elements.of_call(name, (base, *arguments), named) if is_tensor else None
        if found is None:
            return getattr(base, name)(*arguments, **named)
        return self.at(number, *found)

    def at(self, number: int, base: Any, index: Any) -> Any:
        """`base[index]`, an input of the step if the index moves with the loop."""
        read = self.numbered(number)
        if base is HIDDEN:
            if not elements.moves(index):
                index = elements.held(index) or index
            base = self.step.base_of(read, index)
        if not elements.moves(index):
            return base[index]
        if isinstance(base, Tensor) and self.is_part(base, index):
            return self.part(base, index)
        self.refuse_again(base, index)
        if elements.has_tensors(index):
            index, rest = elements.split(index)
            return self.element(read, base, index)[rest]
        return self.element(read, base, index)

    def parted(self, base: Any) -> Any:
        """Note a tensor of which the body reads or writes slices `:t`."""
        self.in_parts.append(base)
        return base

    def is_part(self, base: Tensor, index: Any) -> bool:
        """Whether an index has a slice `:t`, or takes an element of a state with such slices."""
        if elements.has_tensors(index) or elements.grows(index):
            return not elements.has_tensors(index)
        parts = index if type(index) is tuple else (index,)
        is_state = any(base is of for of in self.in_parts) and self.holds(base)
        return is_state and any(type(p) is Index for p in parts)

    def part(self, base: Tensor, index: Any) -> Tensor:
        """`x[:, :t]`, or `attn[..., i, :i]` of a tensor of the state."""
        whole, ends, at = elements.prefixes(base, index)
        found = base[whole]
        for axis in reversed(range(found.dim())):
            if at[axis] is not None:
                self.within_length(at[axis] + 1, found.shape[axis])
                numbers = [n if i == axis else None for i, n in enumerate(at)]
                here = prefixes.placed(found, [None] * found.dim(), numbers)
                found = torch.where(here, found, 0).sum(axis, dtype=base.dtype)
                del ends[axis], at[axis]
            elif ends[axis] is not None:
                self.within_length(ends[axis], found.shape[axis])
        return prefixes.prefix_of(found, ends)

    def put_part(self, value: Any, base: Tensor, index: Any) -> None:
        """`attn[..., i, :i] = value`, of a tensor of the state."""
        whole, ends, at = elements.prefixes(base, index)
        into = base[whole]
        for axis, (end, number) in enumerate(zip(ends, at, strict=True)):
            if end is not None or number is not None:
                self.within_length(number + 1 if end is None else end, into.shape[axis])
        if isinstance(value, Tensor):
            left = [axis for axis, number in enumerate(at) if number is None]
            prefixes.check_fits(value, [ends[i] for i in left], [into.shape[i] for i in left])
            value = prefixes.plain(self.as_kept(value, not base.requires_grad)).to(base.dtype)
            for axis in reversed(range(into.dim())):
                behind = into.dim() - 1 - axis
                if at[axis] is not None and value.dim() > behind:
                    value = value.unsqueeze(value.dim() - behind)
        into.copy_(torch.where(prefixes.placed(into, ends, at), value, into))

    def within_length(self, end: Index, n: int) -> None:
        """Check that a slice has elements in each iteration, and none beyond the end.

        Raises:
            Narrowed: it has none in the next one.
        """
        questions, self.has_prefixes = running.questions[-1], True
        begin, stop = questions.begin, self.step.items.n
        first, last = (questions.number_at(end._key, j) for j in (begin, stop - 1))
        if not (first >= 0 and 1 <= last <= n and first <= n):
            raise NoStep("a slice beyond the end of a tensor")
        if not first:
            raise Narrowed("a slice is empty", begin=begin + 1, end=questions.end)

    def holds(self, base: Any) -> bool:
        """Whether a tensor, list, dict or object is part of the state."""
        return any(base is of for of in self.held)

    def refuse_again(self, base: Any, index: Any) -> None:
        """Refuse an index of the state, `season[t % 4]`; the reason may be that it repeats."""
        if self.holds(base):
            variable = elements.moving(index)
            if not isinstance(variable, Index):
                running.questions[-1].refuse_again(variable._key)

    def element(self, read: Read, base: Any, index: Any) -> Any:
        """The element at an index that moves with the loop."""
        parts = elements.described(index)
        if isinstance(base, Fresh):
            return self.step.of_list(self, read, base, parts, index)
        found = self.element_of(read, base, parts, index)
        if isinstance(base, Tensor) and self.with_gradients and not torch.is_grad_enabled():
            return found.detach()  # as is a view that is made here
        return found

    def element_of(self, read: Read, base: Any, parts: elements.Parts, index: Any) -> Any:
        """The element of a tensor or a list that iterations do not make longer."""
        if not isinstance(base, Tensor) and table_of_numbers(base) is not None:
            return self.step.in_table(read, base, parts, index)
        for _, of, other, its_index, value in reversed(self.puts):
            if of == parts and _same_index(its_index, index) and elements.is_same(other, base):
                if not isinstance(value, Tensor):
                    raise NoStep("an iteration reads a number that it writes into a tensor")
                if isinstance(base, Tensor) and not elements.is_filled(base, parts, value):
                    raise NoStep("an iteration reads an element that it writes by broadcasting")
                return value
        lag = self.step.lag(self, read, base, parts, index)
        return self.step.element(self, read, base, parts, index) if lag is None else lag

    def reading(self, number: int, base: Any, index: Any) -> tuple[Any, Any, Any]:
        """The element that `base[index] += value` changes, after base and index."""
        return base, index, self.at(number, base, index)

    def update(
        self, number: int, name: str, base: Any, index: Any, element: Any, value: Any
    ) -> None:
        """The rest of `base[index] += value`.

        Raises:
            NoStep: the result has another shape or type than the element; Python raises an error.
        """
        if isinstance(element, Tensor) and elements.moves(index):
            changed = getattr(operator, name)(element, value)
            if changed.shape != element.shape or changed.dtype != element.dtype:
                raise NoStep("an iteration changes the shape or type of an element in place")
        else:
            changed = getattr(operator, f"i{name}".removesuffix("_"))(element, value)
        self.put(number, changed, base, index)

    def put(self, number: int, value: Any, base: Any, index: Any) -> None:
        """`base[index] = value`, an output of the step if the index moves with the loop."""
        write = self.numbered(number)
        if base is HIDDEN:
            base = self.step.base_of(write, index)
            if self.step.unfit:
                return
        if not elements.moves(index):
            base[index] = value
            return
        if isinstance(base, Tensor) and self.is_part(base, index):
            if not self.holds(base):
                raise NoStep("an iteration writes a slice of another length each time")
            self.put_part(value, base, index)
            return
        self.refuse_again(base, index)
        parts = elements.described(self.step.whole_rows(base, index))
        if elements.gathered(parts) is not None:
            raise NoStep("an iteration writes at a number computed from the loop's variable")
        self.step.follows(write, parts, index)
        if isinstance(base, Tensor) and isinstance(value, (Number, int, float)):
            value = value._key if isinstance(value, Number) else ("constant", value)
            self.puts.append((write, parts, base, index, value))
            return
        if not isinstance(value, Tensor):
            raise NoStep(f"an iteration writes a {type(value).__name__} at the loop's index")
        if type(value) is prefixes.Prefix:
            raise NoStep(prefixes.WHY)
        with torch_private.DisableTorchFunction():  # else it counts as a tensor that the step reads
            dtype = base.dtype if isinstance(base, Tensor) else value.dtype
            if isinstance(base, Tensor):
                self.about[write, "dtype"] = dtype
                self.about[write, "requires_grad"] = base.requires_grad
            is_plain = isinstance(base, Tensor) and not base.requires_grad
        if isinstance(base, Tensor):
            value = self.as_kept(value, is_plain)
        value = value if value.dtype == dtype else value.to(dtype)
        self.puts.append((write, parts, base, index, value))

    def copy(self, number: int, value: Any, base: Any, index: Any) -> None:
        """`base[index].copy_(value)`."""
        of = base
        if base is HIDDEN:
            of = self.step.base_of((number, self.counts.get(number, 0)), index)
        if isinstance(of, Tensor) and elements.is_view(index) and isinstance(value, Tensor):
            self.put(number, value, base, index)
        else:
            self.at(number, base, index).copy_(value)

    def written(self, number: int) -> Written:
        """A tensor of which each iteration writes elements, with its properties alone."""
        return Written(self.step.base_of((number, 0), Index(1, 0)), (number, 0), self.about)


class Written:
    """What a step may know of a tensor that iterations write."""

    def __init__(self, base: Any, write: Read, about: dict[tuple[Read, str], Any]):
        if not isinstance(base, Tensor):
            raise NoStep(f"an iteration writes elements of a {type(base).__name__}")
        self._base, self._write, self._about = base, write, about

    def __getattr__(self, name: str) -> Any:
        if name.startswith("new_"):
            made = getattr(torch, name.removeprefix("new_"))
            return functools.partial(made, dtype=self.dtype, device=self.device)
        self._about[self._write, name] = found = property_of(self._base, name)
        return found

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of an axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self.shape.numel()


def property_of(base: Tensor, name: str) -> Any:
    """A property of a tensor that is not one that the step reads."""
    with torch_private.DisableTorchFunction():
        return getattr(base, name)


def _same_index(a: Any, b: Any) -> bool:
    a, b = (i if type(i) is tuple else (i,) for i in (a, b))
    return len(a) == len(b) and all(
        x._key == y._key
        for x, y in zip(a, b, strict=True)
        if type(x) is elements.Index and type(y) is elements.Index
    )
