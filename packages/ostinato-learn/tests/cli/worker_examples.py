"""Work for the tests of workers, which import it in processes of their own."""

from __future__ import annotations

import os
import signal

from ostinato_learn.cli.many import workers
from ostinato_learn.jobs.failures import BadInput

PROCESSES = ("process", "process again", "process once more")  # which does them?


def squares(offset: int) -> workers.Work:
    """Squares of numbers; what else is done depends on the piece."""

    def work(piece, ask):
        if piece in ("ends", "goes on"):
            answer = ask(offset)
            return answer if answer is not None else "went on"
        if piece in PROCESSES:
            return os.getpid()
        if piece == "bad":
            raise BadInput("a bad piece")
        if piece == "bug":
            raise ZeroDivisionError("a bug in a piece")
        if piece == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return piece**2 + offset

    return work


class Dealt:
    """A dealer of some pieces; see `workers.Dealer`.

    Attributes:
        results: of the pieces.
        out: how many were dealt and not yet returned when each result came.
    """

    def __init__(self, *pieces):
        self._pieces, self._n_dealt = pieces, 0
        self.results, self.out = {}, []

    def pieces(self):
        for piece in self._pieces:
            self._n_dealt += 1
            yield piece

    def answer(self, piece, question):
        return question + 1 if piece == "ends" else None

    def tell(self, piece, result):
        self.out.append(self._n_dealt - len(self.results))
        self.results[piece] = result
