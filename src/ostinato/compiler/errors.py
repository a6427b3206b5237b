"""Why a step cannot be played by the engine."""

from __future__ import annotations


class Unsupported(Exception):  # noqa: N818 (it is a reason, and no error)
    """Why a step cannot be played by the engine; the eager loop plays it instead."""

    def __init__(self, reason: str, op: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.op = op

    def bare(self) -> Unsupported:
        """To be kept: without what it was raised from, whose frames hold all that was at hand."""
        return type(self)(self.reason, self.op)


class SideEffect(Unsupported):
    """The step changes something that it reaches."""


class Elsewhere(Unsupported):
    """Not the step's doing: a GPU, a transform, a processor. No reason to warn."""


# Raised while a step runs they are no word on it: a signal handler's (TimeoutError), say.
NOT_OF_A_STEP = (OSError, MemoryError)


def error_in_short(error: Exception) -> str:
    """For a reason that names it."""
    first_line = str(error).split("\n")[0]
    return f"{type(error).__name__}: {first_line}"
