from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_loop import CtrlC, Poison
from training_examples import Experiment, assert_same_end, without_clock

from ostinato_learn.training import Callback, Checkpoint, Diverged, MetricsFile
from ostinato_learn.training.checkpoint import STATE, TENSORS, read

TOTAL = 14


class Killed(BaseException):
    pass


class KillAfter(Callback):
    def __init__(self, iteration: int):
        self.iteration = iteration

    def on_iteration(self, run):
        if run.iteration == self.iteration:
            raise Killed


VARIANTS = [
    Experiment(),
    Experiment(cell="rnn", plan={"optimizer": "rmsprop", "momentum": 0.9, "schedule": "step"}),
    Experiment(cell="lstm", plan={"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.5}),
    Experiment(plan={"optimizer": "adamw", "weight_decay": 0.1, "patience": 1}),
    Experiment(dropout=0.0, validated=False, plan={"optimizer": "rmsprop", "batch_size": 23}),
]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", VARIANTS, ids=lambda e: e.plan.get("optimizer", "adam"))
def test_a_run_killed_after_any_iteration_and_resumed_ends_with_the_same_bits(experiment, tmp_path):
    whole = experiment.run(callbacks=[Checkpoint(tmp_path / "whole", every=1000)])
    optimizer_state = read(tmp_path / "whole")[1]
    for after in range(1, whole[1].iterations + 1):
        place = tmp_path / f"killed-{after}"
        metrics = MetricsFile(place / "metrics.jsonl")
        checkpoint = Checkpoint(place / "checkpoint", every=2)
        with pytest.raises(Killed):
            experiment.run(callbacks=[metrics, checkpoint, KillAfter(after)])
        resumed = experiment.run(callbacks=[metrics, checkpoint], resume=place / "checkpoint")
        assert_same_end(resumed, whole)
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        assert lines == resumed[1].reports
        tensors = read(place / "checkpoint")[1]
        assert tensors.keys() == optimizer_state.keys()
        for name, tensor in tensors.items():  # the optimiser's and the generator's state among them
            assert torch.equal(tensor, optimizer_state[name]), name


def test_killed_again_and_again(tmp_path):
    whole = Experiment().run()
    checkpoint = Checkpoint(tmp_path / "c", every=1)
    resume = None
    for after in (1, 2, 3, 5, 8, 13):
        with pytest.raises(Killed):
            Experiment().run(callbacks=[checkpoint, KillAfter(after)], resume=resume)
        resume = tmp_path / "c"
    assert_same_end(Experiment().run(resume=resume), whole)


def test_the_experiment_would_show_a_state_that_was_forgotten(tmp_path, monkeypatch):
    """The test above can fail: leave one thing out of the checkpoint, and the bits differ."""
    whole = Experiment().run()
    with pytest.raises(Killed):
        Experiment().run(callbacks=[Checkpoint(tmp_path / "c", every=7), KillAfter(7)])

    def resumed_without(target, name):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, lambda *_: None)
            return Experiment().run(resume=tmp_path / "c")

    from ostinato_learn.data import Batches
    from ostinato_learn.training import checkpoint

    assert_same_end(Experiment().run(resume=tmp_path / "c"), whole)
    for target, name in [
        (torch, "set_rng_state"),
        (Batches, "load_state_dict"),
        (checkpoint, "_restore_optimizer"),
        (checkpoint, "fill"),
    ]:
        with pytest.raises(AssertionError):
            assert_same_end(resumed_without(target, name), whole)


def test_ctrl_c_leaves_a_checkpoint_of_that_iteration(tmp_path):
    whole = Experiment().run()
    checkpoint = Checkpoint(tmp_path / "c", every=1000)
    with pytest.raises(KeyboardInterrupt):
        Experiment().run(callbacks=[CtrlC(6), checkpoint])
    state, _ = read(tmp_path / "c")
    assert state["iteration"] == 7
    assert_same_end(Experiment().run(resume=tmp_path / "c"), whole)


@pytest.mark.parametrize("plan", [{}, {"eval_every": 7}, {"patience": 5}, {"optimizer": "rmsprop"}])
def test_a_finished_run_that_is_extended_equals_a_longer_one(tmp_path, plan):
    plan = {"schedule": "constant"} | plan
    whole = Experiment(plan=plan | {"iterations": 24}).run()
    Experiment(plan=plan).run(callbacks=[Checkpoint(tmp_path / "c")])
    extended = Experiment(plan=plan | {"iterations": 24}).run(resume=tmp_path / "c")
    assert_same_end(extended, whole)


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path):
    plan = {"learning_rate": 3.0, "schedule": "constant"}
    stopped = Experiment(plan=plan | {"patience": 1}).run(callbacks=[Checkpoint(tmp_path / "c", 2)])
    assert stopped[1].outcome == "stopped early"
    extended = Experiment(plan=plan | {"patience": 4}).run(resume=tmp_path / "c")
    assert extended[1].iterations > stopped[1].iterations
    assert_same_end(extended, Experiment(plan=plan | {"patience": 4}).run())


