"""The differences from Python that docs/loops.md lists under "What a body may notice", in order."""

from __future__ import annotations

import array

import pytest
import torch

import forms
import ostinato


def native(function, *arguments):
    """The results of Python and of the native loop."""
    looped = ostinato.loop(function)
    found = looped(*arguments)
    assert forms.sites(looped)[0].native, forms.sites(looped)[0].reason
    return function(*arguments), found


def inputs(n: int = 14) -> torch.Tensor:
    return torch.randn(3, n, 6, dtype=torch.float64)


def run(x):
    h, outs = torch.zeros_like(x[:, 0]), []
    for x_t in x.unbind(1):
        h = torch.tanh(x_t + h)
        outs.append(h)
    return outs, h


def test_rounding():
    (_, wanted), (_, found) = native(run, inputs().float())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_one_tensor_of_two_places_may_be_two_of_equal_values():
    (wanted, h), (found, g) = native(run, inputs())
    assert wanted[-1] is h and torch.equal(found[-1], g)


def test_items_of_a_list_are_views_of_one_tensor():
    _, (outs, _) = native(run, inputs().requires_grad_())
    with pytest.raises(RuntimeError, match="view"):
        outs[5] += 1
    outs[5] = outs[5] + 1


def test_an_item_that_was_a_view_of_an_input_is_a_copy():
    def function(x):
        h, outs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
            outs.append(x[:, t])
        return outs, h

    x = inputs()
    (wanted, _), (found, _) = native(function, x)
    torch.testing.assert_close(found, wanted)
    x.zero_()
    assert not wanted[9].any() and found[9].any()


def test_an_item_without_a_gradient_among_others_has_one_of_zero():
    def function(x):
        q, outs = [torch.zeros_like(x[:, 0]).detach()] * 3, []
        for t in range(x.shape[1]):
            q = [*q[1:], torch.tanh(x[:, t])]
            outs.append(q[0])
        return outs

    x = inputs().requires_grad_()
    wanted, found = native(function, x)
    assert not wanted[1].requires_grad and found[1].requires_grad
    losses = [torch.stack(of).square().sum() for of in (wanted, found)]
    grads = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses]
    torch.testing.assert_close(*grads)
    assert not torch.autograd.grad(found[1].sum(), x)[0].any()


def test_a_view_under_no_grad_has_no_gradient():
    def function(x):
        h, outs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            with torch.no_grad():
                a = x[:, t]
            h = torch.tanh(h + x[:, t] * a)
            outs.append(a * 2)
        return outs, h

    x = inputs().requires_grad_()
    (wanted, h), (found, g) = native(function, x)
    assert wanted[9].requires_grad and not found[9].requires_grad
    assert torch.autograd.grad(wanted[9].sum(), x, allow_unused=True) == (None,)
    torch.testing.assert_close(*[torch.autograd.grad(of.sum(), x)[0] for of in (g, h)])


def test_a_change_in_place_after_a_loop_may_be_of_what_only_python_kept():
    def function(x, weight):
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            weight = 0.9 * weight
            h = h + x[:, t] * weight
        weight.mul_(2)
        return h

    x = inputs().requires_grad_()
    wanted, found = native(function, x, torch.ones(6, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="inplace"):
        wanted.sum().backward()
    (grad,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(grad[0, 3], torch.full((6,), 0.9**4, dtype=torch.float64))


def test_what_python_cannot_show_counts_other_runs():
    made = array.array("d")

    def note():
        made.append(1.0)

    def function(x):
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
            note()
        return h

    wanted, found = native(function, inputs())
    torch.testing.assert_close(found, wanted)
    assert len(made) != 2 * 14


def test_an_array_of_numpy_shows_what_a_scan_writes_after_the_loop():
    def function(x):
        buffer, h = torch.zeros(x.shape[1], dtype=x.dtype), torch.zeros_like(x[:, 0])
        view, before = buffer.numpy(), []
        for t in range(x.shape[1]):
            buffer[t] = h.sum()
            h = torch.tanh(h + x[:, t]) * (1 + view[t])
        return buffer, view, before

    _, (buffer, view, _) = native(function, inputs())
    assert (buffer.numpy() == view).all()


def test_elements_of_the_iterated_tensor_may_be_written():
    def function(x):
        xs, total = x.clone(), torch.zeros_like(x[:, 0])
        for t, v in enumerate(xs.transpose(0, 1)):
            total = torch.tanh(total + v)
            if t + 1 < x.shape[1]:
                xs[:, t + 1] = total
        return total

    x = inputs().requires_grad_()
    with pytest.raises(RuntimeError, match="view"):
        function(x).sum().backward()
    with pytest.warns(UserWarning, match="changes what the loop iterates over"):
        ostinato.loop(function)(x).sum().backward()


@pytest.mark.parametrize("by_class", [True, False])
def test_the_type_of_an_index_in_a_list(by_class):
    kinds = []

    def kind(of, by_class):
        kinds.append(isinstance(of[0], int) if by_class else type(of[0]) is int)

    def function(x, by_class):
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
            kind([t], by_class)
        return h

    with pytest.warns(UserWarning, match="changes what it reaches"):  # the list `kinds`
        ostinato.loop(function)(inputs(), by_class)
    assert all(kinds)


def test_classes_beyond_the_end_select_nothing():
    def function(x, classes):
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = h + torch.nn.functional.one_hot(classes[:, t], 6) * x[:, t]
        return h

    classes = torch.zeros(3, 14, dtype=torch.int64)
    classes[1, 9] = 7
    with pytest.raises(RuntimeError, match="Class values"):
        function(inputs(), classes)
    assert ostinato.loop(function)(inputs(), classes).isfinite().all()


def test_a_state_between_is_not_in_the_graph():
    def function(x):
        h, hs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
            hs.append(h)
        return hs, h

    x = inputs().requires_grad_()
    hs, h = ostinato.loop(function)(x)
    with pytest.raises(RuntimeError, match="been used in the graph"):
        torch.autograd.grad(h.sum(), hs[10], retain_graph=True)
    assert torch.autograd.grad(h.sum(), hs[10], allow_unused=True, retain_graph=True)[0] is None
    hs[10].retain_grad()
    with pytest.raises(RuntimeError, match="in the body"):
        h.sum().backward()


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 1).to(v)

    @staticmethod
    def backward(ctx, g):
        return g / (1 + ctx.saved_tensors[0].abs()) ** 2


def test_a_function_of_the_first_iteration_may_run_with_zeros():
    def function(x, slow, fast):
        i, v, currents, spikes = x[:, 0] * 0, x[:, 0] * 0, [], []
        for t in range(x.shape[1]):
            i = fast * i + x[:, t]
            v = slow * v + i
            v = v - Spike.apply(v)
            currents.append(i)
            spikes.append(v)
        return torch.stack(currents), torch.stack(spikes)

    for how in (function, ostinato.loop(function)):
        slow, fast = (torch.tensor(0.9, requires_grad=True) for _ in range(2))
        how(inputs().float(), slow, fast)[0].sum().backward()
        assert fast.grad != 0
        assert slow.grad is None if how is function else slow.grad == 0
