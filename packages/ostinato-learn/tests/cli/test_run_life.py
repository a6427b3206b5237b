"""A run from its beginning, over interruptions and damage, to more iterations than first asked."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from cli_examples import SMALL, assert_same_run, lines, make_file

from ostinato_learn import training
from ostinato_learn.jobs.inputs import partition
from ostinato_learn.jobs.inputs.config import tomllib
from zoo.suites import one_in


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def config_of(run):
    return tomllib.loads((run / "config.toml").read_text("utf-8"))


def stop_at(monkeypatch, iteration, number=signal.SIGINT):
    """A signal comes in this iteration of the next training."""

    def send(self, run):
        if run.iteration == iteration:
            signal.raise_signal(number)

    monkeypatch.setattr(training.Progress, "on_iteration", send)


def saved(path, n=60, features=2, labels=("up", "down")):
    X = np.random.default_rng(1).normal(size=(n, 5, features)).astype(np.float32)
    np.savez(path, X=X, y=np.resize(labels, n))
    return path


# The test part


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"features": 3}, "X has 3 features a step; wanted 2, as in"),
        ({"labels": ("up", "sideways")}, "y has the label 'sideways', which was not trained"),
        (
            {"labels": (0, 1)},
            "y has the label 0, which was not trained; wanted one of 'down', 'up'",
        ),
    ],
)
def test_a_test_part_that_does_not_fit_is_refused_before_the_first_iteration(
    ostinato, data, tmp_path, other, message
):
    test = saved(tmp_path / "test.npz", **other)
    outcome = ostinato("train", data, "--test", test, *SMALL, "-o", tmp_path / "run")
    assert outcome.code == 2
    assert f"{test}: {message}" in outcome.err
    assert "iteration" not in outcome.err
    assert not (tmp_path / "run").exists()


# Resuming what is not there


def test_resume_of_a_wrong_name_is_an_error_that_names_the_right_one(ostinato, data, trained):
    wrong = trained.with_name("rum")
    outcome = ostinato("train", data, *SMALL, "--resume", "--output", wrong)
    assert outcome.code == 2
    assert f"{wrong}: there is no run to resume; did you mean {trained}?" in outcome.err
    assert not wrong.exists()


def test_resume_of_another_name_names_the_newest_runs(ostinato, trained, tmp_path):
    elsewhere = tmp_path / "models" / "first"
    outcome = ostinato("train", "--resume", "--output", elsewhere)
    assert outcome.code == 2
    assert f"the newest near it: {trained}" in outcome.err
    assert not elsewhere.parent.exists()


def test_resume_of_an_empty_directory_says_how_to_begin(ostinato, data, tmp_path):
    (tmp_path / "run").mkdir()
    outcome = ostinato("train", data, *SMALL, "--resume", "--output", tmp_path / "run")
    assert outcome.code == 2
    assert "is empty" in outcome.err and "--overwrite" in outcome.err
    assert not list((tmp_path / "run").iterdir())


# Going on


def test_a_finished_run_that_is_extended_equals_a_longer_one(ostinato, data, trained, tmp_path):
    whole = tmp_path / "whole"
    assert ostinato("train", data, *SMALL, "--iterations", 260, "--output", whole).code == 0
    outcome = ostinato("train", "--resume", "--output", trained, "--iterations", 260)
    assert outcome.code == 0
    assert_same_run(whole, trained)
    assert (trained / "losses.csv").read_bytes() == (whole / "losses.csv").read_bytes()
    assert json.loads((trained / "evaluation.json").read_text())["iterations"] == 260
    assert config_of(trained)["training"] == config_of(whole)["training"]
    again = ostinato("train", "--resume", "--output", trained, "--iterations", 260)
    assert "is finished" in again.out


def test_a_run_by_iterations_is_extended_in_epochs(ostinato, trained):
    outcome = ostinato("train", "--resume", "--output", trained, "--epochs", 35)
    assert outcome.code == 0
    assert lines(trained / "metrics.jsonl")[-1]["iteration"] == 210  # of 48 examples, in eights
    assert config_of(trained)["training"]["epochs"] == 35
    assert "iterations" not in config_of(trained)["training"]


def test_less_than_was_made_is_refused_and_the_run_stays(ostinato, trained):
    before = contents(trained)
    outcome = ostinato("train", "--resume", "--output", trained, "--iterations", 150)
    assert outcome.code == 2
    assert "has 200 iterations, and the plan asks for 150" in outcome.err
    assert contents(trained) == before


@pytest.mark.slow
def test_an_extension_that_is_interrupted_goes_on(ostinato, data, trained, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert ostinato("train", data, *SMALL, "--iterations", 260, "--output", whole).code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 230)
        outcome = ostinato("train", "--resume", "--output", trained, "--iterations", 260)
    assert outcome.code == 130
    assert not (trained / "evaluation.json").exists()  # it does not look finished
    assert ostinato("train", "--resume", "--output", trained).code == 0
    assert_same_run(whole, trained)


def test_flags_that_change_no_bit_are_taken_when_resumed(ostinato, data, tmp_path, monkeypatch):
    flags, run = (data, *SMALL, "--iterations", 20), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 13)
        assert ostinato("train", *flags, "--output", run).code == 130
    resume = ("train", "--resume", "--output", run)
    assert ostinato(*resume, "--checkpoint-every", 3, "--eval-every", 4).code == 0
    assert config_of(run)["run"]["checkpoint_every"] == 3
    assert [r["iteration"] for r in lines(run / "metrics.jsonl")][-2:] == [16, 20]
    outcome = ostinato(*resume, "--learning-rate", 0.5)
    assert outcome.code == 2
    assert "training.learning_rate is now 0.5" in outcome.err
    assert "training.iterations" in outcome.err  # what may change


def test_a_run_that_stopped_early_needs_more_patience(ostinato, data, tmp_path):
    run = tmp_path / "run"
    flags = (
        "--validation-fraction",
        0.25,
        "--eval-every",
        2,
        "--learning-rate",
        30,
        "--patience",
        1,
    )
    assert ostinato("train", data, *SMALL, *flags, "--iterations", 40, "-o", run).code == 0
    first = json.loads((run / "evaluation.json").read_text())
    assert first["outcome"] == "stopped early"
    resume = ("train", "--resume", "--output", run)
    outcome = ostinato(*resume, "--iterations", 60)
    assert outcome.code == 2
    assert "stopped early" in outcome.err and "--patience none" in outcome.err
    assert ostinato(*resume, "--eval-every", 1).code == 2  # it would choose other weights
    assert ostinato(*resume, "--patience", "none").code == 0
    assert json.loads((run / "evaluation.json").read_text())["iterations"] == 40


# Damage


@pytest.mark.parametrize("damage", one_in(3, ["", "{", "[]", "{}", '{"test": 3}', "\xff"]))
def test_a_damaged_evaluation_is_written_again(ostinato, trained, damage):
    whole = json.loads((trained / "evaluation.json").read_text())
    (trained / "evaluation.json").write_text(damage, "latin-1")
    outcome = ostinato("train", "--resume", "--output", trained)
    assert outcome.code == 0
    again = json.loads((trained / "evaluation.json").read_text())
    assert again["test"] == whole["test"]


def test_a_damaged_environment_is_named(ostinato, trained):
    (trained / "evaluation.json").unlink()
    (trained / "environment.json").write_text("{")
    outcome = ostinato("train", "--resume", "--output", trained)
    assert outcome.code == 2
    assert "environment.json is damaged" in outcome.err
    assert "Traceback" not in outcome.err


# Other weights to begin with


def test_a_run_begins_with_the_weights_and_the_network_of_another(ostinato, data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    network = ("--cell", "gru", "--hidden-size", 5, "--threads", 1)
    assert ostinato("train", data, *network, "--iterations", 60, "-o", first).code == 0
    for origin in (first, first / "model"):
        outcome = ostinato(
            "train",
            data,
            "--from",
            origin,
            "--iterations",
            1,
            "--learning-rate",
            1e-30,
            "--threads",
            1,
            "-o",
            second,
            "--overwrite",
        )
        assert outcome.code == 0, outcome.err
        weights = [(run / "model" / "model.safetensors").read_bytes() for run in (first, second)]
        assert weights[0] == weights[1]
        assert config_of(second)["model"] == config_of(first)["model"]
        assert config_of(second)["run"]["from"] == str(origin)


@pytest.mark.parametrize(
    ("flags", "other", "message"),
    [
        (("--cell", "lstm"), {}, "model.cell is lstm, but the weights from"),
        (("--hidden-size", 9), {}, "model.hidden_size is 9, but the weights from"),
        ((), {"features": 3}, "2 features a step, and the data have 3"),
        (
            (),
            {"labels": ("up", "down", "left")},
            "other.npz: y has the label 'left', which was not trained; wanted one of 'down', 'up'",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(ostinato, trained, tmp_path, flags, other, message):
    file = saved(tmp_path / "other.npz", **other)
    outcome = ostinato("train", file, "--from", trained, *flags, "-o", tmp_path / "new")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "new").exists()


def test_a_run_with_other_weights_is_resumed_without_them(
    ostinato, data, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    flags = (data, "--from", trained.name, "--iterations", 20, "--threads", 1, "--batch-size", 8)
    assert ostinato("train", *flags, "-o", "whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 13)
        assert ostinato("train", *flags, "-o", "broken").code == 130
    assert ostinato("train", *flags, "--resume", "-o", "broken", "--iterations", 15).code == 0
    trained.rename(tmp_path / "elsewhere")
    assert ostinato("train", "--resume", "-o", "broken", "--iterations", 20).code == 0
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_dropout_may_change_with_other_weights(ostinato, data, trained):
    outcome = ostinato("train", data, "--from", trained, "--dropout", 0.5, "--print-config")
    shown = tomllib.loads(outcome.out)["model"]
    assert (shown["dropout"], shown["hidden_size"]) == (0.5, 4)


def test_weights_from_nowhere_are_named(ostinato, data, tmp_path):
    outcome = ostinato("train", data, "--from", tmp_path / "gone")
    assert outcome.code == 2
    assert "gone: no such run or model" in outcome.err


# SIGTERM


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_ends_with_143_and_a_checkpoint(ostinato, data, tmp_path, monkeypatch):
    flags, whole, run = (data, *SMALL, "--iterations", 20), tmp_path / "whole", tmp_path / "run"
    assert ostinato("train", *flags, "--output", whole).code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 13, signal.SIGTERM)
        outcome = ostinato("train", *flags, "--output", run)
    assert outcome.code == 143
    assert "a checkpoint of iteration 13 is kept" in outcome.err
    assert f"ostinato train --resume --output {run}" in outcome.err
    assert ostinato("train", "--resume", "--output", run).code == 0
    assert_same_run(whole, run)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_while_data_are_read_leaves_nothing(ostinato, data, tmp_path, monkeypatch):
    monkeypatch.setattr(partition, "load", lambda *_: signal.raise_signal(signal.SIGTERM))
    outcome = ostinato("train", data, *SMALL, "--output", tmp_path / "run")
    assert outcome.code == 143
    assert outcome.err == "ended by SIGTERM\n"
    assert list(tmp_path.iterdir()) == [data]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# The defaults of a user's own file


def resolved(ostinato, *arguments):
    outcome = ostinato("train", *arguments, "--print-config")
    assert outcome.code == 0, outcome.err
    return tomllib.loads(outcome.out)


@pytest.mark.parametrize(("n", "batch_size"), [(20, 8), (140, 8), (700, 64), (5000, 128)])
def test_a_file_is_read_thirty_times_with_a_report_about_once_an_epoch(
    ostinato, tmp_path, n, batch_size
):
    shown = resolved(ostinato, saved(tmp_path / "d.npz", n))["training"]
    assert (shown["epochs"], shown["batch_size"]) == (30, batch_size)
    assert "iterations" not in shown and "patience" not in shown
    epoch = 0.8 * n / batch_size
    assert 20 <= 30 * epoch / shown["eval_every"] <= 60


def test_a_large_file_is_no_more_than_the_notebook_s_iterations(ostinato, tmp_path):
    shown = resolved(ostinato, saved(tmp_path / "d.npz", 30_000, features=1))
    assert (shown["training"]["iterations"], shown["training"]["eval_every"]) == (5000, 188)
    assert shown["run"]["checkpoint_every"] == 188


def test_patience_comes_with_validation(ostinato, data):
    assert resolved(ostinato, data, "--validation-fraction", 0.2)["training"]["patience"] == 5
    given = ("--validation-fraction", 0.2, "--epochs", 9)
    assert "patience" not in resolved(ostinato, data, *given)["training"]


def test_a_given_value_is_kept(ostinato, data):
    shown = resolved(ostinato, data, "--iterations", 5000, "--batch-size", 48)["training"]
    assert (shown["iterations"], shown["batch_size"], shown["eval_every"]) == (5000, 48, 50)
    assert resolved(ostinato, data, "--eval-every", 7)["training"]["eval_every"] == 7


def test_mnist_keeps_the_notebook_s(ostinato):
    shown = resolved(ostinato, "mnist")
    assert (shown["training"]["iterations"], shown["training"]["batch_size"]) == (5000, 128)
    assert (shown["training"]["eval_every"], shown["run"]["checkpoint_every"]) == (1000, 1000)


def test_a_printed_configuration_makes_the_same_run(ostinato, data, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(ostinato("train", data, "--print-config").out)
    assert ostinato("train", "--config", file, "--print-config").out == file.read_text()


def test_the_tests_know_a_run_that_differs(ostinato, data, trained, tmp_path):
    """`assert_same_run` can fail."""
    other = make_file(tmp_path / "other.npz", n=30)
    assert ostinato("train", other, *SMALL, "--iterations", 200, "-o", tmp_path / "o").code == 0
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "o", trained)
