"""`Interrupt`: Ctrl-C takes effect between two iterations, not within one."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class Interrupt:
    """While this context is entered, the first Ctrl-C only sets `requested`.

    A second one raises KeyboardInterrupt at once, for an iteration that takes too long. A request
    that nobody acted on raises KeyboardInterrupt at the end of the context. Outside the main
    thread, where Python delivers no signals, and where the program handles Ctrl-C in its own way,
    nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self.requested and error is None:
            raise KeyboardInterrupt

    def _note(self, *_: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
