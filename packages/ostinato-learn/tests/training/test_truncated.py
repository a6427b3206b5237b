"""`truncate`: the state goes on through a sequence, and its gradient ends every so many steps."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forecasting_examples import fit, panel
from tagging_examples import sentences, tagged
from test_checkpoint import KillAfter, Killed
from training_examples import Experiment, Leaky, assert_same_end, without_clock

from ostinato_learn import SequenceClassifier, load, runtime
from ostinato_learn.data import Batches
from ostinato_learn.hyperparameters import Architecture, HyperparameterError
from ostinato_learn.models import ClassifierNet
from ostinato_learn.tasks.tag import fit as tag
from ostinato_learn.tasks.tag.fit import Tagged
from ostinato_learn.tasks.tag.loss import TaggerSettings
from ostinato_learn.training import Callback, Checkpoint, Plan, train

N_STEPS = 12


class Gradients(Callback):
    """The gradients of the last iteration, by the names of the weights."""

    def on_iteration(self, run):
        self.found = {name: p.grad.clone() for name, p in run.net.named_parameters()}


def examples(n_steps: int = N_STEPS) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(10, n_steps, 2)).astype(np.float32)
    return X, (X[:, :, 0].sum(1) > 0).astype(np.int64)


def network(cell="lstm", **options) -> ClassifierNet:
    torch.manual_seed(0)
    return ClassifierNet(2, 2, cell=cell, hidden_size=5, readout="mean", **options)


def gradients(net, X, y, **plan) -> dict[str, torch.Tensor]:
    seen = Gradients()
    train(net, Batches(X, y, 10), Plan(iterations=1, batch_size=10, **plan), callbacks=[seen])
    return seen.found


def by_windows(net: ClassifierNet, X, y, window: int) -> dict[str, torch.Tensor]:
    """The gradients of one layer in two directions, in float64, by PyTorch's own layer.

    Each direction is played window by window, and its state detached between two of them. Windows
    lie alike in both, so that the backward direction begins with the shorter one.
    """
    net = copy.deepcopy(net).double()
    kind = getattr(torch.nn, type(net.body).__name__)
    x = torch.tensor(X, dtype=torch.float64)
    played = []
    for suffix, given in (("", x), ("_reverse", x.flip(1))):
        layer = kind(2, 5, batch_first=True, dtype=torch.float64)
        weights = {n: getattr(net.body, f"{n}{suffix}") for n in dict(layer.named_parameters())}
        state, outputs = None, []
        sizes = [len(part) for part in torch.arange(N_STEPS).split(window)]
        for part in given.split(sizes[::-1] if suffix else sizes, 1):
            arguments = (part,) if state is None else (part, state)
            output, state = torch.func.functional_call(layer, weights, arguments)
            outputs.append(output)
            state = state.detach() if torch.is_tensor(state) else tuple(s.detach() for s in state)
        played.append(torch.cat(outputs, 1))
    states = torch.cat([played[0], played[1].flip(1)], 2)
    F.cross_entropy(net.readout(states.mean(1)), torch.tensor(y)).backward()
    return {name: p.grad for name, p in net.named_parameters()}


def most(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference, in shares of the largest gradient of the same weight."""
    return max(float((found[n] - g).abs().max() / g.abs().max()) for n, g in wanted.items())


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("window", [1, 5])
def test_gradients_are_those_of_windows_with_a_detached_state(cell, window):
    X, y = examples()
    net = network(cell, bidirectional=True)
    wanted = by_windows(net, X, y, window)
    assert most(by_windows(net, X, y, N_STEPS), wanted) > 1e-2  # the state's gradient does matter
    # A gradient is a sum over 10 rows and 12 steps, each term with some ten roundings: fewer than
    # 1300 of 2⁻²⁴ each.
    assert most(gradients(net, X, y, truncate=window), wanted) < 1300 * 2**-24


