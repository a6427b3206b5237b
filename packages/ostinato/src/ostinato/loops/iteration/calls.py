"""The calls of torch's functions in a step: numbers become tensors, and lookups are noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.compiler.torch_compat import OwnMode
from ostinato.loops.iteration.index import Number
from ostinato.loops.iteration.nostep import NoStep
from ostinato.loops.iteration.prefixes import applied, has_prefix


class Calls(OwnMode):
    """Replaces numbers in calls of torch's functions by tensors.

    Attributes:
        outside: for each lookup by a computed index whether it is beyond the end. The engine would
            select nothing there, and Python raises an error.
    """

    def __init__(self, selected: Callable[[Any, Any, Any], Any], given: list[Tensor]):
        """A mode.

        Args:
            selected: is given each call; it returns NotImplemented unless it selects elements by a
                number.
            given: the inputs of the step.
        """
        super().__init__()
        self.selected, self.known = selected, dict[int, Tensor]()
        self.outside: list[Tensor] = []
        self.meet(given)

    def meet(self, value: Any) -> None:
        """Remember tensors that are inputs of the step, or computed from these."""
        if isinstance(value, Tensor):
            self.known[id(value)] = value
        elif isinstance(value, (list, tuple)):
            for part in value:
                self.meet(part)

    def knows(self, value: Any) -> bool:
        """Whether a value is one of the known ones, or a list or tuple that has one."""
        if isinstance(value, (list, tuple)):
            return any(map(self.knows, value))
        return id(value) in self.known

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.left:
            return func(*args, **kwargs)
        found = self.selected(func, args, kwargs)
        if found is not NotImplemented:
            return found
        given = (*args, *kwargs.values())
        if has_prefix(given):
            out = applied(func, args, kwargs)
            self.meet(out)
            return out
        if any(isinstance(a, Number) for a in given):
            beside = [a for a in given if isinstance(a, Tensor)]
            args = tuple([a._tensor(beside) if isinstance(a, Number) else a for a in args])
            kwargs = {
                k: a._tensor(beside) if isinstance(a, Number) else a for k, a in kwargs.items()
            }
        if func in _LOOKING_UP:
            for index, first, n in _LOOKING_UP[func](*args, **kwargs):
                if self.knows(index):
                    self.outside.append((index < first) | (index >= n))
        out = func(*args, **kwargs)
        if self.knows(args) or self.knows([*kwargs.values()]):
            self.meet(out)
        return out


# ------------------------------------------------------------------------ tensors of numbers


def filled(function: Any, *arguments: Any, **named: Any) -> Any:
    """`torch.full_like(h, t)`, `h.fill_(t)`, `torch.tensor([t])`: PyTorch takes numbers alone."""
    if not any(map(_holds_number, (*arguments, *named.values()))):
        return function(*arguments, **named)
    of = getattr(function, "__self__", None)
    if isinstance(of, Tensor):
        function, arguments = getattr(Tensor, function.__name__), (of, *arguments)
    if function not in _FILLING:
        return function(*arguments, **named)
    return _FILLING[function](*arguments, **named)


def _holds_number(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_number, value))
    return isinstance(value, Number)


def _plus(zeros: Tensor, number: Number) -> Tensor:
    """A tensor of zeros plus a number, in the tensor's type."""
    added = number._tensor([zeros])
    if added.dtype != zeros.dtype:
        raise NoStep(f"an iteration makes a tensor of {zeros.dtype} from a number of another kind")
    return zeros + added


def _full_like(like: Tensor, fill_value: Any, **named: Any) -> Tensor:
    return _plus(torch.zeros_like(like, **named), fill_value)


def _new_full(like: Tensor, size: Any, fill_value: Any, **named: Any) -> Tensor:
    return _plus(like.new_zeros(size, **named), fill_value)


def _full(size: Any, fill_value: Any, *, dtype: Any = None, **named: Any) -> Tensor:
    dtype = dtype or _type_of([fill_value])
    return _plus(torch.zeros(size, dtype=dtype, **named), fill_value)


def _fill(of: Tensor, value: Any) -> Tensor:
    return of.copy_(_plus(torch.zeros_like(of), value))


def _tensor(data: Any, dtype: Any = None, **named: Any) -> Tensor:
    """`torch.tensor([t, 0.5])`."""
    leaves = [*_leaves(data)]
    zero = torch.zeros((), dtype=dtype or _type_of(leaves), **named)
    each = [_plus(zero, v) if isinstance(v, Number) else zero + v for v in leaves]
    shape, n_rows = _shape(data), max(e.numel() for e in each)
    if n_rows > 1:  # a number for each row of the batch, see `Number._tensor`
        each = [e.reshape(-1).expand(n_rows) for e in each]
        return torch.stack(each, -1).reshape(n_rows, *(shape or (1,)))
    return torch.stack(each).reshape(shape)


def _new_tensor(like: Tensor, data: Any, dtype: Any = None, **named: Any) -> Tensor:
    return _tensor(data, dtype or like.dtype, **named)


def _type_of(numbers: Sequence[Any]) -> torch.dtype:
    is_whole = all(isinstance(number, int) for number in numbers)
    return torch.int64 if is_whole else torch.get_default_dtype()


def _leaves(data: Any) -> Iterator[Any]:
    if not isinstance(data, (list, tuple)):
        yield data
    else:
        for value in data:
            yield from _leaves(value)


def _shape(data: Any) -> tuple[int, ...]:
    return (len(data), *_shape(data[0])) if isinstance(data, (list, tuple)) else ()


_FILLING: dict[Any, Callable[..., Tensor]] = {
    torch.full_like: _full_like,
    torch.full: _full,
    Tensor.new_full: _new_full,
    Tensor.fill_: _fill,
    torch.tensor: _tensor,
    torch.as_tensor: _tensor,
    Tensor.new_tensor: _new_tensor,
}


# ------------------------------------------------------------------------ lookups


Lookups = Iterator[tuple[Tensor, int, int]]  # each an index, the first number, and the end


def _rows(input: Tensor, weight: Tensor, *options: Any, **named: Any) -> Lookups:
    yield input, 0, weight.shape[0]


def _along(of: Tensor, dim: int, index: Tensor, **named: Any) -> Lookups:
    if index.dim():
        yield index, 0, of.shape[dim]


def _items(of: Tensor, index: Any) -> Lookups:
    """`table[index]`, `table[:, index]`."""
    parts = index if type(index) is tuple else (index,)
    if any(p is None or p is Ellipsis for p in parts):
        return
    for axis, part in enumerate(parts):
        if isinstance(part, Tensor):
            if part.dtype == torch.bool:
                return
            yield part, -of.shape[axis], of.shape[axis]


_LOOKING_UP: dict[Any, Callable[..., Lookups]] = {
    F.embedding: _rows,
    torch.embedding: lambda weight, index, *_, **__: _rows(index, weight),
    torch.gather: _along,
    Tensor.gather: _along,
    torch.index_select: _along,
    Tensor.index_select: _along,
    Tensor.__getitem__: _items,
}
