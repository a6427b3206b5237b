"""Hooks and backward passes of the user's own: they see the loop's gradients, as often."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from ostinato import scan
from zoo.playing import loop
from zoo.small import B, D, H, T, assert_same, both, given, inputs, leaf, rnn, weight

pytestmark = pytest.mark.filterwarnings("ignore:scan plays")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_hooks_on_weights_see_the_whole_gradient_once():
    W, init, xs = inputs()
    seen: list[Tensor] = []
    W.register_hook(lambda g: seen.append(g.clone()))
    accumulated: list[int] = []
    W.register_post_accumulate_grad_hook(lambda p: accumulated.append(1))
    scan(rnn(W), init, xs)[1].sum().backward()
    assert len(seen) == len(accumulated) == 1
    loop(rnn(W), init, xs)[1].sum().backward()
    assert_same(seen[0], seen[1])


def test_a_hook_on_the_carry():
    """It sees the gradient of the step before, too, whose output it is."""
    W, init, xs = inputs()

    def guarded(h: Tensor, x: Tensor) -> Tensor:
        if h.requires_grad:
            h.register_hook(lambda g: g.clamp(-0.1, 0.1))
        return torch.tanh(x + h @ W)

    def always(h: Tensor, x: Tensor) -> Tensor:
        h.register_hook(lambda g: 2 * g)
        return torch.tanh(x + h @ W)

    def on_weights(h: Tensor, x: Tensor) -> Tensor:
        if W.requires_grad:
            W.register_hook(lambda g: 2 * g)
        return torch.tanh(x + h @ W)

    for step in (guarded, always):

        def f(how: Any, step: Any = step) -> Any:
            start = init.clone()  # the loop's hooks stay on it
            return torch.autograd.grad(how(step, start, xs)[1].sum(), [W, init, xs])

        with pytest.warns(UserWarning, match="hangs a hook"):
            both(f)
    with pytest.warns(UserWarning, match="hangs a hook"):
        scan(on_weights, init, xs)
    assert len(W._backward_hooks) == T  # the loop's, and none of a call that was only watched


@pytest.mark.filterwarnings("ignore:scan plays")
def test_what_hooks_on_gradients_collect():
    W, (init, xs) = weight(), given()
    seen = []

    def step(h, x):
        p = h @ W
        if p.requires_grad:
            p.register_hook(lambda g: seen.append(g.shape))
        return torch.tanh(p + x)

    for _ in range(2):
        seen.clear()
        ostinato.scan(step, init, xs)[1].sum().backward()
        assert seen == [(B, H)] * T


def test_hooks_on_what_a_step_computes():
    """Without a guard for calls in which no gradient is wanted."""
    W, (init, xs) = weight(), given()

    def clipped(h, x):
        p = h @ W
        p.register_hook(lambda g: g.clamp(-0.1, 0.1))
        return torch.tanh(p + x)

    def retained(h, x):
        p = h @ W
        p.retain_grad()
        return torch.tanh(p + x)

    def checked(h, x):
        p = torch.tanh(h @ W + x)
        assert p.requires_grad
        return p

    for step in (clipped, retained, checked):
        grads = [
            torch.autograd.grad(how(step, init, xs)[1].square().sum(), W)
            for how in (ostinato.scan, loop)
        ]
        torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11)


class _Scaled(torch.autograd.Function):
    factor = 1.0

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * _Scaled.factor * _of_the_module()


FACTOR = {"now": 1.0}


def _of_the_module() -> float:
    return FACTOR["now"]


class _Hidden:
    """What it holds no path leads to."""

    def __init__(self, W: Tensor):
        self.W = W

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + _Scaled.apply(h) @ getattr(self, "W"))  # noqa: B009


@pytest.mark.parametrize("kind", ["function", "opaque", "module"])
def test_what_is_read_in_the_backward_pass_alone_may_change(kind, monkeypatch):
    W, init, xs = inputs()
    linear = nn.Linear(H, H, dtype=D)
    linear.register_full_backward_hook(lambda m, ins, outs: (ins[0] * FACTOR["now"],))

    def function(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + _Scaled.apply(h) @ W)

    def module(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + linear(h))

    step = {"function": function, "opaque": _Hidden(W), "module": module}[kind]
    wanted = [init, xs, *(linear.parameters() if kind == "module" else [W])]
    saw = []
    for factor, of_the_class in ((1.0, 1.0), (0.5, 1.0), (0.5, -1.0), (1.0, 1.0)):
        monkeypatch.setitem(FACTOR, "now", factor)
        monkeypatch.setattr(_Scaled, "factor", of_the_class)

        def f(how: Any) -> Any:
            return torch.autograd.grad(how(step, init, xs)[1].sum(), wanted)

        both(f)
        saw.append(f(scan)[0])
    assert not torch.equal(saw[0], saw[1])


def _with_backward(backward):
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            return a * 1

        @staticmethod
        def backward(ctx, g):
            return backward(g)

    return Own.apply


@pytest.mark.parametrize("by_a_hook", [False, True])
def test_a_backward_pass_that_is_not_linear_in_sums_over_the_steps(by_a_hook):
    b, init, xs = leaf(H), leaf(B, H), leaf(T, B, H)
    clipped = _with_backward(lambda g: g.clamp(-100, 100))

    def step(h, x):
        p = b * 1 if by_a_hook else clipped(b * 1)
        if by_a_hook and p.requires_grad:
            p.register_hook(lambda g: g.clamp(-100, 100))
        return torch.tanh(h + x + p)

    both(lambda how: torch.autograd.grad(1000 * how(step, init, xs)[1].sum(), [b, init]))


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("kind", ["list", "class", "hook", "tensor"])
def test_what_a_backward_pass_reads_may_change_before_it(kind):
    """The factor of a gradient reversal, say."""
    W, init, xs = inputs()
    factor, held = [2.0], torch.tensor(2.0, dtype=D)

    class Settings:
        factor = 2.0

    reads = {
        "list": lambda g: g * factor[0],
        "class": lambda g: g * Settings.factor,
        "tensor": lambda g: g * held,
    }
    turned = None if kind == "hook" else _with_backward(reads[kind])

    def step(h, x):
        z = h @ W + x
        if kind != "hook":
            z = turned(z)
        elif z.requires_grad:
            z.register_hook(lambda g: g * factor[0])
        return torch.tanh(z)

    def put(value):
        factor[0] = Settings.factor = value
        held.fill_(value)

    def run(how):
        found = []
        for before, after in ((2.0, 5.0), (3.0, 3.0), (2.0, -1.0)):
            put(before)
            ys = how(step, init, xs)[1]
            put(after)
            found.append(torch.autograd.grad(ys.sum(), [W, init, xs]))
        return found

    both(run)


class Twice(torch.autograd.Function):
    """Makes zeros of a gradient that is not there."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 2


