"""`cv --jobs` and `tune --jobs`: trainings in several processes of one command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import task_files
from cli_examples import command
from task_files import QUICK, TASKS
from worker_examples import PROCESSES, Pieces, squares

from ostinato_learn.cli.many import backends, workers
from ostinato_learn.jobs.failures import AlreadyReported, BadInput, Failure

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(autouse=True)
def processes_import_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def test_each_piece_comes_back_with_its_result():
    with workers.team(2, 1, "loky") as two:
        found = dict(two.do(squares, (100,), range(7)))
    assert found == {n: n**2 + 100 for n in range(7)}


def test_a_piece_is_taken_when_a_worker_is_free():
    pieces = Pieces(*["waits"] * 5)
    with workers.team(2, 1, "loky") as two:
        for n_found, _ in enumerate(two.do(squares, (0,), pieces), start=1):
            assert pieces.n_taken <= n_found + 1
    assert pieces.n_taken == n_found == 5


@pytest.mark.parametrize(
    "piece, kind, message, code",
    [
        ("bad", Failure, "^a bad piece$", BadInput.exit_code),
        ("bug", AlreadyReported, None, 1),
        ("killed", Failure, "was killed", 1),
    ],
)
def test_what_fails_in_a_worker_fails_here_and_ends_the_others(piece, kind, message, code, capfd):
    found = {}
    with (
        pytest.raises(kind, match=message) as caught,
        workers.team(2, 1, "loky") as two,
    ):
        found.update(two.do(squares, (0,), [PROCESSES[0], "waits"]))
        found.update(two.do(squares, (0,), [piece, "takes long"]))
    assert caught.value.exit_code == code
    assert ("ZeroDivisionError: a bug in a piece" in capfd.readouterr().err) == (piece == "bug")
    assert not any(Path(f"/proc/{pid}").exists() for pid in found.values() if pid is not None)


def test_what_is_logged_in_a_piece_is_logged_here(caplog):
    with workers.team(2, 1, "loky") as two:
        assert dict(two.do(squares, (0,), ["says"])) == {"says": None}
    assert [(r.name, r.getMessage()) for r in caplog.records] == [
        ("ostinato_learn.some", "said in a piece")
    ]


@pytest.mark.parametrize("task", TASKS)
def test_cv_gives_the_bits_of_one_job(ostinato, tmp_path, task):
    arguments = ("cv", *TASKS[task](tmp_path), *QUICK, "--folds", 3, "--json")
    found = [ostinato(*arguments, "--jobs", n) for n in (1, 2)]
    assert [each.code for each in found] == [0, 0], found[1].err
    one, two = ({k: v for k, v in json.loads(f.out).items() if k != "elapsed_s"} for f in found)
    assert one == two
    # The notes once, and each fold and its findings; the order, and how long it takes, may differ.
    lines = [f.err.splitlines() for f in found]
    said = [sorted(line.split(", about")[0] for line in of) for of in lines]
    assert said[0] == said[1]


def test_a_fold_that_fails_is_named(ostinato, tmp_path):
    arguments = ("cv", *task_files.classify(tmp_path), *QUICK, "--folds", 3, "--jobs", 2)
    outcome = ostinato(*arguments, "--optimizer", "sgd", "--learning-rate", 3e38)
    assert outcome.code == 1
    assert "\nostinato: fold " in outcome.err
    assert "of 3: the loss is" in outcome.err and "has diverged" in outcome.err
    assert "Traceback" not in outcome.err


def test_tune_in_three_jobs_is_a_study_that_goes_on_in_one(ostinato, tmp_path):
    pytest.importorskip("optuna")
    study = tmp_path / "study"
    arguments = ("tune", *task_files.classify(tmp_path), "--threads", 1, "--epochs", 3)
    arguments = (*arguments, "--hidden-size", 4, "-o", study, "--json")
    outcome = ostinato(*arguments, "--trials", 5, "--jobs", 3)
    assert outcome.code == 0, outcome.err
    first = json.loads(outcome.out)
    assert first["trials"] == 5
    tried = [json.dumps(row["parameters"], sort_keys=True) for row in first["table"]]
    assert len(set(tried)) == 5  # trials that run side by side do not try the same
    outcome = ostinato(*arguments, "--trials", 6)
    assert outcome.code == 0, outcome.err
    then = json.loads(outcome.out)
    assert then["trials"] == 6
    assert [row for row in then["table"] if row["trial"] < 5] == first["table"]
    # The recipe, which every study tries first, reaches what it does in a study of one job.
    alone = ("tune", *task_files.classify(tmp_path), "--threads", 1, "--epochs", 3)
    outcome = ostinato(*alone, "--hidden-size", 4, "--trials", 1, "--json")
    recipes = (first["recipe"], json.loads(outcome.out)["recipe"])
    assert recipes[0]["validation_loss"] == recipes[1]["validation_loss"]


def of_group(group: int, computed_s: float = 0) -> list[str]:
    """The command lines of the processes of a group that have computed so long and not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group, *numbers = stat.read_text().rpartition(")")[2].split()
            ticks = sum(map(int, numbers[8:10]))  # in the program and in the kernel
            enough = ticks >= computed_s * os.sysconf("SC_CLK_TCK")
            if int(its_group) == group and state != "Z" and enough:
                found.append(stat.with_name("cmdline").read_text())
    return found


