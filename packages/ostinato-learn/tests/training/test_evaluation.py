from __future__ import annotations

import numpy as np
import pytest
import torch
from training_examples import ragged_examples

from ostinato_learn.models import ClassifierNet
from ostinato_learn.training import evaluate, logits


def test_logits_come_in_the_order_of_the_examples_whatever_the_batches():
    X, _ = ragged_examples()
    net = ClassifierNet(2, 3, hidden_size=4, dropout=0.5)
    wanted = torch.cat([net.eval()(torch.tensor(x[None])) for x in X]).detach()
    net.train()
    for batch_size in (1, 5, 23, 1000):
        torch.testing.assert_close(logits(net, X, batch_size), wanted)
    assert net.training  # as before


def test_ragged_sequences_are_grouped_so_that_padding_is_small():
    rng = np.random.default_rng(0)
    X = [np.ones((n, 1)) for n in rng.permutation(np.arange(1, 101))]
    played = []

    class Spy(torch.nn.Module):
        def forward(self, x, lengths):
            played.append((x.shape[0] * x.shape[1], int(lengths.sum())))
            return torch.zeros(len(x), 2)

    logits(Spy(), X, batch_size=10)
    padded, valid = np.sum(played, axis=0)
    assert valid == 5050
    assert padded <= 1.1 * valid  # in random order it would be 1.8


def test_evaluate_measures_loss_and_accuracy():
    X = np.random.default_rng(0).normal(size=(7, 4, 2)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2, 0])
    net = ClassifierNet(2, 3, hidden_size=4).eval()
    answers = net(torch.tensor(X)).detach().double()
    probability = torch.softmax(answers, 1).numpy()
    result = evaluate(net, X, y, batch_size=3)
    assert result.n == 7
    assert result.accuracy == np.mean(probability.argmax(1) == y)
    assert result.loss == pytest.approx(-np.log(probability[np.arange(7), y]).mean(), rel=1e-6)


def test_lengths_that_differ_are_named():
    net = ClassifierNet(2, 3, hidden_size=4)
    with pytest.raises(ValueError, match="X has 3 examples and y has 2"):
        evaluate(net, np.zeros((3, 4, 2)), [0, 1])
