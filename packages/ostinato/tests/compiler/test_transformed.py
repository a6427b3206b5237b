"""A scan under transforms of torch.func is played by the engine, and equal to the Python loop."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)

import ostinato
from ostinato import _scan, scan
from ostinato.compiler.play.autograd import ScanCall
from zoo.small import B, D, H, T, assert_same, inputs, rnn

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")


@contextmanager
def engine(monkeypatch: Any, name: str) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("OSTINATO_ENGINE", name)
        yield


def by_the_engine(f: Callable[[], Any], monkeypatch: Any, tolerance: float = 1e-10) -> None:
    """f gives what it gives by the Python loop; and again, when nothing may run in that loop."""

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("the Python loop ran")

    with engine(monkeypatch, "eager"):
        expected = f()
    assert_same(f(), expected, tolerance)
    with monkeypatch.context() as changed:
        changed.setattr(_scan, "eager_scan", refused)
        changed.setattr(ScanCall, "replay", refused)
        assert_same(f(), expected, tolerance)


torch.manual_seed(0)
W, init, xs = (t.detach() for t in inputs())
V = torch.randn(H, H, dtype=D) / 2
Ws, inits = torch.randn(3, H, H, dtype=D), torch.randn(3, B, H, dtype=D)
many_xs = torch.randn(3, T, B, H, dtype=D)
lengths, resets = torch.tensor([5, 2, 3]), torch.rand(T, B) < 0.4


def gated(W: Tensor) -> Any:
    def step(carry: Any, x: Tensor) -> Any:
        h, n = carry
        z = torch.sigmoid(x @ V + h @ W)
        h = z * h + (1 - z) * torch.tanh(x)
        return (h, n + 1), (h.square().sum(-1), h)

    return step


def loss(W: Tensor, init: Tensor, xs: Tensor, **options: Any) -> Tensor:
    first = init, torch.zeros(B, 1, dtype=D)
    carry, ys = scan(gated(W), first, xs, **options)
    return ys[0].sin().sum() + ys[1].cos().sum() + carry[0].exp().sum()


along = W.sin(), init.cos(), xs
TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "grad": lambda f: grad(f, (0, 1, 2))(W, init, xs),
    "vjp": lambda f: vjp(f, W, init, xs)[1](torch.ones((), dtype=D)),
    "jvp": lambda f: jvp(f, (W, init, xs), along),
    "jvp of grad": lambda f: jvp(grad(f, (0, 1, 2)), (W, init, xs), along),
    "grad of jvp": lambda f: grad(lambda *z: jvp(f, z, along)[1], (0, 1, 2))(W, init, xs),
    "jvp of jvp": lambda f: jvp(lambda *z: jvp(f, z, along)[1], (W, init, xs), along),
    "grad of grad": lambda f: grad(lambda W: grad(f)(W, init, xs).sin().sum())(W),
    "vmap over rows": lambda f: vmap(f, (None, 0, 0))(W, inits, many_xs),
    "vmap over parameters": lambda f: vmap(f, (0, None, None))(Ws, init, xs),
    "vmap over both": lambda f: vmap(f)(Ws, inits, many_xs),
    "vmap of vmap": lambda f: vmap(lambda W: vmap(lambda i: f(W, i, xs))(inits))(Ws),
    "per-sample gradients": lambda f: vmap(grad(f, (0, 1, 2)), (None, 0, 0))(W, inits, many_xs),
    "gradients of an ensemble": lambda f: vmap(grad(f, (0, 1)), (0, None, None))(Ws, init, xs),
    "grad of vmap": lambda f: grad(
        lambda W, i: vmap(f, (None, 0, 0))(W, i, many_xs).sin().sum(), (0, 1)
    )(W, inits),
    "jacrev": lambda f: jacrev(f, 1)(W, init, xs),
    "jacfwd": lambda f: jacfwd(f, 1)(W, init, xs),
    "hessian": lambda f: hessian(f, 1)(W, init, xs),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "in reverse": {"reverse": True},
    "lengths": {"lengths": lengths},
    "lengths in reverse": {"lengths": lengths, "reverse": True},
    "resets": {"resets": resets},
    "batch first": {"dim": 1},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(transform: str, options: str, monkeypatch):
    def f(W: Tensor, init: Tensor, xs: Tensor) -> Tensor:
        xs = xs.movedim(0, 1) if "dim" in OPTIONS[options] else xs
        return loss(W, init, xs, **OPTIONS[options])

    by_the_engine(lambda: TRANSFORMS[transform](f), monkeypatch)


FIRST_ORDER = ["grad", "vjp", "vmap over rows", "per-sample gradients", "grad of vmap", "jacrev"]


@pytest.mark.parametrize("transform", FIRST_ORDER)
def test_truncated_gradients(transform: str, monkeypatch):
    by_the_engine(lambda: TRANSFORMS[transform](lambda *z: loss(*z, truncate=2)), monkeypatch)


@pytest.mark.parametrize("transform", sorted(TRANSFORMS.keys() - FIRST_ORDER))
def test_derivatives_of_truncated_gradients(transform: str, monkeypatch):
    def found() -> Any:
        return TRANSFORMS[transform](lambda *z: loss(*z, truncate=2))

    with engine(monkeypatch, "eager"):
        expected = found()
    assert_same(found(), expected, 1e-10)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_budget_of_memory(transform: str, monkeypatch):
    without = TRANSFORMS[transform](loss)
    assert_same(TRANSFORMS[transform](lambda *z: loss(*z, memory="224kB")), without, 1e-10)


def test_rows_without_a_batch(monkeypatch):
    """Per-sample gradients as functorch's documentation writes them: each sample is one row."""

    def of_one(W: Tensor, h: Tensor, x: Tensor) -> Tensor:
        return scan(lambda s, x: torch.tanh(W @ s + x), h, x)[1].sin().sum()

    by_the_engine(lambda: vmap(grad(of_one), (None, 0, 1))(W, init, xs), monkeypatch)


