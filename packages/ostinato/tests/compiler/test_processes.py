"""scan in several threads, in forked children, under signals, and over a long time."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ostinato import scan, tree
from ostinato.compiler.capture.recording import Call, Ref
from ostinato.compiler.lock import one_at_a_time
from ostinato.engine import native
from zoo.playing import loop
from zoo.small import D, H, T, assert_same, gradients, inputs, leaf, rnn

pytestmark = pytest.mark.filterwarnings("ignore:.*slow Python loop", "ignore:.*was recorded")


def in_threads(n: int, work: Callable[[int], None]) -> None:
    errors: list[str] = []
    barrier = threading.Barrier(n)

    def run(k: int) -> None:
        try:
            barrier.wait()
            work(k)
        except BaseException:
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(k,)) for k in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


@pytest.mark.parametrize("intraop", [1, 2])
def test_several_threads_scan_at_once(intraop):
    """The same steps, recorded by whoever comes first, and the same programs, at other sizes."""
    torch.set_num_threads(intraop)
    W, V = leaf(H, H), leaf(H, H)
    namespace = {"torch": torch, "W": W, "V": V}
    exec("def one(h, x): return torch.tanh(x + h @ W)", namespace)
    exec("def two(h, x): return torch.sigmoid(x @ V + h @ W)", namespace)

    def work(k: int) -> None:
        random = torch.Generator().manual_seed(k)
        for i in range(8):
            rows = 1 + (k + i) % 5
            init = torch.randn(rows, H, dtype=D, generator=random, requires_grad=True)
            xs = torch.randn(T, rows, H, dtype=D, generator=random)
            step = namespace["one" if (k + i) % 2 else "two"]
            assert_same(
                gradients(scan, step, [W, init], init, xs),
                gradients(loop, step, [W, init], init, xs),
            )

    in_threads(4, work)


@pytest.mark.slow
def test_threads_that_first_use_other_outputs_at_once():
    """Each set of outputs has a backward pass of its own, made of one recording."""
    torch.set_num_threads(1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for seed in range(12):
            _other_outputs_at_once(seed)
    finally:
        sys.setswitchinterval(interval)


def _other_outputs_at_once(seed: int) -> None:
    torch.manual_seed(seed)
    U, W, xs = leaf(H, H), leaf(H, H), leaf(3, 5, H)
    # A leaf's node in the graph is made once: two threads that make it at once, one of them in an
    # autograd.Function, can wait for each other inside PyTorch (2.13).
    nodes = [t.view_as(t) for t in (U, W, xs)]
    init = torch.zeros(5, H, dtype=D), torch.zeros(5, H, dtype=D)

    def step(carry: Any, x: Any) -> Any:
        h, m = carry
        i = torch.sigmoid(x @ U + h @ W.t())
        m = i * m + (1 - i) * torch.tanh(x @ W)
        return (torch.tanh(m), m), (i, m, torch.tanh(i * m), i + m)

    def grads(how: Any, which: int) -> Any:
        _, ys = how(step, init, xs)
        used = [y for j, y in enumerate(ys) if which >> j & 1]
        return torch.autograd.grad(sum(y.square().sum() for y in used), [U, W, xs])

    step.__code__ = step.__code__.replace(co_name=f"step_{seed}")  # recorded for each seed
    with torch.no_grad():
        scan(step, init, xs)

    def work(k: int) -> None:
        for which in range(1 + k, 16, 6):
            grads(scan, which)

    in_threads(6, work)
    del nodes
    for which in range(1, 16):
        assert_same(grads(scan, which), grads(loop, which))


def test_threads_at_once_get_the_bits_of_one():
    """float32, each on two threads as far as the other callers leave them."""
    torch.set_num_threads(2)
    W = (torch.randn(32, 32) / 6).requires_grad_()
    step = rnn(W)
    calls = [(torch.randn(b, 32), torch.randn(t, b, 32)) for t, b in [(30, 40), (7, 9), (50, 1)]]
    wanted = [pytree.tree_leaves(gradients(scan, step, [W], *call)) for call in calls]

    def work(k: int) -> None:
        for i in range(20):
            n = (k + i) % len(calls)
            found = pytree.tree_leaves(gradients(scan, step, [W], *calls[n]))
            assert all(torch.equal(a, b) for a, b in zip(found, wanted[n], strict=True))

    in_threads(4, work)


_COUNTS_THREADS = """
import torch, ostinato

def n_threads():
    return [line for line in open("/proc/self/status") if line.startswith("Threads:")]

def scan():
    ostinato.scan(lambda h, x: torch.tanh(h @ W + x), torch.zeros(B, 64), torch.randn(9, B, 64))

