"""Never a wrong gradient: who wants one, through which outputs, in which order, at which values.

Everything is compared with the plain loop in float64; where the loop raises, scan must raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from ostinato import scan
from zoo.playing import loop
from zoo.small import B, D, H, T, assert_same, both, given, gradients, inputs, leaf, rnn

pytestmark = pytest.mark.filterwarnings("ignore:scan plays", "ignore:.*was recorded")

NARROW = torch.linspace(-1, 1, 2 * H, dtype=D).view(H, 2)


@torch.no_grad()
def quiet(a: Tensor) -> Tensor:
    return a * 2


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, more: float = 0.0) -> Tensor:
        return w.sign() + more

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, None


def kinks(h: Tensor, x: Tensor, a: Tensor, init: Tensor) -> Any:
    """Ties, zeros and the branch not taken: PyTorch's own subgradients."""
    zero = x * 0
    b = torch.relu(zero) + zero.abs() + zero.clamp(0, 1) + torch.maximum(zero, zero)
    b = b + torch.minimum(x, x) + zero.sign() + nn.functional.elu(zero)
    rooted = torch.where(x > 0, (x * h).abs().sqrt(), torch.tanh(x + a))
    return torch.tanh(a + b), (rooted, b.norm(dim=1), torch.maximum(x, init))


# Steps over a weight, a view of it that may want a gradient, and the first carry.
STEPS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "once": lambda W, V, init: rnn(W),
    "twice": lambda W, V, init: (
        lambda h, x, again=[W]: torch.tanh(x @ W + h @ W + h @ again[0].t())
    ),
    "beside a view": lambda W, V, init: lambda h, x: torch.tanh(x @ V + h @ W + V[0]),
    "a view alone": lambda W, V, init: lambda h, x: torch.tanh(x @ V + h),
    "beside the first carry": lambda W, V, init: lambda h, x: torch.tanh(x + h @ W) + init,
    "masked by constants": lambda W, V, init: (
        lambda h, x: (
            torch.tanh(x + h @ W.masked_fill(torch.ones(H, dtype=D) > 0.5, 0.5))
            + W[0].masked_fill(torch.zeros(H, dtype=D) > 0.5, 0.0)
        )
    ),
    "kinks": lambda W, V, init: lambda h, x: kinks(h, x, h @ W, init),
    "rounded": lambda W, V, init: lambda h, x: (lambda a: a + (a.round() - a).detach())(h @ W + x),
    "without gradient": lambda W, V, init: (
        lambda h, x: torch.tanh(x + h @ W + quiet(h) + h.detach() @ V.detach())
    ),
    # a carry of two, the second of which wants no gradient at first
    "counter in the carry": lambda W, V, init: (
        lambda c, x: ((torch.tanh(x + c[0] @ W) / (c[1] + 1), c[1] + 1), (c[0], c[1] * 2))
    ),
    "carry handed over": lambda W, V, init: lambda c, x: (torch.tanh(x + c[1] @ W), 0.5 * c[0]),
    # custom functions of captured tensors alone
    "custom": lambda W, V, init: lambda h, x: torch.tanh(x + h @ Rounded.apply(W)),
    "custom times itself": lambda W, V, init: lambda h, x: x + h @ (Rounded.apply(W) * W),
    "custom twice": lambda W, V, init: lambda h, x: x + h @ Rounded.apply(Rounded.apply(W), 0.5),
    "custom of a product": lambda W, V, init: lambda h, x: torch.tanh(x + h @ Rounded.apply(W * 1)),
    "custom of a view": lambda W, V, init: lambda h, x: torch.tanh(x + h @ Rounded.apply(V)),
    "custom of no leaf": lambda W, V, init: (
        lambda A: lambda h, x: torch.tanh(x + h @ Rounded.apply(A))
    )(W * 2),
}


