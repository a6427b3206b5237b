"""Slices whose length grows with the loop: `x[:, :t]`, `torch.stack(outs)` of a list that grows.

A step has tensors of one shape, so that such a slice is a `Prefix` in it: the full tensor, of which
the first elements along some axes count. The others hold a copy of the first element: whatever is
computed from them is finite where the valid results are, and so are its derivatives. A reduction
over such an axis replaces them by its neutral element, so that they have no gradient. An operation
without a rule here is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.torch_private import DisableTorchFunction, disable_current_modes
from ostinato.loops.iteration.index import Index, Number
from ostinato.loops.iteration.nostep import NoStep

WHY = "a slice of another length in every iteration"
Ends = tuple[Any, ...]  # for each axis the number of elements that count, an `Index`; None: all


class Prefix(Tensor):
    """A tensor of which the first elements along some axes count.

    The mode `Calls` gives each operation on one to `applied`, so that other modes see operations on
    full tensors alone. The object itself has no memory, and nothing else can compute with it.

    Attributes:
        full: the tensor.
        ends: for each axis how many; None of an axis without others.
        with_gradients: whether gradients are on where it is made. An `autograd.Function` turns them
            off, and would not see that its argument has any.
    """

    full: Tensor
    ends: Ends
    with_gradients: bool

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return applied(func, args, kwargs or {})


def has_prefix(values: Iterable[Any]) -> bool:
    """Whether one of the values, or of those in a list or tuple of them, is a prefix."""
    return any(has_prefix(v) if isinstance(v, (list, tuple)) else type(v) is Prefix for v in values)


def applied(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation of torch on prefixes.

    Raises:
        NoStep: the operation has no rule.
    """
    name = func.__name__
    if name == "__get__":  # x.shape
        name = func.__self__.__name__
    if name in _RULES:
        return _RULES[name](func, *args, **kwargs)
    if _is_elementwise(name):
        return _elementwise(func, *args, **kwargs)
    raise NoStep(f"{WHY}, in {name}")


def prefix_of(full: Tensor, ends: Sequence[Any]) -> Tensor:
    """The first elements of a tensor along the axes that have an end."""
    whole, ends = full, (*ends,)
    for axis, end in enumerate(ends):
        if end is not None:
            whole = torch.where(_valid(whole, axis, end), whole, _first(whole, axis))
    return as_prefix(whole, ends)


def as_prefix(whole: Any, ends: Ends) -> Any:
    """A tensor whose other elements are copies of the first ones already."""
    if not any(end is not None for end in ends):
        return whole
    with disable_current_modes(), DisableTorchFunction():
        found = torch.empty(whole.shape, device="meta").as_subclass(Prefix)
    found.full, found.ends, found.with_gradients = whole, ends, torch.is_grad_enabled()
    return found


def placed(sub: Tensor, ends: Sequence[Any], at: Sequence[Any]) -> Tensor:
    """Flags of the elements of a tensor that count: before an end, or at a number, on its axes."""
    flags = [_valid(sub, axis, end) for axis, end in enumerate(ends) if end is not None]
    flags += [
        _numbers(sub, axis) == _beside(sub, axis, n) for axis, n in enumerate(at) if n is not None
    ]
    found = flags[0]
    for more in flags[1:]:
        found = found & more
    return found


def plain(value: Any) -> Any:
    """The full tensor of a prefix; other values as they are."""
    if type(value) is not Prefix:
        return value
    if value.with_gradients is not torch.is_grad_enabled():
        raise NoStep(f"{WHY}, where gradients are turned on or off")
    return value.full


def ends_of(value: Any) -> Ends:
    """The ends of a prefix; None for each axis of another tensor."""
    return value.ends if type(value) is Prefix else (None,) * value.dim()


def same_end(a: Any, b: Any) -> bool:
    """Whether two ends are the same number in each iteration."""
    return a is not None and b is not None and a._key == b._key


def _numbers(x: Tensor, axis: int) -> Tensor:
    """0, 1, … along an axis."""
    shape = [1] * x.dim()
    shape[axis] = x.shape[axis]
    return torch.arange(x.shape[axis]).reshape(shape)


def _beside(x: Tensor, axis: int, number: Number) -> Tensor:
    return number._tensor([_numbers(x, axis)])