@pytest.mark.parametrize("lengths", [None, [T, 0, 2]])
@pytest.mark.parametrize("which", ["captured", "init", "xs"])
def test_what_no_gradient_reaches_is_not_gone_back_to(which, lengths, monkeypatch):
    """Neither hooks nor functions before it run: there zeros would come of it."""
    W, init, _ = inputs()

    def step(h: Tensor, x: Tensor) -> Tensor:
        V = given["captured"].detach()
        h = h.detach() if which == "init" else h
        return torch.tanh(h @ W + (x.detach() if which == "xs" else x) @ V)

    def found() -> Any:
        seen.clear()
        leaves = {
            "captured": leaf(H, H),
            "init": init.detach().requires_grad_(),
            "xs": leaf(T, B, H),
        }
        for t in leaves.values():
            t.register_hook(lambda g: seen.append(g is None))
        given.update({name: Twice.apply(t) for name, t in leaves.items()})
        carry, ys = scan(step, given["init"], given["xs"], lengths=lengths)
        (ys.square().sum() + carry.sum()).backward()
        assert True not in seen
        return len(seen), [t.grad is None for t in leaves.values()]

    seen: list[bool] = []
    given: dict[str, Tensor] = {}
    ours = found(), found()
    monkeypatch.setenv("OSTINATO_ENGINE", "eager")
    assert ours == (found(), found())