@pytest.mark.parametrize("which", ["W", "W init", "W xs", "W init xs", "init xs"])
@pytest.mark.parametrize("name", STEPS)
def test_who_wants_a_gradient(name, which):
    W, init, xs = (t.detach() for t in inputs())
    xs[1], xs[2, :, 0] = 0, init[:, 0]
    for t, of in ((W, "W"), (init, "init"), (xs, "xs")):
        t.requires_grad_(of in which.split())
    V = W.t()
    leaves = [t for t in (W, V, init, xs) if t.requires_grad]
    start = (init, torch.zeros_like(init)) if "carry" in name and "first" not in name else init

    both(lambda how: gradients(how, STEPS[name](W, V, init), leaves, start, xs))
    if name == "masked by constants":
        assert ostinato.explain(STEPS[name](W, V, init), start, xs).native


def test_a_first_call_without_gradients_leaves_later_ones_whole():
    for quiet in (torch.no_grad, torch.inference_mode):
        W, init, xs = inputs()
        step = rnn(W)
        with quiet():
            carry, ys = scan(step, init, xs)
        assert not ys.requires_grad and not carry.requires_grad
        assert ys.is_inference() == (quiet is torch.inference_mode)
        both(
            lambda how, step=step, W=W, init=init, xs=xs: torch.autograd.grad(
                how(step, init, xs)[1].square().sum(), [W, init, xs]
            )
        )
        with quiet():
            again = scan(step, init, xs)
        assert_same([t.clone() for t in again], [t.detach() for t in loop(step, init, xs)])


def test_inference_tensors_are_used_as_the_loop_uses_them():
    with torch.inference_mode():
        W, init = torch.randn(H, H, dtype=D), torch.randn(B, H, dtype=D)
        features = torch.randn(T, B, H, dtype=D)
    V, start, xs = inputs()
    assert_same(scan(rnn(W), init, xs.detach()), loop(rnn(W), init, xs.detach()))
    both(lambda how: gradients(how, rnn(V), [V, start], start, features))

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ V + h @ W)

    with pytest.raises(RuntimeError, match=r"[Ii]nference tensor"):
        loop(step, init, xs)  # a matrix product cannot save one for its gradient; scan copies it
    found = torch.autograd.grad(scan(step, init, xs)[1].sum(), V)
    W = W.clone()
    assert_same(found, torch.autograd.grad(loop(step, init, xs)[1].sum(), V))


@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_model_made_and_played_in_inference_mode(n_rows):
    """Its parameters say that they want gradients, and can have none."""
    with torch.inference_mode():
        W = torch.nn.Parameter(torch.randn(H, H, dtype=D))
        init, xs = torch.randn(n_rows, H, dtype=D), torch.randn(T, n_rows, H, dtype=D)
        assert W.requires_grad and W.is_inference()
        assert_same(scan(rnn(W), init, xs), loop(rnn(W), init, xs))


def test_two_scans_that_share_weights_and_accumulate():
    W, init, xs = inputs()
    grads = []
    for how in (loop, scan):
        for _ in range(2):
            how(rnn(W), init, xs)[1].square().sum().backward()
            how(rnn(W), init, xs.detach())[0].sum().backward()
        grads.append([t.grad.clone() for t in (W, init, xs)])
        W.grad = init.grad = xs.grad = None
    assert_same(*grads)


def test_a_counter_goes_on_through_truncated_sequences():
    W, init, xs = inputs()

    def step(carry: Any, x: Tensor) -> Any:
        h = torch.tanh(x + carry[0] @ W)
        return (h, carry[1] + 1), h

    def f(how: Any) -> Any:
        carry, found = (init.detach(), torch.zeros(B, 1, dtype=D)), []
        for part in xs.detach().split(2):
            carry, ys = how(step, carry, part)
            found += torch.autograd.grad(ys.sum(), W)
            carry = carry[0].detach(), carry[1]
        return found, carry[1].numpy().sum()

    both(f)


