"""Gradients that do not exist are None, not zeros; and no pole is met on the way to them."""

import itertools
import random

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from ostinato import scan
from zoo.playing import assert_same_gradients, loop
from zoo.small import D, H, weight
from zoo.suites import one_in

B = 3


def rnn(w):
    def step(h, x):
        h = torch.tanh(x + h @ w[0])
        return h, (h, h @ w[1])

    return step, 1


def lstm(w):
    def step(c, x):
        h, cell = c
        cell = torch.sigmoid(h @ w[0]) * cell + torch.tanh(x + h @ w[1])
        h = torch.tanh(cell)
        return (h, cell), (h, h @ w[2])

    return step, 2


def apart(w):
    """Two recurrences, and a head each."""

    def step(c, x):
        a, b = torch.tanh(x + c[0] @ w[0]), torch.sin(x + c[1] * w[1][0])
        return (a, b), (a @ w[2], b @ w[2], a)

    return step, 2


def register(w):
    """Each leaf moves to the next place."""

    def step(c, x):
        return (torch.tanh(x @ w[0]), c[0] * w[1][0], c[1]), (c[2] @ w[2],)

    return step, 3


def swap(w):
    def step(c, x):
        return (c[1] @ w[0], torch.tanh(c[0] + x)), (c[0] * w[2].sum(),)

    return step, 2


def before_the_update(w):
    def step(h, x):
        return h @ w[0] + (x * w[1][0]).abs().sqrt(), (h,)

    return step, 1


def statistic(w):
    def step(c, x):
        h, way = c
        new = torch.tanh(h @ w[0] + x)
        return (new, way + (new - h).square().sum(1).sqrt()), (new, way * 1.0)

    return step, 2


def latest(w):
    """The last carry has what the steps before it do not count in."""

    def step(c, x):
        h = torch.tanh(c[0] @ w[0] + x)
        return (h, (x * w[1][0]).abs().sqrt()), (h @ w[2],)

    return step, 2


def detached(w):
    def step(c, x):
        h = torch.tanh(c[0] @ w[0] + c[1].detach() + x)
        return (h, (h * w[1][0]).cos()), (h,)

    return step, 2


def normalised(w):
    def step(c, x):
        h = nn.functional.layer_norm(c[0] @ w[0] + x, (H,), w[1][0], w[1][1])
        x = nn.functional.layer_norm(x, (H,), w[1][2], w[1][3])
        return (torch.tanh(h), c[1] * 0.5 + h[:, :2]), (
            torch.cat([h, c[1]], 1) @ w[2].repeat(2, 1)[: H + 2],
            x * c[0],
        )

    return step, 2


def masked(w):
    """Selections of what has no gradient have none."""

    def step(c, x):
        a = torch.clamp(x + c[0] @ w[0], -1, 1)
        b = torch.maximum(c[1], x * w[1][0])
        d = torch.where(x > 0, c[2] @ w[2], x).masked_fill(x > 1, 0.0)
        return (a, b, d), (x @ w[1],)

    return step, 3


def pieces(w):
    """Of some splits not all pieces are used."""

    def step(c, x):
        a, _ = (c[0] @ w[0]).chunk(2, 1)
        b, _, _ = c[1].split([2, 1, 1], 1)
        d = torch.stack([c[2] @ w[1], x], 1).unbind(1)[0]
        return (torch.tanh(torch.cat([a, a], 1)), torch.cat([b, b], 1), d), (c[1] * x, x @ w[2])

    return step, 3


class Clipped(torch.autograd.Function):
    """A gradient of its own, as a spike's."""

    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return (a > 0).to(a.dtype)

    @staticmethod
    def backward(ctx, g):
        return g / (1 + 5 * ctx.saved_tensors[0].abs()) ** 2


