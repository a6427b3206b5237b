from __future__ import annotations

import numpy as np
import pytest
import torch

from ostinato_learn.models import ClassifierNet
from ostinato_learn.models.readout import Readout

KINDS = ["mean", "max", "attention"]


def example(kind):
    torch.manual_seed(0)
    pool = Readout(kind, 3).double()
    if pool.query is not None:
        torch.nn.init.normal_(pool.query)
    return pool, torch.randn(4, 6, 3, dtype=torch.float64), torch.tensor([6, 1, 3, 5])


def by_hand(kind, states, query):
    """The vector of one sequence `[T, D]`, written out."""
    if kind == "mean":
        return sum(states) / len(states)
    if kind == "max":
        return np.array([max(s[d] for s in states) for d in range(states.shape[1])])
    scores = np.exp([float(s @ query) for s in states])
    return sum(a * s for a, s in zip(scores / scores.sum(), states, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_written_out(kind):
    pool, states, lengths = example(kind)
    found = pool(states, lengths).detach().numpy()
    query = None if pool.query is None else pool.query.detach().numpy()
    for i, length in enumerate(lengths.tolist()):
        np.testing.assert_allclose(
            found[i], by_hand(kind, states[i, :length].numpy(), query), rtol=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
def test_after_each_step_it_is_as_if_the_sequence_ended_there(kind):
    pool, states, _ = example(kind)
    steps = pool.steps(states)
    for t in range(states.shape[1]):
        torch.testing.assert_close(steps[:, t], pool(states[:, : t + 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_beyond_a_row_counts_neither_forward_nor_backward(kind):
    pool, states, lengths = example(kind)
    spoiled = states.clone()
    for i, length in enumerate(lengths.tolist()):
        spoiled[i, length:] = float("nan")
    spoiled.requires_grad_()
    found = pool(spoiled, lengths)
    torch.testing.assert_close(found, pool(states, lengths))
    found.sum().backward()
    for i, length in enumerate(lengths.tolist()):
        assert spoiled.grad[i, :length].isfinite().all()
        assert not spoiled.grad[i, length:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    pool, states, lengths = example(kind)
    assert torch.autograd.gradcheck(lambda s: pool(s, lengths), states.requires_grad_())


@pytest.mark.parametrize("kind", ["last", *KINDS])
def test_the_steps_of_a_network_end_with_its_answer(kind):
    torch.manual_seed(1)
    net = ClassifierNet(2, 3, "gru", hidden_size=5, readout=kind)
    x = torch.randn(4, 7, 2)
    torch.testing.assert_close(net.forward_steps(x)[0][:, -1], net(x))
    again = ClassifierNet(**net.config)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), net(x))
