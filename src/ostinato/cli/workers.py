"""`--jobs N`: pieces of work done by N workers of one command.

The command deals out pieces, and each worker does one after the other. What a worker needs for all
of its pieces, such as the data, it makes for itself once, so that little is sent:

    command                      worker
    ───────                      ──────
                            ←    work = prepare(*arguments)
    piece                   →    work(piece, ask)
    answer(piece, question) ←→     ask(question), as often as it likes
    (piece, result)         ←

A `Team` starts the workers: `Processes` of this machine, or `on_ray.Actors`. The messages are the
same. Workers end with the command.
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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Annotated, Any, Protocol

import typer

from ostinato import environment
from ostinato.cli import limits
from ostinato.cli.failures import BadInput, Failure, Told

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
ENDS_WITHIN_S = 10  # a worker after SIGTERM, before it is killed


class Line(Protocol):
    """The command's end of the connection to one worker."""

    def send(self, message: Any, /) -> None:
        """Raises: BrokenPipeError or ConnectionResetError: the worker is gone."""

    def recv(self) -> Any:
        """The next message, waited for. Raises: EOFError: the worker is gone."""


class Team(Protocol):
    """Workers that can be started.

    Attributes:
        threads: of each.
    """

    @property
    def threads(self) -> int: ...

    def started(
        self, prepare: Callable[..., Work], arguments: tuple[Any, ...]
    ) -> AbstractContextManager[Sequence[Line]]:
        """The lines to the workers, which end with the context."""

    def ready(self, lines: Sequence[Line]) -> Sequence[Line]:
        """Those on which a message lies, or which have ended; at least one, waited for."""


def team(n: int, threads: int | None, ray: bool) -> AbstractContextManager[Team]:
    """A team of n workers.

    Args:
        threads: of each, as the person asks; None: a share of the cores.
        ray: whether Ray places and runs them.
    """
    if not ray:
        return nullcontext(Processes(n, threads_of_a_job(n, threads)))
    from ostinato.cli import on_ray

    return on_ray.team(n, threads)


def threads_of_a_job(n_jobs: int, asked: int | None) -> int:
    """The threads of each of n jobs: as many as are asked for, or a share of the cores.

    Raises:
        BadInput: only a mistake explains so many jobs on one machine.
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
    """Whether a worker has the files of the command.

    Args:
        here, there: the digests of the files by their names, of a worker and of the command.

    Raises:
        BadInput: they differ.
    """
    if here != there:
        raise BadInput(
            f"{', '.join(there)}: a worker on {platform.node()} reads other data than the command; "
            "wanted the same files at the same place on every machine"
        )


def done(
    team: Team,
    prepare: Callable[..., Work],
    arguments: tuple[Any, ...],
    pieces: Iterable[Any],
    answer: Callable[[Any, Any], Any] = lambda piece, question: None,
) -> Generator[tuple[Any, Any], None, None]:
    """Each piece with its result, in the order in which they are done.

    Args:
        team: the workers.
        prepare: a function of a module, called in each worker with `arguments`.
        pieces: taken one by one, when a worker is prepared and free.
        answer: to a question that a worker asks on its piece.

    Raises:
        Failure: a worker failed; the message tells its error.
        Told: the same, of a bug whose traceback the worker has shown.
    """
    with team.started(prepare, arguments) as lines:
        # Until a worker is prepared it is busy with nothing.
        left, busy = iter(pieces), dict.fromkeys(lines, _NOTHING)
        free: list[Line] = []
        while True:
            while free and (piece := next(left, _NOTHING)) is not _NOTHING:
                line = free.pop()
                with _alive():
                    line.send(piece)
                busy[line] = piece
            if free and all(piece is _NOTHING for piece in busy.values()):
                return
            for line in team.ready(list(busy)):
                with _alive():
                    kind, content = line.recv()
                if kind == "question":
                    reply = answer(busy[line], content)
                    with _alive():
                        line.send(reply)
                elif kind == "failure":
                    raise _failure(*content)
                else:
                    free.append(line)
                    piece = busy.pop(line)
                    if piece is not _NOTHING:
                        yield piece, content


@contextmanager
def _alive() -> Iterator[None]:
    """Whoever speaks with a worker in this context expects that it is there."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise Failure(
            "a process of --jobs was ended from outside; if the memory is full, take fewer --jobs"
        ) from None


def _failure(code: int, message: str | None, trace: str) -> Failure:
    """The failure of a worker; without a message it is a bug, whose traceback is shown."""
    if message is None:
        print(trace, end="", file=sys.stderr)
        return Told(code)
    failure = Failure(message)
    failure.exit_code = code
    return failure


@dataclass(frozen=True)
class Processes:
    """n processes of this machine. Ctrl-C is for the command alone, which ends them by SIGTERM."""

    n: int
    threads: int

    def ready(self, lines: Sequence[Line]) -> Sequence[Line]:
        return wait(lines)  # type: ignore[arg-type, return-value]  # they are connections

    @contextmanager
    def started(
        self, prepare: Callable[..., Work], arguments: tuple[Any, ...]
    ) -> Iterator[Sequence[Line]]:
        context = multiprocessing.get_context("spawn")  # a fork has locks of threads it lacks
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
            yield list(connections)
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
    from ostinato.interrupt import sigterm_unwinds

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    with sigterm_unwinds():
        serve(connection, prepare, arguments)


def _end_with_the_command() -> None:
    """End this process by SIGTERM when the command is gone, also in the middle of a training."""
    command = multiprocessing.parent_process()
    assert command is not None
    command.join()
    os.kill(os.getpid(), signal.SIGTERM)


def serve(connection: Connection, prepare: Callable[..., Work], arguments: tuple) -> None:
    """A worker, until its connection closes or it fails."""
    logging.getLogger("ostinato").setLevel(logging.ERROR)  # the command has shown the notes

    def ask(question: Any) -> Any:
        connection.send(("question", question))
        return connection.recv()

    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        kind, work = _outcome(prepare, *arguments)
        connection.send((kind, None if kind == "result" else work))
        while kind == "result":
            kind, content = _outcome(work, connection.recv(), ask)
            connection.send((kind, content))


def _outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """("result", what the function returns) or ("failure", what `_failure` takes)."""
    from ostinato.cli.app import explained

    try:
        return "result", function(*arguments)
    except Exception as error:
        code, message = explained(error)
        if message is not None:  # the command says its name once more
            message = message.removeprefix("ostinato: ")
        return "failure", (code, message, traceback.format_exc())
