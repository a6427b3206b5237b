"""ostinato tune."""

from __future__ import annotations

import csv
import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import task_files
from cli_examples import command, lines
from task_files import TASKS

pytest.importorskip("optuna")

from ostinato_learn.cli.many import trials, workers
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import config as configuration
from zoo.suites import one_in

SHORT = ("--threads", 1, "--epochs", 3, "--hidden-size", 4)


def rows(study):
    with (study / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def tried(study):
    """What the finished trials tried and reached, in the order of their numbers."""
    found = sorted(rows(study), key=lambda row: int(row["trial"]))
    return [{name: value for name, value in row.items() if name != "trial"} for row in found]


def loaded(study):
    import optuna
    from optuna.storages import journal

    log = str(study / "journal.log")
    backend = journal.JournalFileBackend(log, journal.JournalFileOpenLock(log))
    return optuna.load_study(study_name="tune", storage=journal.JournalStorage(backend))


@pytest.mark.parametrize("task", one_in(4, TASKS))
def test_the_best_configuration_trains_to_the_loss_of_its_trial(ostinato, tmp_path, task):
    study, run = tmp_path / "study", tmp_path / "run"
    length = ("--iterations", 20, "--eval-every", 4, "--batch-size", 8, "--hidden-size", 4)
    arguments = (*TASKS[task](tmp_path), *length, "--threads", 1)
    outcome = ostinato("tune", *arguments, "--trials", 3, "-o", study, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    best = min(
        (row for row in result["table"] if row["validation_loss"] is not None),
        key=lambda row: row["validation_loss"],
    )
    assert result["best"] == best
    assert result["trials"] == 3
    assert result["config"] == str(study / "best.toml")
    trained = ostinato("train", "--config", study / "best.toml", "-o", run)
    assert trained.code == 0, trained.err
    losses = [report["validation_loss"] for report in lines(run / "metrics.jsonl")]
    assert min(losses) == best["draws_validation_loss"][0]
    assert len(best["draws_validation_loss"]) == (1 if task in ("forecast", "language") else 5)
    assert best["validation_loss"] == pytest.approx(np.mean(best["draws_validation_loss"]))
    settings = configuration.resolve(configuration.read_file(run / "config.toml"))
    for key, value in best["parameters"].items():
        assert settings.get(key) == value


def test_draws_of_the_validation_part_share_nothing_with_what_is_learnt(tmp_path):
    from ostinato_learn.jobs import registry

    file, *_ = task_files.classify(tmp_path)
    given = {
        "data.source": str(file),
        "task.classify": "kind",
        "data.id": "id",
        "data.time": "t",
        "data.features": "a,b",
        "data.group": "person",
        "training.validation_fraction": 0.3,
    }
    job = registry.read(configuration.resolve(given), given)
    draws = [job, *(job.redrawn(draw) for draw in (1, 2, 3))]
    for each in draws:
        train, validation = each.parts.train, each.parts.validation
        assert not set(train.groups) & set(validation.groups)
        assert sorted([*train.ids, *validation.ids]) == sorted(job.parts.learnable.ids)
        assert each.parts.test is job.parts.test
        assert not set(each.parts.test.groups) & set(job.parts.learnable.groups)
    assert len({tuple(each.parts.validation.ids) for each in draws}) > 1


def test_the_first_trial_is_the_recipe_and_what_is_given_is_not_searched(ostinato, tmp_path):
    study = tmp_path / "study"
    arguments = task_files.classify(tmp_path)
    flags = (*SHORT, "--cell", "lstm", "--dropout", 0.2)
    result = json.loads(
        ostinato("tune", *arguments, *flags, "--trials", 4, "-o", study, "--json").out
    )
    shown = ostinato("train", *arguments, *flags, "--validation-fraction", 0.2, "--print-config")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(shown.out)
    settings = configuration.resolve(configuration.read_file(recipe))
    first = {key: settings.get(key) for key in result["recipe"]["parameters"]}
    assert result["recipe"]["trial"] == 0
    assert result["recipe"]["parameters"] == first
    for row in result["table"]:
        searched = set(row["parameters"]) - set(trials.COUNTED)
        assert searched == {
            "training.learning_rate",
            "training.batch_size",
            "training.weight_decay",
            "model.layers",
            "model.bidirectional",
            "model.readout",
        }
    rates = {row["parameters"]["training.learning_rate"] for row in result["table"]}
    assert len(rates) == 4
    assert json.loads((study / "study.json").read_text())["sampler"]["seed"] == 0


@pytest.mark.slow
def test_an_interrupted_study_ends_like_one_that_was_not(ostinato, tmp_path, monkeypatch):
    from ostinato_learn.training import loop

    arguments = ("tune", *task_files.classify(tmp_path), *SHORT, "--trials", 6)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert ostinato(*arguments, "-o", whole).code == 0

    measure, made = loop._measure, []

    def press(*given):
        made.append(0)
        if len(made) in (3, 160):
            raise KeyboardInterrupt
        return measure(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_measure", press)
        outcome = ostinato(*arguments, "-o", broken)
        assert outcome.code == 130
        assert f"interrupted; 0 finished trials in {broken}." in outcome.err
        outcome = ostinato(*arguments, "-o", broken)
    assert outcome.code == 130
    assert f"in {broken}" in outcome.err
    assert "The same command resumes the study." in outcome.err
    assert 0 < len(tried(broken)) < 6
    assert ostinato(*arguments, "-o", broken).code == 0
    assert tried(broken) == tried(whole)
    outcome = ostinato(*arguments, "-o", broken)  # nothing is left to do
    assert outcome.code == 0
    assert "validation loss" not in outcome.err
    assert tried(broken) == tried(whole)


def test_a_study_survives_what_a_kill_leaves(ostinato, tmp_path):
    arguments = ("tune", *task_files.tag(tmp_path), *SHORT)
    study = tmp_path / "study"
    assert ostinato(*arguments, "--trials", 1, "-o", study).code == 0
    with (study / "journal.log").open("ab") as log:
        log.write(b'{"op_code": 4, "worker')
    (study / "journal.log.lock").touch()
    began = time.monotonic()
    outcome = ostinato(*arguments, "--trials", 2, "-o", study)
    assert outcome.code == 0, outcome.err
    assert time.monotonic() - began < 30  # after which Optuna takes a lock over
    assert len(rows(study)) == 2


@pytest.mark.process
@pytest.mark.slow
def test_a_killed_process_loses_no_finished_trial(ostinato, tmp_path):
    arguments = ("tune", *task_files.tag(tmp_path), *SHORT, "-o", tmp_path / "study", "--trials")
    killed = subprocess.Popen(command(*arguments, 10_000), stderr=subprocess.PIPE, text=True)
    for line in killed.stderr:
        if line.startswith("trial 2"):
            break
    killed.kill()
    killed.communicate()
    before = tried(tmp_path / "study")
    assert len(before) >= 3
    assert ostinato(*arguments, len(before) + 2).code == 0
    assert tried(tmp_path / "study")[: len(before)] == before
    assert len(tried(tmp_path / "study")) == len(before) + 2


def test_a_trial_is_pruned_by_the_median_of_others(ostinato, tmp_path):
    study = tmp_path / "study"
    outcome = ostinato(
        "tune", *task_files.classify(tmp_path), *SHORT, "--epochs", 2, "--trials", 10, "-o", study
    )
    assert outcome.code == 0
    kept = loaded(study).trials
    pruned = [trial for trial in kept if trial.state.name == "PRUNED"]
    assert pruned
    assert f"10 trials, {len(pruned)} of them pruned" in outcome.out
    for trial in pruned:
        step = trial.last_step
        assert trials.STEPS // 4 <= step < trials.STEPS
        complete = [t for t in kept[: trial.number] if t.state.name == "COMPLETE"]
        others = [t.intermediate_values[step] for t in complete if step in t.intermediate_values]
        assert len(complete) >= 4
        assert min(trial.intermediate_values.values()) > np.median(others)


@pytest.mark.slow
def test_the_time_limit_is_kept_within_a_trial(ostinato, tmp_path):
    study = tmp_path / "study"
    arguments = task_files.tag(tmp_path)
    began = time.monotonic()
    outcome = ostinato(
        "tune",
        *arguments,
        "--threads",
        1,
        "--hidden-size",
        4,
        "--iterations",
        10**6,
        "--minutes",
        0.01,
        "-o",
        study,
    )
    assert time.monotonic() - began < 60  # all iterations take many minutes
    assert outcome.code == 1
    assert "no trial was finished in 0.01 minutes" in outcome.err
    assert not (study / "best.toml").exists()


def test_the_time_of_a_trial_is_counted_from_when_it_was_dealt(ostinato, tmp_path, monkeypatch):
    """As on a cluster: the trial waits for room, and its worker reads the data."""

    def late(prepare, arguments, pieces):
        for piece in pieces:
            time.sleep(1)
            yield prepare(*arguments)(piece)

    monkeypatch.setattr(workers, "alone", late)
    quick = (*task_files.tag(tmp_path), "--hidden-size", 4, "--iterations", 2)
    outcome = ostinato("tune", *quick, "--minutes", 0.01)
    assert "trial 0: the time is up" in outcome.err
    assert "no trial was finished in 0.01 minutes" in outcome.err


def test_workers_share_a_study_and_trials_that_run_together_differ(tmp_path):
    base = configuration.Config().updated({"data.source": "vowels"})
    axes = tuple(axis for axis in trials.SPACE if axis.key == "training.learning_rate")

    def opened(name):
        given = {axis.key: None for axis in trials.SPACE if axis not in axes}
        return trials.opened(tmp_path / name, base, given, {}, 0, (), True)

    with opened("two") as study:
        other = pickle.loads(pickle.dumps(study))  # what a worker gets
        trial, recipe = study.ask()
        assert study.tell(trial, trials.Outcome(reports=({"validation_loss": 1.0},)))
        (a, of_a), (b, of_b) = other.ask(), study.ask()
        assert {trial.number, a.number, b.number} == {0, 1, 2}
        assert len({each["training.learning_rate"] for each in (recipe, of_a, of_b)}) == 3
        other.tell(b, trials.Outcome("pruned", pruned=True))
        assert [t.number for t in study.finished()] == [0, 2]
    with opened("none") as study:
        study.journal.unlink()
        with pytest.raises(BadInput, match="--output that all machines share"):
            study.check_seen()


def test_the_test_part_is_not_looked_at(ostinato, tmp_path, monkeypatch):
    from ostinato_learn.jobs.classify import ClassifyJob

    monkeypatch.setattr(ClassifyJob, "evaluate", lambda *_: 1 / 0)
    outcome = ostinato("tune", *task_files.classify(tmp_path), *SHORT, "--trials", 1)
    assert outcome.code == 0
    assert "Nothing was written" in outcome.out
    assert "[training]" in outcome.out


def test_a_trial_that_diverges_does_not_end_the_study(ostinato, tmp_path, monkeypatch):
    from ostinato_learn import training
    from ostinato_learn.training import loop

    measure = loop._measure

    def diverge(run, loss):
        if run.plan.learning_rate != 4e-3:
            raise training.Diverged("the loss", float("nan"), run.iteration)
        return measure(run, loss)

    monkeypatch.setattr(loop, "_measure", diverge)
    study = tmp_path / "study"
    outcome = ostinato("tune", *task_files.classify(tmp_path), *SHORT, "--trials", 3, "-o", study)
    assert outcome.code == 0, outcome.err
    again = ostinato("tune", "--config", study / "best.toml", "-o", tmp_path / "again")
    assert again.code == 2
    assert "nothing is left to search" in again.err
    assert not (tmp_path / "again").exists()
    assert [row["state"] for row in rows(study)] == ["complete", "pruned", "pruned"]
    assert outcome.err.count("diverged at iteration 0") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--minutes", 0), "--minutes is 0; wanted a number above 0"),
        (("--trials", 0), "--trials"),
        (("--validation-fraction", 0), "wanted a part to choose by"),
        (("--from", "run"), "--from"),
        (("--momentum", 0.5, "--trials", 1), "momentum=0.5"),  # found when the training begins
        (("--hidden-size", "x"), "--hidden-size is 'x'"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(ostinato, tmp_path, arguments, message):
    given = task_files.classify(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = ostinato("tune", *given, "--threads", 1, *arguments, "-o", tmp_path / "study")
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert sorted(tmp_path.iterdir()) == before


def test_another_study_is_left_alone(ostinato, tmp_path):
    file, *flags = task_files.classify(tmp_path)
    study = tmp_path / "study"
    begin = ("tune", file, *flags, *SHORT, "--trials", 1, "-o")
    assert ostinato(*begin, study).code == 0
    content = {p: p.read_bytes() for p in study.iterdir()}

    other = ostinato("tune", file, *flags, *SHORT, "--epochs", 4, "--trials", 1, "-o", study)
    assert other.code == 2
    assert "--epochs is now 4.0, but the study in" in other.err
    file.write_text(file.read_text().replace("s39,", "t39,"))
    assert "began with" in ostinato(*begin, study).err
    assert {p: p.read_bytes() for p in study.iterdir()} == content

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    assert "is not a study" in ostinato(*begin, tmp_path / "notes").err
    assert "is a file" in ostinato(*begin, file).err
    (study / "study.json").write_text("{")
    assert "study.json is damaged" in ostinato(*begin, study).err


def test_two_processes_do_not_work_on_one_study(ostinato, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    arguments = ("tune", *task_files.tag(tmp_path), *SHORT, "--trials", 1, "-o", tmp_path / "study")
    assert ostinato(*arguments).code == 0
    with (tmp_path / "study" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = ostinato(*arguments)
    assert outcome.code == 2
    assert "another process works on the study" in outcome.err


def test_without_optuna_the_extra_is_named(ostinato, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = ostinato("tune", *task_files.tag(tmp_path), "-o", tmp_path / "study")
    assert outcome.code == 2
    assert "pip install 'ostinato-learn[tune]'" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "study").exists()


def test_smaller_batches_report_at_the_same_shares_of_the_schedule():
    base = configuration.Config().updated(
        {"training.epochs": 10.0, "training.batch_size": 32, "training.eval_every": 20}
    )
    study = trials.Study(None, base, (), frozenset(), 0, None, True)
    assert study._scaled({"training.batch_size": 16}) == {
        "training.eval_every": 40,
        "training.warmup": 0,
    }
    assert study._scaled({"training.batch_size": 32}) == {}
    decided = trials.Study(None, base, (), frozenset({"training.eval_every"}), 0, None, True)
    assert decided._scaled({"training.batch_size": 16}) == {"training.warmup": 0}
