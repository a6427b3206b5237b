"""The gradients of a loop: of elements, of states between, of parameters without a path."""

from __future__ import annotations

import pytest
import torch
from compared import same_as_python

pytestmark = pytest.mark.filterwarnings("ignore:the loop")


def a_target_of_no_grad(p, x):
    h, losses = x[:, 0] * 0, []
    for t in range(x.shape[1] - 1):
        h = torch.tanh(p.inner(x[:, t]) + h)
        with torch.no_grad():
            target = x[:, t + 1]
        losses.append(((h - target) ** 2).mean())
    return torch.stack(losses)


def read_by(x, t):
    return x[:, t]


def a_target_of_a_function(p, x):
    h, losses = x[:, 0] * 0, []
    for t in range(x.shape[1] - 1):
        h = torch.tanh(p.inner(x[:, t]) + h)
        with torch.no_grad():
            target = read_by(x, t) + x.select(1, t + 1)
        losses.append(((h - target) ** 2).mean())
    return torch.stack(losses)


def a_written_element(p, x):
    h, out = x[:, 0] * 0, torch.zeros_like(x)
    for t in range(1, x.shape[1]):
        h = torch.tanh(p.inner(x[:, t]) + h)
        out[:, t] = h
        with torch.no_grad():
            before = out[:, t - 1] + out[:, t]
        h = h + before
    return out


def items_of_a_list(p, x):
    """An item of a list is the same tensor, with its gradient, under no_grad."""
    items, h, out = list(x.unbind(1)), x[:, 0] * 0, []
    for t in range(len(items)):
        with torch.no_grad():
            item = items[t]
        h = torch.tanh(p.inner(item) + h)
        out.append(h)
    return torch.stack(out)


@pytest.mark.parametrize(
    "function",
    [a_target_of_no_grad, a_target_of_a_function, a_written_element, items_of_a_list],
    ids=lambda f: f.__name__,
)
def test_an_element_read_under_no_grad_gets_no_gradient(function):
    same_as_python(function)


def test_a_loop_with_such_an_element_is_native():
    assert same_as_python(a_target_of_no_grad)