def test_passes_that_overlap_keep_what_is_theirs():
    """Forward passes before backward passes in another order; results stay as they were."""
    W, _, _ = inputs()
    step = rnn(W)
    given = [(leaf(B, H), leaf(T, B, H)) for _ in range(4)]
    outs = [scan(step, *pair) for pair in given]
    values = [[t.detach().clone() for t in out] for out in outs]
    found, kept = {}, {}
    for i in (2, 0, 3, 1, 2, 0):
        grads = torch.autograd.grad(
            outs[i][1].square().sum() + outs[i][0].sum(), [W, *given[i]], retain_graph=True
        )
        if i in found:
            assert all(torch.equal(a, b) for a, b in zip(grads, kept[i], strict=True))
        found[i], kept[i] = grads, [g.clone() for g in grads]
        scan(step, leaf(B, H), leaf(T, B, H))[1].sum().backward()
    for i, (init, xs) in enumerate(given):
        carry, ys = loop(step, init, xs)
        right = torch.autograd.grad(ys.square().sum() + carry.sum(), [W, init, xs])
        assert_same([*outs[i], *found[i]], [carry, ys, *right])
        assert all(torch.equal(a, b) for a, b in zip(found[i], kept[i], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(outs[i], values[i], strict=True))


def test_a_second_backward_needs_retain_graph():
    W, init, xs = inputs()
    carry, ys = scan(rnn(W), init, xs)
    first = torch.autograd.grad(ys.sum(), [W, init, xs], retain_graph=True)
    assert_same(torch.autograd.grad(ys.sum(), [W, init, xs], retain_graph=True), first)
    assert_same(
        torch.autograd.grad(carry.sum(), [W, init, xs]),
        torch.autograd.grad(loop(rnn(W), init, xs)[0].sum(), [W, init, xs]),
    )
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(ys.sum(), [W, init, xs])


def test_nan_and_infinity_flow_as_in_the_loop():
    for bad in (float("nan"), float("inf"), -float("inf")):
        W, init, xs = (t.detach() for t in inputs())
        xs[2, 1, 2] = bad
        init[0, 0] = bad
        for t in (W, init, xs):
            t.requires_grad_()

        def step(h: Tensor, x: Tensor, W: Tensor = W) -> Any:
            a = x + h @ W
            return torch.tanh(a), (torch.relu(a), torch.maximum(a, x), a.clamp(-1, 1), a > 0)

        def f(how: Any, step: Any = step, leaves: Any = (W, init, xs)) -> Any:
            carry, ys = how(step, leaves[1], leaves[2])
            outs = [carry, *ys]
            total = sum(o.sum() for o in outs[:-1])
            return outs, torch.autograd.grad(total, leaves)

        both(f)


@pytest.mark.filterwarnings("error")  # an empty batch is no fault of the step: not a word
def test_no_rows_and_one_step():
    W, *_ = inputs()
    for rows, steps in ((0, 3), (1, 1), (0, 1)):
        init, xs = leaf(rows, H), leaf(steps, rows, H)
        both(lambda how, h=init, xs=xs: gradients(how, rnn(W), [W, h, xs], h, xs))


def test_a_backward_pass_in_another_thread():
    W, init, xs = inputs()
    ys = scan(rnn(W), init, xs)[1]
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(torch.autograd.grad(ys.square().sum(), [W, init, xs]))
    )
    thread.start()
    thread.join()
    right = torch.autograd.grad(loop(rnn(W), init, xs)[1].square().sum(), [W, init, xs])
    assert_same(found[0], right)


def test_the_checker_can_fail():
    W, init, xs = inputs()

    def f(how: Any) -> Any:
        scale = 1.0 if how is loop else 1 + 1e-9
        return torch.autograd.grad(scale * how(rnn(W), init, xs)[1].sum(), [W, init, xs])

    with pytest.raises(AssertionError):
        both(f)


