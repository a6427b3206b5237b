"""The task of tagging, beside sums made row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tagging_examples import above_or_below, sentences, tagged

from ostinato_learn.data import Batches, as_sequences
from ostinato_learn.data.text.words import UNKNOWN, Words, WordVocabulary
from ostinato_learn.models.inputs import tensors
from ostinato_learn.tasks.tag import loss as tagging
from ostinato_learn.tasks.tag.loss import Tagging, measure
from ostinato_learn.tasks.tag.net import TaggerNet


def by_hand(net: TaggerNet, X, y, chosen) -> tuple[float, float]:
    """The loss a step and the accuracy of some sequences, one after the other."""
    loss = right = 0.0
    for i in chosen:
        scores = net(torch.tensor(np.asarray(X[i], np.float32))[None])
        labels = torch.tensor(y[i])[None]
        loss += net.losses(scores, labels).item()
        right += (net.best(scores) == labels).sum().item()
    n = sum(len(X[i]) for i in chosen)
    return loss / n, right / n


@pytest.mark.parametrize("crf", [False, True])
def test_the_loss_is_that_of_the_batches_in_turn(crf):
    given = tagged()
    net = TaggerNet(2, 2, hidden_size=4, crf=crf)
    task = Tagging(given.X, given.y, 5, seed=3)
    same = Batches(np.arange(23), np.arange(23), 5, seed=3)
    for _ in range(9):
        share = task.loss(net)
        loss, measured = share.loss, share.measured
        wanted, accuracy = by_hand(net, given.X, given.y, same.next_indices())
        assert loss.item() == pytest.approx(wanted, rel=1e-5)
        assert measured == {"train_accuracy": pytest.approx(accuracy)}


def test_the_accuracy_of_a_batch_is_that_of_allowed_labels():
    given = tagged()
    net = TaggerNet(2, 2, hidden_size=4).eval()
    only = torch.tensor([[True, False], [True, True]]), torch.tensor([True, False])  # "above" alone
    measured = Tagging(given.X, given.y, 23, 0, allowed=only).loss(net).measured
    assert measured == {"train_accuracy": pytest.approx((given.y.values == 0).mean())}
    assert measure(net, given.X, given.y, only).accuracy == pytest.approx(
        (given.y.values == 0).mean()
    )


def test_sequences_of_one_length_go_without_lengths():
    X = as_sequences(np.random.default_rng(0).normal(size=(6, 3, 2)))
    x, lengths = tensors(X, np.array([4, 1]))
    assert lengths is None and np.array_equal(x.numpy(), X[[4, 1]])


@pytest.mark.parametrize("crf", [False, True])
def test_measures_are_those_of_the_sequences_one_by_one(crf, monkeypatch):
    given = tagged()
    net = TaggerNet(2, 2, hidden_size=4, crf=crf, dropout=0.5)
    monkeypatch.setattr(tagging, "STEPS_AT_ONCE", 20)
    result = measure(net, given.X, given.y)
    assert net.training  # the mode is kept
    loss, accuracy = by_hand(net.eval(), given.X, given.y, range(23))
    assert result.n == given.X.lengths.sum()
    assert (result.loss, result.accuracy) == (pytest.approx(loss, rel=1e-5), accuracy)


def test_batches_of_similar_length_hold_all_and_not_too_many_steps(monkeypatch):
    monkeypatch.setattr(tagging, "STEPS_AT_ONCE", 20)
    lengths = np.array([3, 50, 1, 7, 7, 7, 2, 21, 1])
    batches = list(tagging._by_length(lengths))
    assert sorted(np.concatenate(batches).tolist()) == list(range(9))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= 20 for b in batches)
    assert len(batches) == 5  # 1 1 2 3, 7 7, 7, 21, 50


def test_words_seen_once_are_sometimes_unknown_and_others_never():
    words = torch.arange(1000)
    once = torch.arange(1000) % 2 == 0
    once[0] = False
    torch.manual_seed(0)
    hidden = tagging._hidden(words, once) == UNKNOWN
    assert not hidden[~once].any() or hidden[~once].sum() == 1  # word 0 is the unknown one
    assert 0.4 < hidden[once].float().mean() < 0.6


def test_the_words_of_a_batch_are_hidden_in_training_alone():
    X, y = sentences(20)
    words = Words.of(X)
    vocabulary = WordVocabulary.fit(words, 1000)
    numbers = np.concatenate([[tag == "O" for tag in tags] for tags in y]).astype(int)
    labels = tagging.Integers(numbers, words.lengths)
    coded = vocabulary.code(words)
    seen = []

    class Look(TaggerNet):
        def forward(self, x, lengths=None):
            seen.append(x.words)
            return super().forward(x, lengths)

    net = Look(2, n_words=vocabulary.n_words, n_characters=9, hidden_size=4)
    task = Tagging(
        coded, labels, 20, 0, once=np.ones(vocabulary.n_words, bool), validation=(coded, labels)
    )
    task.loss(net)
    assert 0.2 < (seen[-1] == UNKNOWN).float().mean() < 0.8
    task.validate(net)
    assert not (seen[-1] == UNKNOWN).any()


def test_the_state_is_that_of_the_batches():
    given = tagged()
    one, other = Tagging(given.X, given.y, 5, 3), Tagging(given.X, given.y, 5, 4)
    net = TaggerNet(2, 2, hidden_size=4)
    one.loss(net)
    other.load_state_dict(one.state_dict())
    for _ in range(7):
        assert torch.equal(one.loss(net).loss, other.loss(net).loss)
    fewer = tagged(22)
    with pytest.raises(ValueError, match="n_examples = 23"):
        Tagging(fewer.X, fewer.y, 5, 3).load_state_dict(one.state_dict())


def test_the_example_is_what_it_says():
    X, y = above_or_below()
    assert all(
        ((b == "above") == (x[: t + 1, 0].sum() > 0))
        for x, bs in zip(X, y, strict=True)
        for t, b in enumerate(bs)
    )
