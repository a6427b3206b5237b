"""NaN and infinities that come after the verified steps: values and gradients are the loop's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ostinato
from zoo.operations import LOSSES, OPERATIONS
from zoo.playing import loop

pytestmark = pytest.mark.filterwarnings("ignore:.*was recorded")  # one code, many operations

# PyTorch's loops over whole vectors and over what remains differ at NaN; 16 rows leave no remains.
T, B, N = 6, 16, 6
SPECIAL = (float("nan"), float("inf"), -float("inf"))

Expression = Callable[[Tensor, Tensor], Tensor]
EVERYDAY: dict[str, Expression] = {
    "clamp": lambda z, h: z.clamp(-0.5, 0.7),
    "acosh of large numbers, and of negative ones": lambda z, h: (z * 1e200).acosh() + 0 * h,
    "asinh of large numbers": lambda z, h: (z * 1e200).asinh() + (h * 1e-200).asinh(),
    "elu": lambda z, h: F.elu(z),
    "entr": lambda z, h: torch.special.entr(z) + torch.special.entr(0 * h),
    "gelu": lambda z, h: F.gelu(z),
    "gelu(tanh)": lambda z, h: F.gelu(z, approximate="tanh"),
    "hardtanh": lambda z, h: F.hardtanh(z),
    "leaky_relu": lambda z, h: F.leaky_relu(z, 0.1),
    "logsigmoid": lambda z, h: F.logsigmoid(z),
    "prelu": lambda z, h: F.prelu(z, z.new_full((N,), 0.2)),
    "relu": lambda z, h: z.relu(),
    "relu6": lambda z, h: F.relu6(z),
    "sigmoid": lambda z, h: z.sigmoid(),
    "silu": lambda z, h: F.silu(z),
    "softplus": lambda z, h: F.softplus(z),
    "tanh": lambda z, h: z.tanh(),
}
_OF_ELEMENTS = ("activations", "rounding and division", "functions")
_LOSSES_OF_ELEMENTS = (
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "huber_loss",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
)
ROWS = EVERYDAY | {name: f for group in _OF_ELEMENTS for name, f in OPERATIONS[group].items()}
# At infinities PyTorch's gradient of a soft margin, e^z / (1 + e^z), is NaN where e^z is ∞.
CASES = {
    **{name: (f, N, SPECIAL) for name, f in ROWS.items()},
    **{name: (LOSSES[name], 5, SPECIAL) for name in _LOSSES_OF_ELEMENTS},
    "soft_margin_loss": (LOSSES["soft_margin_loss"], 5, SPECIAL[:1]),
}


def _assert_is_the_loop(f: Expression, xs: tuple[Tensor, Tensor]) -> None:
    """Of y = f(z, w) with xs = (z, w), beside a carry that hands gradients on without a gate."""

    def step(h: Tensor, x: Any) -> Any:
        return 0.5 * h + x[0], f(*x)

    init, played = torch.zeros_like(xs[0][0]), []
    ostinato.forget(step)
    for how in (loop, ostinato.scan):
        leaves = tuple(x.clone().requires_grad_() for x in xs)
        _, ys = how(step, init, leaves)
        weights = torch.linspace(0.5, 1.5, ys.numel(), dtype=ys.dtype).view_as(ys)
        d_xs = torch.autograd.grad(ys, leaves, weights, materialize_grads=True)
        played.append((ys.detach(), *d_xs))
    assert ostinato.explain(step, init, xs).native
    for theirs, ours in zip(*played, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, equal_nan=True)


def _normal(*shape: int) -> tuple[Tensor, Tensor]:
    """z and w `[T, B, …]`."""
    random = torch.Generator().manual_seed(3)
    both = torch.randn(2, T, B, *shape, generator=random, dtype=torch.float64)
    return both[0], both[1]


def _special(columns: int, values: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """z and w with a row of each value in the fifth step, in z, in w, in both."""
    z, w = _normal(columns)
    for i, value in enumerate(values):
        z[4, i] = w[4, 3 + i] = z[4, 6 + i] = w[4, 6 + i] = value
    return z, w


@pytest.mark.parametrize("name", CASES)
def test_what_is_computed_of_elements_is_the_loop(name: str) -> None:
    f, columns, values = CASES[name]
    _assert_is_the_loop(f, _special(columns, values))


POOLS: dict[str, Expression] = {
    "1d": lambda z, w: F.max_pool1d(z.view(-1, 2, 8), 3, 1, 1),
    "1d, dilated": lambda z, w: F.max_pool1d(z.view(-1, 2, 8), 4, 2, 2, 2),
    "2d": lambda z, w: F.max_pool2d(z.view(-1, 1, 4, 4), 3, 2, 1),
    "2d, of even size": lambda z, w: F.max_pool2d(z.view(-1, 1, 4, 4), 2, 1, 1),
}


@pytest.mark.parametrize("name", POOLS)
def test_the_gradient_of_a_maximum_goes_to_an_element_and_not_to_the_padding(name: str) -> None:
    """Masked scores are −∞, as the padding is; the first of equal elements has the gradient."""
    z, w = _normal(16)
    z[4, 0] = -float("inf")
    z[4, 1, ::2] = -float("inf")
    z[4, 2:8] = z[4, 2:8].round()
    _assert_is_the_loop(POOLS[name], (z, w))


def test_a_maximum_that_is_nan_has_no_gradient_and_an_index_beyond_the_last() -> None:
    """Other than in PyTorch, which chooses a NaN; docs/semantics.md says so."""

    def step(h: Tensor, x: Tensor) -> Any:
        pooled = F.max_pool1d(x[:, None], 3, 1, 1)[:, 0]
        return 0.5 * h + x, (pooled, x.max(-1).values, x.argmax(-1))

    z, _ = _normal(N)
    z[4, 0, 2] = float("nan")
    z.requires_grad_()
    _, (pooled, largest, index) = ostinato.scan(step, torch.zeros_like(z[0]), z)
    assert pooled[4, 0].isnan().tolist() == [False, True, True, True, False, False]
    assert largest[4, 0].isnan() and index[4, 0] == N
    (d,) = torch.autograd.grad(pooled[4, 0, 1:4].sum() + largest[4, 0], z)
    assert not d.any()
    assert ostinato.explain(step, torch.zeros_like(z[0]), z).native


@pytest.mark.parametrize("heads", [(), (2,)])
def test_attention_to_nothing(heads: tuple[int, ...]) -> None:
    """A mask closes whole rows, after the steps that are verified."""
    memory = torch.randn(B, *heads, 4, 3, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(T, B, *heads, 2, 3, dtype=torch.float64)
    is_open = torch.ones(T, B, *heads, 2, 4, dtype=torch.bool)
    is_open[4:, ::2, ..., 0, :] = False

    def step(m: Tensor, x: Any) -> Any:
        y = F.scaled_dot_product_attention(x[0], m, m, attn_mask=x[1])
        return 0.9 * m + 0.1 * y.mean(-2, keepdim=True), y

    assert ostinato.explain(step, memory, (queries, is_open)).native
    found = []
    for how in (ostinato.scan, loop):
        carry, ys = how(step, memory, (queries, is_open))
        found.append([carry, ys, *torch.autograd.grad(carry.sum() + ys.square().sum(), memory)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    assert (found[0][1][4:, ::2, ..., 0, :] == 0).all()