@pytest.mark.filterwarnings("error", "ignore:.* was recorded")  # it is played by the engine
@pytest.mark.parametrize("reduce", [torch.sum, torch.mean, torch.amax])
@pytest.mark.parametrize(
    "pieces",
    [
        lambda c, p: [c, p],
        lambda c, p: [p, c],
        lambda c, p: [c, p, c + 1, p @ NARROW],
        lambda c, p: [torch.zeros_like(c[:, :2]), p],
        lambda c, p: [torch.cat([c[:, :1], p], 1), p * 1.0],
    ],
)
def test_a_product_behind_the_first_piece_of_a_concatenation(pieces, reduce):
    def step(c, x):
        return torch.tanh(reduce(torch.cat(pieces(c, c @ W), 1), dim=-1, keepdim=True) + x)

    W, init, xs = inputs()
    both(lambda how: gradients(how, step, [W, init, xs], init, xs))
    W.requires_grad_(False)
    xs.requires_grad_(False)
    both(lambda how: gradients(how, step, [init], init, xs))
    with torch.no_grad():  # nobody else reads the product then
        both(lambda how: how(step, init, xs))


@pytest.mark.filterwarnings("error")
def test_frozen_gates_of_a_carry_with_one_number_a_row():
    gates = nn.Linear(5, 6, dtype=D).requires_grad_(False)
    mix = nn.Linear(3, 3, dtype=D).requires_grad_(False)

    def step(s, x):
        a, b = (gates(x) + s).chunk(2, -1)
        y = torch.sigmoid(a + x[:, :3]) * torch.tanh(mix(b))
        return y.mean(-1, keepdim=True), y

    init, xs = leaf(4, 1), leaf(7, 4, 5).detach()  # nobody else reads the product's gradient then
    both(lambda how: gradients(how, step, [init], init, xs))


def test_a_step_that_turns_gradients_on():
    W, init, xs = inputs()
    init, xs = init.detach(), xs.detach()

    @torch.enable_grad()
    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ W)

    def last(how: Any) -> Any:
        with torch.no_grad():
            carry, ys = how(step, init, xs)
        assert carry.requires_grad and not ys.requires_grad
        return torch.autograd.grad(carry.square().sum(), W)

    both(last)
    both(last)


@pytest.mark.parametrize("factors", [{"beta": 0}, {"alpha": 0}, {"beta": 2, "alpha": 0.5}])
def test_a_part_of_a_sum_that_counts_for_nothing(factors):
    W, init, xs = inputs()

    def step(h: Tensor, x: Tensor) -> Any:
        return h / 2, torch.addmm(h, x, W, **factors)

    scan(step, init, xs)  # as it is recorded NaN would be noticed
    with torch.no_grad():
        for t in (init, xs):
            t[0] = float("nan")
    assert_same(scan(step, init, xs), loop(step, init, xs))


def test_a_step_that_leaves_gradients_on_or_off():
    W, init, xs = inputs()
    on = [True]

    def step(h: Tensor, x: Tensor) -> Tensor:
        torch.set_grad_enabled(on[0])
        return torch.tanh(h @ W + x)

    found = []
    for how in (loop, scan):
        for on[0] in (True, False, True, False, False):
            for before in (True, False):
                with torch.set_grad_enabled(before):
                    _, ys = how(step, init, xs)
                    found.append((torch.is_grad_enabled(), ys.requires_grad))
    assert found[: len(found) // 2] == found[len(found) // 2 :]


def test_a_backward_pass_in_a_step():
    init, xs = given()
    for _ in range(2):
        found = []
        for how in (loop, ostinato.scan):
            W = torch.ones(H, H, dtype=D, requires_grad=True)

            def step(h, x, W=W):
                W.square().sum().backward()
                return torch.tanh(h + x)

            how(step, init, xs)
            found.append(W.grad)
        torch.testing.assert_close(*found)
