"""Tensors that change in place: between two calls, between two passes, and by the step itself."""

from __future__ import annotations

import math
import types
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ostinato
from ostinato import scan
from ostinato.compiler.capture.captures import Search
from ostinato.compiler.torch_compat import is_recorded
from zoo.playing import counting, least_memory, loop
from zoo.small import B, D, H, T, assert_same, both, given, gradients, inputs, leaf, rnn, weight
from zoo.steps import Case

pytestmark = pytest.mark.filterwarnings("ignore:scan plays", "ignore:.*was recorded")


CHANGED = {  # and what an error says of it
    "in place": (lambda t: t.mul_(2.0), "by an inplace"),
    "emptied": (
        lambda t: setattr(t, "data", torch.empty(0, dtype=t.dtype)),
        "other data|expected|shape",
    ),
    "of another type": (
        lambda t: setattr(t, "data", t.detach().float()),
        "other data|expected|shape",
    ),
    "other data": (lambda t: setattr(t, "data", torch.randn_like(t)), "other data"),
}
# A view keeps the data that its base had, so that only a change in place of the base is one.
CHANGES = [(c, what) for c in CHANGED for what in ("W", "init", "xs")] + [("in place", "base")]


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_what_changes_between_forward_and_backward_raises(change, what, segments):
    """Other data have no new version: other sizes or values would be read from memory."""
    W, init, base, xs = leaf(H, H), leaf(B, H), leaf(H, H), leaf(150, B, H)
    V = base.t()  # a view: its base is what changes
    make, message = CHANGED[change]

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ W + h @ W + h @ V) * h

    case = Case(step, [W, base], lambda B: init, lambda B: xs[0])
    memory = least_memory(case, init, xs) if segments else None
    for _ in range(2):
        ys = scan(step, init, xs, memory=memory)[1]
        changed = {"W": W, "init": init, "xs": xs, "base": base}[what]
        before = changed.detach()
        with torch.no_grad():
            make(changed)
        with pytest.raises(RuntimeError, match=message):
            torch.autograd.grad(ys.sum(), [W, init, xs])
        changed.data = before


def test_a_change_of_what_no_gradient_needs():
    """As the loop's, the gradient does not need b: it is right, or raises."""
    W, init, xs = inputs()
    b = leaf(H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ W + b)

    ys = scan(step, init, xs)[1]
    wanted = torch.autograd.grad(loop(step, init, xs)[1].sum(), [W, init, xs])
    with torch.no_grad():
        b.mul_(2.0)
    with suppress(RuntimeError):
        assert_same(torch.autograd.grad(ys.sum(), [W, init, xs]), wanted)


@pytest.mark.parametrize("used", ["changed", "other", "both"])
@pytest.mark.parametrize("which", ["ys", "carry"])
@pytest.mark.parametrize("tracked", [False, True])
def test_outputs_may_change_before_the_backward_pass(which, tracked, used):
    """tanh's gradient is read from its output: a changed output must not be believed."""
    W, init, xs = inputs()
    found = []
    for how in (scan, loop):
        carry, ys = how(rnn(W), init, xs)
        changed, other = (ys, carry) if which == "ys" else (carry, ys)
        kept = other.detach().clone()
        if how is loop:
            changed = changed * (3.0 if tracked else 1.0)
        else:
            with torch.set_grad_enabled(tracked):
                changed.mul_(3.0)
        assert torch.equal(other, kept)
        total = {
            "changed": changed.sum(),
            "other": other.sum(),
            "both": changed.sum() + other.sum(),
        }
        found.append(torch.autograd.grad(total[used], [W, init, xs]))
    assert_same(*found)


@pytest.mark.filterwarnings("error")
def test_changes_in_place_of_what_is_computed_of_parameters_alone():
    """The derivative of a maximum has some; two of them are of one tensor."""
    b, c, init, xs = leaf(H), leaf(H), leaf(B, H), leaf(T, B, H)

    def step(h, x):
        twice = b * 2
        before = twice.exp()
        twice.mul_(0.5).add_(c)
        return torch.tanh(x + h * torch.maximum(b, c) + before * torch.minimum(twice, c))

    both(lambda how: torch.autograd.grad(how(step, init, xs)[1].sum(), [b, c, init, xs]))


