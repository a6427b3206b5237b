"""Steps that draw random numbers: from one seed, scan and the loop draw the same.

The loop is `scan` by OSTINATO_ENGINE=eager, its definition. Values and gradients agree to rounding,
numbers and the generators' states after the call exactly; and the engine plays.
"""

from __future__ import annotations

import random
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

import ostinato
from ostinato.compiler.capture.draws import Drawn
from zoo.playing import counting
from zoo.small import weight

D, T = torch.float64, 7
OWN, OTHER = torch.Generator(), torch.Generator()
Step = Callable[[Any, Any], Any]


def normal(mean: Tensor, std: Any) -> distributions.Normal:
    return distributions.Normal(mean, std, validate_args=False)


# What a step draws, of h and x: [B, H], H even.
DRAWS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rand_like": lambda h, x: torch.rand_like(h),
    "randn_like of an expression": lambda h, x: torch.randn_like(h + x),
    "rand": lambda h, x: torch.rand(h.shape, dtype=h.dtype),
    "randn of a column": lambda h, x: torch.randn(h.shape[0], 1, dtype=h.dtype),
    "randint": lambda h, x: h * torch.randint(-2, 4, h.shape),
    "randint up to": lambda h, x: h * torch.randint(3, h.shape),
    "randint_like": lambda h, x: torch.randint_like(h, 5),
    "uniform_": lambda h, x: torch.empty_like(h).uniform_(-1, 2),
    "normal_": lambda h, x: h.new_empty(h.shape).normal_(0.5, 2),
    "exponential_": lambda h, x: h.new_empty(h.shape).exponential_(2.0),
    "log_normal_": lambda h, x: torch.zeros_like(h).log_normal_(),
    "geometric_": lambda h, x: torch.zeros_like(h).geometric_(0.4),
    "cauchy_": lambda h, x: torch.zeros_like(h).cauchy_().tanh(),
    "bernoulli_": lambda h, x: torch.empty_like(h).bernoulli_(0.3),
    "flags": lambda h, x: h * torch.empty(h.shape, dtype=torch.bool).bernoulli_(0.3),
    "bernoulli": lambda h, x: torch.bernoulli(torch.full_like(h, 0.3)),
    "bernoulli of x": lambda h, x: torch.bernoulli(torch.sigmoid(x)),
    "bernoulli_ of h": lambda h, x: torch.empty_like(h).bernoulli_(torch.sigmoid(h)),
    "Bernoulli": lambda h, x: distributions.Bernoulli(logits=h, validate_args=False).sample(),
    "normal of numbers": lambda h, x: torch.normal(0.5, 2.0, h.shape, dtype=h.dtype),
    "normal of means": lambda h, x: torch.normal(h, 0.5),
    "normal of deviations": lambda h, x: torch.normal(0.5, torch.sigmoid(h)),
    "normal of both": lambda h, x: torch.normal(h, torch.sigmoid(x)),
    "Normal.rsample": lambda h, x: normal(h, torch.sigmoid(x)).rsample(),
    "Normal.sample": lambda h, x: normal(h, torch.sigmoid(x)).sample(),
    "Laplace.rsample": lambda h, x: distributions.Laplace(h, 0.5, validate_args=False).rsample(),
    "Uniform.rsample": lambda h, x: distributions.Uniform(
        h - 1, h + 1, validate_args=False
    ).rsample(),
    "gumbel_softmax": lambda h, x: F.gumbel_softmax(h),
    "dropout": lambda h, x: F.dropout(h, 0.3),
    "dropout in place": lambda h, x: F.dropout(h * 1, 0.3, inplace=True),
    "dropout into a view": lambda h, x: _into_a_view(h),
    "dropout1d": lambda h, x: F.dropout1d(h.view(-1, 2, h.shape[1] // 2), 0.3).flatten(1),
    "alpha_dropout": lambda h, x: F.alpha_dropout(h, 0.3, training=True),
    "attention with dropout": lambda h, x: F.scaled_dot_product_attention(
        *[z.view(-1, 1, 2, z.shape[1] // 2) for z in (h, x, x)], dropout_p=0.3
    ).flatten(1),
    "beside attention without dropout": lambda h, x: (
        F.scaled_dot_product_attention(
            *[z.view(-1, 1, 2, z.shape[1] // 2) for z in (h, x, x)]
        ).flatten(1)
        * torch.rand_like(h)
    ),
    "zoneout": lambda h, x: x + F.dropout(h - x, 0.2) * 0.8,
    "flat": lambda h, x: torch.randn(h.numel(), dtype=h.dtype).view(h.shape),
    "turned": lambda h, x: torch.randn(*h.T.shape, dtype=h.dtype).T,
    "of all rows": lambda h, x: torch.randn(h.shape[1], dtype=h.dtype),
    "one number": lambda h, x: torch.rand((), dtype=h.dtype),
    "from a generator": lambda h, x: torch.randn(h.shape, dtype=h.dtype, generator=OWN),
    "from three generators": lambda h, x: (
        torch.rand_like(h) * torch.empty_like(h).normal_(generator=OWN)
        + torch.bernoulli(torch.sigmoid(h), generator=OTHER)
    ),
    "not used": lambda h, x: (torch.rand(3, dtype=h.dtype), x)[1],
}


def _into_a_view(h: Tensor) -> Tensor:
    h = h * 1
    h[:, :1] = F.dropout(h[:, 1:2], 0.3)
    return h


@pytest.fixture
def by_loop(monkeypatch):
    def scanned(*arguments: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setenv("OSTINATO_ENGINE", "eager")
            return ostinato.scan(*arguments, **options)

    return scanned


def seeded(seed: int) -> None:
    torch.manual_seed(seed)
    OWN.manual_seed(seed + 1)
    OTHER.manual_seed(seed + 2)


def states() -> list[Tensor]:
    return [torch.get_rng_state(), OWN.get_state(), OTHER.get_state()]


def played(
    how: Any, step: Step, given: list[Tensor], parameters: list[Tensor], seed: int, **options: Any
) -> tuple[list[Any], list[Tensor]]:
    """Carry, outputs, gradients; and the states of the generators."""
    h, xs = (t.detach().requires_grad_(t.is_floating_point()) for t in given)
    seeded(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        carry, ys = how(step, h, xs, **options)
    ys = ys if isinstance(ys, tuple) else (ys,)
    after = states()
    loss = sum((o * o).sum() for o in (carry, *ys) if o.requires_grad)
    wanted = [t for t in (h, xs, *parameters) if t.requires_grad]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
    assert all(torch.equal(a, b) for a, b in zip(states(), after, strict=True))
    return [carry, *ys, *gradients], after


def assert_same(
    ours: tuple[list[Any], list[Tensor]], theirs: tuple[list[Any], list[Tensor]]
) -> None:
    """To 1e-10 of what is of the order of 1: some hundred roundings of 1e-16, a hundredfold."""
    for a, b in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(ours[1], theirs[1], strict=True))


def options_of(seed: int, B: int) -> dict[str, Any]:
    """Some of scan's options, by a seed."""
    r = random.Random(seed)
    lengths = [T, *(r.randint(0, T) for _ in range(B - 1))]
    every = {
        "reverse": True,
        "lengths": lengths,
        "resets": torch.rand(T, B) < 0.3,
        "truncate": 3,
        "memory": "0.5MB",
    }
    return {name: value for name, value in every.items() if r.random() < 0.4}


@pytest.mark.parametrize("name", DRAWS)
def test_a_step_draws_the_numbers_of_the_loop(name, by_loop):
    """With any options, from the first call on."""
    draw = DRAWS[name]
    # Guards need a weak reference to a generator, which PyTorch 2.6 does not give.
    unguarded = "generator" in name and not torch.Generator.__weakrefoffset__
    for B, H, seed in (5, 6, 0), (3, 4, 1), (1, 18, 2), (4, 2, 3):
        U, W = weight(H, H), weight(H, H)

        def step(h: Tensor, x: Tensor, U: Tensor = U, W: Tensor = W) -> Tensor:
            return torch.tanh(x @ U + h @ W + 0.3 * draw(h, x))

        ostinato.forget(step)  # the steps of all rows are of one code
        seed = 10 * seed + len(name)
        options = options_of(seed, B)
        given = [torch.randn(B, H, dtype=D), torch.randn(T, B, H, dtype=D)]
        of_loop = {name: option for name, option in options.items() if name != "memory"}
        theirs = played(by_loop, step, given, [U, W], seed, **of_loop)
        assert_same(played(ostinato.scan, step, given, [U, W], seed, **options), theirs)
        with counting(step) as calls:
            again = played(ostinato.scan, step, given, [U, W], seed, **options)
        assert_same(again, theirs)
        assert calls[0] == 0 or unguarded, ostinato.explain(step, *given).reason


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 300])
def test_the_numbers_are_those_of_the_loop_bit_by_bit(dtype, width, by_loop):
    """PyTorch fills fewer than 16 elements in another way than more."""

    def step(h: Tensor, x: Tensor) -> Any:
        p = torch.full_like(x, 0.3)
        drawn = torch.randn_like(x), torch.rand_like(x), torch.bernoulli(p), torch.normal(p, p)
        return torch.tanh(h + x), (*drawn, F.dropout(p), torch.randint(7, x.shape))

    given = [torch.zeros(1, width, dtype=dtype), torch.zeros(T, 1, width, dtype=dtype)]
    ours, theirs = (played(how, step, given, [], 0) for how in (ostinato.scan, by_loop))
    exact = [torch.equal(a, b) for a, b in zip(ours[0][1:5], theirs[0][1:5], strict=True)]
    assert all(exact) and torch.equal(ours[0][6], theirs[0][6])
    assert_same(([*ours[0][:6]], ours[1]), ([*theirs[0][:6]], theirs[1]))
    assert ostinato.explain(step, *given).native


def test_second_derivatives_read_the_same_numbers(by_loop):
    W = weight(4, 4)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(F.dropout(x, 0.3) + h @ W) + 0.1 * torch.normal(h, 0.3)

    h, xs = torch.randn(3, 4, dtype=D, requires_grad=True), torch.randn(T, 3, 4, dtype=D)
    found = []
    for how in (ostinato.scan, by_loop):
        seeded(0)
        y = how(step, h, xs)[1]
        (g,) = torch.autograd.grad(y.sin().sum(), h, create_graph=True)
        found.append(([y, g, *torch.autograd.grad(g.square().sum(), (h, W))], states()))
    assert_same(*found)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.cell, self.p = nn.Dropout(0.4), nn.GRUCell(4, 4, dtype=D), 0.2

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return F.dropout(self.cell(self.drop(x), h), self.p, self.training)


def test_dropout_follows_the_mode_and_its_probability(by_loop):
    cell = Cell()
    given = [torch.randn(3, 4, dtype=D), torch.randn(T, 3, 4, dtype=D)]
    for change in (lambda: None, cell.eval, cell.train, lambda: setattr(cell, "p", 0.6)):
        change()
        ours, theirs = (
            played(how, cell, given, list(cell.parameters()), 0) for how in (ostinato.scan, by_loop)
        )
        assert_same(ours, theirs)
        said = ostinato.explain(cell, *given)
        assert said.native
        assert said.draws == (("bernoulli [B, 4]",) * 2 if cell.training else ())


def test_another_generator_is_drawn_from(by_loop):
    """A recording draws from the one that it found, so another one is noticed."""
    w = types.SimpleNamespace(generator=OWN)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return h + x * torch.randn(h.shape, dtype=D, generator=w.generator)

    given = [torch.randn(3, 4, dtype=D), torch.randn(T, 3, 4, dtype=D)]
    for generator in (OWN, OTHER, torch.default_generator, OWN):
        w.generator = generator
        assert_same(*(played(how, step, given, [], 0) for how in (ostinato.scan, by_loop)))
        assert ostinato.explain(step, *given).native


def test_a_generator_of_each_call(by_loop):
    """The next one may lie where the last one lay."""

    def called(how: Any, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def step(h: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(h + x) + torch.randn(h.shape, dtype=D, generator=generator)

        ys = how(step, torch.zeros(3, 4, dtype=D), torch.zeros(T, 3, 4, dtype=D))[1]
        return ys, generator.get_state()

    for seed in range(4):
        ours, theirs = called(ostinato.scan, seed), called(by_loop, seed)
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-10)
        assert torch.equal(ours[1], theirs[1])


def _sde(h: Tensor, x: Tensor) -> Tensor:
    return h + 0.1 * torch.sin(h) * x + 0.3 * torch.randn_like(h)


# Leaves of init and xs that are no rows as usual.
LEAVES: dict[str, tuple[Step, tuple[int, ...], tuple[int, ...]]] = {
    "no batch": (_sde, (4,), (T, 4)),
    "numbers": (_sde, (), (T,)),
    "x of all rows": (_sde, (3, 4), (T,)),
    "dropout without a batch": (lambda h, x: F.dropout(torch.tanh(h + x), 0.3), (4,), (T, 4)),
    "batch second": (_sde, (2, 3, 4), (T, 3, 4)),
    "one step": (_sde, (3, 4), (1, 3, 4)),
    "images": (lambda h, x: F.dropout2d(torch.tanh(h + x), 0.5), (3, 2, 2, 2), (T, 3, 2, 2, 2)),
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_of_other_shapes(name, by_loop):
    step, init, xs = LEAVES[name]
    given = [torch.randn(init, dtype=D), torch.randn(xs, dtype=D)]
    assert_same(*(played(how, step, given, [], 0) for how in (ostinato.scan, by_loop)))
    assert ostinato.explain(step, *given).native


@pytest.mark.parametrize("dim", [1, -2])
def test_time_on_another_axis(dim, by_loop):
    given = [torch.randn(3, 4, dtype=D), torch.randn(3, T, 4, dtype=D)]
    assert_same(*(played(how, _sde, given, [], 0, dim=dim) for how in (ostinato.scan, by_loop)))
    assert ostinato.explain(_sde, *given, dim=dim).native


def _seeded_within(h: Tensor, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return h + x * torch.randn_like(h)


def _forked(h: Tensor, x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        return h + x * torch.randn_like(h)


# What runs in the Python loop, and a word of the reason.
FOR_THE_LOOP: dict[str, tuple[Step, str]] = {
    "multinomial": (lambda h, x: h + torch.multinomial(torch.softmax(x, -1), 1), "random"),
    "poisson": (lambda h, x: h + torch.poisson(x.exp()), "random"),
    "randperm": (lambda h, x: x[:, torch.randperm(x.shape[1])] + h, "random"),
    "rrelu": (lambda h, x: F.rrelu(h + x, training=True), "random"),
    "a generator made in the step": (
        lambda h, x: (
            h + x * torch.rand(h.shape, dtype=D, generator=torch.Generator().manual_seed(0))
        ),
        "generator",
    ),
    "manual_seed": (_seeded_within, "manual_seed"),
    "fork_rng": (_forked, "fork_rng"),
    "into a tensor of all rows": (lambda h, x: h + x * torch.empty(4, dtype=D).normal_(), "rows"),
    "into turned memory": (
        lambda h, x: h + x * torch.empty(4, 3, dtype=D).T.normal_(),
        "contiguous",
    ),
    "a branch that goes both ways": (
        lambda h, x: F.dropout(h, 0.3) + x if x.sum() > 0 else torch.randn_like(h),
        "",
    ),
    "whole numbers that are too large": (
        lambda h, x: h + torch.empty(h.shape, dtype=torch.int64).random_() * x,
        "",
    ),
}


@pytest.mark.parametrize("name", FOR_THE_LOOP)
def test_what_is_left_to_the_loop_draws_as_the_loop(name, by_loop):
    step, reason = FOR_THE_LOOP[name]
    given = [torch.randn(3, 4, dtype=D), torch.randn(T, 3, 4, dtype=D)]
    theirs = played(by_loop, step, given, [], 0)
    for _ in range(2):
        assert_same(played(ostinato.scan, step, given, [], 0), theirs)
    seeded(0)
    before, said = states(), ostinato.explain(step, *given)
    assert all(torch.equal(a, b) for a, b in zip(states(), before, strict=True))
    assert not reason or (not said.native and reason in said.reason)


def test_a_carry_in_another_order_of_memory(by_loop):
    """`randn_like` fills memory in its order."""
    h, xs = torch.randn(4, 3, dtype=D).T, torch.randn(T, 3, 4, dtype=D)
    for given in [[h, xs], [h.contiguous(), xs], [h[:1].expand(3, 4), xs]]:
        assert_same(*(played(how, _sde, given, [], 0) for how in (ostinato.scan, by_loop)))
    assert "contiguous" in ostinato.explain(_sde, h, xs).reason
    assert ostinato.explain(_sde, h[:1].expand(3, 4), xs).native


def test_the_comparison_with_the_loop_sees_other_numbers(monkeypatch):
    """As many, in another order."""
    given = [torch.randn(3, 4, dtype=D), torch.randn(T, 3, 4, dtype=D)]
    right = Drawn.__init__
    monkeypatch.setattr(
        Drawn, "__init__", lambda self, draws, T, B, reverse: right(self, draws, T, B, not reverse)
    )

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h + x) + torch.randn_like(x)

    assert "differ" in ostinato.explain(step, *given).reason