def bits(history, net) -> list:
    weights = {name: w.numpy().tobytes() for name, w in net.state_dict().items()}
    return [history.losses, without_clock(history), weights]


def classified(plan, **options):
    return bits(*reversed(Experiment(plan={"iterations": 3} | plan, **options).run()))


def classified_with_own_cell(plan):
    X, y = examples()
    net = network(Leaky, bidirectional=True)
    settings = {"iterations": 3, "batch_size": 5} | plan
    return bits(train(net, Batches(X, y, 5), Plan(**settings)), net)


def tagging(plan):
    model = Architecture(cell="lstm", hidden_size=4, bidirectional=True, num_layers=2, dropout=0.3)
    settings = {"iterations": 3, "batch_size": 10} | plan
    fitted, history = tag.fit(tagged(), model, TaggerSettings(), Plan(**settings))
    return bits(history, fitted.net)


def forecasting(plan):
    fitted, history = fit(panel(), {"iterations": 3} | plan)
    return bits(history, fitted.net)


TASKS = {
    "classify": classified,
    "own cell": classified_with_own_cell,
    "tag": tagging,
    "forecast": forecasting,
}


@pytest.mark.parametrize("task", TASKS)
def test_a_window_as_long_as_the_sequences_gives_the_bits_of_the_plain_run(task):
    plain = TASKS[task]({})
    assert TASKS[task]({"truncate": N_STEPS}) == plain  # no sequence here is longer
    assert TASKS[task]({"truncate": 10**9}) == plain
    assert TASKS[task]({"truncate": 2}) != plain


@pytest.mark.parametrize(("cell", "budget"), [("lstm", "400kB"), (Leaky, "300kB")])
def test_a_budget_of_memory_gives_the_same_bits(cell, budget):
    X, y = examples(300)
    found = [
        gradients(network(cell, bidirectional=True), X, y, truncate=70, memory=memory)
        for memory in (None, budget)
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_characters_of_a_word_are_read_as_before():
    class Look(Callback):
        def on_iteration(self, run):
            net = run.net
            self.seen = net.body.gradient_steps, net.words.spelling.gradient_steps

    look = Look()
    fitted, _ = tag.fit(
        Tagged.of(*sentences(20)),
        Architecture(cell="gru", hidden_size=4),
        TaggerSettings(embedding_size=4, character_size=3),
        Plan(iterations=1, batch_size=10, truncate=2),
        callbacks=[look],
    )
    assert look.seen == (2, None)
    assert fitted.net.body.gradient_steps is None  # whoever trains it further chooses anew


def test_a_resumed_training_gives_the_same_bits(tmp_path):
    plan = {"truncate": 2}
    whole = Experiment(plan=plan).run()
    with pytest.raises(Killed):
        Experiment(plan=plan).run(callbacks=[Checkpoint(tmp_path / "c", every=3), KillAfter(7)])
    assert_same_end(Experiment(plan=plan).run(resume=tmp_path / "c"), whole)
    with pytest.raises(ValueError, match="truncate: 2, not 3"):
        Experiment(plan={"truncate": 3}).run(resume=tmp_path / "c")


def test_a_saved_model_answers_the_same(tmp_path):
    X, y = examples()
    model = SequenceClassifier(hidden_size=4, iterations=3, batch_size=5, truncate=3).fit(X, y)
    model.save(tmp_path / "m")
    again, answers = load(tmp_path / "m"), model.predict_proba(X)
    assert again.get_params()["truncate"] == 3
    np.testing.assert_array_equal(again.predict_proba(X), answers)
    # The readout's product is PyTorch's there, and ours here: 10 products with one rounding each.
    without_torch = runtime.load(tmp_path / "m").predict_proba(X)
    np.testing.assert_allclose(without_torch, answers, rtol=10 * 2**-24)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
def test_no_step_is_refused(wrong):
    with pytest.raises(HyperparameterError, match=r"truncate=.*: wanted a whole number, 1 or more"):
        Plan(truncate=wrong)