def _valid(x: Tensor, axis: int, end: Index) -> Tensor:
    return _numbers(x, axis) < _beside(x, axis, end)


def _first(x: Tensor, axis: int) -> Tensor:
    return x.narrow(axis, 0, 1).detach()


def _filled(x: Any, axes: Sequence[int], value: float) -> Tensor:
    """A full tensor with a number in place of the elements that do not count."""
    full = plain(x)
    for axis in axes:
        if ends_of(x)[axis] is not None:
            full = torch.where(_valid(full, axis, ends_of(x)[axis]), full, value)
    return full


def check_fits(value: Tensor, ends: Sequence[Any], shape: Sequence[int]) -> None:
    """Raise NoStep if a value has another form than the slice that it is written into."""
    given, sizes = ends_of(value), plain(value).shape
    for axis in range(-len(given), 0):
        end = ends[axis] if len(ends) >= -axis else None
        if sizes[axis] == 1 if given[axis] is None else same_end(given[axis], end):
            continue
        if (
            given[axis] is not None
            or end is not None
            or len(ends) < -axis
            or sizes[axis] != shape[axis]
        ):
            raise NoStep(f"{WHY}, beside another length")


# ------------------------------------------------------------------------ element by element


def _is_elementwise(name: str) -> bool:
    """Whether PyTorch marks an operation as one on single elements, and it draws no numbers."""
    if name in _REFLECTED or name in _OF_TYPES:
        return True
    in_place = name.startswith("__i") or (name[-1] == "_" and name[0] != "_")
    packet = None if in_place else getattr(torch.ops.aten, name.strip("_"), None)
    if packet is None:
        return False
    tags = getattr(packet, packet.overloads()[0]).tags
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags


_REFLECTED = {"__rsub__", "__rdiv__", "__rtruediv__", "__rpow__", "__radd__", "__rmul__"}
_OF_TYPES = {"to", "type_as", "float", "double", "half", "bfloat16", "long", "int", "bool"}


def _elementwise(func: Any, *args: Any, **kwargs: Any) -> Any:
    given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
    ends = _joined([ends_of(v) for v in given], [plain(v).shape for v in given])
    beside = [*map(plain, given)]

    def operand(value: Any) -> Any:
        return value._tensor(beside) if isinstance(value, Number) else plain(value)

    out = func(*map(operand, args), **{k: operand(v) for k, v in kwargs.items()})
    return as_prefix(out, ends)


def _joined(ends: list[Ends], shapes: list[Any]) -> Ends:
    """The ends of a result whose operands are broadcast."""
    n = max(map(len, ends))
    found = list[Any]()
    for axis in range(-n, 0):
        here = [(e[axis], s[axis]) for e, s in zip(ends, shapes, strict=True) if len(e) >= -axis]
        of = [end for end, _ in here if end is not None]
        if of and not all(
            same_end(end, of[0]) or (end is None and size == 1) for end, size in here
        ):
            raise NoStep(f"{WHY}, beside another length")
        found.append(of[0] if of else None)
    return tuple(found)


# ------------------------------------------------------------------------ reductions


