"""Derivatives of every kind that PyTorch takes: twice, forward, batched, of meta-learning."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn

from ostinato import explain, scan
from zoo.playing import loop, rows_apart
from zoo.small import B, D, H, Net, T, assert_same, both, inputs, leaf, rnn


def test_gradients_against_finite_differences():
    W, init, xs = leaf(2, 2), leaf(2, 2), leaf(3, 2, 2)

    def f(W: Tensor, init: Tensor, xs: Tensor) -> Any:
        return scan(rnn(W), init, xs)

    assert torch.autograd.gradcheck(f, (W, init, xs), check_batched_grad=True)
    assert torch.autograd.gradcheck(f, (W, init, xs), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (W, init, xs))


def test_gradients_are_dense():
    """As the loop's are, where a weight was transposed on its way: no view of the sum."""
    W, init, xs = inputs()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ (W.t() * 2))

    def f(how: Any) -> Any:
        (grad,) = torch.autograd.grad(how(step, init, xs)[1].square().sum(), [W])
        assert grad.is_contiguous()
        return grad

    both(f)


def test_a_step_that_takes_a_gradient():
    """A descent of an energy of each row: its gradient is operations like others."""
    W, init, xs = inputs()

    def step(h: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            at = h if h.requires_grad else h.detach().requires_grad_()
            energy = torch.tanh(at @ W).square().sum(-1)
            (slope,) = torch.autograd.grad(energy, at, torch.ones_like(energy), create_graph=True)
        return h - 0.1 * slope + x

    assert explain(step, init, xs).native
    both(lambda how: torch.autograd.grad(how(step, init, xs)[1].square().sum(), [W, init, xs]))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    "loss",
    [
        partial(F.huber_loss, delta=0.5),
        partial(F.smooth_l1_loss, beta=0.25),
        partial(F.smooth_l1_loss, beta=0.0),
        F.mse_loss,
    ],
)
def test_the_curvature_of_a_loss_where_it_is_0(loss: Any, reduction: str):
    _, init, xs = inputs()
    xs = xs.detach()
    xs[0] = init.detach()

    def step(h: Tensor, x: Tensor) -> Any:
        return h, loss(h, x, reduction=reduction)

    def f(how: Any) -> Any:
        (d,) = torch.autograd.grad(how(step, init, xs)[1].sum(), init, create_graph=True)
        return torch.autograd.grad(d.square().sum() + d.sum(), init)

    assert explain(step, init, xs).native
    both(f)


def test_transforms():
    from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

    W, init, xs = (t.detach() for t in inputs())

    def f(how: Any) -> Any:
        return lambda W, init: how(rnn(W), init, xs)[1].square().sum()

    for transform in (grad, jacrev, jacfwd, hessian):
        both(lambda how, transform=transform: transform(f(how))(W, init))
    both(lambda how: jvp(f(how), (W, init), (W, init)))
    both(lambda how: vjp(f(how), W, init)[1](torch.tensor(1.0, dtype=D)))
    many = torch.randn(6, H, H, dtype=D)
    both(lambda how: vmap(f(how), (0, None))(many, init))
    both(lambda how: vmap(grad(f(how)), (0, None))(many, init))

    net = Net()
    net(init, xs)
    swapped = {"W": torch.randn(H, H, dtype=D, requires_grad=True)}
    both(lambda how: functional_call(net, swapped, (init, xs, how)).detach())
    both(
        lambda how: torch.autograd.grad(
            functional_call(net, swapped, (init, xs, how)).sum(), swapped["W"]
        )
    )
    both(lambda how: net(init, xs, how).detach())

    def loss_of_a_row(how: Any) -> Any:
        return lambda p, h, x: functional_call(net, p, (h[None], x[:, None], how)).square().sum()

    weights = {"W": W}
    both(lambda how: vmap(grad(loss_of_a_row(how)), (None, 0, 1))(weights, init, xs)["W"])


def test_meta_learning():
    """Weights that functional_call lends to a module, gone again before the backward pass."""
    from torch.func import functional_call

    net = Net()
    _, init, xs = (t.detach() for t in inputs())

    def f(how: Any) -> Any:
        fast: Tensor = net.W
        for _ in range(3):
            loss = functional_call(net, {"W": fast}, (init, xs, how)).square().mean()
            fast = fast - 0.5 * torch.autograd.grad(loss, fast, create_graph=True)[0]
        return torch.autograd.grad(fast.square().sum(), net.W)

    both(f)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_backward_pass_is_of_the_forward_that_ran(create_graph):
    """Whatever the step would read by now: numbers, from the second value on taken as tensors,
    weights, lengths, resets."""
    W, init, xs = inputs()
    held = nn.Module()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ held.W) * held.scale

    def gradients(ys: Tensor) -> Any:
        leaves = [W, init, xs]
        found = torch.autograd.grad(ys.square().sum(), leaves, create_graph=create_graph)
        if not create_graph:
            return found
        return [*found, *torch.autograd.grad(sum(g.square().sum() for g in found), leaves)]

    lengths, resets = torch.tensor([5, 2, 3]), torch.rand(T, B) < 0.4
    ways = {}, {"lengths": lengths}, {"lengths": lengths, "resets": resets}, {}
    for options, held.scale in zip(ways, (1.0, 0.75, 0.5, 1.25), strict=True):
        held.W = W
        wanted = gradients(rows_apart(step, init, xs, **options)[1])
        first, second = (scan(step, init, xs, **options)[1] for _ in range(2))
        held.scale = 2.0
        assert_same(gradients(first), wanted)
        held.W = leaf(H, H)
        if "lengths" in options:
            lengths.copy_(torch.tensor([1, 5, 0]))
        assert_same(gradients(second), wanted)
        lengths.copy_(torch.tensor([5, 2, 3]))


def test_forward_mode():
    W, init, xs = (t.detach() for t in inputs())
    tangent = {t: torch.randn_like(t) for t in (W, init, xs)}
    held = {"W": W}

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ held["W"])

    scan(step, init, xs)
    for dual in (W, init, xs):
        with forward_ad.dual_level():
            made = forward_ad.make_dual(dual, tangent[dual])
            held["W"] = made if dual is W else W
            given = [made if t is dual else t for t in (init, xs)]

            def f(how: Any, given: Any = given) -> Any:
                return [forward_ad.unpack_dual(t).tangent for t in how(step, *given)]

            expected = f(loop)
            assert expected[0] is not None
            assert_same(f(scan), expected)
            held["W"] = W


def test_batched_gradients():
    W, init, xs = inputs()
    basis = torch.eye(B * H, dtype=D).reshape(-1, B, H)

    def f(how: Any) -> Any:
        carry, _ = how(rnn(W), init, xs)
        return torch.autograd.grad(carry, [W, init, xs], basis, is_grads_batched=True)

    both(f)
    for vectorize in (False, True):
        both(
            lambda how, v=vectorize: torch.autograd.functional.jacobian(
                lambda W: how(rnn(W), init, xs)[0], W, vectorize=v
            )
        )
