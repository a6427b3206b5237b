"""`--jobs N`: pieces of work done by N workers of one command.

The command deals out pieces, and each worker does one after the other. A worker prepares once what
it needs for all of its pieces, such as the data, so that little is sent:

    dealer of the command             worker
    ─────────────────────             ──────
                                 ←    work = prepare(*arguments)
    pieces()                     →    work(piece, ask)
    answer(piece, question)      ←→     ask(question), as often as it likes
    tell(piece, result)          ←

An answer other than None ends the piece, and is its result. A `Team` works for a dealer:
`Processes` of this machine, or `on_ray.Trials`. Workers end with the command.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Annotated, Any, Protocol

import typer

from ostinato_learn import environment
from ostinato_learn.jobs.failures import AlreadyReported, BadInput, Failure, explained
from ostinato_learn.jobs.inputs import limits

Ask = Callable[[Any], Any]
Work = Callable[[Any, Ask], Any]

OnRay = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Run the --jobs on Ray: on the cluster of RAY_ADDRESS, or on one started here.",
    ),
]

_NOTHING = object()
ENDS_WITHIN_S = 10  # seconds from SIGTERM until a worker is killed


class Dealer(Protocol):
    """The part of a command that deals out work to workers."""

    def pieces(self) -> Iterator[Any]:
        """The pieces, taken one by one, when a worker is free."""

    def answer(self, piece: Any, question: Any) -> Any:
        """None if the piece continues; else the result with which it ends."""

    def tell(self, piece: Any, result: Any) -> None:
        """Take the result of a piece."""


class Team(Protocol):
    """Workers, which exist while they work.

    Attributes:
        threads: the threads of each worker.
    """

    @property
    def threads(self) -> int: ...

    def do_all(
        self, prepare: Callable[..., Work], arguments: tuple[Any, ...], dealer: Dealer
    ) -> None:
        """Do all pieces of a dealer.

        Args:
            prepare: a function of a module, called in each worker with `arguments`. It returns a
                function, which is called with each piece and with `ask`, which returns the answer
                to a question. If the answer is not None, the work ends and returns it; on Ray it
                ends inside `ask`.

        Raises:
            Failure: a worker failed; the message has its error.
            AlreadyReported: a worker failed by a bug, and has shown the traceback.
        """


def alone(work: Work, dealer: Dealer) -> None:
    """Do all pieces of a dealer in this process."""
    for piece in dealer.pieces():
        dealer.tell(piece, work(piece, partial(dealer.answer, piece)))


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


class Lost(Failure):
    """A worker process ended before its work was done."""

    def __init__(self) -> None:
        super().__init__(
            "a process of --jobs was killed; if the memory is full, take fewer --jobs"
        )


@contextmanager
def _alive() -> Iterator[None]:
    """Within this context, a closed connection means that a worker has died."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise Lost from None


def result(kind: str, content: Any) -> Any:
    """The result of an `outcome`.

    Raises:
        Failure: the worker failed.
        AlreadyReported: the worker failed by a bug, whose traceback is shown.
    """
    if kind == "result":
        return content
    code, message, trace = content
    if message is None:
        print(trace, end="", file=sys.stderr)
        raise AlreadyReported(code)
    failure = Failure(message)
    failure.exit_code = code
    raise failure


@dataclass(frozen=True)
class Processes:
    """n processes of this machine. Ctrl-C is for the command alone, which ends them by SIGTERM."""

    n: int
    threads: int

    def do_all(
        self, prepare: Callable[..., Work], arguments: tuple[Any, ...], dealer: Dealer
    ) -> None:
        """See `Team`."""
        with self._started(prepare, arguments) as connections:
            # None: the worker is preparing.
            left, busy = dealer.pieces(), dict.fromkeys(connections, _NOTHING)
            free: list[Connection] = []
            while True:
                while free and (piece := next(left, _NOTHING)) is not _NOTHING:
                    connection = free.pop()
                    with _alive():
                        connection.send(piece)
                    busy[connection] = piece
                if free and all(piece is _NOTHING for piece in busy.values()):
                    return
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    with _alive():
                        kind, content = ready.recv()
                    if kind == "question":
                        reply = dealer.answer(busy[ready], content)
                        with _alive():
                            ready.send(reply)
                        continue
                    found, piece = result(kind, content), busy.pop(ready)
                    free.append(ready)
                    if piece is not _NOTHING:
                        dealer.tell(piece, found)

    @contextmanager
    def _started(
        self, prepare: Callable[..., Work], arguments: tuple[Any, ...]
    ) -> Iterator[list[Connection]]:
        """The connections to the workers, which end with the context."""
        context = multiprocessing.get_context("spawn")  # a fork copies locks, but not their threads
        processes: list[BaseProcess] = []
        connections: list[Connection] = []
        try:
            for _ in range(self.n):
                ours, theirs = context.Pipe()
                process = context.Process(target=_process, args=(theirs, prepare, arguments))
                process.start()
                theirs.close()
                processes.append(process)
                connections.append(ours)
            yield connections
        finally:
            for connection in connections:
                connection.close()
            for each in processes:
                each.terminate()
            for each in processes:
                each.join(ENDS_WITHIN_S)
                if each.is_alive():
                    each.kill()
                    each.join()


def _process(connection: Connection, prepare: Callable[..., Work], arguments: tuple) -> None:
    from ostinato_learn.interrupt import sigterm_unwinds

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    with sigterm_unwinds():
        _serve(connection, prepare, arguments)


def _end_with_the_command() -> None:
    """End this process by SIGTERM when the command has ended, even in the middle of a training."""
    command = multiprocessing.parent_process()
    assert command is not None
    command.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(connection: Connection, prepare: Callable[..., Work], arguments: tuple) -> None:
    """A worker, until its connection closes or it fails."""
    hush()

    def ask(question: Any) -> Any:
        connection.send(("question", question))
        return connection.recv()

    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        kind, work = outcome(prepare, *arguments)
        connection.send((kind, None if kind == "result" else work))
        while kind == "result":
            kind, content = outcome(work, connection.recv(), ask)
            connection.send((kind, content))


def hush() -> None:
    """Keep a worker from showing the notes that the command has shown."""
    logging.getLogger("ostinato_learn").setLevel(logging.ERROR)


def outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """What `result` takes: ("result", what the function returns), or ("failure", its error)."""
    try:
        return "result", function(*arguments)
    except Exception as error:
        code, message = explained(error)
        if message is not None:  # the command adds its name again
            message = message.removeprefix("ostinato: ")
        return "failure", (code, message, traceback.format_exc())
