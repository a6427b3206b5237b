"""Why the iterations of a loop are not played by one scan."""

from __future__ import annotations

from ostinato.compiler.errors import Unsupported


class NoStep(Unsupported):
    """They run in Python.

    Attributes:
        quiet: whether the loop is none over tensors, so that nobody is warned.
    """

    def __init__(self, reason: str, op: str | None = None, *, quiet: bool = False):
        super().__init__(reason, op)
        self.quiet = quiet


class Stale(NoStep):
    """The step does something else than what its plan says: it is looked at again."""


class Narrowed(NoStep):
    """Only some iterations take one course: those from `begin` up to `end`."""

    def __init__(self, reason: str, op: str | None = None, *, begin: int = 0, end: int = 0):
        super().__init__(reason, op)
        self.begin, self.end = begin, end


class Counted(NoStep):
    """A number of the state changes from iteration to iteration.

    Attributes:
        name: of the number.
        by: how much a whole number grows; None of others.
    """

    def __init__(
        self, reason: str, op: str | None = None, *, name: str = "", by: int | None = None
    ):
        super().__init__(reason, op)
        self.name, self.by = name, by


class ListRead(NoStep):
    """An iteration reads, or makes shorter, a list that it appends to."""


class TooSlow(NoStep):
    """The loop takes less time in Python."""
