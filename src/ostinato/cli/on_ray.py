"""`--jobs N --ray`: the workers are actors of Ray, which places and runs them.

With RAY_ADDRESS the cluster there is joined. Without it one is started on this machine, for this
command alone, and ends with it. Ray takes no part in what is tried: the command deals out the
pieces, as it does to its own processes, so that a study has the same sampler, pruner and journal.

    command                        actor                            its thread
    ───────                        ─────                            ──────────
    actor.first()                →                                ← result: it is prepared
    actor.exchange(piece)        → piece                          → work(piece, ask)
                                 ← question                       ← ask(question)
    actor.exchange(answer)       → answer                         → the work goes on
                                 ← result                         ←
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from ostinato._extras import needs
from ostinato.cli import workers
from ostinato.cli.failures import BadInput, Failure
from ostinato.interrupt import Terminated

_log = logging.getLogger(__name__)

LOCAL = "local"  # the address of a cluster that begins and ends with the command
# A path of Ray's sockets in its folder takes some 65 of the 103 bytes that systems allow.
LONGEST_FOLDER = 36
ANSWERS_WITHIN_S = 10
OBJECT_STORE = 80 * 2**20  # bytes, near Ray's least: the messages are small

# The token without which nobody speaks with a cluster that is started here. Ray keeps the first one
# for as long as a process runs. Without one it would write its own into the home directory.
_TOKEN = secrets.token_hex(32)


@dataclass(frozen=True)
class Actors:
    """n actors of the cluster that this process has joined.

    Attributes:
        n: how many.
        threads: of each: as many CPUs are reserved for it.
    """

    n: int
    threads: int

    def ready(self, lines: Sequence[workers.Line]) -> Sequence[workers.Line]:
        import ray

        by_reply = {line.reply: line for line in lines if isinstance(line, _Line)}
        replies, _ = ray.wait(list(by_reply))
        return [by_reply[reply] for reply in replies]

    @contextmanager
    def started(
        self, prepare: Callable[..., workers.Work], arguments: tuple[Any, ...]
    ) -> Iterator[Sequence[workers.Line]]:
        import ray

        placed = ray.remote(_Worker).options(num_cpus=self.threads)
        actors: list[Any] = [placed.remote(prepare, arguments) for _ in range(self.n)]
        try:
            yield [_Line(actor) for actor in actors]
        finally:
            for actor in actors:
                ray.kill(actor)


class _Worker:
    """An actor. Its work is done in a thread, which can wait for an answer in the middle of it."""

    def __init__(self, prepare: Callable[..., workers.Work], arguments: tuple[Any, ...]):
        self._connection, theirs = multiprocessing.Pipe()
        serve = threading.Thread(
            target=workers.serve, args=(theirs, prepare, arguments), daemon=True
        )
        serve.start()

    def first(self) -> Any:
        """The first message of the work."""
        return self._connection.recv()

    def exchange(self, message: Any) -> Any:
        """The message that follows on another one."""
        self._connection.send(message)
        return self._connection.recv()


class _Line:
    """The command's end of the exchange with one actor.

    Attributes:
        reply: Ray's reference to the next message.
    """

    def __init__(self, actor: Any):
        self._actor = actor
        self.reply = actor.first.remote()

    def send(self, message: Any, /) -> None:
        self.reply = self._actor.exchange.remote(message)

    def recv(self) -> Any:
        import ray

        try:
            return ray.get(self.reply)
        except ray.exceptions.RayError as error:
            if not getattr(error, "actor_init_failed", False):
                raise EOFError from None
            reason = str(error).strip().splitlines()[-1]
            raise Failure(
                f"a worker on Ray cannot begin: {reason}; wanted the same packages on every "
                "machine of the cluster"
            ) from None


@contextmanager
def team(n: int, threads: int | None) -> Iterator[Actors]:
    """n workers of a Ray cluster, which is joined, or started, for as long as the context lasts.

    Args:
        threads: of each; None: a share of the cores.

    Raises:
        BadInput: no cluster answers at RAY_ADDRESS, or it has no room for so many.
        ModuleNotFoundError: Ray is not installed.
    """
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0"}
    with _variables(quiet), redirect_stdout(sys.stderr):  # Ray tells there of workers that died
        if address == LOCAL:
            threads = workers.threads_of_a_job(n, threads)
            with _started_here(n * threads):
                yield Actors(n, threads)
        else:
            with _joined(address):
                threads = _room(n, threads, address)
                _log.warning("--jobs %d of %d threads on Ray at %s", n, threads, address)
                yield Actors(n, threads)


@contextmanager
def _started_here(cpus: int) -> Iterator[None]:
    """A cluster of this machine alone, whose files are removed."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > LONGEST_FOLDER and os.name == "posix":
        folder = "/tmp"
    with (
        _variables({"RAY_AUTH_TOKEN": _TOKEN}),
        tempfile.TemporaryDirectory(prefix="ray", dir=folder, ignore_cleanup_errors=True) as files,
        _connected(
            "Ray could not be started",
            address=LOCAL,
            num_cpus=cpus,
            object_store_memory=OBJECT_STORE,
            include_dashboard=False,
            _temp_dir=files,
        ),
    ):
        yield


@contextmanager
def _joined(address: str) -> Iterator[None]:
    failure = f"the Ray cluster at RAY_ADDRESS={address} cannot be joined"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():  # Ray itself would wait for minutes where nothing listens
        try:
            socket.create_connection((host, int(port)), ANSWERS_WITHIN_S).close()
        except (OSError, OverflowError) as error:
            raise BadInput(f"{failure}: {error}; without RAY_ADDRESS one is started here") from None
    with _connected(failure, address=address):
        yield


@contextmanager
def _connected(failure: str, **options: Any) -> Iterator[None]:
    """Connected with a cluster; Ray's handling of SIGTERM is not kept."""
    with needs("ray", "ray"):
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
    """The most threads with which n jobs find room, each on one machine; at least one.

    Args:
        nodes: CPUs of each machine.

    Example:
        >>> share([8, 8], 3)  # two jobs on one machine, and one on the other
        4
    """
    counts = range(max(nodes, default=1), 0, -1)
    return next((t for t in counts if sum(cpus // t for cpus in nodes) >= n), 1)


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """With these environment variables, which Ray's processes read."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
