"""Training on two machines: two network namespaces, joined by a cable, are two hosts to torchrun.

They need the rights of root and iproute2; elsewhere the tests are left out.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_examples import make_file, process, without_clock

pytestmark = [pytest.mark.process, pytest.mark.slow]

SMALL = ("--hidden-size", 4, "--batch-size", 9, "--threads", 1, "--eval-every", 20)
ADDRESSES = ("10.77.0.1", "10.77.0.2")


@pytest.fixture(scope="module")
def hosts():
    """The names of two namespaces, each with an interface of the same name, below 16 characters."""
    names = [f"osti{os.getpid()}{end}" for end in "ab"]
    if shutil.which("ip") is None or not ip("netns", "add", names[0]):
        pytest.skip("this needs root and the command ip")
    try:
        cable = ("type", "veth", "peer", "name", names[1])
        commands = [("netns", "add", names[1]), ("link", "add", names[0], *cable)]
        for name, address in zip(names, ADDRESSES, strict=True):
            inside = ("-n", name)
            commands += [
                ("link", "set", name, "netns", name),
                (*inside, "addr", "add", f"{address}/24", "dev", name),
                (*inside, "link", "set", name, "up"),
                (*inside, "link", "set", "lo", "up"),
            ]
        for command in commands:
            if not ip(*command):
                pytest.skip(f"ip {' '.join(command)} is not possible here")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


def train(hosts: list[str], *arguments: object) -> list[subprocess.Popen]:
    """`torchrun` on each host, as docs/distributed.md has it."""
    started = []
    for rank, host in enumerate(hosts):
        nodes = ("--nnodes", 2, "--nproc-per-node", 1, "--node-rank", rank)
        master = ("--master-addr", ADDRESSES[0], "--master-port", 29500)
        launcher = (sys.executable, "-m", "torch.distributed.run", *nodes, *master)
        train = "-m", "ostinato_learn", "train", *arguments
        inside = ("ip", "netns", "exec", host, *launcher, *train)
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        environment["GLOO_SOCKET_IFNAME"] = host
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([*map(str, inside)], env=environment, **streams))
    return started


def ended(started: list[subprocess.Popen], within: float) -> list[tuple[int, str, str]]:
    try:
        outputs = [each.communicate(timeout=within) for each in started]
        return [(s.returncode, *o) for s, o in zip(started, outputs, strict=True)]
    finally:
        for each in started:
            each.kill()


def test_two_machines_train_as_one(hosts, tmp_path):
    data, one, two = make_file(tmp_path / "data.npz"), tmp_path / "one", tmp_path / "two"
    arguments = ("train", data, *SMALL, "--iterations", 40, "-o")
    found = ended(train(hosts, *arguments[1:], two), 120)
    assert [code for code, _, _ in found] == [0, 0], found
    assert "accuracy on all" in found[0][1] and found[1][1] == ""
    assert process(*arguments, one).returncode == 0
    theirs, ours = without_clock(one / "metrics.jsonl"), without_clock(two / "metrics.jsonl")
    assert len(ours) == 3
    for a, b in zip(theirs, ours, strict=True):
        assert b == pytest.approx(a, rel=1e-4)


def test_a_process_that_dies_on_one_machine_ends_the_other(hosts, tmp_path):
    data, run = make_file(tmp_path / "data.npz"), tmp_path / "run"
    length = ("--iterations", 10**6, "--checkpoint-every", 10)
    started = train(hosts, data, *SMALL, *length, "-o", run)
    until = time.monotonic() + 90
    while not (run / "checkpoint" / "checkpoint.json").is_file():
        assert time.monotonic() < until and started[0].poll() is None
        time.sleep(0.05)
    os.kill(worker(started[1].pid), signal.SIGKILL)
    found = ended(started, 30)
    assert [code for code, _, _ in found] == [1, 1]
    assert "another process of this training has ended" in found[0][2]
    assert f"Go on with: ostinato train --resume --output {run}" in found[0][2]


def worker(launcher: int) -> int:
    """The process that torchrun has started; `ip` has become torchrun."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = (
        int(child)
        for child in children
        if "\0RANK=1\0" in Path(f"/proc/{child}/environ").read_text()
    )
    return found
