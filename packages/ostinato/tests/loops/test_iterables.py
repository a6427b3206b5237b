"""What a loop may iterate over, and under which modes: tuples of elements, backwards; methods."""

from __future__ import annotations

import pytest
import torch
from compared import same_as_python

import ostinato
from ostinato.engine import native


def backwards(p, x):
    h, out = x[:, 0] * 0, []
    for x_t in reversed(x.unbind(1)):
        h = torch.tanh(p.inner(x_t) + h)
        out.append(h)
    return torch.stack(out)


def pieces_backwards(p, x):
    h, out = x[:, 0] * 0, []
    for i, x_t in enumerate(reversed(x.split(1, 1))):
        h = torch.tanh(p.inner(x_t[:, 0]) + h * i)
        out.append(h)
    return torch.stack(out)


def both_ways(p, x):
    h, out = x[:, 0] * 0, []
    for a, b in zip(reversed(torch.chunk(x, x.shape[1], dim=1)), x.unbind(1), strict=True):
        h = torch.tanh(p.inner(a[:, 0]) + h * b)
        out.append(h)
    return torch.stack(out)


@pytest.mark.parametrize(
    "function", [backwards, pieces_backwards, both_ways], ids=lambda f: f.__name__
)
def test_elements_backwards(function):
    assert same_as_python(function)


class Cells(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.GRUCell(3, 5)

    def forward(self, x):
        h, out = x.new_zeros(len(x), 5), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out.append(h)
        return torch.stack(out, 1)


def test_a_bound_method():
    cells, x = Cells(), torch.randn(2, 14, 3)
    looped = ostinato.loop(cells.forward)
    torch.testing.assert_close(looped(x), cells(x))
    assert looped.__self__ is cells
    assert looped.__ostinato_loops__[0].native


def test_export_of_a_model_that_was_never_called():
    model, x = Cells(), torch.randn(2, 14, 3)
    wanted = model(x)
    ostinato.accelerate(model, loops=True)
    program = torch.export.export(model, (x,), strict=False)
    torch.testing.assert_close(program.module()(x), wanted)
    torch.testing.assert_close(model(x), wanted)


def test_a_loop_runs_in_python_where_the_engine_is_missing(monkeypatch):
    def missing():
        raise RuntimeError("the native module is missing")

    monkeypatch.setattr(native, "unavailable", lambda: "the native module is missing")
    monkeypatch.setattr(native, "modes", missing)
    cells, x = Cells(), torch.randn(2, 14, 3)
    looped = ostinato.loop(cells.forward)
    torch.testing.assert_close(looped(x), cells(x))
    assert "missing" in looped.__ostinato_loops__[0].reason
