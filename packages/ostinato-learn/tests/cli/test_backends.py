"""`--jobs N --backend ray` and `dask`: clusters of one machine, started by the command or given."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import task_files
from cli_examples import command, process
from task_files import QUICK
from worker_examples import PROCESSES, squares

from ostinato_learn.cli.many import backends, workers
from ostinato_learn.jobs.failures import AlreadyReported, BadInput, Failure

PACKAGES = {"ray": "ray", "dask": "distributed"}
ADDRESSES = {"ray": "RAY_ADDRESS", "dask": "DASK_SCHEDULER_ADDRESS"}
INSTALLED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not importlib.util.find_spec(package), reason=f"{package} is not installed"
        ),
    )
    for name, package in PACKAGES.items()
]


def slow(test):
    """Marks of a test that starts a cluster."""
    return pytest.mark.process(pytest.mark.slow(test))


@pytest.fixture(scope="module", autouse=True)
def no_cluster_of_the_user():
    with pytest.MonkeyPatch.context() as patch:
        for address in ADDRESSES.values():
            patch.delenv(address, raising=False)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module", params=INSTALLED)
def two(request):
    """Two workers of a cluster that this process has started, and whose processes import tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with workers.team(2, 1, request.param) as found:
            yield found


@slow
def test_each_piece_comes_back_with_its_result(two):
    found = dict(two.do(squares, (100,), [*range(7), *PROCESSES]))
    assert len({found.pop(piece) for piece in PROCESSES} - {os.getpid()}) in (1, 2)
    assert found == {n: n**2 + 100 for n in range(7)}


@slow
def test_what_is_logged_in_a_piece_is_logged_here(two, caplog):
    assert dict(two.do(squares, (0,), ["says"])) == {"says": None}
    assert "said in a piece" in [record.getMessage() for record in caplog.records]


@slow
@pytest.mark.parametrize(
    "piece, kind, message, code",
    [
        ("bad", Failure, "^a bad piece$", BadInput.exit_code),
        ("bug", AlreadyReported, None, 1),
        ("killed", Failure, "was killed", 1),
    ],
)
def test_what_fails_in_a_worker_fails_here(two, piece, kind, message, code, capfd):
    with pytest.raises(kind, match=message) as caught:
        list(two.do(squares, (0,), [piece]))
    assert caught.value.exit_code == code
    err = capfd.readouterr().err
    assert ("ZeroDivisionError: a bug in a piece" in err) == (piece == "bug")


@slow
@pytest.mark.parametrize("backend", INSTALLED)
def test_cv_gives_the_bits_of_one_job(ostinato, tmp_path, backend):
    arguments = ("cv", *task_files.classify(tmp_path), *QUICK, "--folds", 3, "--json")
    one = ostinato(*arguments)
    two = process(*arguments, "--jobs", 2, "--backend", backend)
    assert two.returncode == 0, two.stderr
    assert "Traceback" not in two.stderr
    results = [json.loads(out) for out in (one.out, two.stdout)]
    assert [each.pop("elapsed_s") > 0 for each in results] == [True, True]
    assert results[0] == results[1]


def below(ancestor: int) -> set[int]:
    """The processes that began below another one and have not ended."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(file.parent.name)] = int(parent)
    found, wave = set(), {ancestor}
    while wave := {pid for pid, parent in parents.items() if parent in wave}:
        found |= wave
    return found


@slow
@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_cluster_and_the_study_goes_on(ostinato, tmp_path, backend, number, code):
    pytest.importorskip("optuna")
    study = tmp_path / "study"
    arguments = ("tune", *task_files.classify(tmp_path), "--hidden-size", 4, "--epochs", 30)
    arguments = (*arguments, "--threads", 1, "-o", study)
    started = subprocess.Popen(
        command(*arguments, "--jobs", 2, "--backend", backend),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    err = ""
    for line in started.stderr:
        err += line
        if line.startswith("trial"):
            break
    began = below(started.pid)
    assert len(began) >= 2, err
    started.send_signal(number)
    err += started.communicate(timeout=120)[1]
    assert started.returncode == code, err
    assert f"in {study}.\nThe same command resumes the study." in err
    assert "Traceback" not in err
    until = time.monotonic() + 120  # on a busy machine they end late
    while living := [pid for pid in began if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, living
        time.sleep(0.1)
    again = ostinato(*arguments, "--trials", 1)
    assert again.code == 0, again.err


@slow
@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "listened"])
def test_a_cluster_that_is_not_there_is_named(ostinato, tmp_path, monkeypatch, backend, address):
    if address == "listened":  # where nobody does any more
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv(ADDRESSES[backend], address)
    monkeypatch.setattr(backends, "ANSWERS_WITHIN_S", 2)
    arguments = ("cv", *task_files.classify(tmp_path), *QUICK, "--folds", 2)
    outcome = ostinato(*arguments, "--jobs", 2, "--backend", backend)
    assert outcome.code == 2
    assert f"{ADDRESSES[backend]}={address} cannot be joined" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("backend", PACKAGES)
def test_without_the_package_its_extra_is_named(ostinato, tmp_path, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, PACKAGES[backend], None)
    arguments = ("cv", *task_files.tag(tmp_path), *QUICK, "--folds", 2)
    outcome = ostinato(*arguments, "--jobs", 2, "--backend", backend)
    assert outcome.code == 2
    assert f"pip install 'ostinato-learn[{backend}]'" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "nodes, n, threads",
    [
        ([8], 1, 8),
        ([8], 3, 2),
        ([8, 8], 3, 4),  # five threads would find room for two jobs only
        ([8, 2], 2, 4),
        ([1, 1, 1], 3, 1),
        ([2], 3, 1),  # no room: `_fitting` refuses it
        ([], 1, 1),
    ],
)
def test_the_share_of_a_job_on_a_cluster(nodes, n, threads):
    assert backends.share(nodes, n) == threads


def test_more_jobs_than_a_cluster_holds_are_refused():
    assert backends._fitting([2], 2, None, "there") == 1
    with pytest.raises(BadInput, match=r"has room for 2 of 1 threads; wanted fewer --jobs$"):
        backends._fitting([2], 3, None, "there")
    with pytest.raises(BadInput, match=r"has room for 1 of 2 threads; .* or --threads$"):
        backends._fitting([2], 2, 2, "there")


def test_other_data_on_another_machine_are_refused():
    workers.check_same({"a.csv": "1"}, {"a.csv": "1"})
    with pytest.raises(BadInput, match=r"^a\.csv: a worker on .+ reads other data"):
        workers.check_same({"a.csv": "2"}, {"a.csv": "1"})
