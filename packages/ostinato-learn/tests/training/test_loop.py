from __future__ import annotations

import math
import signal

import numpy as np
import pytest
import torch
from training_examples import Experiment, Leaky, assert_same_end, ragged_examples, without_clock

from ostinato_learn.data import Batches
from ostinato_learn.models import ClassifierNet
from ostinato_learn.training import Callback, Diverged, Plan, evaluate, learning_rate, train
from zoo.suites import one_in


def up_or_down(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(n, 8, 1)).astype(np.float32)
    return X, (X.sum((1, 2)) > 0).astype(np.int64)


class Recorder(Callback):
    def __init__(self):
        self.events: list[tuple] = []
        self.rates: list[float] = []

    def on_start(self, run):
        self.events.append(("start", run.iteration))

    def on_iteration(self, run):
        self.events.append(("iteration", run.iteration))
        self.rates.append(run.optimizer.param_groups[0]["lr"])

    def on_report(self, run, report):
        assert report is run.history.reports[-1]
        self.events.append(("report", run.iteration))

    def on_end(self, run):
        self.events.append(("end", run.history.outcome))


@pytest.mark.parametrize("cell", one_in(3, ["lstm", "gru", "rnn"]))
def test_it_learns_what_needs_memory(cell):
    """The class is the first of 8 steps; all others are noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 8, 1)).astype(np.float32)
    y = (X[:, 0, 0] > 0).astype(np.int64)
    torch.manual_seed(0)
    net = ClassifierNet(1, 2, cell=cell, hidden_size=16)
    plan = Plan(iterations=400, batch_size=50, learning_rate=0.01, clip_norm=1.0)
    train(net, Batches(X[:400], y[:400], 50), plan)
    assert not net.training
    assert evaluate(net, X[400:], y[400:]).accuracy >= 0.93


def test_when_callbacks_are_called_and_reports_made():
    recorder = Recorder()
    _, history = Experiment(plan={"iterations": 5, "eval_every": 2}).run(callbacks=[recorder])
    assert recorder.events == [
        ("start", 0),
        ("report", 0),
        ("iteration", 1),
        ("iteration", 2),
        ("report", 2),
        ("iteration", 3),
        ("iteration", 4),
        ("report", 4),
        ("iteration", 5),
        ("report", 5),
        ("end", "finished"),
    ]
    assert history["iteration"] == [0, 2, 4, 5]
    assert history.iterations == 5
    assert history["epoch"] == pytest.approx([0, 10 / 23, 20 / 23, 25 / 23])
    assert all(a < b for a, b in zip(history["elapsed_s"], history["elapsed_s"][1:], strict=False))


def test_the_first_report_is_of_the_untrained_network_and_the_last_of_the_last_batch():
    X, y = up_or_down()
    net = ClassifierNet(1, 2, hidden_size=4)
    batches = Batches(X, y, 50)
    first = evaluate(net, *batches.next_batch())
    one, two = (Plan(iterations=i, batch_size=50, eval_every=1) for i in (1, 2))
    states = net.state_dict(), batches.state_dict()

    history = train(net, Batches(X, y, 50), one)
    assert history["loss"] == pytest.approx([first.loss] * 2, rel=1e-5)
    assert history["train_accuracy"] == [first.accuracy] * 2
    again = ClassifierNet(1, 2, hidden_size=4)
    again.load_state_dict(states[0])
    before_second = evaluate(again, *batches.next_batch())
    longer = train(again, Batches(X, y, 50), two)
    assert longer["iteration"] == [0, 1, 2]
    assert longer["loss"][1] == longer["loss"][2]
    assert before_second.n == 50


def test_the_learning_rate_follows_the_schedule():
    recorder = Recorder()
    settings = {"schedule": "cosine", "warmup": 3, "learning_rate": 0.05}
    _, history = Experiment(plan=settings).run(callbacks=[recorder])
    plan = Plan(**settings)
    assert recorder.rates == [learning_rate(plan, i, 14) for i in range(14)]
    assert history["learning_rate"] == [recorder.rates[i] for i in (0, 3, 6, 9, 12, 13)]


def test_gradients_are_clipped_to_the_norm():
    X, y = up_or_down()
    moved = {}
    for clip_norm in (None, 1e-3):
        torch.manual_seed(0)
        net = ClassifierNet(1, 2, hidden_size=4)
        before = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        plan = Plan(
            iterations=1, batch_size=50, optimizer="sgd", learning_rate=1.0, clip_norm=clip_norm
        )
        train(net, Batches(X, y, 50), plan)
        after = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        moved[clip_norm] = (after - before).norm().item()
    assert moved[None] > 0.05
    # the step is a difference of weights below 1: its rounding is 2^-24 each, 1e-3 of it at most
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_the_same_experiment_gives_the_same_bits():
    assert_same_end(Experiment().run(), Experiment().run())


def test_another_seed_gives_others():
    one, other = Experiment().run(), Experiment(plan={"seed": 6}).run()
    assert without_clock(one[1]) != without_clock(other[1])


def test_the_random_state_and_the_signal_handler_of_the_caller_stay():
    X, y = ragged_examples()
    net = ClassifierNet(2, 2, hidden_size=4, dropout=0.5)
    before = torch.get_rng_state()
    train(net, Batches(X, y, 5), Plan(iterations=3, batch_size=5))
    assert torch.equal(torch.get_rng_state(), before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sample_weights_decide_what_is_learnt():
    """Every example is there with both labels; the weights say which is right."""
    X, y = up_or_down(100)
    both = np.concatenate([X, X]), np.concatenate([y, 1 - y])
    for right in (0, 1):
        weights = np.concatenate([np.full(100, 1 - right), np.full(100, right)])
        net = ClassifierNet(1, 2, hidden_size=8)
        plan = Plan(iterations=200, batch_size=50, optimizer="adam", learning_rate=0.02)
        train(net, Batches(*both, 50), plan, sample_weight=weights)
        accuracy = evaluate(net, X, y).accuracy
        assert accuracy < 0.1 if right else accuracy > 0.9


def test_class_weights_move_the_decision():
    X, y = up_or_down()
    shares = []
    for weight in (0.01, 100.0):
        net = ClassifierNet(1, 2, hidden_size=4)
        plan = Plan(iterations=60, batch_size=50, optimizer="adam", learning_rate=0.02)
        train(net, Batches(X, y, 50), plan, class_weight={1: weight})
        shares.append(float((net(torch.tensor(X)).argmax(1) == 1).double().mean()))
    assert shares[0] < 0.5 < shares[1]


class Worse(Callback):
    """Spoils the readout after an iteration, so that validation gets worse from there on."""

    def __init__(self, after: int):
        self.after = after

    def on_iteration(self, run):
        if run.iteration >= self.after:
            with torch.no_grad():
                run.net.readout.bias += torch.tensor([3.0, -3.0])


def early(patience: int | None, restore_best: bool = True, schedule: str = "constant"):
    X, y = up_or_down(120)
    torch.manual_seed(0)
    net = ClassifierNet(1, 2, hidden_size=8)
    plan = Plan(
        iterations=60,
        batch_size=20,
        learning_rate=0.01,
        eval_every=5,
        patience=patience,
        restore_best=restore_best,
        schedule=schedule,
    )
    held_out = X[80:], y[80:]
    history = train(
        net, Batches(X[:80], y[:80], 20), plan, validation=held_out, callbacks=[Worse(23)]
    )
    return history, evaluate(net, *held_out).loss


def test_early_stopping_counts_reports_and_restores_the_best():
    history, loss = early(patience=3)
    assert history.outcome == "stopped early"
    best = int(np.argmin(history["validation_loss"]))
    assert history.best_iteration == history["iteration"][best]
    assert len(history.reports) == best + 1 + 3
    assert history.iterations == history["iteration"][-1] < 60
    assert loss == history["validation_loss"][best]


def test_a_falling_learning_rate_is_given_three_fifths_of_its_schedule():
    at_once, _ = early(patience=1)
    assert at_once.outcome == "stopped early" and at_once.iterations < 36
    later, loss = early(patience=1, schedule="cosine")
    assert (
        later.outcome == "stopped early" and later.iterations == 40
    )  # the first report from 36 on
    assert later.best_iteration < 36 and loss == min(later["validation_loss"])


def test_without_patience_it_goes_on_to_the_end_and_restores_the_best_all_the_same():
    history, loss = early(patience=None)
    assert history.outcome == "finished" and history.iterations == 60
    assert loss == min(history["validation_loss"]) < history["validation_loss"][-1]


def test_without_restore_best_the_last_weights_stay():
    history, loss = early(patience=3, restore_best=False)
    assert loss == history["validation_loss"][-1] > min(history["validation_loss"])


class Poison(Callback):
    def __init__(self, at: int):
        self.at = at

    def on_iteration(self, run):
        if run.iteration == self.at:
            with torch.no_grad():
                run.net.readout.weight[0, 0] = math.nan


def test_a_loss_that_is_not_finite_stops_with_the_iteration_and_a_hint():
    recorder = Recorder()
    with pytest.raises(Diverged, match=r"nan at iteration 7.*learning_rate.*clip_norm") as caught:
        Experiment().run(callbacks=[Poison(7), recorder])
    assert caught.value.iteration == 7
    assert recorder.events[-1] == ("end", "running")


def test_a_validation_loss_that_is_not_finite_stops_too():
    X, y = up_or_down(60)
    X_v = np.full((5, 8, 1), 3e38, np.float32)
    with pytest.raises(Diverged, match="the validation loss is nan at iteration 0"):
        net = ClassifierNet(1, 2, hidden_size=4, nonlinearity="relu")
        with torch.no_grad():
            for w in net.parameters():
                w.fill_(100.0)
        net.readout.weight.data[1] *= -1
        train(net, Batches(X * 0, y, 20), Plan(batch_size=20), validation=(X_v, [0] * 5))


class CtrlC(Callback):
    def __init__(self, at: int):
        self.at = at

    def on_report(self, run, report):  # within an iteration
        if run.iteration == self.at:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_between_two_iterations():
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        Experiment().run(callbacks=[CtrlC(6), recorder])
    assert recorder.events[-3:] == [("report", 6), ("iteration", 7), ("end", "interrupted")]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_last_iteration_is_not_lost():
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        Experiment().run(callbacks=[CtrlC(14), recorder])
    assert recorder.events[-1] == ("end", "finished")


@pytest.mark.parametrize(
    ("plan", "y", "options", "message"),
    [
        ({"batch_size": 4}, [0, 1, 0, 1, 0], {}, "plan has batch_size=4, the batches have 5"),
        ({"patience": 2}, [0, 1, 0, 1, 0], {}, "patience=2 without .* give validation_fraction"),
        ({}, [0, 1, 0, 2, 0], {}, r"y\[3\] is 2; wanted 0 to 1"),
        ({}, [0, 1, 0, 1, 0], {"sample_weight": [1, 2]}, r"sample_weight has shape \[2\]"),
        ({}, [0, 1, 0, 1, 0], {"resume": "nowhere"}, "nowhere has no checkpoint"),
    ],
)
def test_arguments_that_do_not_fit_are_named(plan, y, options, message):
    net = ClassifierNet(1, 2, hidden_size=4)
    batches = Batches(np.zeros((5, 3, 1)), y, 5)
    with pytest.raises(ValueError, match=message):
        train(net, batches, Plan(**{"batch_size": 5} | plan), **options)


@pytest.mark.parametrize(("cell", "budget"), [("lstm", "400kB"), (Leaky, "160kB")])
def test_a_budget_of_memory_gives_the_same_bits(cell, budget, monkeypatch):
    from ostinato.compiler.play.segmented import SegmentedRun

    X, y = up_or_down(40)
    X = np.tile(X, (1, 30, 1))  # [40, 240, 1]
    segments = []
    made = SegmentedRun.__init__
    monkeypatch.setattr(SegmentedRun, "__init__", lambda self, *a: segments.append(made(self, *a)))
    found = []
    for memory in (None, budget):
        torch.manual_seed(0)
        net = ClassifierNet(1, 2, cell=cell, hidden_size=16)
        history = train(net, Batches(X, y, 10), Plan(iterations=3, batch_size=10, memory=memory))
        found.append((history.losses, [p.detach().clone() for p in net.parameters()]))
        assert bool(segments) == (memory is not None)
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_a_budget_that_is_no_number_of_bytes_is_refused():
    with pytest.raises(ValueError, match=r"memory is 'much'; wanted a number of bytes"):
        Plan(memory="much")
