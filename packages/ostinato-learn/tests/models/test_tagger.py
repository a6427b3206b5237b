from __future__ import annotations

import inspect
import math

import pytest
import torch

from ostinato_learn.models.inputs import WordBatch
from ostinato_learn.tasks.tag.net import NO_LABEL, TaggerNet
from zoo.suites import in_pairs

CELLS = ["rnn", "gru", "lstm"]


def words() -> tuple[WordBatch, torch.Tensor]:
    """Two sentences, "a bc a" and "def", over three different words."""
    places = torch.tensor([[0, 1, 0], [2, 0, 0]])
    characters = torch.tensor([[1, 0, 0], [2, 3, 0], [4, 5, 6]])
    batch = WordBatch(places, torch.tensor([1, 0, 2]), characters, torch.tensor([1, 2, 3]))
    return batch, torch.tensor([3, 1])


def word_net(**arguments) -> TaggerNet:
    sizes = {"embedding_size": 5, "character_size": 3, "hidden_size": 4}
    return TaggerNet(2, n_words=3, n_characters=7, **sizes | arguments)


@pytest.mark.parametrize("cell, bidirectional, crf", in_pairs(CELLS, [False, True], [False, True]))
def test_every_weight_has_a_gradient(cell, bidirectional, crf):
    net = TaggerNet(5, 3, cell=cell, hidden_size=4, bidirectional=bidirectional, crf=crf)
    scores = net(torch.randn(6, 7, 3))
    assert scores.shape == (6, 7, 5)
    net.losses(scores, torch.randint(5, (6, 7))).sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_every_weight_of_a_network_of_words_has_a_gradient():
    batch, lengths = words()
    net = word_net()
    y = torch.tensor([[0, 1, 0], [1, NO_LABEL, NO_LABEL]])
    net.losses(net(batch, lengths), y, lengths).sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name
    assert not net.words.characters.weight.grad[0].any()  # padding is no character


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_padded_row_is_read_as_if_it_came_alone(cell, crf):
    net = TaggerNet(5, 3, cell=cell, hidden_size=4, num_layers=2, crf=crf).eval()
    x, y = torch.randn(3, 6, 3), torch.randint(5, (3, 6))
    lengths = torch.tensor([2, 6, 3])
    for row, length in enumerate(lengths.tolist()):
        x[row, length:], y[row, length:] = math.nan, NO_LABEL
    together = net(x, lengths)
    losses = net.losses(together, y, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = net(x[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0])
        torch.testing.assert_close(losses[row], net.losses(alone, y[row : row + 1, :length])[0])


def test_a_word_is_read_as_if_it_came_alone():
    batch, _ = words()
    net = word_net().eval()
    vectors = net.words(batch)
    assert vectors.shape == (2, 3, 11)
    for row, step in ((0, 0), (0, 1), (0, 2), (1, 0)):
        i = int(batch.places[row, step])
        n = batch.n_characters[i : i + 1]
        characters = batch.characters[i : i + 1, :n]
        one = WordBatch(torch.tensor([[0]]), batch.words[i : i + 1], characters, n)
        torch.testing.assert_close(net.words(one)[0, 0], vectors[row, step])


def test_the_states_over_characters_are_those_of_torchs_gru():
    batch, _ = words()
    net = word_net()
    theirs = torch.nn.GRU(3, 3, batch_first=True, bidirectional=True)
    theirs.load_state_dict(net.words.spelling.state_dict())
    _, last = theirs(net.words.characters(batch.characters[2:]))
    wanted = torch.cat([net.words.embedding.weight[2], last[0, 0], last[1, 0]])
    torch.testing.assert_close(net.words(batch)[1, 0], wanted)


def test_without_characters_a_word_is_its_embedding():
    batch, _ = words()
    net = word_net(character_size=0)
    assert torch.equal(net.words(batch), net.words.embedding.weight[batch.words[batch.places]])


def test_the_best_labels_are_the_likeliest_steps_or_the_likeliest_row():
    scores = torch.tensor([[[2.5, 1, 0], [0, 1, 2], [0, 0, 1]]])
    net = TaggerNet(3, 2, hidden_size=2)
    assert net.best(scores).tolist() == [[0, 2, 2]]
    follow = torch.ones(3, 3, dtype=torch.bool)
    follow[0, 2] = False
    assert net.best(scores, None, (follow, follow[1])).tolist() == [[0, 1, 2]]
    assert net.best(scores, None, (follow, torch.arange(3) > 0)).tolist() == [[1, 2, 2]]


def test_config_builds_the_same_network():
    batch, lengths = words()
    net = word_net(crf=True, dropout=0.5).eval()
    again = TaggerNet(**net.config).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(batch, lengths), again(batch, lengths))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "n_features=None and n_words=None; wanted one of them"),
        ({"n_features": 1, "n_words": 1}, "n_features=1 and n_words=1; wanted one of them"),
        ({"n_features": 0}, "n_features=0: wanted a whole number"),
        ({"n_features": 2, "cell": "cnn"}, "cell='cnn': wanted one of"),
        ({"n_words": 2, "character_size": -1}, "character_size=-1: wanted a whole number"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TaggerNet(2, **arguments)


def test_every_parameter_is_described():
    for name in inspect.signature(TaggerNet).parameters:
        assert inspect.getdoc(TaggerNet).count(f"\n    {name}: ") == 1, name