def _lowest(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float:
    return math.inf if dtype.is_floating_point else torch.iinfo(dtype).max


_NEUTRAL: dict[str, Callable[[torch.dtype], float]] = {
    "sum": lambda _: 0,
    "mean": lambda _: 0,
    "any": lambda _: False,
    "all": lambda _: True,
    "prod": lambda _: 1,
    "max": _lowest,
    "amax": _lowest,
    "logsumexp": _lowest,
    "min": _highest,
    "amin": _highest,
}


def _reduced(func: Any, x: Any, dim: Any = None, keepdim: bool = False, **named: Any) -> Any:
    name = func.__name__
    if isinstance(dim, Tensor) or "axis" in named:
        raise NoStep(f"{WHY}, in {name}")
    n, ends = plain(x).dim(), ends_of(x)
    asked = dim if isinstance(dim, (tuple, list)) else [dim]
    dims = [*range(n)] if dim is None else [d % n for d in asked]
    full = _filled(x, dims, _NEUTRAL[name](plain(x).dtype))
    left = [None if d in dims else end for d, end in enumerate(ends) if keepdim or d not in dims]
    if dim is not None:
        out = func(full, dim, keepdim, **named)
    elif name in _NEEDS_DIM:
        out = func(full, dims, **named)
    else:
        out = func(full, **named)
    if name == "mean":
        for axis in dims:
            if ends[axis] is not None:  # the sum of those that count, by their number
                out = out * full.shape[axis] / ends[axis]._tensor([out])
    if isinstance(out, tuple):  # values and indices
        return type(out)([as_prefix(o, tuple(left)) for o in out])
    return as_prefix(out, tuple(left))


_NEEDS_DIM = {"amax", "amin", "logsumexp"}


def _softmax(func: Any, x: Any, dim: Any = None, *more: Any, **named: Any) -> Any:
    full, ends = plain(x), ends_of(x)
    if type(dim) is not int or type(x) is not Prefix:
        raise NoStep(f"{WHY}, in {func.__name__}")
    axis = dim % full.dim()
    out = func(_filled(x, [axis], -math.inf), dim, *more, **named)
    if ends[axis] is not None:
        out = torch.where(_valid(out, axis, ends[axis]), out, _first(out, axis))
    return as_prefix(out, ends)


# ------------------------------------------------------------------------ products


def _matmul(func: Any, a: Any, b: Any) -> Any:
    if func.__name__ == "__rmatmul__":
        a, b = b, a
    ends_a, ends_b = ends_of(a), ends_of(b)
    across = -2 if len(ends_b) > 1 else -1
    inner = ends_a[-1], ends_b[across]
    if any(e is not None for e in inner) and not same_end(*inner):
        raise NoStep(f"{WHY}, beside another length")
    outer = (*([ends_a[-2]] if len(ends_a) > 1 else []), *([ends_b[-1]] if len(ends_b) > 1 else []))
    batch = [e[:-2] for e in (ends_a, ends_b)]
    shapes = [plain(t).shape[:-2] for t in (a, b)]
    ends = (*(_joined(batch, shapes) if any(batch) else ()), *outer)
    a = _filled(a, [len(ends_a) - 1], 0)
    b = _filled(b, [len(ends_b) + across], 0)
    return as_prefix(torch.matmul(a, b), ends)


def _linear(func: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    if type(x) is not Prefix or x.ends[-1] is not None or type(weight) is Prefix:
        raise NoStep(f"{WHY}, in linear")
    return as_prefix(func(plain(x), weight, bias), (*x.ends[:-1], None))


def _einsum(func: Any, equation: Any, *operands: Any) -> Any:
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    text = equation.replace(" ", "") if isinstance(equation, str) else ""
    given, arrow, result = text.partition("->")
    if not arrow or not (given.replace(",", "") + result).isalpha():
        raise NoStep(f"{WHY}, in einsum")
    ends: dict[str, Any] = {}
    for letters, of in zip(given.split(","), operands, strict=True):
        for letter, end in zip(letters, ends_of(of), strict=True):
            known = ends.setdefault(letter, end)
            if known is not end and not same_end(known, end):
                raise NoStep(f"{WHY}, beside another length")
    full = [
        _filled(of, [i for i, letter in enumerate(letters) if letter not in result], 0)
        for letters, of in zip(given.split(","), operands, strict=True)
    ]
    return as_prefix(func(equation, *full), tuple([ends[letter] for letter in result]))


def _attention(
    func: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        raise NoStep(f"{WHY}, in {func.__name__} with options")
    scale = 1 / math.sqrt(plain(query).shape[-1]) if scale is None else scale
    turned = _turned(torch.transpose, key, -2, -1) if type(key) is Prefix else key.transpose(-2, -1)
    scores = _elementwise(torch.mul, _matmul(torch.matmul, query, turned), scale)
    if type(scores) is not Prefix:
        raise NoStep(f"{WHY}, in {func.__name__}")
    return _matmul(torch.matmul, _softmax(torch.softmax, scores, -1), value)


# ------------------------------------------------------------------------ shapes


def _shape(func: Any, x: Any, dim: int | None = None) -> Any:
    """The shape, in which the length of a prefix is a number that grows."""
    sizes = [n if end is None else end for n, end in zip(plain(x).shape, x.ends, strict=True)]
    return tuple(sizes) if dim is None else sizes[dim]


def _of_full(func: Any, x: Any) -> Any:
    return func(plain(x))


def _turned(func: Any, x: Any, *arguments: Any, **named: Any) -> Any:
    """An operation that moves or adds axes; where they go is seen from their sizes, two primes."""
    if func.__name__ == "squeeze" and not (arguments or named):
        raise NoStep(f"{WHY}, in {func.__name__}")
    full, axes = plain(x), [i for i, end in enumerate(x.ends) if end is not None]
    primes = [1009, 1013, 1019, 1021][: len(axes)]

    def sized(sizes: Sequence[int]) -> list[Any]:
        """The arguments, with the length of each prefix as this number."""

        def number(a: Any) -> Any:
            if isinstance(a, (tuple, list)):
                return type(a)(map(number, a))
            if not isinstance(a, Number):
                return a
            found = [s for s, axis in zip(sizes, axes, strict=True) if same_end(a, x.ends[axis])]
            if not found:
                raise NoStep(WHY)
            return found[0]

        return [number(a) for a in arguments]

    shape = [*full.shape]
    for axis, prime in zip(axes, primes, strict=True):
        shape[axis] = prime
    with disable_current_modes(), DisableTorchFunction():
        there = func(torch.empty(shape, device="meta"), *sized(primes), **named).shape
    ends: list[Any] = [None] * len(there)
    for axis, prime in zip(axes, primes, strict=True):
        at = [i for i, n in enumerate(there) if n == prime]
        in_order = func.__name__ not in _IN_ORDER or (
            len(at) == 1 and math.prod(there[: at[0]]) == math.prod(shape[:axis])
        )
        if len(at) != 1 or not in_order:
            raise NoStep(f"{WHY}, in {func.__name__}")
        ends[at[0]] = x.ends[axis]
    return as_prefix(func(full, *sized([full.shape[a] for a in axes]), **named), tuple(ends))


_IN_ORDER = {"view", "reshape", "flatten", "unflatten"}


def _item(func: Any, x: Any, index: Any) -> Any:
    """An index that leaves the axes of prefixes whole."""
    parts = index if type(index) is tuple else (index,)
    named = sum(p is not None and p is not Ellipsis for p in parts)
    axis, ends, has_rest = 0, list[Any](), any(p is Ellipsis for p in parts)
    for p in (*parts, *([] if has_rest else [Ellipsis])):
        if p is None:
            ends.append(None)
        elif p is Ellipsis:
            n = len(x.ends) - named
            ends += x.ends[axis : axis + n]
            axis += n
        elif isinstance(p, slice) and p == slice(None):
            ends.append(x.ends[axis])
            axis += 1
        elif type(p) in (int, slice) and x.ends[axis] is None:
            ends += [None] if type(p) is slice else []
            axis += 1
        else:
            raise NoStep(f"{WHY}, of which an iteration takes an element")
    return as_prefix(func(plain(x), index), tuple(ends))


def _cat(func: Any, tensors: Any, dim: int = 0) -> Any:
    """Tensors one after the other along an axis on which all elements of each count."""
    found = {len(ends_of(t)) for t in tensors}
    if len(found) > 1 or any(ends_of(t)[dim] is not None for t in tensors):
        raise NoStep(f"{WHY}, in {func.__name__}")
    shapes = [plain(t).shape for t in tensors]
    axis = dim % len(shapes[0])
    ends = _joined(
        *[
            [of[:axis] + of[axis + 1 :] for of in each]
            for each in ([ends_of(t) for t in tensors], shapes)
        ]
    )
    return as_prefix(func([*map(plain, tensors)], dim), (*ends[:axis], None, *ends[axis:]))


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_NEUTRAL, _reduced),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv"), _matmul),
    "linear": _linear, "einsum": _einsum, "scaled_dot_product_attention": _attention,
    "shape": _shape, "size": _shape, "__getitem__": _item,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(
        ("dim", "ndim", "dtype", "device", "layout", "requires_grad", "is_leaf", "is_cuda",
         "is_floating_point", "is_complex", "grad_fn", "retains_grad", "_version", "is_sparse",
         "is_nested", "is_inference", "is_contiguous",
         "is_neg", "is_conj"), _of_full),
    **dict.fromkeys(
        ("unsqueeze", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "T",
         "mT", "t", "contiguous", "clone", "detach", "squeeze", *_IN_ORDER), _turned),
}  # fmt: skip
