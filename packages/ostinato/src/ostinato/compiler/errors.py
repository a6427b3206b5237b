"""Reasons why the engine cannot play a step, raised as exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Unsupported(Exception):  # noqa: N818 (it is a reason, not an error)
    """The engine cannot play a step; it runs in the Python loop instead.

    Attributes:
        reason: the reason, a sentence without a full stop.
        op: the name of the operation that the engine does not have, or None.
        is_final: whether no other form of the call can help; see `forms/`.
    """

    is_final = False

    def __init__(self, reason: str, op: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.op = op

    def bare(self) -> Unsupported:
        """A copy to be kept, without traceback and cause, whose frames would hold tensors."""
        return type(self)(self.reason, self.op)


class SideEffect(Unsupported):
    """The step changes a value that it reaches, or the state of a random generator."""

    is_final = True


class BatchNotFirst(Unsupported):
    """An output has the batch as another axis than its first."""


class Mispredicted(Unsupported):
    """A branch of the step went another way than in its recording.

    Attributes:
        at: the first such element.
    """

    def __init__(self, reason: str, op: str | None = None, *, at: int = 0):
        super().__init__(reason, op)
        self.at = at


class Spared(Unsupported):
    """The step varies so often that the Python loop takes less time than recording it again."""

    is_final = True


class Elsewhere(Unsupported):
    """The reason is not in the step (a GPU, a transform, the processor), so there is no warning."""

    is_final = True


class Unexamined(Elsewhere):
    """The step of a loop would be recorded, but its body was not examined in this call: what it
    calls may be new, and print, ask for the type of the index or write into what it reads."""


class Transformed(Elsewhere):
    """A transform of torch.func, or forward-mode differentiation, is active around the call."""


# Reasons that are found in several places.
IN_PLACE = "the step changes its carry, its input or a captured tensor in place"
BATCH_STATISTICS = "the rows of the batch read each other (batch statistics, in training)"
ANOTHER_COURSE = "the step behaves differently at another batch size"
A_HOOK = "the step hangs a hook on its carry, its input or a captured tensor"

# Errors that say nothing about the step that raises them: a TimeoutError, which is an OSError, may
# come from a signal handler. They are passed on to the caller of scan.
NOT_OF_A_STEP = (OSError, MemoryError)


def error_in_short(error: Exception) -> str:
    """The class and the first line of an error, to be quoted in a reason."""
    first_line = str(error).split("\n")[0]
    return f"{type(error).__name__}: {first_line}"


@contextmanager
def refused(why: str) -> Iterator[None]:
    """A context in which an error of the step becomes a reason for the Python loop.

    Args:
        why: the reason, with `{}` for the error in short.
    """
    try:
        yield
    except (Unsupported, *NOT_OF_A_STEP):
        raise
    except Exception as error:
        error.__traceback__ = None  # it would hold tensors, from Python 3.12 on in a cycle
        raise Unsupported(why.format(error_in_short(error))) from error
