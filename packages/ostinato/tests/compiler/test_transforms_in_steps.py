"""Steps that take derivatives or map over rows themselves are recorded like others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from ostinato import explain
from ostinato.compiler import cache
from zoo.small import B, D, H, assert_same, both, inputs, leaf

Step = Callable[[Tensor, Tensor], Any]


def energy(W: Tensor) -> Callable[[Tensor], Tensor]:
    """Of one row, or the sum over all rows."""
    return lambda h: torch.tanh(h @ W).square().sum()


def by_autograd(W: Tensor) -> Step:
    def step(h: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            at = h.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy(W)(at), at)
        return torch.tanh(x - 0.1 * slope + h @ W)

    return step


def by_autograd_twice(W: Tensor) -> Step:
    def step(h: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            at = h if h.requires_grad else h.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy(W)(at), at, create_graph=True)
        return h - 0.1 * slope + x

    return step


def by_grad(W: Tensor) -> Step:
    return lambda h, x: h - 0.1 * grad(energy(W))(h) + x


def by_vjp(W: Tensor) -> Step:
    def step(h: Tensor, x: Tensor) -> Tensor:
        y, pulled = vjp(lambda h: torch.tanh(h @ W), h)
        return y - 0.1 * pulled(x)[0]

    return step


def by_jvp(W: Tensor) -> Step:
    def step(h: Tensor, x: Tensor) -> Any:
        y, tangent = jvp(lambda h: torch.tanh(h @ W), (h,), (x,))
        return y + 0.5 * tangent, tangent

    return step


def by_dual_numbers(W: Tensor) -> Step:
    def step(h: Tensor, x: Tensor) -> Tensor:
        with forward_ad.dual_level():
            y, tangent = forward_ad.unpack_dual(torch.tanh(forward_ad.make_dual(h, x) @ W))
        return y + 0.5 * tangent

    return step


def by_rows(W: Tensor) -> Step:
    return lambda h, x: vmap(lambda h, x: torch.tanh(W.t() @ h + x), (0, 0))(h, x)


def by_columns(W: Tensor) -> Step:
    """An axis that is not the first is mapped, and moved back."""
    return lambda h, x: h + vmap(lambda h: torch.tanh(h) * 0.5, in_dims=1, out_dims=1)(x @ W)


def by_gradients_of_rows(W: Tensor) -> Step:
    return lambda h, x: h - 0.1 * vmap(grad(energy(W)))(h) + x


def by_gradients_of_a_weight(W: Tensor) -> Step:
    """The transforms wrap a tensor that the step captures."""

    def loss(W: Tensor, h: Tensor, x: Tensor) -> Tensor:
        return (torch.tanh(h @ W) - x).square().sum()

    def step(h: Tensor, x: Tensor) -> Tensor:
        fast = W - 0.1 * vmap(grad(loss), (None, 0, 0))(W, h, x)
        return torch.tanh(torch.einsum("bi,bij->bj", h, fast) + x)

    return step


def by_jacobians(W: Tensor) -> Step:
    def step(h: Tensor, x: Tensor) -> Tensor:
        f = lambda h: torch.tanh(h @ W)  # noqa: E731
        backward, forward = vmap(jacrev(f))(h), vmap(jacfwd(f))(h)
        return torch.einsum("bij,bj->bi", backward, x) + 0.3 * (forward @ h.unsqueeze(-1))[..., 0]

    return step


def by_hessian(W: Tensor) -> Step:
    def step(h: Tensor, x: Tensor) -> Tensor:
        curvature = vmap(hessian(energy(W)))(h)
        return torch.tanh(torch.einsum("bij,bj->bi", curvature, x)) + 0.3 * h

    return step


def by_hamilton(W: Tensor) -> Step:
    """A leapfrog step of a Hamiltonian network: positions and momenta beside each other."""
    J = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=D)

    def total(z: Tensor) -> Tensor:
        return torch.tanh(z @ W).sum()

    def step(z: Tensor, x: Tensor) -> Tensor:
        flow = vmap(grad(total))(z).unflatten(-1, (2, H // 2))
        return z + 0.1 * torch.einsum("ij,bjk->bik", J, flow).flatten(-2) + 0.01 * x

    return step


STEPS = [
    by_autograd,
    by_autograd_twice,
    by_grad,
    by_vjp,
    by_jvp,
    by_dual_numbers,
    by_rows,
    by_columns,
    by_gradients_of_rows,
    by_gradients_of_a_weight,
    by_jacobians,
    by_hessian,
    by_hamilton,
]


@pytest.mark.parametrize("made", STEPS)
def test_transforms_are_recorded(made: Any):
    W, init, xs = inputs()
    step = made(W)
    assert explain(step, init, xs).native
    both(lambda how: torch.autograd.grad(how(step, init, xs)[1].sin().sum(), [W, init, xs]))
    both(lambda how: how(step, init, xs)[1].detach())


@pytest.mark.parametrize("made", STEPS)
def test_they_can_be_differentiated_twice(made: Any):
    W, init, xs = inputs()
    step = made(W)

    def f(how: Any) -> Any:
        total = how(step, init, xs)[1].sin().sum()
        first = torch.autograd.grad(total, [W, init, xs], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [W, init, xs])

    both(f)


@pytest.mark.parametrize("made", STEPS)
def test_a_call_with_other_tensors_plays_the_same_recording(made: Any, monkeypatch):
    from ostinato import scan

    W, init, xs = inputs()
    scan(made(W), init, xs)
    monkeypatch.setattr(cache, "_observed", None)
    other, init, xs = leaf(H, H), leaf(B, H), leaf(*xs.shape)
    found = scan(made(other), init, xs)
    monkeypatch.undo()
    from zoo.playing import loop

    assert_same(found, loop(made(other), init, xs))


def test_a_learned_memory():
    """Fast weights of each row, which the gradient of a loss of its own updates."""
    W, init, xs = inputs()

    def loss(fast: Tensor, h: Tensor, x: Tensor) -> Tensor:
        return (h @ fast - x).square().sum()

    def step(carry: Any, x: Tensor) -> Any:
        h, fast = carry
        fast = fast - 0.1 * vmap(grad(loss))(fast, h @ W, x)
        h = torch.tanh(torch.einsum("bi,bij->bj", h, fast) + x)
        return (h, fast), h

    first = (init, leaf(B, H, H))
    assert explain(step, first, xs).native
    both(lambda how: torch.autograd.grad(how(step, first, xs)[1].sum(), [W, *first, xs]))


def test_functional_call_within_a_transform():
    net = torch.nn.Linear(H, H).to(D)
    _, init, xs = inputs()
    weights = dict(net.named_parameters())

    def step(h: Tensor, x: Tensor) -> Tensor:
        def total(h: Tensor) -> Tensor:
            return torch.tanh(functional_call(net, weights, (h,))).sum()

        return h - 0.1 * grad(total)(h) + x

    assert explain(step, init, xs).native
    both(
        lambda how: torch.autograd.grad(
            how(step, init, xs)[1].sin().sum(), [init, xs, net.weight, net.bias]
        )
    )


@pytest.mark.parametrize(
    "loss",
    [
        lambda h, x, W: (h @ W - x).square().mean(),
        lambda h, x, W: (h @ W).sum() * (h + x).sum(),
    ],
    ids=["a mean over the batch", "a product of sums over the batch"],
)
def test_rows_that_read_each_other_run_in_the_loop(loss: Any):
    W, init, xs = inputs()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h - grad(lambda h: loss(h, x, W))(h))

    assert "batch" in explain(step, init, xs).reason
    with pytest.warns(UserWarning, match="batch"):
        both(lambda how: torch.autograd.grad(how(step, init, xs)[1].sum(), [W, init, xs]))


def test_a_weight_that_all_rows_change_runs_in_the_loop():
    W, init, xs = inputs()

    def step(h: Tensor, x: Tensor) -> Tensor:
        fast = W - 0.1 * grad(lambda W: (h @ W - x).square().sum())(W)
        return torch.tanh(h @ fast)

    assert not explain(step, init, xs).native
    with pytest.warns(UserWarning, match="batch"):
        both(lambda how: torch.autograd.grad(how(step, init, xs)[1].sum(), [W, init, xs]))


def test_a_step_that_keeps_a_tensor_of_its_transform():
    W, init, xs = inputs()
    kept = []

    def step(h: Tensor, x: Tensor) -> Tensor:
        def total(h: Tensor) -> Tensor:
            kept.append(h)
            return torch.tanh(h @ W).sum()

        return h - 0.1 * grad(total)(h) + x

    assert not explain(step, init, xs).native