def spiking(w):
    """Of parameters alone something is computed, and the output is that of the step before."""

    def step(c, x):
        membrane, spikes, out = c
        out = 0.9 * out + spikes @ w[0]
        rate = torch.sigmoid(w[1][0]) * w[1].softmax(0)[1] + torch.maximum(w[1][2], w[1][3])
        membrane = rate * membrane + x @ w[2]
        spikes = Clipped.apply(membrane - 0.1)
        return (membrane, spikes, out), (out,)

    return step, 3


def gated_without_gradient(w):
    def step(c, x):
        with torch.no_grad():
            gate = torch.sigmoid(c[0])
        new = c[0] * w[0][0].exp() + gate * (x @ torch.relu(w[1]))
        return (new, c[1] * torch.softmax(w[2], 1)[0]), (
            c[0],
            torch.outer(w[2][0], w[2][1]).diag() * x,
        )

    return step, 2


def hooked(w):
    def step(c, x):
        new = c[0] * w[0][0].exp() + x @ w[1].tanh()
        if new.requires_grad:
            new.register_hook(lambda g: 10 * g)
        return (new, c[0] @ w[2]), (x * w[2][1].cos(),)

    return step, 2


def counts(w):
    """Two counters, of which one counts inputs; and a leaf that is made anew at each step."""

    def step(c, x):
        h, n, m, _ = c
        new = torch.tanh(x + h @ w[0]), n + 1, m.detach() + x, torch.zeros_like(n)
        return new, (n + h, x * m, c[3])

    return step, 4


STEPS = (
    spiking, counts, gated_without_gradient, hooked, pieces,
    masked,
    rnn, lstm, apart, register, swap, before_the_update, statistic, latest, detached, normalised,
)  # fmt: skip


def made(make, zeros=False):
    """The weights, the step, and its init of B rows: a tensor, or a tuple of them."""
    torch.manual_seed(0)
    w = [weight(), weight(), weight()]
    step, n_leaves = make(w)
    shapes = {normalised: [(B, H), (B, 2)], statistic: [(B, H), (B,)]}
    init = [torch.randn(shape, dtype=D) for shape in shapes.get(make, [(B, H)] * n_leaves)]
    for leaf in init:
        leaf.mul_(make is not statistic).requires_grad_()
    return w, step, init[0] if n_leaves == 1 else tuple(init)


def outputs(how, step, init, xs, **options):
    """The outputs, then the leaves of the last carry."""
    last, ys = how(step, init, xs, **options)
    return [*ys, *pytree.tree_leaves(last)]


def choices(make):
    """Of the outputs and last leaves of a step, every choice of some."""
    _, step, init = made(make)
    n = len(outputs(loop, step, init, torch.randn(1, B, H, dtype=D)))
    return [used for used in itertools.product((False, True), repeat=n) if any(used)]


def outcome(how, make, n_steps, used, zero_rows=False, wanted=-1, **options):
    """Which outputs can be differentiated, and the gradients of a loss on those that are used.

    Args:
        used: of each output and last leaf, whether it counts.
        wanted: the bits of the leaves whose gradients are wanted: xs, weights, init.
    """
    w, step, init = made(make)
    xs = torch.randn(n_steps, B, H, dtype=D)
    if zero_rows:
        xs[0, 0] = xs[-1, 1] = 0
    leaves = [xs, *w, *pytree.tree_leaves(init)]
    leaves = [t.requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate(leaves)]
    outs = outputs(how, step, init, xs, **options)
    flags = [o.requires_grad for o in outs]
    counted = [(o * o.cos()).sum() for o, *on in zip(outs, used, flags, strict=True) if all(on)]
    leaves = [t for t in leaves if t.requires_grad]
    if not counted:
        return flags, [None] * len(leaves)
    return flags, torch.autograd.grad(sum(counted), leaves, allow_unused=True)


def assert_same_outcome(ours, theirs):
    assert ours[0] == theirs[0]
    assert_same_gradients(ours[1], theirs[1], 1e-11)


OPTIONS = [
    {"lengths": [4, 2, 3], "truncate": 3, "reverse": True},
    {"lengths": [4, 2, 3]},
    {"resets": torch.tensor([False, False, True, False])[:, None].expand(4, B)},
    {"truncate": 3},
]