def test_complex_carries(monkeypatch):
    def f(W: Tensor) -> Tensor:
        z = torch.complex(init, init.sin())
        last, _ = scan(lambda z, x: z * torch.exp(1j * (x @ W)), z, xs)
        return last.real.square().sum() + last.imag.sin().sum()

    for found in (lambda: grad(f)(W), lambda: vmap(grad(f))(Ws), lambda: jvp(f, (W,), (V,))):
        by_the_engine(found, monkeypatch)


def test_random_numbers(monkeypatch):
    """Gradients are of the numbers that the same seed gives the Python loop. vmap is left to it."""

    def f(W: Tensor) -> Tensor:
        torch.manual_seed(3)
        step = lambda h, x: torch.tanh(x + h @ W) * torch.rand_like(h)  # noqa: E731
        return scan(step, init, xs)[1].sum()

    by_the_engine(lambda: grad(f)(W), monkeypatch)
    by_the_engine(lambda: jvp(grad(f), (W,), (V,)), monkeypatch)

    def mapped() -> Any:
        torch.manual_seed(3)
        step = lambda h, x: torch.tanh(x + h) * torch.rand_like(h)  # noqa: E731
        return vmap(lambda i: scan(step, i, xs)[0], randomness="different")(inits)

    with engine(monkeypatch, "eager"):
        expected = mapped()
    assert_same(mapped(), expected)


def test_a_step_that_reads_a_value(monkeypatch):
    """Of the rows that are mapped each has its own: under vmap, PyTorch's error says so."""

    def f(w: Tensor) -> Tensor:
        return scan(lambda h, x: h * (2.0 if bool(w > 0) else 3.0) * w + x, init, xs)[0].sum()

    w = torch.tensor([1.0, -1.0], dtype=D)
    with pytest.raises(RuntimeError, match="vmap"):
        vmap(f)(w)
    for of_one in w:
        assert_same(grad(f)(of_one), torch.autograd.grad(f(w_ := of_one.requires_grad_()), w_)[0])


def test_a_step_with_a_transform_of_its_own(monkeypatch):
    def f(W: Tensor) -> Tensor:
        def step(h: Tensor, x: Tensor) -> Tensor:
            return h - 0.1 * grad(lambda h: (h @ W + x).tanh().sum())(h)

        return scan(step, init, xs)[0].square().sum()

    with engine(monkeypatch, "eager"):
        expected = grad(f)(W), vmap(grad(f))(Ws)
    assert_same((grad(f)(W), vmap(grad(f))(Ws)), expected, 1e-10)


def test_rows_that_share_what_depends_on_the_batch(monkeypatch):
    """The number of rows is that of a member; sums over the batch are a member's."""
    steps = {
        "a number of rows": lambda h, x: torch.tanh(x + h / h.shape[0]),
        "a mean": lambda h, x: (torch.tanh(x + h @ W), h.mean(0)),
        "a sum": lambda h, x: (torch.tanh(x + h @ W), h.square().sum()),
        "the batch's mean": lambda h, x: torch.tanh(x + h - h.mean(0)),
    }
    for step in steps.values():

        def found(step: Any = step) -> Any:
            return vmap(grad(lambda i: scan(step, i, xs)[1].sin().sum()))(inits)

        with engine(monkeypatch, "eager"):
            expected = found()
        assert_same(found(), expected, 1e-10)


