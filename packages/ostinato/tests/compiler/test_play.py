"""How the rows of a ragged batch are dealt to the engine's groups, and when a pass is played."""

from itertools import pairwise

import pytest
import torch

import ostinato
from ostinato.compiler.play.step import CompiledStep, RowOrder
from ostinato.engine import native


@pytest.mark.parametrize("n_rows", [1, 2, 7, 8, 31, 32, 33, 128, 257])
def test_groups_of_falling_lengths(n_rows):
    lengths = torch.randint(0, 50, (n_rows,), generator=torch.Generator().manual_seed(n_rows))
    rows = RowOrder.of(lengths)
    order = rows.order or list(range(n_rows))
    assert sorted(order) == list(range(n_rows))
    assert rows.ordered_lengths == lengths[order].tolist()
    for first, end in pairwise(_begins(n_rows)):
        of_group = rows.ordered_lengths[first:end]
        assert of_group == sorted(of_group, reverse=True)


@pytest.mark.parametrize("n_threads", [2, 4])
@pytest.mark.parametrize("n_rows", [32, 64, 256])
def test_threads_have_level_shares(n_rows, n_threads):
    lengths = torch.arange(1, n_rows + 1)
    ordered = RowOrder.of(lengths).ordered_lengths
    begins = _begins(n_rows)
    bounds = [begins[(len(begins) - 1) * i // n_threads] for i in range(n_threads + 1)]
    shares = [sum(ordered[first:end]) for first, end in pairwise(bounds)]
    assert max(shares) == min(shares)  # dealt in one direction only, 32 rows differ by a quarter


@pytest.mark.parametrize("lengths", [None, [5, 2, 4]])
def test_forward_is_played_again_only_after_a_change_in_place(lengths, monkeypatch):
    forward, played = CompiledStep.forward, []

    def counted(*args, **kwargs):
        played.append(1)
        return forward(*args, **kwargs)

    W = torch.randn(4, 4, requires_grad=True)

    def step(h, x):
        return torch.tanh(h @ W + x)

    def ys():
        return ostinato.scan(step, init, xs, lengths=lengths)[1]

    init, xs = torch.zeros(3, 4), torch.randn(5, 3, 4)
    expected = torch.autograd.grad(ys().sum(), W)[0]
    monkeypatch.setattr(CompiledStep, "forward", counted)
    assert torch.equal(torch.autograd.grad(ys().sum(), W)[0], expected)
    assert len(played) == 1
    changed = ys()
    changed.detach().zero_()
    assert torch.equal(torch.autograd.grad(changed.sum(), W)[0], expected)
    assert len(played) == 3


@pytest.mark.parametrize("options", [{}, {"lengths": range(19)}, {"memory": "300kB"}], ids=str)
def test_threads_change_between_the_passes(options):
    """The order in which values lie on a tape depends on the threads of the forward pass."""
    cell = torch.nn.GRUCell(3, 5)
    init, xs = torch.zeros(19, 5), torch.randn(200, 19, 3)
    found = []

    def step(h, x):
        h = cell(x, h)
        return h, h

    for forward, backward in [(1, 1), (1, 4), (4, 1), (2, 3)]:
        torch.set_num_threads(forward)
        _, ys = ostinato.scan(step, init, xs, **options)
        torch.set_num_threads(backward)
        found.append(torch.autograd.grad((ys * ys).sum(), list(cell.parameters())))
    for grads in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(grads, found[0], strict=True))


def _begins(n_rows):
    groups = native.n_groups(n_rows)
    return [n_rows * g // groups for g in range(groups + 1)]
