"""Long sequences are learnt in windows that hand on their state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ostinato_learn import SequenceTagger, training
from ostinato_learn.data import Ragged
from ostinato_learn.data.text.words import Integers
from ostinato_learn.tasks.tag.net import TaggerNet
from ostinato_learn.tasks.tag.windows import TaggingWindows, WindowRows

LENGTHS = np.array([37, 5, 61])


def test_rows_of_an_epoch_read_every_step_and_mark_where_sequences_begin():
    rows = WindowRows(LENGTHS, n_rows=3, window=8, seed=1)
    seen, begins = [], {0, 37, 42}
    for batch in range(rows.batches):
        steps, resets, first = rows.next()
        assert first == (batch == 0) and (np.diff(steps, axis=1) % 103 == 1).all()
        assert {int(step) for step in steps[resets]} == begins & set(steps.ravel().tolist())
        if batch:
            assert (steps[:, 0] == (seen[-1][:, -1] + 1) % 103).all()  # a row goes on
        seen.append(steps)
    assert set(np.concatenate(seen).ravel().tolist()) == set(range(103))
    assert (rows.next()[0] != seen[0]).any()  # the next epoch begins at other places


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_windows_in_turn_are_the_whole_sequence(cell):
    torch.manual_seed(0)
    net = TaggerNet(3, 2, cell=cell, hidden_size=5, bidirectional=False).double().eval()
    x = torch.randn(2, 24, 2, dtype=torch.float64)
    carry, found = None, []
    with torch.no_grad():
        for start in range(0, 24, 8):
            scores, carry = net.read_on(x[:, start : start + 8], carry)
            found.append(scores)
        assert (torch.cat(found, 1) == net(x)).all()
        resets = torch.zeros(2, 24, dtype=torch.bool)
        resets[0, 10] = True
        marked, _ = net.read_on(x, None, resets)
        assert (marked[0, 10:] == net(x[:1, 10:])[0]).all() and (marked[1] == net(x)[1]).all()


@pytest.mark.parametrize("both", [False, True])
def test_gradients_are_those_of_torch_from_the_state_before(both):
    torch.manual_seed(0)
    net = TaggerNet(3, 2, hidden_size=5, bidirectional=both, num_layers=2).double()
    own = torch.nn.LSTM(2, 5, 2, batch_first=True, bidirectional=both).double()
    own.load_state_dict(net.body.state_dict())
    x, y = torch.randn(2, 12, 2, dtype=torch.float64), torch.randint(3, (2, 12))
    _, carry = net.read_on(x, None)
    carry = tuple(leaf.detach() for leaf in carry)
    state = tuple(leaf.clone() for leaf in own(x)[1])
    if both:
        for leaf in state:
            leaf[1::2] = 0  # the backward direction begins at the end of a window
    scores, _ = net.read_on(x, carry)
    net.losses(scores, y).sum().backward()
    states, _ = own(x, tuple(leaf.detach() for leaf in state))
    net.losses(net.readout(states), y).sum().backward()
    for (name, ours), theirs in zip(net.body.named_parameters(), own.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12), name


def learnable(seed: int = 0) -> tuple[Ragged, Integers]:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(int(LENGTHS.sum()), 1)).astype(np.float32)
    offsets = np.append(0, np.cumsum(LENGTHS))
    return Ragged(values, offsets), Integers((values[:, 0] > 0).astype(np.int64), LENGTHS)


@pytest.mark.parametrize("both", [False, True])
def test_a_resumed_training_goes_on_exactly(both, tmp_path):
    X, y = learnable()

    def learn(n: int, resume: object = None, callbacks: tuple = ()) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        net = TaggerNet(2, 1, hidden_size=3, bidirectional=both)
        task = TaggingWindows(X, y, 2, 8, seed=3)
        plan = training.Plan(iterations=n, batch_size=2, window=8, seed=3, eval_every=5)
        training.loop.learn(net, task, plan, callbacks=list(callbacks), resume=resume)
        return net.state_dict()

    whole = learn(20)
    learn(9, callbacks=(training.Checkpoint(tmp_path / "kept", 9),))  # within an epoch
    again = learn(20, resume=str(tmp_path / "kept"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def recordings(n: int, steps: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A state that lasts some 50 steps, and a sensor that shows it with noise."""
    generator, X, y = np.random.default_rng(seed), [], []
    for _ in range(n):
        spans = generator.integers(20, 80, steps)
        states = np.repeat(generator.integers(0, 3, steps), spans)[:steps]
        noise = generator.normal(0, 1.0, steps)
        X.append((states + noise)[:, None])
        y.append(np.array(["idle", "cut", "rinse"])[states])
    return X, y


def test_the_recipe_learns_two_long_recordings():
    X, y = recordings(2, 3000)
    model = SequenceTagger(hidden_size=32).fit(X, y)
    assert model.hyperparameters_["window"] == 128 and model.n_iter_ > 100
    other, answers = recordings(2, 1500, seed=1)
    assert model.score(other, answers) > 0.85  # single steps allow 0.63
    short = SequenceTagger(hidden_size=4, iterations=2).fit(*recordings(20, 40))
    assert short.hyperparameters_["window"] is None


def test_what_has_no_windows_says_so():
    X, y = recordings(2, 300)
    with pytest.raises(ValueError, match="CRF"):
        SequenceTagger(window=16, crf=True, iterations=1).fit(X, y)
    words = [["a", "b"] * 40, ["b", "a"] * 40]
    with pytest.raises(ValueError, match="words"):
        SequenceTagger(window=16, iterations=1).fit(words, words)