torch.set_num_threads(6)
W = torch.randn(64, 64)
for B in (1, 3, 8, 16):
    scan()
    torch.randn(2000, 2000).exp()
    before = n_threads()
    scan()
    assert n_threads() == before, (B, n_threads(), before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux does")
@pytest.mark.slow
@pytest.mark.process
def test_a_few_rows_leave_pytorch_its_threads():
    """OpenMP ends those that a smaller team does not need; to make them again takes long."""
    done = subprocess.run(
        [sys.executable, "-c", _COUNTS_THREADS], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_recording_does_not_disturb_other_threads():
    """While one thread records, others differentiate with the same weights."""
    W, init, xs = inputs()
    done = threading.Event()

    def work(k: int) -> None:
        if k == 0:
            for i in range(15):
                namespace = {"torch": torch, "W": W}
                exec(f"def step(h, x): return torch.tanh(x + h @ W) * {i}.5", namespace)
                scan(namespace["step"], init, xs)
            done.set()
        while not done.is_set():
            (found,) = torch.autograd.grad((init.detach() @ W).square().sum(), W)
            assert_same(found, 2 * init.detach().t() @ (init.detach() @ W.detach()))

    in_threads(2, work)


def in_a_fork(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # a deadlock becomes a failure
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.process
def test_a_forked_child_plays():
    """After the parent has used two threads: what was recorded before, and a new step."""
    torch.set_num_threads(2)
    W, init, xs = (
        leaf(H, H, dtype=torch.float32),
        *(torch.randn(s, dtype=torch.float32) for s in ((64, H), (T, 64, H))),
    )
    step = rnn(W)
    here = gradients(scan, step, [W], init, xs)

    def child() -> None:
        assert "forked" in native.threading_runtime()
        there = gradients(scan, step, [W], init, xs)
        assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])
        assert_same(there[2], here[2], 1e-5)
        torch.set_num_threads(1)  # PyTorch's own products hang else, as in any forked child
        new = lambda h, x: torch.sigmoid(x + h @ W)  # noqa: E731
        assert_same(gradients(scan, new, [W], init, xs), gradients(loop, new, [W], init, xs), 1e-4)

    in_a_fork(child)
    again = gradients(scan, step, [W], init, xs)
    assert torch.equal(again[1], here[1])
    assert "forked" not in native.threading_runtime()


@pytest.mark.process
def test_modules_that_a_first_step_imports_are_imported_under_the_lock_of_forks():
    """In a child that is forked meanwhile, the lock of a module would be held for ever."""
    script = """
        import sys
        import torch
        from ostinato import nn, scan
        from ostinato.compiler.lock import one_at_a_time
        seen = {}
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("ostinato."):
                    seen[name] = one_at_a_time._is_owned()
        sys.meta_path.insert(0, Finder())
        W = torch.ones(2, 2, requires_grad=True)
        scan(lambda h, x: h @ W + x, torch.zeros(1, 2), torch.ones(3, 1, 2))[0].sum().backward()
        scan(lambda h, x: getattr(torch, "ta" + "nh")(h + x), torch.zeros(2), torch.ones(3, 2))
        nn.GRU(2, 2)(torch.zeros(3, 4, 2))
        assert len(seen) > 20
        assert [name for name, owned in seen.items() if not owned] == []
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.process
def test_a_fork_while_another_thread_makes_plans():
    """It waits: in the child nobody would finish them, and their lock would never be free."""
    W, init, xs = inputs()
    began, over = threading.Event(), []

    def planning() -> None:
        with one_at_a_time:
            began.set()
            time.sleep(0.2)
            over.append(True)

    def child() -> None:
        assert over
        new = lambda h, x: torch.cos(x + h @ W)  # noqa: E731
        assert_same(gradients(scan, new, [W], init, xs), gradients(loop, new, [W], init, xs))

    torch.set_num_threads(1)
    thread = threading.Thread(target=planning)
    thread.start()
    assert began.wait(30)
    in_a_fork(child)
    thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.process
def test_a_fork_while_another_thread_records(monkeypatch):
    """It waits for nothing, and no lock is held in the child for what the thread was at."""
    W, init, xs = inputs()
    began, leaves = threading.Event(), tree.leaves

    def slowly(of: Any) -> Any:
        if threading.current_thread() is thread:
            began.set()
            time.sleep(0.2)
        return leaves(of)

    def child() -> None:
        new = lambda h, x: torch.cos(x + h @ W)  # noqa: E731
        assert_same(gradients(scan, new, [W], init, xs), gradients(loop, new, [W], init, xs))

    torch.set_num_threads(1)
    monkeypatch.setattr(tree, "leaves", slowly)
    thread = threading.Thread(target=lambda: Call("aten.neg.default", (Ref(0),), {}, (1,)).refs)
    thread.start()
    assert began.wait(30)
    in_a_fork(child)
    thread.join()


class Scanned(torch.utils.data.Dataset):
    """Examples that are scanned where they are loaded."""

    def __init__(self, W: Tensor):
        self.W = W

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Tensor:
        xs = torch.full((T, 1, H), float(i), dtype=D)
        return scan(lambda h, x: torch.tanh(x + h @ self.W), torch.zeros(1, H, dtype=D), xs)[1]


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.process
def test_workers_of_a_data_loader():
    torch.set_num_threads(2)
    data = Scanned(torch.randn(H, H, dtype=D))
    here = [data[i] for i in range(len(data))]
    context = "fork" if hasattr(os, "fork") else None
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context=context, timeout=60
    )
    assert_same(list(loader), here)


class InterruptionError(Exception):
    """What the alarm raises."""


@pytest.fixture
def alarm():
    """A signal handler that raises, as Ctrl-C does: a function to have it called in some seconds.

    And again every two seconds: an exception is dropped if another package's hook runs. A shorter
    time could end while a busy machine runs other programs, before the test stops the timer.
    """
    if not hasattr(signal, "setitimer"):
        pytest.skip("no interval timer here")

    def raise_(*_: Any) -> None:
        raise InterruptionError

    before = signal.signal(signal.SIGALRM, raise_)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds, seconds and 2)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_in_the_middle_leaves_the_engine_usable(alarm):
    """An exception raised by a signal handler during a play, as Ctrl-C does."""
    torch.set_num_threads(2)
    W, init, xs = (torch.randn(s) / 8 for s in ((64, 64), (64, 64), (200, 64, 64)))
    W.requires_grad_()
    step = rnn(W)
    wanted = gradients(scan, step, [W], init, xs)

    for delay in (0.0005, 0.001, 0.002, 0.003, 0.005):
        with pytest.raises(InterruptionError):
            alarm(delay)
            while True:
                gradients(scan, step, [W], init, xs)
    alarm(0)
    again = gradients(scan, step, [W], init, xs)
    assert all(
        torch.equal(a, b)
        for a, b in zip(pytree.tree_leaves(again), pytree.tree_leaves(wanted), strict=True)
    )


@pytest.mark.slow
def test_no_signal_is_lost(alarm, monkeypatch):
    """What a handler raises is dropped where it runs inside a __del__; so scan has none."""
    torch.set_num_threads(2)
    cell, init, xs = torch.nn.GRUCell(8, 8), torch.randn(8, 8), torch.randn(3, 8, 8)
    leaves, dropped, lost = list(cell.parameters()), [], []

    def step(h: Tensor, x: Tensor) -> Tensor:
        return cell(x, h)

    gradients(scan, step, leaves, init, xs)  # recorded
    monkeypatch.setattr("sys.unraisablehook", dropped.append)

    for i in range(500):
        try:
            alarm(2e-4 + i * 1e-6)
            while not dropped:
                gradients(scan, step, leaves, init, xs)
        except InterruptionError:
            pass
        of = (str(getattr(d.object, "__module__", "")) for d in dropped)
        lost += [module for module in of if module.startswith("ostinato")]
        dropped.clear()  # others': hooks on the collector have the same trouble
    assert not lost


CTRL_C = """
import os, signal, threading, time
import torch
from ostinato import scan

torch.set_num_threads(2)
torch.manual_seed(0)
W = (torch.randn(128, 128) / 12).requires_grad_()
step = lambda h, x: torch.tanh(x + h @ W)
init, xs = torch.zeros(64, 128), torch.randn(4000, 64, 128)

def play():
    carry, ys = scan(step, init, xs)
    return carry, ys, torch.autograd.grad(ys.square().sum(), W)[0]

wanted = play()
start = time.perf_counter()
play()
length = time.perf_counter() - start
for part in (0.1, 0.3, 0.6):  # in the forward pass, and in the backward pass
    timer = threading.Timer(part * length, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        play()
        time.sleep(30)
    except KeyboardInterrupt:
        print("interrupted")
    timer.join()
    assert all(torch.equal(a, b) for a, b in zip(play(), wanted))
"""


@pytest.mark.slow
@pytest.mark.process
def test_ctrl_c_in_a_long_scan():
    """KeyboardInterrupt comes once the call is back; the next ones find the threads as ever."""
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow():
    """A thousand passes at sizes that come and go need the memory of the first few."""
    W = (torch.randn(64, 64) / 8).requires_grad_()
    step = rnn(W)

    def some(n: int) -> None:
        for i in range(n):
            rows = 8 + i % 7
            scan(step, torch.zeros(rows, 64), torch.randn(20, rows, 64))[1].sum().backward()

    def megabytes() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / 2**20

    some(50)
    before = megabytes()
    some(1000)
    # Each pass makes some 50 KB for each of its tensors: one that stayed would be 50 MB.
    assert megabytes() - before < 16
