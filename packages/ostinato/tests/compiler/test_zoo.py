"""Every step of the zoo: values, first and second gradients are the loop's; and its bits."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import ostinato
import zoo.literature_arrays  # noqa: F401  (its steps join those of zoo.literature)
from ostinato import scan
from zoo.bits import assert_rows_have_their_bits, assert_same_bits
from zoo.complex_steps import COMPLEX
from zoo.literature import LITERATURE
from zoo.modern import MODERN
from zoo.operations import cases
from zoo.playing import as_leaf, assert_close, assert_native, loop, play, rows_apart
from zoo.random_arrays import random_arrays
from zoo.random_steps import Draw
from zoo.small import D
from zoo.steps import PAIRS, SQUARE, ZOO, Case, Depth, Kit, inputs, make, states
from zoo.suites import one_in, sample

pytestmark = [
    pytest.mark.filterwarnings("error"),  # the loop would play with a warning
    pytest.mark.filterwarnings("ignore:.*was recorded"),  # expressions share one code: meant
]

Make = Callable[[torch.dtype], Case]


def _of_kit(make: Callable[[Kit], Case]) -> Make:
    return lambda dtype: make(Kit(dtype))


def _of_two_squares(step_of: Callable[[Tensor, Tensor], Any], n_states: int) -> Make:
    def made(dtype: torch.dtype) -> Case:
        kit = Kit(dtype, 4, 4)
        W, V = kit.weight(4, 4), kit.weight(4, 4)
        return Case(step_of(W, V), [W, V], states(kit, n_states), inputs(kit))

    return made


def _deep_module(kit: Kit) -> Case:
    module = Depth(kit)
    return Case(module, list(module.parameters()), states(kit), inputs(kit))


PUBLISHED = {name: _of_kit(make) for name, make in (LITERATURE | MODERN).items()}
OPERATIONS: dict[str, Make] = {
    f"{group}: {name} {i}": lambda dtype, i=i: list(cases(dtype))[i][2]()
    for i, (group, name, _) in enumerate(cases())
}
WHOLE_STEPS: dict[str, Make] = {
    **{name: lambda dtype, name=name: make(name, dtype) for name in ZOO},
    **{f"square: {name}": _of_two_squares(f, 1) for name, f in SQUARE.items()},
    **{f"pair: {name}": _of_two_squares(f, 2) for name, f in PAIRS.items()},
    **{f"complex: {name}": _of_kit(make) for name, make in COMPLEX.items()},
    "deep module": _of_kit(_deep_module),
}
STEPS = WHOLE_STEPS | OPERATIONS
ARRAYS: dict[str, Make] = {
    f"arrays {seed}": lambda dtype, seed=seed: random_arrays(Draw(seed)) for seed in range(40)
}
EVERY = STEPS | PUBLISHED | ARRAYS
SHARES = {2: WHOLE_STEPS, 3: OPERATIONS, 10: PUBLISHED, 4: ARRAYS}  # one in so many is quick
QUICK = [p for n, cases_of_kind in SHARES.items() for p in one_in(n, cases_of_kind)]


def case_of(name: str, dtype: torch.dtype = D) -> Case:
    case = EVERY[name](dtype)
    ostinato.forget(case.step)
    return case


def assert_the_loop(
    how: Any,
    case: Case,
    init: Any,
    xs: Any,
    given: Any = None,
    *,
    directions: tuple[bool, ...] = (False, True),
    **options: Any,
) -> None:
    """With `given` for xs, which differs where nobody looks.

    Rounding is some 10⁻¹⁵; a wrong term is as large as the values.
    """
    for reverse in directions:
        theirs = play(how, case, init, xs, reverse=reverse, **options)
        ours = play(scan, case, init, xs if given is None else given, reverse=reverse, **options)
        assert_close(ours, theirs, 1e-11)


def directions_of(name: str) -> tuple[bool, ...]:
    """Whole steps are played in both directions, each single operation in one of them."""
    single = name in OPERATIONS or name in ARRAYS
    return (is_backward(name),) if single else (False, True)


def is_backward(name: str) -> bool:
    """Whether a case that is played in one direction is played backward: half of them are."""
    return zlib.crc32(name.encode()) % 2 == 1


@pytest.mark.parametrize("name", QUICK)
def test_double_is_the_loop(name: str) -> None:
    case, backward = case_of(name), is_backward(name)
    init, xs = case.init(4), case.xs(5, 4)
    assert_the_loop(loop, case, init, xs, directions=(backward,))
    assert_native(case, init, xs, reverse=backward)


@pytest.mark.parametrize("name", one_in(3, sample(36, EVERY)))
def test_other_sizes_and_rows_that_end_and_restart(name: str) -> None:
    """One row, one step, several groups of rows; what lies beyond a row's end is not read."""
    case, directions = case_of(name), directions_of(name)
    for T, B in ((5, 1), (1, 5), (3, 33)):
        assert_the_loop(loop, case, case.init(B), case.xs(T, B), directions=directions)
    lengths = [3, 6, 0, 5]
    init, xs, restart = case.init(4), case.xs(6, 4), case.init(4)  # zeros are a pole of some
    # Where NaN is what a step is recorded with, a choice of the largest is refused.
    filling = float("nan") if name in ZOO else 1e3
    spoilt = pytree.tree_map(torch.clone, xs)
    for leaf in pytree.tree_leaves(spoilt):
        for b, n in enumerate(lengths):
            leaf[n:, b] = filling if as_leaf(leaf).requires_grad else True
    resets = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.3
    restarts = {"resets": resets, "restart": restart, "directions": directions}
    assert_the_loop(rows_apart, case, init, xs, **restarts)
    assert_the_loop(rows_apart, case, init, xs, spoilt, lengths=lengths, directions=directions)
    assert_the_loop(rows_apart, case, init, xs, spoilt, lengths=lengths, **restarts)


