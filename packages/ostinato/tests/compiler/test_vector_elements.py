"""Elements of captured vectors, and functions of them, beside rows: values and gradients."""

import pytest
import torch

import ostinato
from ostinato.compiler.play import bindings

N, F64 = 12, torch.float64


def few(w, h, x):
    return torch.tanh(h * w[0] + x * w[-1])


def functions(w, h, x):
    for i in range(N):
        h = h + (x - h) * torch.exp(-w[i]) * 0.05 / (1 + w[i] * w[i])
    return h


def of_one_element_twice(w, h, x):
    return torch.sin(h * (w[2] ** 2 - 3 / w[2]) + w[2] * x - (1 - w[2]))


def of_two_elements(w, h, x):
    return torch.tanh(h * (w[0] * w[1]) + x * torch.exp(w[1]) * w[0] + w[0] / w[1])


def of_each_and_another(w, h, x):
    for i in range(N):
        h = h + x * w[i] * w[3] * 0.1
    return torch.tanh(h)


def of_a_slice(w, h, x):
    v = torch.sigmoid(w[2:5])
    return torch.tanh(h * v[0] + x * v[2] + w[2])


def in_a_matrix(w, h, x):
    m = w.view(3, 4)
    return torch.tanh(h * m[1, 2] + x * m[0].sum() + m[2][3])


STEPS = [
    few,
    functions,
    of_one_element_twice,
    of_two_elements,
    of_each_and_another,
    of_a_slice,
    in_a_matrix,
]


def plain(step, h, xs):
    ys = []
    for x in xs:
        h = step(h, x)
        ys.append(h)
    return h, torch.stack(ys)


def results(how, step, w):
    w = w.clone().requires_grad_()
    h, x = torch.linspace(-1, 1, 10, dtype=w.dtype).view(5, 2), torch.ones(7, 5, 2, dtype=w.dtype)
    _, ys = how(lambda h, x: step(w, h, x), h, x)
    weights = torch.linspace(1, 2, ys.numel(), dtype=w.dtype).view_as(ys)
    return ys.detach(), *torch.autograd.grad((ys * weights).sum(), w)


@pytest.mark.parametrize("step", STEPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_values_and_gradients_are_those_of_the_loop(step, dtype):
    w = torch.linspace(0.3, 1.4, N, dtype=dtype)
    assert ostinato.explain(
        lambda h, x: step(w, h, x), torch.ones(5, 2, dtype=dtype), torch.ones(7, 5, 2, dtype=dtype)
    ).native
    tolerance = 1e-12 if dtype is F64 else 2e-5
    ours, theirs = results(ostinato.scan, step, w), results(plain, step, w)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_an_infinite_element_that_is_not_used_has_no_gradient():
    def step(w, h, x):
        return torch.tanh(h * torch.exp(w[0]) + x / w[1])

    w = torch.tensor([0.5, 2.0, 1e4, 0.0], dtype=F64)  # exp(w[2]) and 1 / w[3] are infinite
    ours, theirs = results(ostinato.scan, step, w), results(plain, step, w)
    assert theirs[1][2:].eq(0).all()
    torch.testing.assert_close(ours, theirs)


def test_the_gradients_of_samples():
    w, xs = torch.linspace(0.3, 1.4, N, dtype=F64), torch.randn(4, 7, 3, 2, dtype=F64)

    def loss(how, w, x):
        return how(lambda h, x: functions(w, h, x), torch.zeros(3, 2, dtype=F64), x)[1].sum()

    ours, theirs = (
        torch.func.vmap(torch.func.grad(lambda w, x: loss(how, w, x)), (None, 0))(w, xs)  # noqa: B023
        for how in (ostinato.scan, plain)
    )
    torch.testing.assert_close(ours, theirs)


def test_elements_take_no_calls_of_pytorch_one_by_one():
    w, nodes = torch.linspace(0.3, 1.4, N, dtype=F64), []
    made = bindings.Bound.once

    def once(self, captured, known):
        nodes.append(len(self._once))
        return made(self, captured, known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bindings.Bound, "once", once)
        results(ostinato.scan, functions, w)
    assert max(nodes) <= 4  # not N times as many
