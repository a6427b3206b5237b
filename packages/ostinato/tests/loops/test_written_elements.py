"""Tensors of which iterations write elements: questions about them, copy_, several elements."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ostinato

D = 3


def asks_the_type(self, x, h):
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
        out[:, t] = (h * 2).to(out.dtype)
    return out, h


def is_of_the_type(self, x, h):
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t].type_as(out) + h).to(out)
        out[:, t] = h
    return out, h


def asks_the_shape(self, x, h):
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h) / out.size(1) + out.shape[-1] * out.dim()
        out[:, out.size(1) - 1 - t] = h
    return out, h


def makes_others(self, x, h):
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h) + out.new_full((4,), 0.5) + out.new_zeros(1, device=out.device)
        out[:, t] = h
    return out, h


def copies(self, x, h):
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
        out[:, t].copy_(h)
    return out, h


def copies_into_elements_of_a_list(self, x, h):
    outs = [torch.zeros_like(h) for _ in range(x.shape[1])]
    first = outs[0]
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
        outs[t].copy_(h)
    return torch.stack([*outs, first], 1), h


def of_an_attribute(self, x, h):
    self.out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h).to(self.out.dtype)
        self.out[:, t].copy_(h)
    return self.out, h


def several(self, x, h):
    out = x.new_zeros(len(x), x.shape[1] * D, 4)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
        out[:, t * D : (t + 1) * D] = torch.stack([h, h * 2, h.sin()], 1)
    return out, h


def several_with_gaps(self, x, h):
    out = x.new_ones(4, 2, len(x), x.shape[1] * 5 + 1)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
        out[..., 5 * t + 1 : 5 * t + 1 + D] = h[:, 0].unsqueeze(1)
    return out, h


def backwards(self, x, h):
    out = x.new_zeros(len(x), x.shape[1] * D, 4)
    for t in reversed(range(x.shape[1])):
        h = torch.tanh(x[:, t] + h)
        out[:, t * D : (t + 1) * D] = h.unsqueeze(1)
    return out, h


def overlapping(self, x, h):
    out = x.new_zeros(len(x), x.shape[1] + D, 4)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
        out[:, t : t + D] = h.unsqueeze(1)
    return out, h


NATIVE = [
    asks_the_type,
    is_of_the_type,
    asks_the_shape,
    makes_others,
    copies,
    of_an_attribute,
    several,
    several_with_gaps,
    backwards,
]
IN_PYTHON = [copies_into_elements_of_a_list, overlapping]


class Holder(nn.Module):
    pass


def gradients(function, T, B=5):
    torch.manual_seed(T)
    x = torch.randn(B, T, 4, dtype=torch.float64, requires_grad=True)
    h = torch.randn(B, 4, dtype=torch.float64, requires_grad=True)
    out, last = function(Holder(), x, h)
    total = (out * torch.linspace(1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum()
    return [out, last, *torch.autograd.grad(total + last.sum(), [x, h])]


@pytest.mark.parametrize("function", NATIVE + IN_PYTHON)
@pytest.mark.filterwarnings("ignore:the loop")
def test_equals_python(function):
    fast = ostinato.loop(function)
    for T, B in ((14, 5), (14, 5), (20, 5), (11, 1)):
        torch.testing.assert_close(
            gradients(fast, T, B), gradients(function, T, B), rtol=1e-10, atol=1e-12
        )
    site = fast.__ostinato_loops__[-1]
    assert site.native is (function in NATIVE), site.reason


def rounded(x, out):
    h = x[:, 0]
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
        out[:, t] = h
    return out


def test_the_type_of_a_tensor_may_change_from_call_to_call():
    fast, x = ostinato.loop(rounded), torch.randn(5, 14, 4, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64, torch.float32):
        expected = rounded(x, torch.zeros_like(x, dtype=dtype))
        got = fast(x, torch.zeros_like(x, dtype=dtype))
        assert got.dtype == dtype
        tolerance = 1e-12 if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
