"""The shares of a batch in one process, and trainings in several of them.

The error bounds. ε is 2⁻²⁴, the rounding of float32. A gradient is a sum over the rows and steps of
a batch, N terms, of numbers that some tens of operations have made. However the sum is cut into
shares, each of the two results differs from the exact sum by at most (N + 64) ε times the sum of
the terms' magnitudes, of which the rows' gradients give all but the cancellation within a row;
the parameter's largest entry is used for that.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from distributed_examples import EXAMPLES, PLAN, RATE, UPDATES, made, trained

from ostinato_learn import SequenceClassifier, environment, load
from ostinato_learn.interrupt import Interrupt, Terminated
from ostinato_learn.training import distributed
from ostinato_learn.training.distributed import ALONE, Ranks, Share
from ostinato_learn.training.loop import learn

EPS = 2.0**-24
STEPS = 12  # the longest sequence of the examples, or more


def tolerance(rows: list[torch.Tensor]) -> torch.Tensor:
    """How far two sums of these rows' weighted gradients may differ, by entry."""
    size = torch.stack(rows).abs().sum(0)
    return 2 * (len(rows) * STEPS + 64) * EPS * (size + size.max())


def gradients(name: str, ranks: Ranks) -> tuple[Share, dict[str, torch.Tensor]]:
    """What one process's share of the first batch says, and its gradient."""
    net, task = made(name)
    task.ranks = ranks
    net.train()
    share = task.loss(net)
    share.loss.backward()
    return share, {n: p.grad for n, p in net.named_parameters() if p.grad is not None}


def by_rows(name: str) -> tuple[list[Share], dict[str, list[torch.Tensor]]]:
    """Each row of the first batch alone: its share, and w_i g_i / Σ w_i by parameter."""
    found = [gradients(name, Ranks(i, PLAN.batch_size)) for i in range(PLAN.batch_size)]
    total = sum(share.weight for share, _ in found)
    return [share for share, _ in found], {
        n: [share.weight * g[n].double() / total for share, g in found] for n in found[0][1]
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_rows_alone_make_the_batch(name):
    """The weighted mean of what the rows say, each alone, is what the batch says."""
    whole, wanted = gradients(name, ALONE)
    shares, rows = by_rows(name)
    weights = np.array([share.weight for share in shares])
    assert len(set(weights)) > 1 or name == "tokens"  # the mean of means would be wrong
    losses = np.array([share.loss.item() for share in shares])
    assert whole.weight == pytest.approx(weights.sum(), rel=8 * EPS)
    assert whole.loss.item() == pytest.approx(np.average(losses, weights=weights), rel=64 * EPS)
    counts = [share.count for share in shares]
    assert whole.count == sum(counts)
    for measure, value in whole.measured.items():
        each = [share.measured[measure] for share in shares]
        assert value == pytest.approx(np.average(each, weights=counts))
    for n, g in wanted.items():
        summed = torch.stack(rows[n]).sum(0)
        assert (g - summed).abs().le(tolerance(rows[n])).all(), n


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_are_the_batch(size):
    rows = [row for rank in range(size) for row in range(7)[Ranks(rank, size).rows(7)]]
    assert rows == list(range(7))
    lengths = [len(range(7)[Ranks(rank, size).rows(7)]) for rank in range(size)]
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1


def test_more_processes_than_rows_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "current", lambda: Ranks(0, 8))
    net, task = made("classes")
    with pytest.raises(ValueError, match="8 processes for batches of 7"):
        learn(net, task, PLAN)


def test_signals_of_others_are_waited_for():
    with pytest.raises(KeyboardInterrupt), Interrupt(shared=True) as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.noted == {signal.SIGINT} and not interrupt.requested
        interrupt.agree([])  # of an exchange that began before the signal
        assert interrupt.noted == {signal.SIGINT} and not interrupt.requested
        interrupt.agree(interrupt.noted)
        assert interrupt.requested
    with Interrupt(shared=True) as interrupt:
        interrupt.agree([signal.SIGTERM])
        assert interrupt.requested
        with pytest.raises(SystemExit):
            interrupt.end()
        interrupt.noted.clear()


def test_a_process_that_torchrun_did_not_start_is_alone():
    assert distributed.current() is ALONE
    with distributed.joined() as ranks:
        assert ranks is ALONE