def interrupted(number, *arguments) -> subprocess.CompletedProcess:
    """A command whose group gets a signal, as from a terminal, after its first line of results."""
    started = subprocess.Popen(
        command(*arguments), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    err = ""
    for line in started.stderr:
        err += line
        if line.startswith(("trial", "fold")):
            break
    os.killpg(started.pid, number)
    err += started.communicate(timeout=60)[1]
    until = time.monotonic() + 60  # Python's own helper of processes ends after the command
    while living := of_group(started.pid):
        assert time.monotonic() < until, living
        time.sleep(0.05)
    return subprocess.CompletedProcess(arguments, started.returncode, "", err)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_workers_of_tune(ostinato, tmp_path, number, code):
    pytest.importorskip("optuna")
    study = tmp_path / "study"
    arguments = ("tune", *task_files.classify(tmp_path), "--hidden-size", 4, "--jobs", 2)
    arguments = (*arguments, "--epochs", 30, "-o", study)
    ended = interrupted(number, *arguments)
    assert ended.returncode == code
    assert f"in {study}.\nThe same command resumes the study." in ended.stderr
    assert "Traceback" not in ended.stderr
    again = ostinato(*arguments, "--trials", 1)
    assert again.code == 0, again.err


def test_workers_of_a_killed_command_end_in_the_middle_of_a_training(tmp_path):
    arguments = ("cv", *task_files.classify(tmp_path), "--jobs", 2, "--iterations", 10**6)
    started = subprocess.Popen(
        command(*arguments, "--hidden-size", 4, "--threads", 1), start_new_session=True
    )
    until = time.monotonic() + 300
    while len(of_group(started.pid, computed_s=5)) < 2:  # of which imports take half
        assert time.monotonic() < until and started.poll() is None
        time.sleep(0.1)
    started.kill()
    started.wait()
    until = time.monotonic() + 60
    while living := of_group(started.pid):
        assert time.monotonic() < until, living
        time.sleep(0.1)


def test_jobs_that_only_a_mistake_explains_are_refused():
    with pytest.raises(BadInput, match="--jobs is 10,000; wanted at most"):
        backends.threads_of_a_job(10_000, None)
    assert backends.threads_of_a_job(100, None) == 1
    assert backends.threads_of_a_job(100, 3) == 3


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_workers_of_cv(tmp_path, number, code):
    arguments = ("cv", *task_files.classify(tmp_path), "--hidden-size", 4, "--jobs", 2)
    ended = interrupted(number, *arguments, "--epochs", 400, "--folds", 9)
    assert ended.returncode == code
    assert ended.stderr.splitlines()[-1] == "ostinato: interrupted; nothing was written"
    assert "Traceback" not in ended.stderr
