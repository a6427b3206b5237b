"""What a scan should give, and how to compare: the plain loop, and gradients of what came out."""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import ostinato
from zoo.steps import Case

ENGINES = ("native", "reference", "eager")


def loop(
    step: Callable[[Any, Any], Any], init: Any, xs: Any, *, reverse: bool = False, dim: int = 0
) -> tuple[Any, Any]:
    """What `scan` means, without lengths or resets."""
    structure = pytree.tree_structure(init)
    T = pytree.tree_leaves(xs)[0].shape[dim]
    carry, ys = init, [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        result = step(carry, pytree.tree_map(lambda leaf, t=t: leaf.select(dim, t), xs))
        carry, ys[t] = (result, result) if pytree.tree_structure(result) == structure else result
    return carry, pytree.tree_map(lambda *at_t: torch.stack(at_t, dim), *ys)


def rows_apart(
    step: Callable[[Any, Any], Any],
    init: Any,
    xs: Any,
    *,
    reverse: bool = False,
    lengths: Any = None,
    resets: Tensor | None = None,
    restart: Any = None,
    truncate: int | None = None,
) -> tuple[Any, Any]:
    """What `lengths`, `resets` and `truncate` mean: each row alone, no longer than it is, cut into
    segments, its carry detached between the windows of `truncate` steps."""
    structure = pytree.tree_structure(init)
    T, B = pytree.tree_leaves(xs)[0].shape[:2]
    if restart is None:
        restart = pytree.tree_map(torch.zeros_like, init)
    restart = pytree.tree_map(lambda r, leaf: r.expand_as(leaf), restart, init)
    carries, ys_of_rows = [], []
    for b in range(B):
        row = slice(b, b + 1)
        again = pytree.tree_map(lambda leaf, row=row: leaf[row], restart)
        carry = pytree.tree_map(lambda leaf, row=row: leaf[row], init)
        n = T if lengths is None else int(lengths[b])
        ys: list[Any] = [None] * T
        window = None
        for t in reversed(range(n)) if reverse else range(n):
            before = window
            window = None if truncate is None else t // truncate
            if before not in (None, window):
                carry = pytree.tree_map(torch.detach, carry)
            ends_a_segment = t + 1 < n and reverse and resets is not None and resets[t + 1, b]
            begins_one = not reverse and resets is not None and resets[t, b]
            if ends_a_segment or begins_one:
                carry = again
            result = step(carry, pytree.tree_map(lambda leaf, t=t, row=row: leaf[t, row], xs))
            carry, ys[t] = (
                (result, result) if pytree.tree_structure(result) == structure else result
            )
        carries.append(carry)
        ys_of_rows.append(ys)
    some = next((y for ys in ys_of_rows for y in ys if y is not None), None)
    if some is None:  # no row has a step: what an output would be like
        some = loop(step, carry, pytree.tree_map(lambda leaf: leaf[:1, row], xs))[1]
        some = pytree.tree_map(lambda y: y[0], some)
    nothing = pytree.tree_map(lambda y: torch.zeros_like(y).detach(), some)
    columns = [
        pytree.tree_map(lambda *at_t: torch.stack(at_t), *[nothing if y is None else y for y in ys])
        for ys in ys_of_rows
    ]
    return (
        pytree.tree_map(lambda *rows: torch.cat(rows), *carries),
        pytree.tree_map(lambda *rows: torch.cat(rows, 1), *columns),
    )


@dataclass
class Played:
    """Everything that came out of a scan: values, and gradients of a fixed weighting of them."""

    carry: list[Tensor]
    ys: list[Tensor]
    d_parameters: list[Tensor]
    d_init: list[Tensor]
    d_xs: list[Tensor]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        for part in ("carry", "ys", "d_parameters", "d_init", "d_xs"):
            for i, tensor in enumerate(getattr(self, part)):
                yield f"{part}[{i}]", tensor


def play(
    how: Callable[..., tuple[Any, Any]],
    case: Case,
    init: Any,
    xs: Any,
    *,
    seed: int = 1,
    weights: list[Tensor] | None = None,
    **options: Any,
) -> Played:
    """`how(step, init, xs, **options)`, and the gradients of a weighting of its outputs.

    The weights are random unless given, those of the carry first. init and xs are taken anew as
    leaves; a gradient that autograd does not give is zero.
    """
    init = pytree.tree_map(as_leaf, init)
    xs = pytree.tree_map(as_leaf, xs)
    carry, ys = how(case.step, init, xs, **options)
    outs = [*pytree.tree_leaves(carry), *pytree.tree_leaves(ys)]
    random = torch.Generator().manual_seed(seed)
    if weights is None:
        kinds = [torch.complex128 if o.is_complex() else torch.float64 for o in outs]
        weights = [
            torch.randn(o.shape, generator=random, dtype=kind)
            for o, kind in zip(outs, kinds, strict=True)
        ]
    inputs_ = [*case.wanted, *pytree.tree_leaves(init), *pytree.tree_leaves(xs)]
    pairs = [(o, w.to(o.dtype)) for o, w in zip(outs, weights, strict=True) if o.requires_grad]
    wanted = [t for t in inputs_ if t.requires_grad]
    some: Any = ()
    if wanted:
        some = torch.autograd.grad(
            [o for o, _ in pairs],
            wanted,
            [w for _, w in pairs],
            allow_unused=True,
            retain_graph=True,
        )
    found = iter(some)
    grads = []
    for t in inputs_:
        g = next(found) if t.requires_grad else None
        grads.append(torch.zeros(t.shape, dtype=t.dtype) if g is None else g)
    p, s = len(case.wanted), len(case.wanted) + len(pytree.tree_leaves(init))
    n_carry = len(pytree.tree_leaves(carry))
    values = [o.detach() for o in outs]
    return Played(values[:n_carry], values[n_carry:], grads[:p], grads[p:s], grads[s:])


def least_memory(case: Case, init: Any, xs: Any, **options: Any) -> int | None:
    """The least budget for a scan in bytes; None where nothing is kept, or the loop plays."""
    try:
        play(ostinato.scan, case, init, xs, memory=1, **options)
    except ValueError as refused:
        found = re.search(r"need at least (\d+) bytes", str(refused))
        assert found, refused
        return int(found[1])
    return None


def gradients_of(
    how: Callable[..., tuple[Any, Any]],
    case: Case,
    init: Any,
    xs: Any,
    loss: Callable[[Any, Any], Tensor],
    **options: Any,
) -> list[Tensor | None]:
    """Of a loss of the carry and ys, as autograd gives them: None where there is none."""
    init, xs = (pytree.tree_map(as_leaf, tree) for tree in (init, xs))
    total = loss(*how(case.step, init, xs, **options))
    wanted = [*case.wanted, *pytree.tree_leaves(init), *pytree.tree_leaves(xs)]
    return list(torch.autograd.grad(total, wanted, allow_unused=True))


def assert_same_gradients(ours: Any, theirs: Any, tolerance: float = 0) -> None:
    """The same are None, the others as near as the tolerance says, absolute and relative."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert (a is None) == (b is None), f"gradient {i}: {a} for {b}"
        if a is not None:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def as_leaf(t: Tensor) -> Tensor:
    return t.detach().clone().requires_grad_(t.is_floating_point() or t.is_complex())


def assert_close(ours: Played, theirs: Played, relative: float) -> None:
    """Every tensor, relative to the largest element of the right one."""
    pairs = list(zip(ours.named(), theirs.named(), strict=True))
    assert pairs
    for (name, a), (_, b) in pairs:
        assert a.shape == b.shape, f"{name}: shape {list(a.shape)}, wanted {list(b.shape)}"
        assert a.dtype == b.dtype, f"{name}: {a.dtype}, wanted {b.dtype}"
        if b.is_complex():
            a, b = (torch.view_as_real(t.resolve_conj()) for t in (a, b))
        if not b.is_floating_point():
            assert torch.equal(a, b), name
            continue
        # A mean of no rows is NaN, and a quotient may be infinite.
        same = a.isnan() & b.isnan() | a.isinf() & (a == b)
        a, b = a.masked_fill(same, 0), b.masked_fill(same, 0)
        assert b.isfinite().all(), f"{name}: wanted an infinity or NaN where it has none"
        scale = float(b.abs().max()) if b.numel() else 0.0
        error = float((a - b).abs().max()) if b.numel() else 0.0
        assert error <= relative * scale + 1e-300, f"{name}: error {error:.3g} at {scale:.3g}"


def assert_native(case: Case, init: Any, xs: Any, **options: Any) -> None:
    """A search may call a step that is known by now once; the loop calls it T times, T > 1."""
    assert len(pytree.tree_leaves(xs)[0]) > 1
    with counting(case.step) as calls:
        play(ostinato.scan, case, init, xs, **options)
    if calls[0] > 1:
        leaves = (pytree.tree_map(as_leaf, tree) for tree in (init, xs))  # as `play` plays it
        reason = ostinato.explain(case.step, *leaves).reason
        raise AssertionError(f"the loop played: the step was called {calls[0]} times. {reason}")


def assert_played_as_by_the_loop(case: Case, batches: tuple[int, ...], T: int) -> None:
    """A case in float64 is native, with the loop's values and gradients, in both directions.

    Rounding is some 10⁻¹⁵; a wrong term is as large as the values.
    """
    for B in batches:
        init, xs = case.init(B), case.xs(T, B)
        for reverse in (False, True):
            ours = play(ostinato.scan, case, init, xs, reverse=reverse)
            assert_close(ours, play(loop, case, init, xs, reverse=reverse), 1e-10)
        assert_native(case, init, xs)


def code_of(step: Any) -> types.CodeType:
    """The code that runs once for each step of the plain loop."""
    if isinstance(step, functools.partial):
        return code_of(step.func)
    if isinstance(step, nn.Module):
        return type(step).forward.__code__
    if hasattr(step, "__func__"):
        return step.__func__.__code__
    return step.__code__ if hasattr(step, "__code__") else type(step).__call__.__code__


@contextmanager
def counting(step: Any) -> Iterator[list[int]]:
    """Count the calls of a step in `[n]`, without being a part of what it reaches."""
    code, calls = code_of(step), [0]

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is code:
            calls[0] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(before)
