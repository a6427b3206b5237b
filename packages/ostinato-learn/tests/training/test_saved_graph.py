"""The graphs of networks have the answers of the networks, step by step and as a whole."""

from __future__ import annotations

import copy
from itertools import product

import numpy as np
import pytest
import torch

from ostinato.compiler.errors import Unsupported
from ostinato.engine import native
from ostinato_learn.models import ClassifierNet
from ostinato_learn.models.saved_graph import describe
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.programs import StepProgram
from ostinato_learn.tasks.classify.net import ClassifierEnsemble
from ostinato_learn.tasks.forecast.net import ForecasterNet
from ostinato_learn.tasks.language.net import LanguageNet
from ostinato_learn.tasks.tag.net import TaggerNet
from zoo.suites import one_in

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine")

EPS = np.finfo(np.float32).eps
READOUTS = ["last", "mean", "max", "attention"]
LENGTHS = torch.tensor([9, 1, 4, 9])


def bound(n_steps, depth=1):
    """How far two ways to add up the same numbers may lie apart, of answers in 0…1.

    A state of size 1 is a sum of K ≤ 64 products: √K ε ≈ 8 ε of rounding, and 2.5 ulp of an
    activation. A step passes on what the step before was wrong by, damped by a gate or a slope
    below 1 and by weights of norm about 1: errors of n steps add up as √n. Softmax halves them.
    Twice as much for each layer.
    """
    return 16 * EPS * depth * max(1, n_steps) ** 0.5


