"""The Ray cluster on which a command runs its jobs: an existing one, or one of its own."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ostinato.internal import needs
from ostinato_learn.cli.many import workers
from ostinato_learn.interrupt import Terminated
from ostinato_learn.jobs.failures import BadInput

_log = logging.getLogger(__name__)

LOCAL = "local"  # the address of a cluster that begins and ends with the command
# The paths of Ray's sockets in its folder have some 65 of the 103 bytes that systems allow.
LONGEST_FOLDER = 36
ANSWERS_WITHIN_S = 10
# 80 MB are close to Ray's minimum; the messages are small.
_SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
# The token for all communication with a cluster that is started here. Ray keeps the first token
# while a process runs. Without one it would write its own into the home directory.
_TOKEN = secrets.token_hex(32)


@contextmanager
def room(n: int, threads: int | None) -> Iterator[int]:
    """The threads of each of n jobs on a cluster, which is joined or started for this context.

    Args:
        threads: the number given by the user; None: a share of the cores.

    Raises:
        BadInput: no cluster answers at RAY_ADDRESS, or it has too little room.
        ModuleNotFoundError: Ray is not installed.
    """
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL:
        threads = workers.threads_of_a_job(n, threads)
        with _started_here(n * threads):
            yield threads
    else:
        with _joined(address):
            threads = _room(n, threads, address)
            _log.warning("--jobs %d of %d threads on Ray at %s", n, threads, address)
            yield threads


@contextmanager
def _started_here(cpus: int) -> Iterator[None]:
    """A cluster of this machine alone, whose files are removed."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > LONGEST_FOLDER and os.name == "posix":
        folder = "/tmp"
    with (
        variables({"RAY_AUTH_TOKEN": _TOKEN}),
        tempfile.TemporaryDirectory(prefix="ray", dir=folder, ignore_cleanup_errors=True) as files,
        _connected(
            "Ray could not be started", address=LOCAL, num_cpus=cpus, _temp_dir=files, **_SMALL
        ),
    ):
        yield


@contextmanager
def _joined(address: str) -> Iterator[None]:
    failure = f"the Ray cluster at RAY_ADDRESS={address} cannot be joined"
    if "://" in address:  # Ray Tune would run on the cluster, without access to the study
        raise BadInput(f"{failure}: wanted HOST:PORT of its first machine, on one of its machines")
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():  # Ray itself would wait for minutes if nothing listens
        try:
            socket.create_connection((host, int(port)), ANSWERS_WITHIN_S).close()
        except (OSError, OverflowError) as error:
            raise BadInput(f"{failure}: {error}; without RAY_ADDRESS one is started here") from None
    with _connected(failure, address=address):
        yield


@contextmanager
def _connected(failure: str, **options: Any) -> Iterator[None]:
    """Within this context the process is connected with a cluster; Ray does not handle SIGTERM."""
    with needs("ostinato-learn[ray]", "ray", "pandas", "pyarrow"):
        import pandas  # noqa: F401  Ray Tune needs both, and its error names neither
        import pyarrow  # noqa: F401
        import ray

    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except SystemExit:  # Ray's way to end by SIGTERM
            raise Terminated from None
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise BadInput(f"{failure}: {error}") from None
        finally:
            if main:
                signal.signal(signal.SIGTERM, handler)
        yield
    finally:
        ray.shutdown()


def _room(n: int, asked: int | None, address: str) -> int:
    """The threads of each of n jobs on the cluster that this process has joined."""
    import ray

    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    threads = asked or share(nodes, n)
    room = sum(cpus // threads for cpus in nodes)
    if room < n:
        raise BadInput(
            f"--jobs is {n}, but the Ray cluster at RAY_ADDRESS={address}, whose machines have "
            f"{', '.join(map(str, nodes))} CPUs, has room for {room} of {threads} threads; "
            "wanted fewer --jobs" + (" or --threads" if asked else "")
        )
    return threads


def share(nodes: Sequence[int], n: int) -> int:
    """The largest number of threads with which n jobs fit, each on one machine; at least one.

    Args:
        nodes: CPUs of each machine.

    Example:
        >>> share([8, 8], 3)  # two jobs on one machine, and one on the other
        4
    """
    counts = range(max(nodes, default=1), 0, -1)
    return next((t for t in counts if sum(cpus // t for cpus in nodes) >= n), 1)


@contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """With these environment variables, which Ray's processes read."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}
