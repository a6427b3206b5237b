"""Elements of xs in float32 beside float64, and whole numbers of 8 bits: exact, or in Python."""

from __future__ import annotations

import warnings

import pytest
import torch

import ostinato
from zoo.playing import counting, loop

B, H, T = 3, 4, 9
X = torch.randn(T, B, H, dtype=torch.float64)
MASK = torch.rand(T, B)  # float32
FLAGS = (torch.rand(T, B) > 0.5).to(torch.uint8)

NATIVE = {
    "a mask": lambda h, x: (h + x[0]).tanh() * x[1].unsqueeze(-1),
    "one that is compared": lambda h, x: torch.where(x[1][:, None] > 0.5, h, x[0]),
    "converted first": lambda h, x: h * (x[1].double() + 0.1).view(-1, 1) + x[0],
    "a flag of 8 bits": lambda h, x: torch.where(x[2].unsqueeze(1) != 0, x[0] + h, h),
    "a condition of 8 bits": lambda h, x: torch.where(x[2].unsqueeze(1).bool(), x[0].exp(), h),
    "a factor of 8 bits": lambda h, x: h.tanh() * x[2][:, None] + x[0],
}
# In these, float32 rounds, or 8 bits wrap around.
FOR_PYTHON = {
    "computed in float32": lambda h, x: h * (x[1] + 0.1).unsqueeze(1) + x[0],
    "compared with 0.1 in float32": lambda h, x: h + (x[1] * 1 >= 0.1).unsqueeze(1) + x[0],
    "compared with a rounded 0.1": lambda h, x: h + (x[1].unsqueeze(1) == 0.1) + x[0],
    "a sum of 8 bits": lambda h, x: h + (x[2] + 255).unsqueeze(1) + x[0],
}


@pytest.mark.parametrize("name", [*NATIVE, *FOR_PYTHON])
@pytest.mark.filterwarnings("ignore:scan runs", "ignore:where received")
def test_shorter_types_are_exact(name):
    step = {**NATIVE, **FOR_PYTHON}[name]
    mask = MASK.clone()
    mask[-1, 0] = 0.1  # rounded to float32, which a comparison in float64 would tell from 0.1
    found = []
    for how in (loop, ostinato.scan):
        init, x = torch.zeros(B, H, dtype=torch.float64), X.clone().requires_grad_()
        init.requires_grad_()
        h, ys = how(step, init, (x, mask, FLAGS))
        found.append((h, ys, *torch.autograd.grad(ys.square().sum(), (init, x))))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    with counting(step) as calls:
        ostinato.scan(step, init, (x, mask, FLAGS))
    assert (calls[0] <= 1) is (name in NATIVE)


def test_with_a_gradient_it_is_left_to_python():
    """The gradient would be rounded to float32 from element to element."""
    step, found = NATIVE["a mask"], []
    for how in (loop, ostinato.scan):
        mask = MASK.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, ys = how(step, torch.zeros(B, H, dtype=torch.float64), (X, mask, FLAGS))
        found.append(torch.autograd.grad(ys.square().sum(), mask)[0])
    assert found[0].dtype is torch.float32
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
