"""`cv --ray` and `tune --ray`: the pieces are trials of Ray Tune."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import task_files
from cli_examples import command, process
from task_files import QUICK, TASKS
from worker_examples import PROCESSES, Dealt, squares

from ostinato_learn.cli import many
from ostinato_learn.cli.many import on_ray, ray_cluster, workers
from ostinato_learn.interrupt import Terminated
from ostinato_learn.jobs.failures import AlreadyReported, BadInput, Failure

needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
TRIAL = "ray::ImplicitFunc"  # begins the titles of processes that train
on_a_cluster = [needs_ray, pytest.mark.process, pytest.mark.slow]


def cluster(method):
    """Marks of a test that starts processes of Ray."""
    for mark in on_a_cluster:
        method = mark(method)
    return method


@pytest.fixture(scope="module")
def team():
    """Two workers of a cluster that this process has started, and their processes import tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.delenv("RAY_ADDRESS", raising=False)
        with many.team(2, 1, ray=True) as found:
            yield found


@pytest.fixture
def joining(team) -> dict[str, str]:
    """The environment of a command that joins the cluster of `team`."""
    import ray

    address = ray.get_runtime_context().gcs_address
    return {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_TOKEN": ray_cluster._TOKEN}


@pytest.fixture
def temporary():
    """A temporary folder whose path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        assert len(folder) <= ray_cluster.LONGEST_FOLDER
        yield Path(folder)


@cluster
def test_each_piece_comes_back_with_its_result_and_nothing_is_written(team, tmp_path, monkeypatch):
    class Watched(Dealt):
        def tell(self, piece, result):
            super().tell(piece, result)
            written.extend(tmp_path.iterdir())

    written = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dealer = Watched(*range(7), "ends", "goes on", *PROCESSES)
    team.do_all(squares, (100,), dealer)
    assert written == []
    assert len({dealer.results.pop(piece) for piece in PROCESSES}) <= 2
    squared = {n: n**2 + 100 for n in range(7)}
    assert dealer.results == squared | {"ends": 101, "goes on": "went on"}
    assert max(dealer.out) <= 2 and min(dealer.out) >= 1


@cluster
@pytest.mark.parametrize(
    "piece, kind, message, code",
    [
        ("bad", Failure, "^a bad piece$", BadInput.exit_code),
        ("bug", AlreadyReported, None, 1),
        ("killed", Failure, "was killed", 1),
    ],
)
def test_what_fails_in_a_worker_fails_here(
    team, piece, kind, message, code, capfd, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)  # what a user sees on stderr
    dealer = Dealt(PROCESSES[0], piece)
    with pytest.raises(kind, match=message) as caught:
        replace(team, n=1).do_all(squares, (0,), dealer)
    assert caught.value.exit_code == code
    err = capfd.readouterr().err + caplog.text
    assert ("ZeroDivisionError: a bug in a piece" in err) == (piece == "bug")
    assert err.count("Traceback") == (piece == "bug")  # the worker's, and none of Ray's
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in dealer.results.values()):
        assert time.monotonic() < until
        time.sleep(0.05)


@needs_ray
@pytest.mark.parametrize("begins", [True, False])
def test_a_worker_that_ray_ends_because_memory_is_full_is_lost(monkeypatch, begins):
    """Ray's memory monitor leaves no RayActorError, but one that its manager of actors wraps."""
    import ray
    from ray import tune
    from ray.air.execution._internal import RayActorManager
    from ray.air.execution._internal.tracked_actor import TrackedActor
    from ray.air.execution._internal.tracked_actor_task import TrackedActorTask

    error = ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory")

    class Tuner:
        def __init__(self, *arguments, **settings):
            pass

        def fit(self):
            if begins:
                raise error
            actor = TrackedActor("0")
            RayActorManager(None)._actor_task_failed(TrackedActorTask(actor), error)

    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(tune, "Tuner", Tuner)
    with pytest.raises(workers.Lost, match="if the memory is full, take fewer --jobs"):
        on_ray.Trials(1, 1).do_all(squares, (0,), Dealt(0))


@needs_ray
def test_the_end_of_a_call_of_ray_by_sigterm_is_one_of_the_command(monkeypatch):
    """Ray raises SystemExit where a signal breaks off a call in its own code."""
    import ray
    from ray import tune

    class Tuner:
        def __init__(self, *arguments, **settings):
            pass

        def fit(self):
            raise SystemExit(1)

    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(tune, "Tuner", Tuner)
    with pytest.raises(Terminated):
        on_ray.Trials(1, 1).do_all(squares, (0,), Dealt(0))


@cluster
def test_what_a_worker_cannot_import_is_named(team, monkeypatch):
    monkeypatch.setattr(squares, "__module__", "not_there")
    monkeypatch.setitem(sys.modules, "not_there", sys.modules["worker_examples"])
    with pytest.raises(Failure, match=r"cannot begin: .*'not_there'; wanted the same packages"):
        team.do_all(squares, (0,), Dealt(0))


@cluster
@pytest.mark.parametrize("task", ["classify", "language"])
def test_cv_gives_the_bits_of_one_job(ostinato, team, joining, tmp_path, monkeypatch, task):
    arguments = ("cv", *TASKS[task](tmp_path), *QUICK, "--folds", 3, "--json")
    one = ostinato(*arguments)
    assert one.code == 0, one.err
    if task == "classify":
        joined = process(*arguments, "--jobs", 2, "--ray", env=joining)
        assert joined.returncode == 0, joined.stderr
        assert f"--jobs 2 of 1 threads on Ray at {joining['RAY_ADDRESS']}" in joined.stderr
        two = joined.stdout
    else:  # within this process, which has joined the cluster
        monkeypatch.setattr(on_ray, "team", lambda n, threads: contextlib.nullcontext(team))
        two = ostinato(*arguments, "--jobs", 2, "--ray").out
    results = [json.loads(out) for out in (one.out, two)]
    assert [each.pop("elapsed_s") > 0 for each in results] == [True, True]
    assert results[0] == results[1]


@cluster
def test_more_jobs_than_a_cluster_holds_are_refused(joining, tmp_path):
    arguments = ("cv", *task_files.classify(tmp_path), "--ray", "--folds", 3)
    outcome = process(*arguments, "--jobs", 3, env=joining)
    assert outcome.returncode == 2
    assert "--jobs is 3, but the Ray cluster" in outcome.stderr
    assert "machines have 2 CPUs, has room for 2 of 1 threads" in outcome.stderr
    least = r"has room for 1 of 2 threads; wanted fewer --jobs or --threads$"
    with pytest.raises(BadInput, match=least):
        ray_cluster._room(2, 2, joining["RAY_ADDRESS"])


@cluster
def test_trials_of_a_cluster_that_begins_and_ends_with_the_command(
    ostinato, tmp_path, temporary, monkeypatch
):
    """One job of Ray tries what one process does; nothing is written but the study."""
    pytest.importorskip("optuna")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    file, *flags = task_files.classify(tmp_path)
    arguments = ("tune", file.name, *flags, "--threads", 1, "--epochs", 2)
    arguments = (*arguments, "--hidden-size", 4, "--trials", 7, "--json", "-o")
    before = set(Path("/tmp").iterdir())
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
    surroundings |= {"HOME": str(home), "TMPDIR": str(temporary)}
    study = tmp_path / "study"
    outcome = process(*arguments, study, "--ray", env=surroundings)
    assert outcome.returncode == 0, outcome.stderr
    alone = ostinato(*arguments, tmp_path / "alone")
    assert _tried(json.loads(outcome.stdout)) == _tried(json.loads(alone.out))
    assert json.loads(outcome.stdout)["pruned"] >= 2
    assert _said(outcome.stderr) == _said(alone.err)
    again = ostinato(*arguments, study)  # nothing is left to do, with Ray or without
    assert json.loads(again.out) == json.loads(outcome.stdout)
    assert list(home.iterdir()) == []
    assert not [each for each in temporary.iterdir() if each.name.startswith("ray")]
    assert not [each for each in set(Path("/tmp").iterdir()) - before if each.name == "ray"]


def _tried(result: dict) -> list:
    """The trials of a study without the time that they took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result["table"]]


def _said(err: str) -> list[str]:
    """The lines on stderr without the time that trials took."""
    return [re.sub(r", [0-9.]+ s$", "", line) for line in err.splitlines()]


def below(ancestor: int) -> dict[int, str]:
    """The processes that began below another one, and their titles."""
    parents, titles = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(file.parent.name)] = int(parent)
                titles[int(file.parent.name)] = file.with_name("cmdline").read_text()
    found, wave = {}, {ancestor}
    while wave := {pid for pid, parent in parents.items() if parent in wave}:
        found |= {pid: titles[pid] for pid in wave}
    return found


def training(n: int) -> dict[int, str]:
    """The processes of n trials below this one, waited for: one begins when another has ended."""
    until = time.monotonic() + 60
    while len(found := {p: t for p, t in below(os.getpid()).items() if TRIAL in t}) != n:
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return found


def after_a_trial(
    arguments, n_jobs: int, temporary: Path, surroundings, act
) -> subprocess.CompletedProcess:
    """A command with jobs on Ray, and what is done to it after its first trial.

    Args:
        temporary: for what is written beside the study.
        surroundings: the environment, which has the address of a cluster or none.
        act: called with the process of the command, and those that train.
    """
    started = subprocess.Popen(
        command(*arguments, "--jobs", n_jobs, "--ray"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**surroundings, "TMPDIR": str(temporary)},
    )
    try:
        err = ""
        for line in started.stderr:
            err += line
            if line.startswith("trial"):
                break
        if "RAY_ADDRESS" not in surroundings:
            assert list(temporary.glob("ray*"))  # of the cluster that the command has started
        trials = training(n_jobs)
        began = trials | below(started.pid)
        act(started, list(trials))
        out, more = started.communicate(timeout=60)
    finally:
        started.kill()
    until = time.monotonic() + 120  # on a busy machine they end late
    # After kill -9 the agents of Ray look for its other processes for a minute.
    began = [pid for pid, title in began.items() if "Agent" not in title]
    while living := [pid for pid in began if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, living
        time.sleep(0.1)
    return subprocess.CompletedProcess(arguments, started.returncode, out, err + more)


@pytest.fixture
def tuning(tmp_path) -> tuple[object, ...]:
    """A command that tunes until it is ended."""
    pytest.importorskip("optuna")
    arguments = ("tune", *task_files.classify(tmp_path), "--hidden-size", 4, "--epochs", 30)
    return (*arguments, "--json", "-o", tmp_path / "study")


@cluster
@pytest.mark.parametrize(
    "number, code, n_jobs, own",
    [(signal.SIGINT, 130, 1, True), (signal.SIGTERM, 143, 2, False), (signal.SIGKILL, -9, 1, True)],
)
def test_a_signal_ends_all_and_the_study_goes_on(
    ostinato, tuning, temporary, joining, number, code, n_jobs, own
):
    """The trials on a cluster that goes on, or all of one that the command has started."""

    def act(started, trials):
        if number == signal.SIGINT:
            os.killpg(started.pid, number)  # as a terminal does
        else:
            started.send_signal(number)

    alone = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
    ended = after_a_trial(tuning, n_jobs, temporary, alone if own else joining, act)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    if number != signal.SIGKILL:
        assert f"in {tuning[-1]}.\nThe same command resumes the study." in ended.stderr
        assert not list(temporary.glob("ray*"))
    again = ostinato(*tuning, "--trials", 1)
    assert again.code == 0, again.err


@cluster
def test_a_killed_worker_is_reported_and_the_study_goes_on(
    ostinato, tuning, temporary, joining
):
    ended = after_a_trial(
        tuning, 2, temporary, joining, lambda started, trials: os.kill(trials[0], signal.SIGKILL)
    )
    assert ended.returncode == 1
    assert "ostinato: a process of --jobs was killed" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""  # where Ray itself tells of it
    assert not list(temporary.glob("ray*"))
    again = ostinato(*tuning, "--trials", 1)
    assert again.code == 0, again.err


@cluster
def test_an_address_without_a_meaning_is_named(tmp_path):
    surroundings = {**os.environ, "RAY_ADDRESS": "nonsense", "RAY_TMPDIR": str(tmp_path)}
    arguments = ("cv", *task_files.classify(tmp_path), "--jobs", 2, "--ray")
    outcome = process(*arguments, env=surroundings)
    assert outcome.returncode == 2
    assert "the Ray cluster at RAY_ADDRESS=nonsense cannot be joined: " in outcome.stderr
    assert "Traceback" not in outcome.stderr


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:99999", "listened", "ray://127.0.0.1:10001"])
def test_a_cluster_that_is_not_there_is_named(ostinato, tmp_path, monkeypatch, address):
    if address == "listened":  # where nobody does any more
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    outcome = ostinato("cv", *task_files.classify(tmp_path), "--jobs", 2, "--ray")
    assert outcome.code == 2
    assert f"the Ray cluster at RAY_ADDRESS={address} cannot be joined: " in outcome.err
    assert "Traceback" not in outcome.err


def test_without_ray_the_extra_is_named(ostinato, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    outcome = ostinato("cv", *task_files.tag(tmp_path), *QUICK, "--folds", 2, "--ray")
    assert outcome.code == 2
    assert "pip install 'ostinato-learn[ray]'" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "nodes, n, threads",
    [
        ([8], 1, 8),
        ([8], 3, 2),
        ([8, 8], 3, 4),  # five threads would find room for two jobs only
        ([8, 2], 2, 4),
        ([1, 1, 1], 3, 1),
        ([2], 3, 1),  # no room: `_room` refuses it
        ([], 1, 1),
    ],
)
def test_the_share_of_a_job_on_a_cluster(nodes, n, threads):
    assert ray_cluster.share(nodes, n) == threads


def test_other_data_on_another_machine_are_refused():
    workers.check_same({"a.csv": "1"}, {"a.csv": "1"})
    with pytest.raises(BadInput, match=r"^a\.csv: a worker on .+ reads other data"):
        workers.check_same({"a.csv": "2"}, {"a.csv": "1"})