@pytest.mark.parametrize(
    "cores, here, asked, threads",
    [
        (8, 2, None, 4),
        (8, 3, None, 2),
        (2, 3, None, 1),
        (8, 2, 3, 3),
        (8, 2, 5, 4),
    ],
)
def test_processes_share_the_cores(launched, monkeypatch, caplog, cores, here, asked, threads):
    launched(Ranks(0, here), here)
    monkeypatch.setattr(environment, "cores", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert distributed.set_threads(asked) == torch.get_num_threads() == threads
    said = f"{here} processes on this machine: {threads} of its {cores} cores for each"
    assert caplog.messages == [f"{said} (OMP_NUM_THREADS was 1)"]
    torch.set_num_threads(1)
    distributed.set_threads_unless_chosen()
    assert torch.get_num_threads() == 1  # which was chosen since


def test_the_other_processes_say_nothing(launched, caplog):
    launched(Ranks(1, 2), 2)
    distributed.set_threads()
    assert not caplog.messages


def test_what_the_processes_of_a_machine_tell_each_other(launched, monkeypatch):
    """The second of two machines with two processes each; each process sends its number."""
    launched(Ranks(3, 4), 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(distributed, "_told", lambda own, rank: str(rank).encode())
    assert Ranks(3, 4).from_first_here(lambda: "not called") == 2
    assert ALONE.from_first_here(lambda: (1, 2)) == (1, 2)


def test_one_process_of_torchrun_is_no_group(launched):
    launched(Ranks(0, 1), 1)
    assert not environment.launched()
    launched(Ranks(1, 2), 2)
    assert environment.launched() and environment.rank() == 1


def test_a_group_for_gpus_is_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    with pytest.raises(ValueError, match="on nccl"):
        learn(*made("classes"), PLAN)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[tuple[Path, int]]:
    """What each process of a training wrote, of all examples."""
    folder = tmp_path_factory.mktemp("together")
    for name in EXAMPLES:
        trained(name, folder / "one" / name)
    script = Path(__file__).with_name("distributed_examples.py")
    launch(3, script, folder)  # two are started by cli/test_two_processes.py
    return [(folder, rank) for rank in range(3)]


def launch(
    n: int, *arguments: object, code: int = 0, **options
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", n, *arguments]
    options["env"] = {
        k: v for k, v in options.get("env", os.environ).items() if k != "OMP_NUM_THREADS"
    }
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_several_processes_train_as_one(together, name):
    """The first gradient within the bound above. After k updates at the rate r the weights differ
    by k · r times the bound, were the gradient the same everywhere; 4 times as much is left for its
    change over so short a way."""
    found, one, (_, rows) = written(together, name), trained(name), by_rows(name)
    assert one.keys() == found.keys()
    for n in rows:
        key = f"gradient.1.{n}"
        assert (found[key] - one[key]).abs().le(tolerance(rows[n])).all(), n
        assert not torch.equal(one[f"weight.{n}"], made(name)[0].state_dict()[n])
    assert_same_end(found, one, rows)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_training_goes_on_in_another_number_of_processes(together, name):
    """From one to several, and from several to one: the same batches, states and reports."""
    one, (_, rows) = trained(name), by_rows(name)
    assert_same_end(written(together, f"resumed-{name}"), one, rows)
    checkpoint = together[0][0] / "several" / name
    assert_same_end(trained(name, resume=checkpoint), one, rows)


@pytest.mark.process
@pytest.mark.slow
def test_the_first_process_gets_the_rows_of_all_however_many(together):
    rows = [json.loads((folder / f"received-{rank}.json").read_text()) for folder, rank in together]
    assert rows == [[[[rank, rank]] * rank for rank in range(len(rows))]] + [None] * (len(rows) - 1)


def written(together: list[tuple[Path, int]], name: str) -> dict[str, torch.Tensor]:
    """What the processes wrote, which is the same in all of them."""
    found = [safetensors.torch.load_file(f / f"{name}-{rank}.safetensors") for f, rank in together]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[n], found[0][n]) for n in other)
    return found[0]


def assert_same_end(found, one, rows) -> None:
    """Within the bound of `test_several_processes_train_as_one`."""
    for n in rows:
        difference = (found[f"weight.{n}"] - one[f"weight.{n}"]).abs()
        ulp = EPS * one[f"weight.{n}"].abs()
        allowed = UPDATES * (4 * RATE * tolerance(rows[n]).max() + ulp)
        assert difference.le(allowed).all(), n
    torch.testing.assert_close(found["reports"], one["reports"], rtol=1e-5, atol=0)


PROGRAM = """
import os
from pathlib import Path
import numpy as np
import torch

X = np.random.default_rng(0).normal(size=(60, 5, 2)).astype(np.float32)
y = (X.sum((1, 2)) > 0).astype(int)
{page}
names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
# scikit-learn imports pandas where there is one, and that pyarrow, which has a thread of its own.
left = [name for name in names if name not in ("python", "jemalloc_bg_thd")]
os.write(1, f"{{torch.get_num_threads()}} threads, left: {{left}}\\n".encode())  # at once
"""


@pytest.mark.process
@pytest.mark.slow
def test_the_program_of_the_page(tmp_path):
    """An estimator in a process group: one model, said once, with the threads of the machine."""
    page = (Path(__file__).parents[4] / "docs" / "distributed.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    block = block.replace(
        "iterations=2000",
        "iterations=30, hidden_size=8, batch_size=7, dropout=0.0, eval_every=30, verbose=1",
    )
    (tmp_path / "program.py").write_text(PROGRAM.format(page=block))
    said = launch(2, tmp_path / "program.py", cwd=tmp_path)
    assert said.stderr.count("iteration     30") == 1
    share = max(1, environment.cores() // 2)
    # No thread is left of the process group: one that ran on while the interpreter ends could abort
    # the process.
    assert said.stdout.splitlines() == [f"{share} threads, left: []"] * 2
    assert said.stderr.count("2 processes on this machine") == 1
    X = np.random.default_rng(0).normal(size=(60, 5, 2)).astype(np.float32)
    y = (X.sum((1, 2)) > 0).astype(int)
    alone = SequenceClassifier(iterations=30, hidden_size=8, batch_size=7, dropout=0.0)
    alone.fit(X, y)
    np.testing.assert_allclose(
        load(tmp_path / "model").predict_proba(X), alone.predict_proba(X), rtol=1e-4
    )


@pytest.mark.process
@pytest.mark.slow
def test_what_differs_between_processes_is_an_error(tmp_path):
    (tmp_path / "program.py").write_text("""
import dataclasses
import torch.distributed as dist
from distributed_examples import PLAN, made
from ostinato_learn.training.loop import learn

dist.init_process_group("gloo")
plan = dataclasses.replace(PLAN, learning_rate=0.1 * (1 + dist.get_rank()))
try:
    learn(*made("classes"), plan)
finally:
    dist.destroy_process_group()
""")
    folder = str(Path(__file__).parent)
    done = launch(2, tmp_path / "program.py", code=1, env={**os.environ, "PYTHONPATH": folder})
    assert 'plan: process 1 has {"learning_rate": 0.2}, and process 0 has {"learning' in done.stderr


class Unanswered:
    """A call between processes that never ends, as gloo's may where the other end has gone."""

    def wait(self, timeout):
        time.sleep(timeout.total_seconds())
        raise RuntimeError("Operation timed out!")

    def is_completed(self):
        return False


class Late(Unanswered):
    """A call that ends while the second wait for it does, well or with an error."""

    def __init__(self, error=None):
        self.waits, self.error = 0, error

    def wait(self, timeout=None):
        self.waits += 1
        if timeout is not None:
            super().wait(timeout)
        if self.error:
            raise RuntimeError(self.error)

    def is_completed(self):
        return self.waits > 1


def test_a_late_answer_counts(monkeypatch):
    monkeypatch.setattr(distributed, "WAIT", timedelta(seconds=0.01))
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    distributed._exchange(Late)
    with pytest.raises(distributed.PeerLost, match="Connection reset"):
        distributed._exchange(lambda: Late("[pair.cc:1] Connection reset. This is …"))


def test_a_call_without_an_answer_ends_some_time_after_sigterm(monkeypatch):
    monkeypatch.setattr(distributed, "WAIT", timedelta(seconds=0.01))
    monkeypatch.setattr(distributed, "PATIENCE_S", 0.3)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "_given_up", [])
    monkeypatch.setattr(distributed.atexit, "register", lambda _: None)
    with (
        pytest.raises(distributed.PeerLost, match="process 1 ends with it"),
        Interrupt(shared=True),
    ):
        begin = time.monotonic()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        distributed._exchange(Unanswered)
    assert time.monotonic() - begin > 0.3  # PATIENCE_S: others may still answer


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_a_process_that_is_interrupted_in_a_call_does_not_wait_for_it_at_its_end(
    monkeypatch, error
):
    class Interrupted(Unanswered):
        def wait(self, timeout):
            raise error

    given_up, at_exit = [], []
    monkeypatch.setattr(distributed, "_given_up", given_up)
    monkeypatch.setattr(distributed.atexit, "register", at_exit.append)
    call = Interrupted()
    with pytest.raises(error):
        distributed._exchange(lambda: call)
    assert given_up == [call] and at_exit == [distributed._end_at_once]
