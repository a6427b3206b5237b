"""Tensors that change in place: between two calls, between two passes, and by the step itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ostinato
from ostinato import scan
from zoo.playing import loop
from zoo.small import B, D, H, T, assert_same, both, given, inputs, leaf, rnn, weight

pytestmark = pytest.mark.filterwarnings("ignore:scan plays", "ignore:.*was recorded")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("what", ["W", "init", "xs", "b", "base"])
def test_what_changes_between_forward_and_backward_raises(what):
    W, init, xs = inputs()
    b, base = leaf(H), leaf(H, H)
    V = base.t()  # a view: its base is what changes

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ W + h @ W + b + h @ V) * h

    for _ in range(2):
        ys = scan(step, init, xs)[1]
        with torch.no_grad():
            {"W": W, "init": init, "xs": xs, "b": b, "base": base}[what].mul_(2.0)
        if what == "b":  # the gradient does not need it, as the loop's does not: right, or raises
            try:
                found = torch.autograd.grad(ys.sum(), [W, init, xs])
            except RuntimeError:
                continue
            with torch.no_grad():
                b.div_(2.0)
            assert_same(found, torch.autograd.grad(loop(step, init, xs)[1].sum(), [W, init, xs]))
            continue
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(ys.sum(), [W, init, xs])


def test_an_optimizer_step_between_forward_and_backward_raises():
    W, init, xs = inputs()
    W = nn.Parameter(W.detach())
    optimizer = torch.optim.SGD([W], 0.1)
    first, second = scan(rnn(W), init, xs)[1], scan(rnn(W), init, xs)[1]
    first.sum().backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.sum().backward()


@pytest.mark.parametrize("which", ["ys", "carry"])
@pytest.mark.parametrize("tracked", [False, True])
def test_outputs_may_change_before_the_backward_pass(which, tracked):
    """tanh's gradient is read from its output: a changed output must not be believed."""
    W, init, xs = inputs()
    for how_to_sum in ("changed", "other", "both"):
        carry, ys = scan(rnn(W), init, xs)
        changed, other = (ys, carry) if which == "ys" else (carry, ys)
        kept = other.detach().clone()
        expected_carry, expected_ys = loop(rnn(W), init, xs)
        theirs, theirs_other = (
            (expected_ys, expected_carry) if which == "ys" else (expected_carry, expected_ys)
        )
        with torch.set_grad_enabled(tracked):
            changed.mul_(3.0)
        assert torch.equal(other, kept)
        ours = {"changed": changed.sum(), "other": other.sum()}
        ours["both"] = ours["changed"] + ours["other"]
        found = torch.autograd.grad(ours[how_to_sum], [W, init, xs])
        factor = 3.0 if tracked else 1.0
        right = {"changed": factor * theirs.sum(), "other": theirs_other.sum()}
        right["both"] = right["changed"] + right["other"]
        assert_same(found, torch.autograd.grad(right[how_to_sum], [W, init, xs]))