VIEWS = {
    "row": lambda z: z[0].add_(1),
    "detached": lambda z: z.detach().add_(1),
    "data": lambda z: z.data.__setitem__(0, 1),
    "reshaped": lambda z: z.view(-1)[0].mul_(2),
    "transposed": lambda z: z.T.__iadd__(1),
    "unbound": lambda z: z.unbind(0)[1].zero_(),
    "relu": lambda z: nn.functional.relu(z, inplace=True),
    "elu": lambda z: nn.functional.elu(z[1:], 1.0, True),
    "out": lambda z: torch.neg(z, out=z[:]),
    "foreach": lambda z: torch._foreach_add_([z[:1]], 1.0),
}
NORMS = {
    "batch_norm": lambda z, m, v: torch.batch_norm(z, None, None, m, v, True, 0.1, 1e-5, False),
    "functional": lambda z, m, v: nn.functional.batch_norm(z, m, v, training=True),
    "instance": lambda z, m, v: nn.functional.instance_norm(z[:, :, None].repeat(1, 1, 2), m, v)[
        ..., 0
    ],
    "statistics": lambda z, m, v: z + torch.batch_norm_update_stats(z, m, v, 0.1)[0],
}


def of_views(change: Any, name: str) -> Any:
    def step(t: Any, h: Tensor, x: Tensor) -> Tensor:
        y = torch.tanh(x + h @ t.W)
        with torch.no_grad():
            change({"captured": t.captured, "x": x, "h": h}[name])
        return y

    return step


class Counted(Tensor):
    """A subclass of which the engine knows nothing."""


