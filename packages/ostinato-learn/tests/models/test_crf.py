"""The CRF beside the sum over all labellings."""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import pytest
import torch

from ostinato_learn.tasks.tag.crf import CRF
from ostinato_learn.tasks.tag.labelling import Labelling

C = 3


def example(B: int = 4, T: int = 6, dtype: torch.dtype = torch.float64):
    """A random field, emissions with NaN beyond the lengths, and the lengths."""
    torch.manual_seed(0)
    crf = CRF(C).to(dtype)
    for weight in crf.parameters():
        torch.nn.init.normal_(weight)
    emissions = 2 * torch.randn(B, T, C, dtype=dtype)
    lengths = torch.tensor([T, 1, 2, T - 1])[:B]
    for row, length in enumerate(lengths.tolist()):
        emissions[row, length:] = math.nan
    return crf, emissions, lengths


def labellings(crf: CRF, e: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The score of each labelling of one row without padding, as written in the docstring."""
    A, start, end = (w.tolist() for w in (crf.transitions, crf.start, crf.end))
    e = e.tolist()
    return {
        y: start[y[0]]
        + sum(e[t][y[t]] for t in range(len(e)))
        + sum(A[y[t - 1]][y[t]] for t in range(1, len(e)))
        + end[y[-1]]
        for y in itertools.product(range(C), repeat=len(e))
    }


def log_sum(scores) -> float:
    return math.log(math.fsum(math.exp(score) for score in scores))


def test_the_loss_is_that_of_all_labellings():
    crf, emissions, lengths = example()
    y = torch.randint(C, emissions.shape[:2])
    losses = crf(emissions, y, lengths)
    for row, length in enumerate(lengths.tolist()):
        scores = labellings(crf, emissions[row, :length])
        wanted = log_sum(scores.values()) - scores[tuple(y[row, :length].tolist())]
        # sums of at most 6 steps of scores of order 10 in float64
        assert losses[row].item() == pytest.approx(wanted, abs=1e-12)


def test_the_best_labels_are_those_of_all_labellings():
    crf, emissions, lengths = example()
    best = crf.best(emissions, lengths)
    for row, length in enumerate(lengths.tolist()):
        scores = labellings(crf, emissions[row, :length])
        assert tuple(best[row, :length].tolist()) == max(scores, key=scores.__getitem__)
        assert (best[row, length:] == best[row, length - 1]).all()


def test_the_best_allowed_labels_are_those_of_all_allowed_labellings():
    crf, emissions, lengths = example()
    follow = torch.tensor([[True, False, True], [True, True, False], [False, True, True]])
    first = torch.tensor([False, True, True])
    best = crf.best(emissions, lengths, (follow.numpy(), first.numpy()))
    for row, length in enumerate(lengths.tolist()):
        scores = labellings(crf, emissions[row, :length])
        fit = [
            y for y in scores if first[y[0]] and all(follow[a, b] for a, b in itertools.pairwise(y))
        ]
        assert tuple(best[row, :length].tolist()) == max(fit, key=scores.__getitem__)


def test_marginals_are_those_of_all_labellings():
    crf, emissions, lengths = example()
    weights = (crf.transitions, crf.start, crf.end)
    of = Labelling(tuple(weight.detach().numpy() for weight in weights), None)
    for row, length in enumerate(lengths.tolist()):
        scores = labellings(crf, emissions[row, :length])
        total = log_sum(scores.values())
        marginals = of.probabilities(emissions[row, :length].numpy())
        for t, c in itertools.product(range(length), range(C)):
            wanted = math.fsum(math.exp(s - total) for y, s in scores.items() if y[t] == c)
            assert marginals[t, c] == pytest.approx(wanted, abs=1e-12)


def test_gradients_are_those_of_differences():
    crf, emissions, lengths = example(T=4)
    emissions = torch.nan_to_num(emissions).requires_grad_()
    y = torch.randint(C, emissions.shape[:2])
    names = [name for name, _ in crf.named_parameters()]

    def losses(e, *weights):
        return torch.func.functional_call(
            crf, dict(zip(names, weights, strict=True)), (e, y, lengths)
        )

    weights = [w.detach().clone().requires_grad_() for w in crf.parameters()]
    assert torch.autograd.gradcheck(losses, (emissions, *weights))


def test_nothing_beyond_the_lengths_has_a_gradient():
    crf, emissions, lengths = example()
    emissions.requires_grad_()
    crf(emissions, torch.zeros(4, 6, dtype=torch.int64), lengths).sum().backward()
    for row, length in enumerate(lengths.tolist()):
        assert not emissions.grad[row, length:].any()
    assert all(bool(torch.isfinite(w.grad).all()) for w in crf.parameters())


def test_the_engine_plays_the_forward_algorithm():
    """In float32 too, where scores differ by much, and beside the same in float64."""
    crf, emissions, lengths = example(dtype=torch.float32)
    emissions = 50 * emissions
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the slow Python loop would warn
        answer = crf.log_partition(emissions, lengths)
        wanted = crf.double().log_partition(emissions.double(), lengths)
    torch.testing.assert_close(answer.double(), wanted, rtol=1e-6, atol=1e-4)


def test_transitions_may_be_large():
    """A shift of all transitions into a label is one of its scores; exp(200) overflows float32."""
    crf, emissions, lengths = example(dtype=torch.float32)
    shift = torch.tensor([200.0, 0.0, -200.0])
    with torch.no_grad():
        crf.transitions += shift
    emissions[:, 1:] -= shift
    wanted = copy.deepcopy(crf).double().log_partition(emissions.double(), lengths)
    torch.testing.assert_close(crf.log_partition(emissions, lengths).double(), wanted)


def test_without_transitions_steps_do_not_know_each_other():
    emissions = torch.randn(2, 5, C)
    crf = CRF(C)
    assert torch.equal(crf.best(emissions), emissions.argmax(2))
