"""Work for the tests of workers, which import it in processes of their own."""

from __future__ import annotations

import logging
import os
import signal
import time

from ostinato_learn.cli.many import workers
from ostinato_learn.jobs.failures import BadInput

PROCESSES = ("process", "process again", "process once more")  # which does them?
SECONDS = {"waits": 0.5, "takes long": 600}


def squares(offset: int) -> workers.Work:
    """Squares of numbers; what else is done depends on the piece."""

    def work(piece):
        if piece in PROCESSES:
            return piece, os.getpid()
        if piece == "bad":
            raise BadInput("a bad piece")
        if piece == "bug":
            raise ZeroDivisionError("a bug in a piece")
        if piece in SECONDS:
            time.sleep(SECONDS[piece])
            return piece, None
        if piece == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if piece == "says":
            logging.getLogger("ostinato_learn.some").error("said in a piece")
            return piece, None
        return piece, piece**2 + offset

    logging.getLogger("ostinato_learn.some").error("said in preparing")
    return work


class Pieces:
    """Some pieces, and how many of them were taken."""

    def __init__(self, *pieces):
        self._pieces, self.n_taken = pieces, 0

    def __iter__(self):
        for piece in self._pieces:
            self.n_taken += 1
            yield piece
