"""Work for the tests of workers, which import it in processes of their own."""

from __future__ import annotations

import os
import signal

from ostinato.cli import workers
from ostinato.cli.failures import BadInput


def squares(offset: int) -> workers.Work:
    """Squares of numbers; what else is done depends on the piece."""

    def work(piece, ask):
        if piece == "ask":
            return ask(offset)
        if piece == "process":
            return os.getpid()
        if piece == "bad":
            raise BadInput("a bad piece")
        if piece == "bug":
            raise ZeroDivisionError("a bug in a piece")
        if piece == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return piece**2 + offset

    return work
