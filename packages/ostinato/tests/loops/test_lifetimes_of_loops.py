"""What a loop leaves behind keeps nothing alive: autograd's graph holds the step of a loop."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import ostinato

CELL = torch.nn.GRUCell(4, 4)


def a_list(x):
    h, outs = None, []
    for t in range(x.shape[1]):
        h = CELL(x[:, t], h)
        outs.append(h)
    return torch.stack(outs), outs[3]


def a_buffer(x):
    h, out = x.new_zeros(len(x), 4), x.new_zeros(len(x), x.shape[1], 4)
    for t in range(x.shape[1]):
        h = CELL(x[:, t], h)
        out[:, t] = h
    return (out,)


def containers(x):
    h, total = [x.new_zeros(len(x), 4)], x.new_zeros(())
    for t in range(x.shape[1]):
        h[0] = CELL(x[:, t], h[0])
        total += h[0].sum()
    return h[0], total


def bound_anew(x):
    for _ in range(2):
        h, outs = x.new_zeros(len(x), 4), []
        for t in range(x.shape[1]):
            h = CELL(x[:, t], h) + x.mean(1)
            outs.append(h)
        x = torch.stack(outs, 1)
    return (x,)


@pytest.mark.parametrize("function", [a_list, a_buffer, containers, bound_anew])
@pytest.mark.parametrize("backward", [True, False])
def test_arguments_and_results_die_with_their_last_use(function, backward):
    looped = ostinato.loop(function)
    gc.collect()
    gc.disable()
    try:
        for call in range(2):  # recorded, and played again
            x = torch.randn(3, 14, 4, requires_grad=True)
            out = looped(x)
            if backward:
                sum(o.sum() for o in out).backward()
            alive = [weakref.ref(t) for t in (x, *out)]
            del x, out
            if call == 0:
                gc.collect()  # what records a step leaves cycles
            assert [r() for r in alive] == [None] * len(alive)
    finally:
        gc.enable()
    assert looped.__ostinato_loops__[-1].native


def test_a_backward_pass_gives_its_memory_back_at_once():
    """The outputs of a call may live until the next call has ended, as a loss does in training."""
    W, xs = torch.randn(8, 8), torch.randn(20, 4, 8, requires_grad=True)

    def step(h, x):
        return torch.tanh(x + torch.sigmoid(h @ W) * h)

    _, ys = ostinato.scan(step, torch.zeros(4, 8), xs)
    ys.sum().backward(retain_graph=True)
    assert ys.grad_fn.tape is not None
    ys.sum().backward()
    assert ys.grad_fn.tape is None and ys.grad_fn.call is None
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        ys.sum().backward()


def test_gradients_of_a_large_part_go_into_the_whole(monkeypatch):
    """x[:, t] of a large x: the engine writes into the gradient of x, which is zero elsewhere."""
    from ostinato.compiler.play import parts

    monkeypatch.setattr(parts, "LARGE", 1)
    W = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)

    def function(x, y):
        h, outs = torch.zeros_like(x[:, 0]), []
        for t in range(2, x.shape[1]):
            h = torch.tanh(x[:, t - 1] @ W + h * y[..., t, :])
            outs.append(h)
        return torch.stack(outs, 1)

    looped = ostinato.loop(function)
    x = torch.randn(3, 14, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 14, 4, dtype=torch.float64).transpose(0, 2).requires_grad_()
    y = y.transpose(0, 2)
    for _ in range(2):
        found, expected = (
            torch.autograd.grad(how(x, y).square().sum(), (x, y, W), create_graph=True)
            for how in (looped, function)
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        again = [torch.autograd.grad(sum(g.sum() for g in of), (x, y)) for of in (found, expected)]
        torch.testing.assert_close(*again, rtol=1e-10, atol=1e-12)
        found = torch.autograd.grad(looped(x, y).square().sum(), (x, y, W))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert looped.__ostinato_loops__[0].native
