"""`torchrun --nproc-per-node 2 -m ostinato_learn train`, as a user's shell starts it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_examples import assert_same_run, make_file, without_clock
from task_files import QUICK, TASKS

from ostinato_learn.cli import main

pytestmark = pytest.mark.process

SMALL = ("--hidden-size", 4, "--batch-size", 9, "--learning-rate", 0.01, "--eval-every", 20)
LONG = ("--iterations", 10**6, "--checkpoint-every", 10)
SHORT = ("--iterations", 20)
ENDS_WITHIN_S = 30


def torchrun(*arguments: object, program: tuple = ("-m", "ostinato_learn")) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, (*program, *arguments))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def ended(started: subprocess.Popen, within: float = 120) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        out, err = started.communicate(timeout=within)
    finally:
        started.kill()
    return started.returncode, out, err


def alone(*arguments: object) -> str:
    """The stdout of a command in this process, without torchrun."""
    out, threads = io.StringIO(), torch.get_num_threads()
    with contextlib.redirect_stdout(out):
        code = main([str(a) for a in arguments])
    torch.set_num_threads(threads)
    assert code == 0
    return out.getvalue()


@pytest.fixture
def long_run(data, tmp_path):
    """A training that has made a checkpoint and goes on; its processes, by rank."""
    started = torchrun("train", data, *SMALL, *LONG, "-o", tmp_path / "run")
    state = tmp_path / "run" / "checkpoint" / "checkpoint.json"
    until = time.monotonic() + 90
    at = 0
    while not at:
        assert time.monotonic() < until and started.poll() is None
        time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):  # none yet, or the next one takes its place
            at = json.loads(state.read_text())["iteration"]
    ranks = ranks_of(started.pid)
    yield started, ranks
    for process in (started.pid, *ranks.values()):  # one that hangs keeps the pipes open
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    started.communicate()


def ranks_of(parent: int) -> dict[int, int]:
    """rank -> process of those that torchrun has started."""
    found = {}
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            environment = Path(f"/proc/{child}/environ").read_text().split("\0")
            ranks = [int(v[5:]) for v in environment if v.startswith("RANK=")]
            found |= dict.fromkeys(ranks, child)
    return found


def assert_goes_on(run: Path) -> None:
    """A checkpoint is there, and one process goes on from it."""
    at = json.loads((run / "checkpoint" / "checkpoint.json").read_text())["iteration"]
    assert at >= 10
    alone("train", "--resume", "-o", run, "--iterations", at + 5)
    assert json.loads((run / "evaluation.json").read_text())["iterations"] == at + 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training in one process and in two; what they said, and the latter on stderr."""
    folder = tmp_path_factory.mktemp("runs")
    data, length = make_file(folder / "data.npz"), ("--iterations", 60)
    one, two = folder / "one", folder / "two"
    code, out, err = ended(torchrun("train", data, *SMALL, *length, "-o", two))
    assert code == 0, err
    said = alone("train", data, *SMALL, *length, "-o", one)
    return one, two, (said, out), err


