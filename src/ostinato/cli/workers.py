"""`--jobs N`: pieces of work done in N processes of one command.

The command deals out pieces, and each worker does one after the other. What a worker needs for all
of its pieces, such as the data, it makes for itself once, so that little is sent:

    command                      worker
    ───────                      ──────
                            ←    work = prepare(*arguments)
    piece                   →    work(piece, ask)
    answer(piece, question) ←→     ask(question), as often as it likes
    (piece, result)         ←

Workers end with the command: their connection closes. Ctrl-C is for the command alone, which ends
them by SIGTERM.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ostinato import environment
from ostinato.cli.failures import Failure, Told

Ask = Callable[[Any], Any]
Work = Callable[[Any, Ask], Any]

_NOTHING = object()
ENDS_WITHIN_S = 10  # a worker after SIGTERM, before it is killed


def threads_of_a_job(n_jobs: int, asked: int | None) -> int:
    """The threads of each of n jobs: as many as are asked for, or a share of the cores."""
    return asked or max(1, environment.cores() // n_jobs)


def done(
    n: int,
    prepare: Callable[..., Work],
    arguments: tuple[Any, ...],
    pieces: Iterable[Any],
    answer: Callable[[Any, Any], Any] = lambda piece, question: None,
) -> Generator[tuple[Any, Any], None, None]:
    """Each piece with its result, in the order in which they are done.

    Args:
        n: how many workers.
        prepare: a function of a module, called in each worker with `arguments`.
        pieces: taken one by one, when a worker is prepared and free.
        answer: to a question that a worker asks on its piece.

    Raises:
        Failure: a worker failed; the message tells its error.
        Told: the same, of a bug whose traceback the worker has shown.
    """
    with _started(n, prepare, arguments) as connections:
        # Until a worker is prepared it is busy with nothing.
        left, busy = iter(pieces), dict.fromkeys(connections, _NOTHING)
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
                connection = ready
                with _alive():
                    kind, content = connection.recv()
                if kind == "question":
                    reply = answer(busy[connection], content)
                    with _alive():
                        connection.send(reply)
                elif kind == "failure":
                    raise _failure(*content)
                else:
                    free.append(connection)
                    piece = busy.pop(connection)
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


def _failure(code: int, message: str | None) -> Failure:
    """The failure of a worker; without a message it has shown its traceback."""
    if message is None:
        return Told(code)
    failure = Failure(message)
    failure.exit_code = code
    return failure


@contextmanager
def _started(
    n: int, prepare: Callable[..., Work], arguments: tuple[Any, ...]
) -> Iterator[list[Connection]]:
    """The connections to n workers, which end with the context."""
    context = multiprocessing.get_context("spawn")  # a fork has the locks of threads that it lacks
    processes: list[BaseProcess] = []
    connections: list[Connection] = []
    try:
        for _ in range(n):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, prepare, arguments))
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


def _serve(connection: Connection, prepare: Callable[..., Work], arguments: tuple) -> None:
    """A worker, until its connection closes."""
    from ostinato.cli.app import explained
    from ostinato.interrupt import sigterm_unwinds

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("ostinato").setLevel(logging.ERROR)  # the command has shown the notes

    def ask(question: Any) -> Any:
        connection.send(("question", question))
        return connection.recv()

    try:
        with sigterm_unwinds():
            work = prepare(*arguments)
            connection.send(("result", None))  # it is prepared
            while True:
                connection.send(("result", work(connection.recv(), ask)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the command has ended
        return
    except Exception as error:
        code, message = explained(error)
        if message is None:
            traceback.print_exc()
        connection.send(("failure", (code, message)))
