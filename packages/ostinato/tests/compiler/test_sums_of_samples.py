"""Gradients of each sample of a batch: one backward pass that sums by sample, and not over all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, vmap

import ostinato
from ostinato import scan
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.play.step import CompiledStep
from zoo.small import D


@pytest.fixture
def passes(monkeypatch) -> Iterator[list[int]]:
    """The number of rows of each backward pass that is played."""
    rows: list[int] = []
    backward = CompiledStep.backward

    def counted(self: Any, tape: Any, given: Any, *more: Any) -> Any:
        rows.append(given[-1].shape[1])
        return backward(self, tape, given, *more)

    monkeypatch.setattr(CompiledStep, "backward", counted)
    yield rows


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def per_sample(f: Callable[..., Tensor], weights: Any, xs: Tensor) -> Any:
    """The gradients by weights of samples, one after another."""
    leaves = {k: w.clone().requires_grad_() for k, w in weights.items()}
    found = [torch.autograd.grad(f(leaves, x), list(leaves.values())) for x in xs.unbind(1)]
    return {k: torch.stack(g) for k, g in zip(weights, zip(*found, strict=True), strict=True)}


def of_samples(f: Callable[..., Tensor], weights: Any, xs: Tensor, passes: list[int]) -> list[int]:
    """Check the gradients of samples; returns the backward passes of a call after the first."""
    expected = per_sample(f, weights, xs)
    for _ in range(2):
        passes.clear()
        found = vmap(grad(f), (None, 1))(weights, xs)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    return passes


# T, samples, rows of each: chunks of steps, groups of several samples or a single one, columns
# that threads share, and samples that no thread has alone.
SIZES = [(5, 4, 1), (150, 16, 1), (9, 33, 1), (70, 8, 3), (9, 12, 5), (7, 3, 2), (1, 6, 1)]
UNITS = [(3, 5), (1, 16), (32, 32), (70, 9)]  # weights as they are, and transposed


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layer", [ostinato.nn.LSTM, ostinato.nn.GRU, ostinato.nn.RNN])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_layers(layer: Any, size: tuple[int, int, int], passes):
    T, n, rows = size
    for F, H in UNITS:
        net = layer(F, H, dtype=D)
        weights = {k: p.detach() for k, p in net.named_parameters()}
        xs = torch.randn(T, n, rows, F, dtype=D)

        def loss(weights: Any, x: Tensor, net: Any = net) -> Tensor:
            return functional_call(net, weights, (x,))[0].pow(2).sum()

        assert of_samples(loss, weights, xs, passes) == [n * rows]


def test_samples_of_more_rows_than_a_group(passes):
    net = ostinato.nn.GRU(3, 5, dtype=D)
    weights = {k: p.detach() for k, p in net.named_parameters()}
    xs = torch.randn(7, 2, 9, 3, dtype=D)

    def loss(weights: Any, x: Tensor) -> Tensor:
        return functional_call(net, weights, (x,))[0].pow(2).sum()

    assert of_samples(loss, weights, xs, passes) == [9, 9]  # one for each


def mixed(W: Tensor, scale: Tensor, xs: Tensor) -> Tensor:
    """Gradients that are computed from a sum; of a number, and of a matrix used in two ways."""

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ W + h @ W.T.exp() * scale)

    return scan(step, xs.new_zeros(xs.shape[1], 4), xs)[1].pow(2).sum()


W, scale, xs = torch.randn(4, 4, dtype=D) / 2, torch.tensor(0.7, dtype=D), torch.randn(9, 12, 4)
xs = xs.to(D)


def of_mixed(weights: Any, x: Tensor) -> Tensor:
    return mixed(weights["W"], weights["scale"], x[:, None])


def test_gradients_computed_from_sums(passes):
    assert of_samples(of_mixed, {"W": W, "scale": scale}, xs, passes) == [12]


def test_within_other_transforms(monkeypatch):
    """An outer transform may differentiate, or map over, the gradients of samples."""

    def gradients(scale: Tensor) -> Tensor:
        return vmap(grad(of_mixed), (None, 1))({"W": W, "scale": scale}, xs)["W"]

    def all_of_it() -> Any:
        with_grad = scale.clone().requires_grad_()
        outer = torch.autograd.grad(gradients(with_grad).sin().sum(), with_grad)[0]
        second = vmap(hessian(of_mixed), (None, 1))({"W": W, "scale": scale}, xs)
        return (
            grad(lambda s: gradients(s).sin().sum())(scale),
            outer,
            second["W"]["W"],
            vmap(gradients)(torch.stack([scale, 2 * scale])),
        )

    with monkeypatch.context() as by_the_loop:
        by_the_loop.setenv("OSTINATO_ENGINE", "eager")
        expected = all_of_it()
    torch.testing.assert_close(all_of_it(), expected, rtol=1e-10, atol=1e-10)


def test_where_a_pass_by_sample_is_refused_each_sample_has_its_own(monkeypatch) -> None:
    backward, refused = CompiledStep.backward, []

    def refusing(self: Any, tape: Any, given: Any, *more: Any) -> Any:
        if more[-1]:
            refused.append(1)
            raise Unsupported("a gradient that autograd does not have met a pole")
        return backward(self, tape, given, *more)

    monkeypatch.setattr(CompiledStep, "backward", refusing)

    def loss(weights: Any, x: Tensor) -> Tensor:
        def step(h: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(h @ weights["W"] + x)

        return scan(step, x.new_zeros(1, 3), x[:, None])[0].square().sum()

    weights, xs = {"W": torch.randn(3, 3, dtype=D) / 2}, torch.randn(6, 4, 3, dtype=D)
    for _ in range(2):
        found = vmap(grad(loss), (None, 1))(weights, xs)
        torch.testing.assert_close(found, per_sample(loss, weights, xs), rtol=1e-10, atol=1e-10)
    assert refused
