"""Ctrl-C and SIGTERM: a program ends at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn


class Terminated(SystemExit):
    """SIGTERM came. A program that does not catch it ends with 143, as a shell reports SIGTERM."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self) -> None:
        super().__init__(self.exit_code)


class Interrupt:
    """While this context is entered, Ctrl-C and SIGTERM only set `requested`.

    The program reads it and calls `end` at a good moment. A second Ctrl-C raises KeyboardInterrupt
    at once, for an iteration that takes too long; a second SIGTERM does not, since some programs
    send two. A request that was not acted on takes effect at the end of the context. Outside the
    main thread, where Python delivers no signals, nothing is changed, and neither is the handling
    of a signal that the program handles in its own way.

    Args:
        shared: several processes end together. A signal is then only `noted`; `requested` is set
            by `agree`, which each of them calls at the same point with what all have noted.

    Attributes:
        requested: whether to end.
        noted: the numbers of the signals that came, SIGINT for Ctrl-C.
    """

    def __init__(self, shared: bool = False) -> None:
        self.requested = False
        self.noted: set[int] = set()
        self._shared = shared
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number, usual in (
                (signal.SIGINT, (signal.default_int_handler,)),
                (signal.SIGTERM, (signal.SIG_DFL, _terminate)),
            ):
                if signal.getsignal(number) in usual:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.noted and error is None:
            self.end()

    def agree(self, noted: Collection[int]) -> None:
        """Take over the signals that any of the processes received."""
        self.noted.update(noted)  # one that came in the meantime stays, to be shared the next time
        self.requested = bool(noted)

    def end(self) -> NoReturn:
        """Raise Terminated after a SIGTERM, KeyboardInterrupt after Ctrl-C."""
        raise Terminated if signal.SIGTERM in self.noted else KeyboardInterrupt

    def _note(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.noted:
            raise KeyboardInterrupt
        self.noted.add(number)
        if not self._shared:
            self.requested = True


def sigterm_noted() -> bool:
    """Whether SIGTERM came in the `Interrupt` that is entered."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return isinstance(owner, Interrupt) and signal.SIGTERM in owner.noted


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Within this context SIGTERM raises Terminated, so that files half written are removed."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the cleanup
    raise Terminated
