"""`--jobs N`: pieces of work done side by side, on this machine or on a cluster.

The command deals out pieces, and each worker does one after the other. A worker prepares once what
it needs for all of its pieces, such as the data, so that little is sent.
"""

from __future__ import annotations

import functools
import logging
import pickle
import platform
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

import typer

from ostinato_learn.cli.many import backends
from ostinato_learn.jobs.failures import AlreadyReported, BadInput, Failure, explained

Work = Callable[[Any], Any]

Backend = Annotated[
    Literal["loky", "ray", "dask"],
    typer.Option(
        "--backend",
        help="What runs the --jobs: loky, processes of this machine; ray or dask, the cluster of "
        "RAY_ADDRESS or DASK_SCHEDULER_ADDRESS, or one started here.",
    ),
]

_LOGGERS = ("ostinato", "ostinato_learn")


def alone(prepare: Callable[..., Work], arguments: tuple, pieces: Iterable[Any]) -> Iterator[Any]:
    """The results of all pieces, done in this process."""
    yield from map(prepare(*arguments), pieces)


@dataclass(frozen=True)
class Team:
    """n workers, each with so many threads.

    Attributes:
        submit: submits a call to a worker; see `backends.py`.
    """

    n: int
    threads: int
    submit: Callable[..., Future]

    def do(
        self, prepare: Callable[..., Work], arguments: tuple, pieces: Iterable[Any]
    ) -> Iterator[Any]:
        """The results of all pieces as they come; what pieces log is logged here.

        Args:
            prepare: a function of a module, called once in each worker with `arguments`. It returns
                a function, which is called with each piece.
            pieces: taken one by one, when a worker is free.

        Raises:
            Failure: a worker failed; the message has its error.
            AlreadyReported: a worker failed by a bug; its traceback is shown.
        """
        packed, left = pickle.dumps(arguments), iter(pieces)
        running: set[Future] = set()
        while True:
            for piece in islice(left, self.n - len(running)):
                running.add(self.submit(_do, prepare, packed, piece))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                try:
                    done = future.result()
                except Exception as error:  # `_do` raises nothing: the worker itself is lost
                    raise Failure(
                        f"a process of --jobs was killed ({type(error).__name__}); if the memory "
                        "is full, take fewer --jobs"
                    ) from None
                yield done.result()


@contextmanager
def team(n: int, threads: int | None, backend: str) -> Iterator[Team]:
    """A team of n workers, which end with the context.

    Args:
        threads: the threads of each, as given by the user; None: a share of the cores.
        backend: see `Backend`.

    Raises:
        BadInput: there is no such cluster, or it has too little room.
        ModuleNotFoundError: a package is not installed.
    """
    with backends.opened(backend, n, threads) as (of_each, submit):
        yield Team(n, of_each, submit)


def check_same(here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raise BadInput if a worker has not the files of the command.

    Args:
        here, there: the digests of a worker's and of the command's files, by name.

    Raises:
        BadInput: they differ.
    """
    if here != there:
        raise BadInput(
            f"{', '.join(there)}: a worker on {platform.node()} reads other data than the command; "
            "wanted the same files at the same place on every machine"
        )


# ---- in a worker


class _Done(NamedTuple):
    """A piece that was done.

    Attributes:
        said: what was logged: logger, level and message.
        value: the result, or, of a piece that `failed`, exit code, message and traceback.
    """

    said: tuple[tuple[str, int, str], ...]
    failed: bool
    value: Any

    def result(self) -> Any:
        for name, level, message in self.said:
            logging.getLogger(name).log(level, "%s", message)
        if not self.failed:
            return self.value
        code, message, trace = self.value
        if message is None:
            print(trace, end="", file=sys.stderr)
            raise AlreadyReported(code)
        failure = Failure(message)
        failure.exit_code = code
        raise failure


def _do(prepare: Callable[..., Work], arguments: bytes, piece: Any) -> _Done:
    said: list[tuple[str, int, str]] = []
    try:
        with _logged([]):  # the command has read the same data, and logged the same
            work = _prepared(prepare, arguments)
        with _logged(said):
            found = work(piece)
        return _Done(tuple(said), False, found)
    except Exception as error:
        code, message = explained(error)
        if message is not None:  # the command adds its name again
            message = message.removeprefix("ostinato: ")
        return _Done(tuple(said), True, (code, message, traceback.format_exc()))


@functools.lru_cache(maxsize=1)
def _prepared(prepare: Callable[..., Work], arguments: bytes) -> Work:
    """The work of this process, prepared for its first piece."""
    return prepare(*pickle.loads(arguments))


@contextmanager
def _logged(said: list[tuple[str, int, str]]) -> Iterator[None]:
    """Collect what both packages log."""

    class Collected(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append((record.name, record.levelno, record.getMessage()))

    handler, loggers = Collected(), [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