# What steps change in place, of tensors `t` that they capture, of their carry and their input.
STEPS = {
    **{
        f"{view} of {of}": of_views(change, of)
        for view, change in VIEWS.items()
        for of in ("captured", "x", "h")
    },
    **{
        f"norm: {name}": lambda t, h, x, f=f: torch.tanh(f(h @ t.W + x, t.mean, t.var))
        for name, f in NORMS.items()
    },
    "norm: module": lambda t, h, x: torch.tanh(x + t.norm(h)),
    "counter": lambda t, h, x: torch.tanh(x + h) * t.count.add_(1),
    "counter of a subclass": lambda t, h, x: torch.tanh(x + h) * t.sub.add_(1).as_subclass(Tensor),
    "unused counter of a subclass": lambda t, h, x: (t.sub.add_(1), torch.tanh(x + h))[1],
    "data": lambda t, h, x: (setattr(t.count, "data", t.count + 1), torch.tanh(x + h))[1],
    "average in data": lambda t, h, x: (
        setattr(t.captured, "data", 0.9 * t.captured.data + 0.1 * h),
        torch.tanh(x + h @ t.W),
    )[1],
    "data of a buffer": lambda t, h, x: (
        setattr(t.norm.running_mean, "data", t.norm.running_mean.data + 1),
        torch.tanh(x + h),
    )[1],
    "set_": lambda t, h, x: (t.captured.set_(x * 2), torch.tanh(x + h))[1],
    "gradient": lambda t, h, x: (setattr(t.count, "grad", t.count * 2), torch.tanh(x + h))[1],
    "no gradient": lambda t, h, x: (setattr(t.W, "grad", None), torch.tanh(x + h @ t.W))[1],
    "carry": lambda t, h, x: torch.tanh(h.mul_(0.5).add_(x) @ t.W),
    "input": lambda t, h, x: torch.tanh(h @ t.W + x.mul_(0.5)),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_changes_in_place_is_as_the_loop_leaves_it(name):
    """Captured tensors, buffers, the first carry and xs; for two calls."""
    found = []
    for how in (loop, scan):
        torch.manual_seed(0)
        t = types.SimpleNamespace(
            W=weight(),
            captured=torch.randn(B, H, dtype=D),
            mean=torch.zeros(H, dtype=D),
            var=torch.ones(H, dtype=D),
            norm=nn.BatchNorm1d(H).to(D),
            count=torch.zeros((), dtype=D),
            sub=torch.zeros((), dtype=D).as_subclass(Counted),
        )
        t.W.grad = torch.ones_like(t.W)
        if how is scan and (name.endswith("of captured") or name == "set_"):
            said = ostinato.explain(lambda h, x, t=t: STEPS[name](t, h, x), *given())
            assert not said.native and "in place" in said.reason
        for i in range(2):
            h, xs = given(i)
            with torch.no_grad():
                outs = how(lambda h, x, t=t: STEPS[name](t, h, x), h, xs)
            state = [
                t.captured,
                t.mean,
                t.var,
                t.count,
                *t.norm.buffers(),
                t.sub.as_subclass(Tensor),
                *(torch.zeros(1) if of.grad is None else of.grad for of in (t.W, t.count)),
            ]
            found.append([*outs, h, xs, *(of.clone() for of in state)])
    assert_same(found[2:], found[:2], 1e-12)


@pytest.mark.parametrize("what", ["carry", "captured"])
def test_a_change_in_place_of_what_has_a_gradient(what):
    """As autograd allows it of a tensor that is no leaf."""
    found = []
    for how in (loop, scan):
        W, (h, xs) = leaf(H, H), given()
        torch.nn.init.eye_(W)
        start, V = h.requires_grad_() * 1, W * 1
        before = [start.detach().clone(), V.detach().clone()]

        def step(h: Tensor, x: Tensor, V: Tensor = V) -> Tensor:
            return torch.tanh(
                x
                + (h.mul_(0.5) if what == "carry" else h)
                @ (V.mul_(0.5) if what == "captured" else V)
            )

        ys = how(step, start, xs)[1]
        found.append([ys, start, V])
        assert not torch.equal(torch.cat(before), torch.cat([start, V]))
    assert_same(*found)


@pytest.mark.parametrize("view", VIEWS)
def test_a_searched_step_that_begins_to_change_a_tensor(view):
    """Its run before each call stops before the change: the tensor is as the loop leaves it."""
    found = []
    for how in (loop, scan):
        torch.manual_seed(0)
        t = types.SimpleNamespace(W=weight(), captured=torch.randn(B, H, dtype=D), flag=False)

        def step(h: Tensor, x: Tensor, t: Any = t) -> Tensor:
            y = torch.tanh(x + h @ t.W)
            if vars(t)["".join(["fl", "ag"])]:  # no guard sees it
                with torch.no_grad():
                    VIEWS[view](t.captured)
            return y

        for i, t.flag in enumerate([False, False, True, True, False]):
            with torch.no_grad():
                outs = how(step, *given(i))
            found.append([*outs, t.captured.clone()])
    assert_same(found[5:], found[:5], 1e-12)


def test_a_searched_step_that_writes_is_watched_at_each_call():
    """By the order in memory of a captured tensor it changes a copy of that, or the tensor."""
    t = types.SimpleNamespace()

    def step(h: Tensor, x: Tensor) -> Tensor:
        flat = vars(t)["".join("W")].reshape(-1)  # no guard sees it
        flat.mul_(0.5)
        return torch.tanh(h @ flat.reshape(H, H) + x)

    runs = []
    for transposed in (True, True, True, False, False, True):
        found = []
        for how in (loop, scan):
            W = torch.arange(H * H, dtype=D).reshape(H, H) / 16
            t.W = W.T.contiguous().T if transposed else W
            with counting(step) as calls:
                found.append([how(step, *given())[1], t.W])
        runs.append(calls[0])
        assert_same(*found, 1e-12)
    assert runs[1:3] == [1, 1]


def test_a_searched_step_is_watched_until_it_is_known(monkeypatch):
    calls, watch = [0], Search.watch
    monkeypatch.setattr(
        Search, "watch", lambda self: (calls.__setitem__(0, calls[0] + 1), watch(self))
    )
    n = types.SimpleNamespace(k="tanh")

    def step(h: Tensor, x: Tensor) -> Tensor:
        return getattr(torch, vars(n)["".join("k")])(x + h)

    for n.k, watched in (("tanh", 1), ("tanh", 2), ("tanh", 2), ("sin", 4), ("sin", 5), ("sin", 5)):
        scan(step, *given())
        assert calls[0] == watched
    with Search([], known=("a call",)):
        assert is_recorded()  # for a scan within the step, also where nothing is watched


def test_a_searched_step_is_not_given_copies(monkeypatch):
    """A table may be large."""
    t = types.SimpleNamespace(table=torch.randn(2 * H, H, dtype=D))

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h * vars(t)["".join(["ta", "ble"])][0])

    both(lambda how: how(step, *given()))
    clone, shapes = Tensor.clone, []
    monkeypatch.setattr(
        Tensor, "clone", lambda t, **kw: (shapes.append(t.shape), clone(t, **kw))[1]
    )
    for _ in range(2):
        scan(step, *given())
    assert t.table.shape not in shapes
    assert ostinato.explain(step, *given()).native


