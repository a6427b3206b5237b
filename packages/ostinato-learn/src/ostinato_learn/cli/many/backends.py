"""Where `--jobs` run: processes of this machine, or a cluster of Ray or Dask, a given one or one
that is started here. Each has its way to submit a call, and gives a future of
`concurrent.futures`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from ostinato.internal import needs
from ostinato_learn import environment
from ostinato_learn.interrupt import Terminated
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import limits

_log = logging.getLogger(__name__)

Room = tuple[int, Callable[..., Future]]

ANSWERS_WITHIN_S = 10
# Ray's store of objects needs little room: the messages are small.
_SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def opened(backend: str, n: int, threads: int | None) -> AbstractContextManager[Room]:
    """Room for n jobs at a time: the threads of each, and a function that submits a call.

    Processes, and a cluster that was started here, end with the context, also in the middle of a
    call.

    Args:
        threads: the number given by the user; None: a share of the cores.

    Raises:
        BadInput: no cluster answers at the address, or it has too little room.
        ModuleNotFoundError: a package is not installed.
    """
    return {"loky": _loky, "ray": _ray, "dask": _dask}[backend](n, threads)


@contextmanager
def _loky(n: int, threads: int | None) -> Iterator[Room]:
    with needs("ostinato-learn[torch]", "joblib"):
        from joblib.externals.loky import ProcessPoolExecutor

    threads = threads_of_a_job(n, threads)
    executor = ProcessPoolExecutor(n, initializer=_begin)
    try:
        yield threads, executor.submit
    finally:
        # Not by shutdown(kill_workers=True): calls that wait would end loky's thread by KeyError.
        for process in list(executor._processes.values()):
            with suppress(ProcessLookupError):
                os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        executor.shutdown()


def _begin() -> None:
    """In a process of this machine: Ctrl-C is for the command alone, and the process ends with it,
    even in the middle of a training."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = os.getppid()

    def watch() -> None:
        while os.getppid() == command:
            time.sleep(1)
        os._exit(1)  # a signal would wait for a good moment of the training

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _ray(n: int, threads: int | None) -> Iterator[Room]:
    with needs("ostinato-learn[ray]", "ray"):
        import ray

    address = os.environ.get("RAY_ADDRESS")
    where = f"the Ray cluster at RAY_ADDRESS={address}"
    if address is not None:
        _check_listens(address, where)
        options: dict[str, Any] = {"address": address}
    else:
        threads = threads_of_a_job(n, threads)
        options = {"num_cpus": n * threads, **_SMALL}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except SystemExit:  # Ray's way to end by SIGTERM
            raise Terminated from None
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            failure = f"{where} cannot be joined" if address else "Ray could not be started"
            raise BadInput(f"{failure}: {error}") from None
        finally:
            if main:
                signal.signal(signal.SIGTERM, handler)
        if address is not None:
            nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
            threads = _fitting(nodes, n, threads, where)
        assert threads is not None
        call = ray.remote(num_cpus=threads, max_retries=0)(_call)
        yield threads, lambda *arguments: call.remote(*arguments).future()
    finally:
        ray.shutdown()


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _check_listens(address: str, where: str) -> None:
    """Raise BadInput unless something listens: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise BadInput(f"{where} cannot be joined; wanted HOST:PORT of its first machine")
    try:
        socket.create_connection((host, int(port)), ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"{where} cannot be joined: {error}; without RAY_ADDRESS one is started here"
        ) from None


@contextmanager
def _dask(n: int, threads: int | None) -> Iterator[Room]:
    with needs("ostinato-learn[dask]", "distributed"):
        from distributed import Client, LocalCluster

    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address is None:
        threads = threads_of_a_job(n, threads)
        with (
            LocalCluster(
                n_workers=n,
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=logging.ERROR,
                scheduler_kwargs={"allowed_failures": 0},
            ) as cluster,
            Client(cluster) as client,
        ):
            yield threads, client.get_executor(pure=False).submit
        return
    where = f"the Dask cluster at DASK_SCHEDULER_ADDRESS={address}"
    try:
        client = Client(address, timeout=ANSWERS_WITHIN_S)
    except (OSError, ValueError) as error:
        raise BadInput(f"{where} cannot be joined: {error}") from None
    with client:
        workers = client.scheduler_info()["workers"].values()
        if any(worker["nthreads"] > 1 for worker in workers):
            raise BadInput(f"{where} has workers of several threads; wanted --nthreads 1")
        if len(workers) < n:
            raise BadInput(
                f"--jobs is {n}, but {where} has {len(workers)} workers; wanted fewer --jobs"
            )
        executor = client.get_executor(pure=False)
        try:
            yield threads or 1, executor.submit
        finally:
            executor.shutdown(wait=False)


def threads_of_a_job(n_jobs: int, asked: int | None) -> int:
    """The threads of each of n jobs: as given, or a share of the cores.

    Raises:
        BadInput: there are far more jobs than cores.
    """
    cores = environment.cores()
    most = max(limits.MOST_THREADS, cores)
    if n_jobs > most:
        raise BadInput(
            f"--jobs is {n_jobs:,}; wanted at most {most}, and best no more than the {cores} cores "
            "that this command may use"
        )
    return asked or max(1, cores // n_jobs)


def _fitting(nodes: Sequence[int], n: int, asked: int | None, where: str) -> int:
    """The threads of each of n jobs on machines with these numbers of CPUs.

    Raises:
        BadInput: they have too little room.
    """
    threads = asked or share(nodes, n)
    room = sum(cpus // threads for cpus in nodes)
    if room < n:
        raise BadInput(
            f"--jobs is {n}, but {where}, whose machines have {', '.join(map(str, nodes))} CPUs, "
            f"has room for {room} of {threads} threads; wanted fewer --jobs"
            + (" or --threads" if asked else "")
        )
    _log.warning("--jobs %d of %d threads on %s", n, threads, where)
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
