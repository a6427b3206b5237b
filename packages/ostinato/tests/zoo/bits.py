"""The bits of a scan: what came out is the same to the last one, whoever else is in the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ostinato import scan
from zoo.playing import Played, as_leaf, play
from zoo.steps import Case


def bits(t: Tensor) -> bytes:
    """The bytes of a tensor; a NaN is a NaN, whatever else it carries."""
    if not t.is_floating_point():
        return t.numpy().tobytes()
    return torch.where(t.isnan(), torch.full_like(t, float("nan")), t).numpy().tobytes()


def assert_same_bits(ours: Played, theirs: Played, what: Any = "", parameters: bool = True) -> None:
    for (name, a), (_, b) in zip(ours.named(), theirs.named(), strict=True):
        if not parameters and name.startswith("d_parameters"):
            continue
        assert a.shape == b.shape and a.dtype == b.dtype
        same = bits(a.contiguous()) == bits(b.contiguous())
        assert same, f"{what} {name}: {float((a - b).abs().max())}"


def weights_for(case: Case, init: Any, xs: Any, seed: int = 3) -> list[Tensor]:
    """Of carry `[B, …]` and outputs `[T, B, …]`, the carry's first."""
    random = torch.Generator().manual_seed(seed)
    init, xs = (pytree.tree_map(as_leaf, tree) for tree in (init, xs))  # as `play` gives them
    outs = pytree.tree_leaves(scan(case.step, init, xs))
    return [torch.randn(o.shape, generator=random, dtype=o.dtype) for o in outs]


def rows(tree: Any, index: Any, axis: int) -> Any:
    return pytree.tree_map(lambda t: t.index_select(axis, torch.as_tensor(index)), tree)


def rows_of(p: Played, index: Any) -> Played:
    return Played(
        rows(p.carry, index, 0),
        rows(p.ys, index, 1),
        p.d_parameters,
        rows(p.d_init, index, 0),
        rows(p.d_xs, index, 1),
    )


def rows_of_weights(weights: list[Tensor], init: Any, index: Any) -> list[Tensor]:
    n = len(pytree.tree_leaves(init))
    return rows(weights[:n], index, 0) + rows(weights[n:], index, 1)


def assert_rows_have_their_bits(case: Case, init: Any, xs: Any, *some: list[int]) -> None:
    """Rows that are played apart, `some` at a time, have the bits that they have in the batch; and
    without gradients those that they have with them."""
    weights = weights_for(case, init, xs)
    whole = play(scan, case, init, xs, weights=weights)
    with torch.no_grad():
        quiet = pytree.tree_leaves(scan(case.step, init, xs))
    assert [bits(t) for t in quiet] == [bits(t) for t in (*whole.carry, *whole.ys)]
    for index in some:
        few = play(
            scan,
            case,
            rows(init, index, 0),
            rows(xs, index, 1),
            weights=rows_of_weights(weights, init, index),
        )
        assert_same_bits(few, rows_of(whole, index), f"rows {index}:", parameters=False)


def assert_the_plain_run(
    case: Case, init: Any, xs: Any, *, memory: Any = None, truncate: int | None = None, **plain: Any
) -> None:
    """A budget, or windows that are no shorter than the sequence, change no bit."""
    ours = play(scan, case, init, xs, memory=memory, truncate=truncate, **plain)
    assert_same_bits(ours, play(scan, case, init, xs, **plain), (memory, truncate, plain))