def test_it_is_the_run_of_one_process_and_said_once(runs):
    one, two, outputs, err = runs
    theirs, ours = without_clock(one / "metrics.jsonl"), without_clock(two / "metrics.jsonl")
    assert [r["iteration"] for r in ours] == [0, 20, 40, 60]
    for a, b in zip(theirs, ours, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    said = [re.sub(r"[\d.]+ s|/\S+", "", text) for text in outputs]
    assert said[0] == said[1]
    assert err.count("iteration      0") == 1
    assert "ostinato: 2 processes on this machine: " in err
    assert "(OMP_NUM_THREADS was 1)" in err
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(runs, tmp_path):
    one, two = (shutil.copytree(run, tmp_path / run.name) for run in runs[:2])
    longer = ("train", "--resume", "--iterations", 80, "-o")
    code, _, err = ended(torchrun(*longer, one))
    assert code == 0, err
    alone(*longer, two)
    last = [without_clock(run / "metrics.jsonl")[-1] for run in (one, two)]
    assert last[0]["iteration"] == 80
    assert last[1] == pytest.approx(last[0], rel=1e-4)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_and_the_run_goes_on(long_run, tmp_path, rank):
    started, ranks = long_run
    os.kill(ranks[rank], signal.SIGKILL)
    code, _, err = ended(started, ENDS_WITHIN_S)
    assert code == 1
    assert f"another process of this training has ended, and process {1 - rank} ends with it" in err
    assert ("Go on with: ostinato train --resume" in err) == (rank == 1)
    assert_goes_on(tmp_path / "run")


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint(long_run, tmp_path):
    started, _ = long_run
    before = (tmp_path / "run" / "checkpoint" / "checkpoint.json").stat().st_mtime_ns
    started.terminate()
    code, _, err = ended(started, ENDS_WITHIN_S)
    assert code == 1  # of torchrun
    assert err.count("ostinato: interrupted; a checkpoint of iteration ") == 1
    assert (tmp_path / "run" / "checkpoint" / "checkpoint.json").stat().st_mtime_ns > before
    assert_goes_on(tmp_path / "run")


@pytest.mark.slow
def test_sigterm_to_one_process_reaches_the_other(long_run, tmp_path):
    started, ranks = long_run
    os.kill(ranks[1], signal.SIGTERM)
    code, _, err = ended(started, ENDS_WITHIN_S)
    assert code == 1
    assert err.count("ostinato: interrupted; a checkpoint of iteration ") == 1
    assert_goes_on(tmp_path / "run")


FAULTY = """
import os, sys
from ostinato_learn.cli import main
from ostinato_learn.jobs import registry
from ostinato_learn.training import Diverged
from ostinato_learn.training.classification import Classification
from ostinato_learn.training.distributed import Ranks

def fail(*_):
    open(__file__ + ".failed", "w").close()
    raise {error}

if int(os.environ["RANK"]) in {ranks}:
    {where} = fail
sys.exit(main())
"""


@pytest.mark.parametrize(
    "where, length",
    [("Classification.loss", LONG), ("registry.read", LONG), ("Ranks.at_first", SHORT)],
)
@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_own_error(data, tmp_path, where, length):
    """In the training, while the other waits for it to join, and when its answers are ready."""
    script = tmp_path / "faulty.py"
    error = "RuntimeError('the fault of process 1')"
    script.write_text(FAULTY.format(where=where, ranks=[1], error=error))
    started = torchrun("train", data, *SMALL, *length, "-o", tmp_path / "run", program=(script,))
    code, out, err = ended(started)
    # torchrun would kill the other after 30 s, if SIGTERM did not end it.
    assert time.time() - (tmp_path / "faulty.py.failed").stat().st_mtime < ENDS_WITHIN_S
    assert code == 1
    assert "RuntimeError: the fault of process 1" in err
    assert out == ""


@pytest.mark.slow
def test_a_loss_that_is_nan_is_reported_once(data, tmp_path):
    script, error = tmp_path / "faulty.py", "Diverged('the loss', float('nan'), 0)"
    script.write_text(FAULTY.format(where="Classification.loss", ranks=[0, 1], error=error))
    code, _, err = ended(torchrun("train", data, *SMALL, program=(script,)))
    assert code == 1
    assert err.count("the training has diverged") == 1


SHARED = """
import sys
from ostinato_learn.cli import main
from ostinato_learn.training.distributed import Ranks

def counted(ranks, own):
    print(f"process {ranks.rank} tells {len(own)}", file=sys.stderr)
    return at_first(ranks, own)

at_first, Ranks.at_first = Ranks.at_first, counted
sys.exit(main())
"""


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
def test_the_test_part_is_answered_in_shares(tmp_path, task):
    """The measures are those of the model in one process, to rounding."""
    (script := tmp_path / "shared.py").write_text(SHARED)
    run, data = tmp_path / "run", TASKS[task](tmp_path)
    code, _, err = ended(torchrun("train", *data, *QUICK, "-o", run, program=(script,)))
    assert code == 0, err
    shares = {rank: int(n) for rank, n in reversed(re.findall(r"process (\d) tells (\d+)", err))}
    assert shares.keys() == {"0", "1"} and min(shares.values()) > 0
    found = json.loads((run / "evaluation.json").read_text())["test"]
    again = json.loads(alone("evaluate", run, "--json"))
    again.pop("findings", None)  # that a network of few updates is below its baseline
    assert {name: found[name] for name in again} == pytest.approx(again, rel=1e-5)


ANSWERS_FOR_LONG = """
import os, sys, time
from ostinato_learn.cli import main
from ostinato_learn.training.distributed import Ranks

def late(ranks, own):
    open(f"{__file__}.{ranks.rank}", "w").close()
    if ranks.rank == 1:
        time.sleep(1000)
    return at_first(ranks, own)

at_first, Ranks.at_first = Ranks.at_first, late
sys.exit(main())
"""


@pytest.fixture
def long_evaluation(data, tmp_path):
    """A run in whose evaluation process 0 waits for the answers of process 1; see `long_run`."""
    (script := tmp_path / "late.py").write_text(ANSWERS_FOR_LONG)
    started = torchrun("train", data, *SMALL, *SHORT, "-o", tmp_path / "run", program=(script,))
    until = time.monotonic() + 90
    while not all(Path(f"{script}.{rank}").exists() for rank in (0, 1)):
        assert time.monotonic() < until and started.poll() is None
        time.sleep(0.05)
    time.sleep(1)  # process 0 waits now
    ranks = ranks_of(started.pid)
    yield started, ranks
    for process in (started.pid, *ranks.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    started.communicate()


@pytest.mark.parametrize("rank, number", [(0, signal.SIGKILL), (1, signal.SIGTERM)])
@pytest.mark.slow
def test_a_process_that_ends_in_the_evaluation_ends_all(long_evaluation, tmp_path, number, rank):
    started, ranks = long_evaluation
    os.kill(ranks[rank], number)
    code, _, err = ended(started, ENDS_WITHIN_S)
    assert code == 1
    assert ("Go on with: ostinato train --resume" in err) == (rank == 1)  # the first one says it
    assert not (tmp_path / "run" / "evaluation.json").exists()
    alone("train", "--resume", "-o", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["iterations"] == 20


@pytest.mark.slow
def test_sigterm_in_the_evaluation_ends_all(long_evaluation):
    started, _ = long_evaluation
    started.terminate()
    code, _, err = ended(started, ENDS_WITHIN_S)
    assert code == 1
    assert err.count("ostinato: interrupted; a checkpoint of iteration 20 is kept") == 1


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_refused(data):
    code, _, err = ended(torchrun("train", data, "--batch-size", 1))
    assert code == 1
    assert "2 processes for batches of 1; wanted at most one process for each row" in err
    assert "Traceback" not in err.split("torch/distributed")[0]


@pytest.mark.slow
def test_other_commands_are_not_for_torchrun(data):
    code, _, err = ended(torchrun("tune", data))
    assert code == 1
    assert "torchrun is for train alone; tune has --jobs N for several processes" in err


LARGE_FILE = """
import os, sys
from ostinato_learn.cli import main
from ostinato_learn.jobs.inputs import sources

sources.LARGE = int(os.environ["LARGE"])
sys.exit(main())
"""


@pytest.fixture
def table(tmp_path):
    """A Parquet file of 12 row groups, whose sequences go over their ends."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    generator, lengths = np.random.default_rng(0), np.arange(300) % 90 + 100
    y = np.repeat(np.arange(300) % 2, lengths)
    columns = {f"x{i}": y + generator.normal(size=len(y)) for i in range(6)}
    kind = np.array(["late", "mid", "early"])[np.repeat(np.arange(300) // 75 % 3, lengths)]
    columns |= {"id": np.repeat(np.arange(300), lengths), "y": y, "kind": kind}
    columns["sign"] = np.where(columns["x0"] > 0.5, "plus", "minus")
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table(columns), path, row_group_size=-(-len(y) // 12))
    return path


def train_large(tmp_path, monkeypatch, table, large, run, task=("--classify", "y")):
    (tmp_path / "large.py").write_text(LARGE_FILE)
    monkeypatch.setenv("LARGE", str(large))
    features = ("--features", "kind,x0,x1,x2,x3,x4,x5")
    flags = (*task, "--id", "id", *features, "--iterations", 15, "-o", tmp_path / run)
    return torchrun("train", table, *SMALL, *flags, program=(tmp_path / "large.py",))


@pytest.mark.parametrize("task", [("--classify", "y"), ("--tag", "sign")], ids=lambda t: t[0][2:])
@pytest.mark.slow
def test_a_large_file_gives_the_bits_of_data_in_the_memory(table, tmp_path, monkeypatch, task):
    for run, large in (("memory", 10**9), ("file", 0)):
        code, _, err = ended(train_large(tmp_path, monkeypatch, table, large, run, task))
        assert code == 0, err
    assert_same_run(tmp_path / "memory", tmp_path / "file")


@pytest.mark.slow
def test_windows_of_a_large_file_are_shared(table, tmp_path, monkeypatch):
    """One process and two draw the same windows, and differ by rounding alone."""
    task = ("--forecast", "x0", "--horizon", 2, "--known", "x1", "--eval-every", 5)
    two = train_large(tmp_path, monkeypatch, table, 0, "two", task)
    code, _, err = ended(two)
    assert code == 0, err
    flags = two.args[two.args.index("train") :]
    flags[-1] = str(tmp_path / "one")
    subprocess.run([sys.executable, tmp_path / "large.py", *flags], check=True)
    theirs, ours = (without_clock(tmp_path / run / "metrics.jsonl") for run in ("one", "two"))
    assert [report["iteration"] for report in ours] == [0, 5, 10, 15]
    for a, b in zip(theirs, ours, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
