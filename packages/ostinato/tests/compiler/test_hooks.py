"""Hooks and backward passes of the user's own: they see the loop's gradients, as often."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato import scan
from ostinato.compiler.graph import left_to_torch
from zoo.playing import counting, loop
from zoo.small import B, D, H, T, World, assert_same, both, given, inputs, leaf, rnn, weight

pytestmark = pytest.mark.filterwarnings("ignore:scan plays")


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


def hung(t: Tensor, hook: Any = lambda g: g.clamp(-0.1, 0.1), asks: bool = True) -> Tensor:
    """t, with a hook on its gradient, if it has one; unasked, it must have."""
    if not asks or t.requires_grad:
        t.register_hook(hook)
    return t


def retaining(t: Tensor) -> Tensor:
    t.retain_grad()
    return t


def checked(t: Tensor) -> Tensor:
    assert t.requires_grad
    return t


# A hook on the carry also sees the gradient of the step before, of which the carry is the output.
HOOKED: dict[str, Any] = {
    "carry": lambda W: lambda h, x: torch.tanh(x + hung(h) @ W),
    "carry, unasked": lambda W: lambda h, x: torch.tanh(x + hung(h, lambda g: 2 * g, False) @ W),
    "product": lambda W: lambda h, x: torch.tanh(hung(h @ W) + x),
    "product, unasked": lambda W: lambda h, x: torch.tanh(hung(h @ W, asks=False) + x),
    "retained": lambda W: lambda h, x: torch.tanh(retaining(h @ W) + x),
    "asked for": lambda W: lambda h, x: checked(torch.tanh(h @ W + x)),
}


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_of_a_step(name):
    W, init, xs = inputs()
    step = HOOKED[name](W)

    def f(how: Any) -> Any:
        start = init.clone()  # the loop's hooks stay on it
        return torch.autograd.grad(how(step, start, xs)[1].square().sum(), [W, init, xs])

    warned = pytest.warns(UserWarning, match="hangs a hook")
    with warned if name.startswith("carry") else nullcontext():
        both(f)


def test_a_hook_on_a_weight_by_a_step():
    W, init, xs = inputs()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ hung(W, lambda g: 2 * g))

    with pytest.warns(UserWarning, match="hangs a hook"):
        scan(step, init, xs)
    assert len(W._backward_hooks) == T  # the loop's, and none of a call that was only watched


def test_what_hooks_on_gradients_collect():
    W, (init, xs) = weight(), given()
    seen: list[Any] = []
    for _ in range(2):
        seen.clear()
        step = lambda h, x: torch.tanh(hung(h @ W, lambda g: seen.append(g.shape)) + x)  # noqa: E731
        scan(step, init, xs)[1].sum().backward()
        assert seen == [(B, H)] * T


def _with_backward(backward):
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            return a * 1

        @staticmethod
        def backward(ctx, g):
            return backward(g)

    return Own.apply


NOT_LINEAR = {
    "clamp": lambda g, b: g.clamp(-100, 100),
    "round": lambda g, b: torch.div(g, 4.0, rounding_mode="trunc"),
    "add a captured tensor": lambda g, b: g + 100 * b,
    "add a number": lambda g, b: g + 100.0,
    "subtract from a number": lambda g, b: 100.0 - g,
    "divide by it": lambda g, b: b / g,
    "fill with a number": lambda g, b: g.masked_fill(b > 0, 100.0),
    "choose a captured tensor": lambda g, b: torch.where(b > 0, g, b),
}


@pytest.mark.parametrize("by_a_hook", [False, True])
@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_backward_pass_that_is_not_linear_in_sums_over_the_steps(name, by_a_hook):
    """It is refused as such: a comparison of a single step with the loop would not show it."""
    b, init = leaf(H), leaf(B, H)
    function = NOT_LINEAR[name]
    own = _with_backward(lambda g: function(g, b.detach()))

    def step(h, x):
        p = b * 1 if by_a_hook else own(b * 1)
        if by_a_hook and p.requires_grad:
            p.register_hook(lambda g: function(g, b.detach()))
        return torch.tanh(h + x + p)

    for n_steps in (1, T):
        xs = leaf(n_steps, B, H)
        both(lambda how, xs=xs: torch.autograd.grad(1000 * how(step, init, xs)[1].sum(), [b, init]))


def test_a_single_step_does_not_vouch_for_several(monkeypatch):
    """Were such a backward pass not refused, the first steps of a longer call would show it."""
    monkeypatch.setattr(left_to_torch, "_is_linear", lambda call, read: True)
    b, init = leaf(H), leaf(B, H)
    own = _with_backward(lambda g: g + 100.0)
    step = lambda h, x: torch.tanh(h + x + own(b * 1))  # noqa: E731
    for n_steps in (1, T):
        xs = leaf(n_steps, B, H)
        both(lambda how, xs=xs: torch.autograd.grad(how(step, init, xs)[1].sum(), [b, init]))
        assert ostinato.explain(step, init, xs).native == (n_steps == 1)


def test_each_step_of_sums_that_are_linear_is_played():
    """What a backward pass may do to a sum over the steps."""
    b, init, xs = leaf(H), leaf(B, H), leaf(T, B, H)
    doubled = _with_backward(lambda g: torch.cat([g + g, -g / 2]).view(2, -1).sum(0))
    step = lambda h, x: torch.tanh(h + x + doubled(b * 1))  # noqa: E731
    both(lambda how: torch.autograd.grad(how(step, init, xs)[1].sum(), [b, init]))
    assert ostinato.explain(step, init, xs).native


def reads_in_backward(kind: str, w: World) -> Any:
    """A step whose backward pass alone reads a factor: of a gradient reversal, say."""
    reads = {
        "attribute": lambda g: g * w.k,
        "list": lambda g: g * w.listed[0],
        "class": lambda g: g * w.Thing.k,
        "helper": lambda g: g * helper(),
        "tensor": lambda g: g * w.memo,
        "hook": lambda g: g * w.k,
        "computed name": lambda g: g * w.k,
    }
    helper = lambda: w.table["k"]  # noqa: E731
    if kind == "module":
        w.linear.register_full_backward_hook(lambda m, ins, outs: (ins[0] * w.k,))
        return lambda h, x: torch.tanh(x + w.linear(h))
    turned = _with_backward(reads[kind])
    if kind == "computed name":
        return lambda h, x: torch.tanh(turned(h @ vars(w)["".join("W")] + x))

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = h @ w.W + x
        if kind != "hook":
            z = turned(z)
        elif z.requires_grad:
            z.register_hook(reads[kind])
        return torch.tanh(z)

    return step


@pytest.mark.parametrize(
    "kind", ["attribute", "list", "class", "helper", "tensor", "hook", "module", "computed name"]
)
def test_what_a_backward_pass_reads_may_change(kind):
    """Between two calls, and between the forward and the backward pass of one."""
    w, (_, init, xs) = World(), inputs()
    step, saw = reads_in_backward(kind, w), []
    w.memo = torch.tensor(1.0, dtype=D)
    wanted = [w.W if kind != "module" else w.linear.weight, init, xs]

    def put(k: float) -> None:
        w.k = w.listed[0] = w.Thing.k = w.table["k"] = k
        w.memo.fill_(k)

    def run(how: Any) -> Any:
        found = []
        for before, after in ((2.0, 2.0), (0.5, 0.5), (2.0, 5.0), (3.0, 3.0), (2.0, -1.0)):
            put(before)
            ys = how(step, init, xs)[1]
            put(after)
            found.append(torch.autograd.grad(ys.sum(), wanted))
        saw.append(found[1][0] - found[0][0])
        return found

    both(run)
    assert all(difference.abs().max() > 1e-3 for difference in saw)


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


class Surrogate(torch.autograd.Function):
    """A spike, with the gradient of a soft one."""

    steepness = 2.0

    @staticmethod
    def forward(ctx: Any, v: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.slope = slope
        return (v > 0).to(v)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (v,) = ctx.saved_tensors
        return g / (1 + ctx.slope * Surrogate.steepness * v.abs()) ** 2, None


@pytest.mark.parametrize("function", [Surrogate.apply, lambda v, k: Surrogate.apply(v, k)])
def test_locals_of_the_step_may_be_bound_anew_before_the_backward_pass(function: Any) -> None:
    """As every loop does, over layers, say. What the backward pass reads itself may not."""
    _, init, xs = inputs()
    layers = [torch.nn.Linear(H, H, dtype=D), torch.nn.Bilinear(H, H, H, dtype=D)]

    def run(how: Any, steepness: float) -> tuple[Any, int]:
        layer, scale, shift, name = layers[0], 2.0, torch.ones(H, dtype=D), "spikes"

        def step(h: Tensor, x: Tensor) -> Any:
            h = 0.9 * h + layer(x) * scale - shift
            s = function(h - 0.1, 3.0)
            return h - s, {name: s}

        ys = how(step, init, xs)[1]["spikes"]
        layer, scale, shift, name = layers[1], None, None, 0
        Surrogate.steepness = steepness
        with counting(step) as calls:
            found = torch.autograd.grad(ys.sum(), [layers[0].weight, init, xs])
        Surrogate.steepness = 2.0
        return found, calls[0]

    for _ in range(2):
        theirs, _ = run(loop, 2.0)
        ours, calls = run(scan, 2.0)
        assert calls == 0
        assert_same(ours, theirs)
    with pytest.raises(RuntimeError, match="keep what it reaches until then"):
        run(scan, 3.0)