def test_functionalize(monkeypatch):
    def found() -> Any:
        return grad(functionalize(lambda W: scan(rnn(W), init, xs)[0].sum()))(W)

    with engine(monkeypatch, "eager"):
        expected = found()
    assert_same(found(), expected)


def test_forward_mode_without_torch_func(monkeypatch):
    def tangent() -> Any:
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(W, V)
            ys = scan(rnn(dual), init, xs)[1]
            return forward_ad.unpack_dual(ys).tangent

    with engine(monkeypatch, "eager"):
        expected = tangent()
    assert_same(tangent(), expected)


def test_parameters_that_require_gradients_outside(monkeypatch):
    """The result of a transform is differentiable by autograd, in what the step captures."""
    weight = W.clone().requires_grad_()

    def found() -> Any:
        of_all = vmap(lambda i: scan(rnn(weight), i, xs)[1].sum())(inits)
        of_one = grad(lambda i: scan(rnn(weight), i, xs)[1].sin().sum())(init)
        return torch.autograd.grad(of_all.sin().sum() + of_one.sum(), weight)

    by_the_engine(found, monkeypatch)


def test_a_jvp_is_one_forward_pass(monkeypatch):
    """The scan of the step's jvp has the outputs, too: the plain scan is not played beside it."""
    passes = []
    forward = ScanCall.forward

    def counted(self: Any, *arguments: Any) -> Any:
        passes.append(self)
        return forward(self, *arguments)

    jvp(loss, (W, init, xs), along)  # recorded
    monkeypatch.setattr(ScanCall, "forward", counted)
    jvp(loss, (W, init, xs), along)
    assert len(passes) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Any, monkeypatch):
    def found() -> Any:
        with mode():
            return vmap(lambda W: scan(rnn(W), init, xs)[1])(Ws).clone()

    by_the_engine(found, monkeypatch)
    by_the_engine(lambda: vmap(grad(lambda W: scan(rnn(W), init, xs)[1].sum()))(Ws), monkeypatch)


def test_no_tensor_of_a_transform_is_kept():
    kept: list[Any] = []

    def f(W: Tensor) -> Tensor:
        kept.append(weakref.ref(W))
        return scan(rnn(W), init, xs)[1].sin().sum()

    for found in (lambda: hessian(f)(W), lambda: vmap(grad(f))(Ws), lambda: jvp(f, (W,), (V,))):
        found()
        found()
    gc.collect()
    assert [ref for ref in kept if ref() is not None] == []


class Net(nn.Module):
    def __init__(self, recurrent: nn.Module):
        super().__init__()
        self.recurrent, self.out = recurrent, nn.LazyLinear(2, dtype=D)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.recurrent(x)[0][-1])


NETS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: ostinato.nn.LSTM(H, H, 2, dtype=D),
    "GRU": lambda: ostinato.nn.GRU(H, H, bidirectional=True, dtype=D),
    "RNN": lambda: ostinato.nn.RNN(H, H, dtype=D),
    "accelerated": lambda: ostinato.accelerate(nn.LSTM(H, H, dtype=D)),
}


@pytest.mark.parametrize("name", NETS)
def test_layers(name: str, monkeypatch):
    net = Net(NETS[name]())
    net(xs)
    parameters = {key: p.detach() for key, p in net.named_parameters()}
    directions = {key: torch.randn_like(p) for key, p in parameters.items()}
    target = torch.randn(B, 2, dtype=D)

    def loss(p: Any, x: Tensor, y: Tensor) -> Tensor:
        return (functional_call(net, p, (x,)) - y).square().mean()

    def of_a_row(p: Any, x: Tensor, y: Tensor) -> Tensor:
        return loss(p, x[:, None], y)

    nets = [Net(NETS[name]()) for _ in range(3)]
    for other in nets:
        other(xs)
    stacked, _ = stack_module_state(nets)
    stacked = {key: p.detach() for key, p in stacked.items()}
    for found in (
        lambda: grad(loss)(parameters, xs, target),
        lambda: vmap(grad(of_a_row), (None, 1, 0))(parameters, xs, target),
        lambda: vmap(grad(loss), (0, None, None))(stacked, xs, target),
        lambda: jvp(lambda p: grad(loss)(p, xs, target), (parameters,), (directions,)),
        lambda: jacrev(lambda x: functional_call(net, parameters, (x,)))(xs),
    ):
        by_the_engine(found, monkeypatch)