@pytest.mark.parametrize("name", one_in(2, sample(48, EVERY)))
def test_gradients_that_have_a_graph(name: str) -> None:
    """They come of what was recorded, played again: first and second ones are the loop's."""
    case = case_of(name)
    init, xs = case.init(3), case.xs(4, 3)
    every: tuple[dict[str, Any], ...] = ({}, {"reverse": True, "lengths": [4, 0, 2]})
    for options in [every[backward] for backward in directions_of(name)]:
        try:
            theirs = _first_and_second(rows_apart, case, init, xs, **options)
        except (RuntimeError, NotImplementedError) as missing:  # of PyTorch
            pytest.skip(str(missing))
        ours = _first_and_second(scan, case, init, xs, **options)
        for a, b in zip(ours, theirs, strict=True):
            if a is not None or b is not None:
                a, b = (torch.zeros(()) if t is None else t.detach() for t in (a, b))
                # The gradient of PyTorch's celu has a factor in float32.
                scale = max(1.0, float(b.abs().max()) if b.numel() else 1.0)
                assert float((a - b).abs().sum()) <= 1e-6 * scale


def _first_and_second(how: Any, case: Case, init: Any, xs: Any, **options: Any) -> list[Any]:
    init, xs = (pytree.tree_map(as_leaf, tree) for tree in (init, xs))
    outs = pytree.tree_leaves(how(case.step, init, xs, **options))
    outs = [o for o in outs if o.requires_grad]
    weights = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=D)
    for o in outs:
        total = total + (o.abs().square() * torch.rand(o.shape, generator=weights, dtype=D)).sum()
    wanted = [*case.wanted, *pytree.tree_leaves(init), *pytree.tree_leaves(xs)]
    wanted = [t for t in wanted if t.requires_grad]
    if not wanted:
        return []
    first = torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True)
    again = [g.abs().square().sum() for g in first if g is not None and g.requires_grad]
    if not again:
        return list(first)
    second = torch.autograd.grad(
        torch.stack(again).sum(), wanted, allow_unused=True, retain_graph=True
    )  # some weights are computed outside the step, once for both ways
    return [*first, *second]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", one_in(2, sample(24, STEPS)))
def test_one_row_and_inputs_that_all_rows_share(name: str, shared: bool) -> None:
    """Leaves without a batch, where PyTorch plays them: right, whether or not the engine can."""
    case = case_of(name)
    xs = pytree.tree_map(lambda t: t[:, 0], case.xs(4, 1))
    init = case.init(3) if shared else pytree.tree_map(lambda t: t[0], case.init(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = play(loop, case, init, xs)
        except (RuntimeError, IndexError, ValueError, AssertionError) as missing:
            pytest.skip(str(missing))
        if [t.shape for t in theirs.carry] != [t.shape for t in pytree.tree_leaves(init)]:
            pytest.skip("the carry changes its shape")
        assert_close(play(scan, case, init, xs), theirs, 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", one_in(2, sample(36, STEPS | PUBLISHED)))
def test_the_same_bits_in_any_batch_and_on_any_threads(name: str, dtype: torch.dtype) -> None:
    case = case_of(name, dtype)
    init, xs = case.init(11), case.xs(4, 11)
    assert_rows_have_their_bits(case, init, xs, [3], [10, 0, 4])
    alone = play(scan, case, init, xs)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert_same_bits(play(scan, case, init, xs), alone, f"{threads} threads:")
    assert_native(case, init, xs)


def test_no_name_is_taken_twice() -> None:
    assert len(EVERY) == len(WHOLE_STEPS) + len(OPERATIONS) + len(LITERATURE) + len(MODERN) + len(
        ARRAYS
    )


def test_the_checker_sees_a_silent_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("tanh_rnn_matmul")
    init, xs = case.init(2), case.xs(7, 2)
    play(scan, case, init, xs)
    assert_native(case, init, xs)
    monkeypatch.setenv("OSTINATO_ENGINE", "eager")
    with pytest.raises(AssertionError, match="7 times"):
        assert_native(case, init, xs)
