"""`memory=` with a step that the loop plays: the values and gradients of the loop."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from ostinato import scan
from zoo.playing import assert_close, play, rows_apart
from zoo.steps import make
from zoo.suites import in_pairs, one_in

T, B = 23, 4


@pytest.fixture(autouse=True)
def by_the_loop(monkeypatch):
    monkeypatch.setenv("OSTINATO_ENGINE", "eager")


@pytest.mark.filterwarnings("ignore:memory= cannot be kept exactly")
@pytest.mark.parametrize("name", ["lstm_chunk", "readout_per_step"])
@pytest.mark.parametrize("truncate", one_in(4, [None, 1, 4, 9]))
def test_the_loop(name, truncate):
    """Also where every row has ended before the last span."""
    case = make(name, torch.float64, 5, 7)
    init, xs = case.init(B), case.xs(T, B)
    resets = torch.rand(T, B) < 0.2
    for lengths, reverse, marks in in_pairs(
        [None, [T, 0, 3, 11], [6, 0, 1, 2]], [False, True], [None, resets]
    ):
        options: dict[str, Any] = {
            "reverse": reverse,
            "lengths": lengths,
            "resets": marks,
            "truncate": truncate,
        }
        ours = play(scan, case, init, xs, memory="1MB", **options)
        assert_close(ours, play(rows_apart, case, init, xs, **options), 1e-12)


def test_it_keeps_less():
    """What autograd saves: about √T carries, where the loop keeps every step."""
    case = make("lstm_chunk", torch.float64, 5, 7)
    init, xs = case.init(B), case.xs(144, B)
    kept = []
    for memory in (None, "1MB"):
        saved = []
        with (
            torch.autograd.graph.saved_tensors_hooks(
                lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
            ),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            scan(case.step, init, xs, memory=memory)
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 5


def test_it_is_said_once():
    case = make("tanh_rnn_matmul", torch.float64, 5, 7)
    with pytest.warns(UserWarning, match="PyTorch's checkpointing"):
        scan(case.step, case.init(B), case.xs(T, B), memory="1MB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(case.step, case.init(B), case.xs(T, B), memory="1MB")


def test_under_torch_func_every_step_is_kept():
    """Its gradients refuse the hooks of checkpointing."""
    W, xs = torch.randn(5, 5, dtype=torch.float64), torch.randn(T, B, 5, dtype=torch.float64)

    def loss(W, memory):
        last, _ = scan(lambda h, x: torch.tanh(x + h @ W), xs[0], xs, memory=memory)
        return last.square().sum()

    with pytest.warns(UserWarning, match="memory= has no effect .* torch.func.grad"):
        bounded = torch.func.grad(loss)(W, "1MB")
    assert torch.equal(bounded, torch.func.grad(loss)(W, None))


@pytest.mark.filterwarnings("ignore:memory= cannot be kept exactly")
def test_spans_that_are_played_again_draw_the_same_numbers():
    """From PyTorch's generator, and from one that the step passes."""
    own = torch.Generator()

    def step(h, x):
        noise = torch.randn(h.shape, dtype=h.dtype, generator=own)
        return torch.tanh(torch.nn.functional.dropout(h, 0.3) * noise + x)

    h = torch.randn(B, 3, dtype=torch.float64, requires_grad=True)
    xs, found = torch.randn(T, B, 3, dtype=torch.float64), []
    for options in ({}, {"memory": "1MB"}):
        torch.manual_seed(0)
        own.manual_seed(1)
        y = scan(step, h, xs, **options)[1]
        states = torch.get_rng_state(), own.get_state()
        gradient = torch.autograd.grad(y.square().sum(), h)
        found.append((y, *gradient, *states, torch.get_rng_state(), own.get_state()))
    torch.testing.assert_close(*found, rtol=0, atol=0)