def used_and_wanted(make, seed):
    """Any choice of what is used: with all gradients wanted, and with all but xs's, or some."""
    drawn = random.Random(seed)
    for used in choices(make):
        yield used, -1
        yield used, drawn.choice([-2, drawn.getrandbits(8)])


@pytest.mark.filterwarnings("error", "ignore:.*was recorded")  # it is played by the engine
@pytest.mark.parametrize(
    "make, n_steps",
    one_in(6, [(m, n) for i, m in enumerate(STEPS) for n in (3, (1, 2, 5)[i % 3])], True),
)
def test_any_choice_of_what_is_used_and_wanted(make, n_steps):
    drawn = used_and_wanted(make, n_steps)
    for (used, wanted), zero_rows in itertools.product(drawn, (False, True)):
        given = make, n_steps, used, zero_rows, wanted
        assert_same_outcome(outcome(scan, *given), outcome(loop, *given))


@pytest.mark.filterwarnings("ignore:.*was recorded")
@pytest.mark.parametrize(
    "make, options",
    one_in(5, [(m, OPTIONS[(i + k) % 4]) for i, m in enumerate(STEPS) for k in (0, 2)], True),
)
def test_rows_that_end_restart_or_are_cut_into_windows(make, options, monkeypatch):
    for used, wanted in used_and_wanted(make, 4):
        found = []
        for engine in ("native", "eager"):
            monkeypatch.setenv("OSTINATO_ENGINE", engine)
            found.append(outcome(scan, make, 4, used, wanted=wanted, **options))
        if "truncate" in options:  # a last carry may say True there where the loop's says False
            found = [([], grads) for _, grads in found]
        assert_same_outcome(*found)


@pytest.mark.parametrize("make", STEPS)
def test_the_loop_is_not_needed_where_no_pole_is(make, monkeypatch):
    monkeypatch.setattr("ostinato.compiler.play.autograd.replayed", None)
    for used in choices(make):
        outcome(scan, make, 3, used, False)


@pytest.mark.parametrize("make", STEPS)
def test_second_derivatives(make):
    """Of what the loop tells: neither no_grad nor a function's own gradient is forgotten."""

    def second(how):
        w, step, init = made(make)
        xs = torch.randn(3, B, H, dtype=D, requires_grad=True)
        loss = sum((o * o.cos()).sum() for o in outputs(how, step, init, xs))
        first = torch.autograd.grad(loss, [*w, xs], create_graph=True, allow_unused=True)
        total = sum(g.square().sum() for g in first if g is not None)
        return torch.autograd.grad(total, [*w, xs], allow_unused=True)

    assert_same_gradients(second(scan), second(loop), 1e-11)


def test_a_custom_function_that_has_become_another(monkeypatch):
    """What its backward pass runs is not recorded: the loop must not tell of another step."""
    w = weight()
    held = {"gain": 1.0}

    def step(h, x):
        return Clipped.apply(h @ w) * held["gain"] + torch.tanh(x + h @ w)

    last, _ = scan(step, torch.randn(B, H, dtype=D), torch.randn(3, B, H, dtype=D))
    held["gain"] = 2.0
    with pytest.raises(RuntimeError, match="something else than it did in the forward pass"):
        torch.autograd.grad(last.sum(), w, create_graph=True)


@pytest.mark.parametrize("make", [rnn, lstm, apart])
def test_what_trains_everywhere_takes_no_second_look(make, monkeypatch):
    """Gradients are searched for NaN where a zero may meet a pole, and nowhere else."""
    looked = []
    isnan = torch.Tensor.isnan
    monkeypatch.setattr(torch.Tensor, "isnan", lambda t: looked.append(t) or isnan(t))
    for used in choices(make):
        if any(used[:3]):  # an LSTM of which the last cell alone counts has a step less for h
            outcome(scan, make, 3, used, False)
    assert not looked
    outcome(scan, before_the_update, 3, (True, False), False)
    assert looked