def test_a_checkpoint_later_than_the_end_is_refused(tmp_path):
    Experiment().run(callbacks=[Checkpoint(tmp_path / "c")])
    with pytest.raises(ValueError, match="has 14 iterations, and the plan asks for 13; wanted as"):
        Experiment(plan={"iterations": 13}).run(resume=tmp_path / "c")


def test_a_finished_run_is_resumed_by_doing_nothing(tmp_path):
    for plan in ({}, {"patience": 1, "learning_rate": 3.0}):
        experiment = Experiment(plan=plan)
        whole = experiment.run(callbacks=[Checkpoint(tmp_path / "c")])
        assert_same_end(experiment.run(resume=tmp_path / "c"), whole)
    assert whole[1].outcome == "stopped early"


def test_the_clock_goes_on(tmp_path):
    _, history = Experiment().run(callbacks=[Checkpoint(tmp_path / "c"), Slow()])
    resumed = Experiment().run(resume=tmp_path / "c")[1]
    assert resumed["elapsed_s"][:-1] == history["elapsed_s"][:-1]
    assert resumed["elapsed_s"][-1] > 0.1
    with pytest.raises(Killed):
        Experiment().run(callbacks=[Slow(), Checkpoint(tmp_path / "d", every=5), KillAfter(7)])
    resumed = Experiment().run(resume=tmp_path / "d")[1]
    assert resumed["elapsed_s"][2] > 0.1 + resumed["elapsed_s"][0]


class Slow(Callback):
    def on_iteration(self, run):
        if run.iteration == 1:
            time.sleep(0.1)


@pytest.mark.parametrize("at", [6, 7])
def test_a_diverged_run_keeps_the_last_good_checkpoint(tmp_path, at):
    """Weights spoiled after iteration `at` are not written, though the loss was fine till then."""
    checkpoint = Checkpoint(tmp_path / "c", every=2)
    with pytest.raises(Diverged):
        Experiment().run(callbacks=[Poison(at), checkpoint])
    state, tensors = read(tmp_path / "c")
    assert state["iteration"] == {6: 4, 7: 6}[at]
    assert all(t.isfinite().all() for name, t in tensors.items() if name != "random")
    assert math.isfinite(state["last"][0])


def test_a_checkpoint_that_does_not_fit_says_why(tmp_path):
    Experiment().run(callbacks=[Checkpoint(tmp_path / "c")])
    for other, message in [
        (Experiment(plan={"learning_rate": 0.1}), r"another plan \(learning_rate: 0.05, not 0.1\)"),
        (Experiment(cell="lstm"), r"has float32\[12, 2\] for 'body.weight_ih_l0'; wanted float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            other.run(resume=tmp_path / "c")


@pytest.mark.parametrize("name", [TENSORS, STATE])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign", "a bit"])
def test_a_damaged_checkpoint_is_refused(tmp_path, name, damage):
    Experiment().run(callbacks=[Checkpoint(tmp_path / "c")])
    file = tmp_path / "c" / name
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "a bit" and name == TENSORS:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        bad = {"empty": b"", "truncated": whole[:-9], "foreign": b"[1]", "a bit": b"{" + whole}
        file.write_bytes(bad[damage])
    with pytest.raises(ValueError, match=str(tmp_path / "c")):
        Experiment().run(resume=tmp_path / "c")


def test_another_format_is_refused(tmp_path):
    Experiment().run(callbacks=[Checkpoint(tmp_path / "c")])
    file = tmp_path / "c" / STATE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2; this version of ostinato reads 1"):
        Experiment().run(resume=tmp_path / "c")


def test_every_is_checked():
    with pytest.raises(ValueError, match="every=0"):
        Checkpoint("c", every=0)


SCRIPT = """
import sys, time
from training_examples import Experiment
from ostinato_learn.training import Callback, Checkpoint, MetricsFile
import torch
torch.set_num_threads(1)
place, resume = sys.argv[1], len(sys.argv) > 2
class Alive(Callback):
    def on_iteration(self, run):
        print(run.iteration, flush=True)
Experiment(plan={"iterations": 400, "eval_every": 50}).run(
    callbacks=[MetricsFile(place + "/metrics.jsonl"), Checkpoint(place + "/c", every=1), Alive()],
    resume=place + "/c" if resume else None,
)
"""


@pytest.mark.slow
@pytest.mark.process
def test_kill_9_at_random_moments(tmp_path):
    """Twice, each moment another; checkpoints are written all the time, so that one is hit."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    for wait in (5, 60):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            for _ in range(wait):
                assert process.stdout.readline()
            time.sleep(int.from_bytes(os.urandom(1), "big") / 256 * 0.02)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        command = [*command[:4], "resume"]
    experiment = Experiment(plan={"iterations": 400, "eval_every": 50})
    resumed = experiment.run(
        callbacks=[MetricsFile(tmp_path / "metrics.jsonl")], resume=tmp_path / "c"
    )
    whole = experiment.run()
    assert_same_end(resumed, whole)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(whole[1].reports)
    for line, report in zip(lines, without_clock(whole[1]), strict=True):
        assert json.loads(line).items() >= report.items()