@pytest.mark.parametrize("which", ["W", "init", "xs"])
@pytest.mark.parametrize(
    "data",
    [
        lambda t: torch.empty(0, dtype=t.dtype),
        lambda t: t.detach().float(),
        lambda t: torch.randn_like(t),
    ],
)
def test_data_replaced_before_the_backward_pass(which, data):
    """Its version does not tell: memory of another size, or with other values, would be read."""
    W, init, xs = inputs()

    def step(h, x):
        return torch.tanh(x * h @ W)

    _, ys = scan(step, init, xs)
    replaced = {"W": W, "init": init, "xs": xs}[which]
    replaced.data = data(replaced)
    with pytest.raises(RuntimeError, match=r"other data|modified by an inplace|expected|shape"):
        torch.autograd.grad(ys.sum(), [W, init, xs])


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


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("name", ["captured", "x", "h"])
@pytest.mark.parametrize(
    "change",
    [
        lambda z: z[0].add_(1),
        lambda z: z.detach().add_(1),
        lambda z: z.data.__setitem__(0, 1),
        lambda z: z.view(-1)[0].mul_(2),
        lambda z: z.T.__iadd__(1),
        lambda z: z.unbind(0)[1].zero_(),
        lambda z: nn.functional.relu(z, inplace=True),
        lambda z: nn.functional.elu(z[1:], 1.0, True),
        lambda z: torch.neg(z, out=z[:]),
        lambda z: torch._foreach_add_([z[:1]], 1.0),
    ],
)
def test_changes_in_place_through_a_view(name, change):
    W = weight()
    found = []
    for how in (loop, ostinato.scan):
        torch.manual_seed(1)
        (h, xs), captured = given(), torch.randn(B, H, dtype=D)

        def step(h, x, captured=captured):
            y = torch.tanh(x + h @ W)
            with torch.no_grad():
                change({"captured": captured, "x": x, "h": h}[name])
            return y

        found.append([(*how(step, h, xs), h.clone(), xs.clone(), captured.clone())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_changes_in_place_of_its_own():
    W, (init, xs) = weight(), given()

    def step(h, x):
        y = x + h @ W
        y[:, 0].mul_(2)
        z = nn.functional.relu(y.clone(), inplace=True)
        return torch.tanh(y + z)

    for _ in range(2):
        torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize(
    "normalise",
    [
        lambda z, m, v: torch.batch_norm(z, None, None, m, v, True, 0.1, 1e-5, False),
        lambda z, m, v: nn.functional.batch_norm(z, m, v, training=True),
        lambda z, m, v: nn.functional.instance_norm(z[:, :, None].repeat(1, 1, 2), m, v)[..., 0],
        lambda z, m, v: z + torch.batch_norm_update_stats(z, m, v, 0.1)[0],
    ],
)
def test_running_statistics(normalise):
    W, (init, xs), found = weight(), given(), []
    for how in (loop, ostinato.scan):
        m, v = torch.zeros(H, dtype=D), torch.ones(H, dtype=D)
        how(lambda h, x, m=m, v=v: torch.tanh(normalise(h @ W + x, m, v)), init, xs)
        found.append((m, v))
    torch.testing.assert_close(found[1], found[0])


def test_a_step_that_changes_captured_tensors():
    """Not pure, so the loop plays it; recording must leave no mark."""
    _, init, xs = (t.detach() for t in inputs())
    norms = [nn.BatchNorm1d(H).to(D) for _ in range(2)]
    for _ in range(2):
        outs = [
            how(lambda h, x, norm=norm: torch.tanh(x + norm(h)), init, xs)
            for how, norm in zip((loop, scan), norms, strict=True)
        ]
        assert_same(*outs)
        assert_same(norms[0].state_dict(), norms[1].state_dict())
    count = torch.zeros((), dtype=D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        count.add_(1)
        return torch.tanh(x + h) * count

    for _ in range(2):
        count.zero_()
        theirs = loop(step, init, xs)
        assert count == T
        count.zero_()
        assert_same(scan(step, init, xs), theirs)
        assert count == T


def test_a_step_that_changes_its_carry_or_input():
    W, init, xs = (t.detach() for t in inputs())

    def changes_carry(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h.mul_(0.5).add_(x) @ W)

    def changes_x(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h @ W + x.mul_(0.5))

    for step in (changes_carry, changes_x):
        for _ in range(2):
            theirs = loop(step, init.clone(), xs.clone())
            assert_same(scan(step, init.clone(), xs.clone()), theirs)


CELLS = {
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


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("name", CELLS)
def test_values_that_leave_a_tensor(name):
    read, W, (init, xs) = CELLS[name], weight(), given()
    t = torch.tensor([0.25, 0.75], dtype=D)

    def step(h, x):
        return torch.tanh(x + h @ W * read(t))

    for value in (0.25, 0.0, 0.9):
        t.fill_(value)
        t.grad = torch.full_like(t, value)
        for ours, theirs in zip(ostinato.scan(step, init, xs), loop(step, init, xs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:scan plays")
def test_a_mask_of_columns():
    W, (init, xs) = weight(), given()
    mask = torch.ones(H, dtype=torch.bool)

    def step(h, x):
        return torch.tanh(x + (h @ W[:, mask]).sum(1, keepdim=True))

    for off in ((0,), (1,), (0, 2), ()):
        mask[:] = True
        mask[list(off)] = False
        grads = [
            torch.autograd.grad(how(step, init, xs)[0].sum(), W)[0] for how in (ostinato.scan, loop)
        ]
        torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)