def trained_like(net, seed=0):
    """Weights as large as those of trained networks, biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        scale = 0.5 if p.dim() == 1 else 1.2 / p.shape[-1] ** 0.5
        p.data = torch.randn(p.shape, generator=generator) * scale
    return net


def network_of(net, **options):
    graph, folded = describe(net, **options)
    tensors = {n: t.detach().numpy() for n, t in {**net.state_dict(), **folded}.items()}
    shapes = {n: a.shape for n, a in tensors.items()}
    return Network(ModelGraph.from_json(graph.as_json(), shapes), tensors)


def compared(net, theirs, tolerance, **options):
    x = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(net.eval(), x, LENGTHS).numpy()
    network = network_of(net, **options)
    ours = network.answers(x.numpy(), LENGTHS.numpy())
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)
    whole = network.answers(x.numpy())  # all rows with all steps: the last row is the same
    np.testing.assert_array_equal(whole[[0, 3]], ours[[0, 3]])
    return network, x.numpy(), ours


def softmax(net, x, lengths):
    return torch.softmax(net(x, lengths).double(), -1)


@pytest.mark.parametrize(
    ("cell", "bidirectional", "readout"),
    one_in(3, product(["rnn", "gru", "lstm"], [False, True], READOUTS), of_several=True),
)
def test_classifiers(cell, bidirectional, readout):
    num_layers = {"rnn": 1, "gru": 2, "lstm": 3}[cell]
    net = trained_like(
        ClassifierNet(5, 4, cell, 17, num_layers, bidirectional, dropout=0.3, readout=readout)
    )
    network, x, ours = compared(net, softmax, bound(9, num_layers))
    if not bidirectional:
        streamed(network, x, ours)


def streamed(network, x, ours):
    """Step by step, as one step over one carry: the same bits."""
    step, answer = (StepProgram(g, network.tensors) for g in network.graph.composed())
    for row, n in enumerate(LENGTHS.tolist()):
        carry = None
        for t in range(n):
            _, carry = step.play([x[row, t][None, None]], init=carry)
        np.testing.assert_array_equal(answer.play([c[None] for c in carry])[0][0][0, 0], ours[row])


def test_relu_and_the_notebook_start():
    compared(trained_like(ClassifierNet(5, 4, nonlinearity="relu")), softmax, 64 * bound(9))
    compared(ClassifierNet(5, 4, init="notebook"), softmax, bound(9))


def test_several_labels_and_one_class():
    net = trained_like(ClassifierNet(5, 3, "gru", 8))

    def sigmoid(net, x, lengths):
        return torch.sigmoid(net(x, lengths).double())

    compared(net, sigmoid, bound(9), several=True)
    compared(trained_like(ClassifierNet(5, 1, "gru", 8)), softmax, bound(9))


@pytest.mark.parametrize(
    ("bidirectional", "readout"), one_in(3, product([False, True], READOUTS), of_several=True)
)
def test_ensembles(bidirectional, readout):
    nets = [
        trained_like(ClassifierNet(5, 4, "gru", 6, 2, bidirectional, readout=readout), seed)
        for seed in range(3)
    ]
    network, x, ours = compared(ClassifierEnsemble(nets), softmax, bound(9, 2))
    if not bidirectional:
        streamed(network, x, ours)


class Leaky(torch.nn.Module):
    """A leak, a mask on the weights, and an output that is no carry."""

    def __init__(self, n_features, hidden_size):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)
        self.back = torch.nn.Linear(hidden_size, hidden_size, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(hidden_size, hidden_size)))

    def forward(self, h, x):
        recurrent = torch.nn.functional.linear(h, self.back.weight * self.mask)
        h = 0.9 * h + 0.1 * torch.tanh(recurrent + self.into(x))
        return h, torch.sin(h)


class Begun(Leaky):
    """With a first carry that is learnt."""

    def __init__(self, n_features, hidden_size):
        super().__init__(n_features, hidden_size)
        self.first = torch.nn.Parameter(torch.randn(hidden_size))

    def initial(self, x):
        return self.first.expand(len(x), -1)


class Peeking(Leaky):
    def initial(self, x):
        return self.into(x)


class Counting(Leaky):
    def forward(self, h, x):
        self.count = getattr(self, "count", 0) + 1
        return super().forward(h, x)


class Numbered(Leaky):
    """With a number for each row in its carry, of no axis but the batch."""

    def initial(self, x):
        return x.new_zeros(len(x), self.back.in_features), x.new_zeros(len(x))

    def forward(self, carry, x):
        h, n = carry
        h, y = super().forward(h, x)
        return (h, n + 1), y / (1 + n)[:, None]


class WholeNumbered(Numbered):
    """Its numbers are whole ones, which begin at 2: a run looks at how large they get."""

    def initial(self, x):
        return super().initial(x)[0], torch.full((len(x),), 2)


CELLS = [Leaky, Begun, Numbered, WholeNumbered]


@pytest.mark.parametrize(
    ("cell", "bidirectional", "readout"),
    one_in(3, product(CELLS, [False, True], READOUTS), of_several=True),
)
def test_a_cell_of_ones_own(cell, bidirectional, readout):
    net = ClassifierNet(5, 4, cell, 7, 2, bidirectional, dropout=0.2, readout=readout)
    network, x, ours = compared(net.train(), softmax, bound(9, 2))
    if not bidirectional:
        streamed(network, x, ours)


@pytest.mark.filterwarnings("ignore:.*was recorded")
def test_cells_of_many_sizes_are_described():
    """As after a search: more recordings of one class than a scan of a step is worth."""
    for size in range(3, 17):
        describe(ClassifierNet(5, 4, Leaky, size, 2, readout="last"))


def test_what_has_no_graph_is_said():
    with pytest.raises(Unsupported, match="first carry depends on its first input"):
        describe(ClassifierNet(5, 4, Peeking, 7))
    with pytest.raises(Unsupported, match="changes"):
        describe(ClassifierNet(5, 4, Counting, 7))
    with pytest.raises(Unsupported, match="float64"):
        describe(ClassifierNet(5, 4).double())
    with pytest.raises(Unsupported, match="a Linear has no graph"):
        describe(torch.nn.Linear(2, 2))


def test_describing_leaves_the_network_as_it_was():
    net = ClassifierNet(5, 4, Leaky, 7, dropout=0.5).train()
    net.body.dropout.eval()
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    describe(net)
    assert net.training and not net.body.dropout.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_taggers(bidirectional):
    net = trained_like(TaggerNet(4, 5, cell="gru", hidden_size=8, bidirectional=bidirectional))
    x = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(1))
    for crf in (False, True):
        net = trained_like(
            TaggerNet(4, 5, hidden_size=8, bidirectional=bidirectional, crf=crf)
        ).eval()
        with torch.no_grad():
            scores = net(x, LENGTHS)
        theirs = (scores if crf else torch.softmax(scores, 2)).numpy()
        ours = network_of(net).answers(x.numpy(), LENGTHS.numpy())
        for row, n in enumerate(LENGTHS.tolist()):
            np.testing.assert_allclose(ours[row, :n], theirs[row, :n], rtol=0, atol=4 * bound(9))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("inputs", [(0, 0, 0), (2, 3, 1)])
@pytest.mark.parametrize("quantiles", [(0.5,), (0.1, 0.5, 0.6, 0.9)])
def test_forecasters(bidirectional, inputs, quantiles):
    sizes = dict(zip(("n_past", "n_future", "n_static"), inputs, strict=True))
    net = ForecasterNet(
        5, n_lags=2, quantiles=quantiles, hidden_size=8, bidirectional=bidirectional, **sizes
    )
    net = trained_like(net).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 12, 2 + sum(inputs), generator=generator)
    future = torch.randn(4, 5, inputs[1], generator=generator) if inputs[1] else None
    lags = torch.randn(4, 5, 2, generator=generator)
    with torch.no_grad():
        theirs = net(x, future, lags).numpy()
    known = torch.cat([part for part in (future, lags) if part is not None], 2)
    ours = network_of(net).forecasts(x.numpy(), known.numpy())
    # Sums of up to 4 numbers of size 2 behind two more products: twice the bound, four times.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * bound(12, 2))
    assert (np.diff(ours, axis=2) >= 0).all()


@pytest.mark.parametrize(("embedding_size", "tied"), [(6, False), (0, False), (6, True)])
def test_language_models(embedding_size, tied):
    net = trained_like(LanguageNet(11, "lstm", 8, 2, embedding_size=embedding_size, tied=tied))
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = torch.softmax(net.eval().logits(net(tokens)[0]), 2).numpy()
    ours = network_of(net).answers(tokens.numpy())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound(6, 2))
