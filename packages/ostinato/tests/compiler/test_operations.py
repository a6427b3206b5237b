"""Operations at the ends of their range, means over the batch, and what is left to the loop."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ostinato
from zoo.operations import FOR_THE_LOOP, TOTALS, expression, loss, table
from zoo.playing import assert_native, assert_played_as_by_the_loop, loop
from zoo.steps import Case, Kit
from zoo.suites import one_in

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),  # one code with many expressions: meant
]

T = 5


@pytest.mark.parametrize("batches", one_in(2, [(4,), (1, 9)]))
@pytest.mark.parametrize("name", TOTALS)
def test_a_mean_over_the_batch_is_an_output(name: str, batches: tuple[int, ...]) -> None:
    """Also beside outputs with the batch, and with the gradient of one of both alone."""
    case = loss(Kit(torch.float64), lambda p, x: (p.tanh(), TOTALS[name](p, x)))
    ostinato.forget(case.step)
    assert_played_as_by_the_loop(case, batches, T)
    init, xs = case.init(batches[-1]), case.xs(T, batches[-1])
    theirs, ours = (_of_each_output(how, case, init, xs) for how in (loop, ostinato.scan))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, equal_nan=True)


def _of_each_output(how: Any, case: Case, init: Any, xs: Any) -> list[Tensor]:
    """The gradient of each output alone."""
    _, outs = how(case.step, init, xs)
    wanted = case.parameters[0]
    return [torch.autograd.grad(o.sum(), wanted, retain_graph=True)[0] for o in outs]


def test_no_row_that_counts_is_a_mean_of_nan_as_in_the_loop() -> None:
    case = loss(
        Kit(torch.float64), lambda p, x: F.cross_entropy(p, 0 * x.argmax(-1), ignore_index=0)
    )
    ostinato.forget(case.step)
    init, xs = case.init(3), case.xs(T, 3)
    assert ostinato.scan(case.step, init, xs)[1].isnan().all()
    assert loop(case.step, init, xs)[1].isnan().all()


@pytest.mark.parametrize("name", FOR_THE_LOOP)
def test_what_the_table_leaves_to_the_loop(name: str) -> None:
    case = expression(Kit(torch.float64), FOR_THE_LOOP[name][0])
    ostinato.forget(case.step)
    assert not ostinato.explain(case.step, case.init(3), case.xs(T, 3)).native


def test_the_page_has_the_table() -> None:
    """`python -c "from zoo.operations import table; print(table())"` in tests/ makes it."""
    page = Path(__file__).parents[4] / "docs" / "semantics.md"
    assert table() in page.read_text()


def test_the_checker_sees_a_step_that_the_loop_plays() -> None:
    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.lgamma(h.abs() + x)

    init, xs = torch.ones(2, 3), torch.ones(4, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(AssertionError, match="lgamma"):
            assert_native(Case(step, [], lambda B: init, lambda B: xs[0]), init, xs)


def test_whole_numbers_beyond_those_of_float32() -> None:
    """Given, or come to be: the loop plays, and gives them as they are."""

    def step(carry: Any, x: Tensor) -> Any:
        h, n = carry
        return (torch.tanh(h + x), n + 1), n * 2

    h, xs = torch.zeros(2, 3), torch.randn(4, 2, 3)
    ostinato.forget(step)
    for n in (5, 2**23 - 8):
        (_, last), ys = ostinato.scan(step, (h, torch.tensor([n, 1])), xs)
        assert last.tolist() == [n + 4, 5] and ys[-1].tolist() == [2 * n + 6, 8]
    for n in (2**23 + 1, 2**24 + 1, -(2**40)):
        with pytest.warns(UserWarning, match="beyond") if n == 2**23 + 1 else nullcontext():
            (_, last), ys = ostinato.scan(step, (h, torch.tensor([n, 1])), xs)
        assert last.tolist() == [n + 4, 5] and ys[-1].tolist() == [2 * n + 6, 8]


# ---- the ends of the range, where a composition could differ


ENDS = torch.tensor(
    [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 3.0, -3.0, 20.0, -20.0, 90.0, -90.0, 1e30, -1e30,
     float("inf"), -float("inf"), float("nan")],
    dtype=torch.float64,
)  # fmt: skip
OF_ONE: dict[str, Any] = {
    "ceil": torch.ceil,
    "erfcx": torch.special.erfcx,
    "floor": torch.floor,
    "frac_of_finite": lambda a: torch.where(a.isfinite(), a, 0.0).frac(),
    "isfinite": lambda a: a.isfinite().to(a.dtype),
    "isinf": lambda a: a.isinf().to(a.dtype),
    "isnan": lambda a: a.isnan().to(a.dtype),
    "log10": torch.log10,
    "log2": torch.log2,
    "log_ndtr": torch.special.log_ndtr,
    "logit": torch.logit,
    "nan_to_num": torch.nan_to_num,
    "round": torch.round,
    "signbit": lambda a: a.signbit().to(a.dtype),
    "trunc": torch.trunc,
    # Not a number below 0, −inf at 0; and 0 where the factor is 0.
    **{
        f"xlogy of {b}": lambda a, b=b: torch.xlogy(a, b)
        for b in (2.5, 0.0, -1.0, float("nan"), float("inf"))
    },
}
OF_TWO: dict[str, Any] = {
    "copysign": torch.copysign,
    "div_floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "fmod": torch.fmod,
    "logaddexp": torch.logaddexp,
    "logsumexp": lambda a, b: torch.logsumexp(torch.cat([a, b], -1), -1, True),
    "remainder": torch.remainder,
    "xlogy": torch.xlogy,
}


@pytest.mark.parametrize("name", OF_ONE | OF_TWO)
def test_the_ends_of_the_range(name: str) -> None:
    """Every pair of ends: the same number, the same sign of 0, NaN where PyTorch has it."""
    f = OF_TWO.get(name) or (lambda a, _: OF_ONE[name](a))
    a, b = (t.reshape(-1, 1) for t in torch.meshgrid(ENDS, ENDS, indexing="ij"))

    def step(h: Tensor, x: Tensor) -> Tensor:
        return f(h, x)

    ostinato.forget(step)
    usual = torch.full_like(a, 0.75)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ostinato.scan(step, usual, torch.full_like(b, 1.5)[None])  # recorded where all is finite
        ours = ostinato.scan(step, a, b[None])[0]
    assert ostinato.explain(step, usual, b[None]).native
    wanted = f(a, b)
    same = (ours == wanted) | (ours.isnan() & wanted.isnan())
    near = (ours - wanted).abs() <= 1e-13 * wanted.abs()
    wrong = ~(same | near)
    assert not wrong.any(), [(float(p), float(q)) for p, q in zip(a[wrong], b[wrong], strict=True)]


@pytest.mark.parametrize(
    "of",
    [
        lambda h, x: h.mean() * x.mean(),
        lambda h, x: h.mean() * h.mean(),
        lambda h, x: (h * x).sum() / x.sum(),
        lambda h, x: 2.0 / h.mean(),
    ],
)
def test_what_is_not_linear_in_a_mean_over_the_batch_is_the_loop(of):
    """The first steps do not tell: with x = 0 a product of means is the mean of products."""
    init = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    xs = torch.zeros(6, 3, 4, dtype=torch.float64)
    xs[3:] = torch.arange(1.0, 37.0, dtype=torch.float64).view(3, 3, 4)

    def step(h, x):
        return h * 0.9 + x, of(h, x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = ostinato.scan(step, init, xs)[1], loop(step, init, xs)[1]
    assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0))