# ------------------------------------------- values of captured tensors that a step reads in Python

READS = {
    "tolist": lambda t: t.tolist()[0],
    "numpy": lambda t: float(t.numpy()[0]),
    "asarray": lambda t: float(np.asarray(t).sum()),
    "float64": lambda t: float(np.float64(t[0])),
    "norm": lambda t: float(np.linalg.norm(t.detach().numpy())),
    "equal": lambda t: 2.0 if torch.equal(t, torch.zeros_like(t)) else 1.0,
    "allclose": lambda t: 2.0 if torch.allclose(t, torch.zeros_like(t)) else 1.0,
    "how many": lambda t: float(t[t > 0.5].numel()),
    "nonzero": lambda t: float(len((t > 0.5).nonzero())),
    "text": lambda t: float(f"{t.sum():.3f}"),
    "contains": lambda t: 2.0 if 0.0 in t else 1.0,
    "data_ptr": lambda t: float(np.ctypeslib.as_array(t.numpy()).max()),
    "version": lambda t: float(t._version % 7),
    "grad": lambda t: 0.5 if t.grad is None else float(t.grad.sum()),
}


@pytest.mark.parametrize("name", READS)
def test_values_that_leave_a_tensor(name):
    read, W, (init, xs) = READS[name], weight(), given()
    t = torch.tensor([0.25, 0.75], dtype=D)

    def step(h, x):
        return torch.tanh(x + h @ W * read(t))

    for value in (0.25, 0.0, 0.9):
        t.fill_(value)
        t.grad = torch.full_like(t, value)
        both(lambda how: how(step, init, xs))


def test_a_mask_of_columns():
    W, (init, xs) = weight(), given()
    mask = torch.ones(H, dtype=torch.bool)

    def step(h, x):
        return torch.tanh(x + (h @ W[:, mask]).sum(1, keepdim=True))

    for off in ((0,), (1,), (0, 2), ()):
        mask[:] = True
        mask[list(off)] = False
        both(lambda how: torch.autograd.grad(how(step, init, xs)[0].sum(), W))


MASKED = {
    "where": lambda a, m: torch.where(m, a, 0.5),
    "masked_fill": lambda a, m: a.masked_fill(m, 0.5),
    "product": lambda a, m: a * m,
    "and": lambda a, m: torch.where(m & (a > 0), a, -a),
    "not": lambda a, m: torch.where(~m, a, -a) + a.masked_fill(m, 1),
    "converted": lambda a, m: a * m.to(a.dtype) + a * m,
}


@pytest.mark.parametrize("shape", [(), (1,), (H,)])
@pytest.mark.parametrize("name", MASKED)
def test_truth_values_that_change_in_place(name, shape):
    """From all false on: what the engine reads of them may then be zeros for another reason."""
    everything = torch.zeros(64, dtype=torch.bool)
    n = math.prod(shape)
    mask, W, (init, xs) = everything[:n].view(shape), weight(), given()

    def step(h, x):
        return torch.tanh(x + MASKED[name](h @ W, mask))

    for change in (
        lambda: None,
        lambda: everything[n:].fill_(True),  # beside it in memory
        lambda: mask.view(-1)[::2].fill_(True),
        mask.logical_not_,
    ):
        change()
        both(lambda how: gradients(how, step, [W], init, xs))


def test_truth_values_of_weights():
    W, gate, (init, xs) = weight(), weight(H, H), given()

    def step(h, x):
        a = torch.where(gate[0] > 0, h @ W, x)
        return torch.tanh(a * (gate > 0)[1] + torch.where(gate.t() > 0, gate, 0.0)[2])

    for _ in range(2):
        both(lambda how: gradients(how, step, [W, gate], init, xs))
        with torch.no_grad():
            gate.neg_()
