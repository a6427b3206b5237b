"""What a form is: a function of a call and of the forms after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from ostinato.arguments import Arguments
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.play.autograd import ScanCall

# The recorded step with its tensors, or why the call runs in the Python loop.
Outcome: TypeAlias = ScanCall | Unsupported
# Finds the recorded step of a call by the forms that come after this one.
Rest: TypeAlias = Callable[[Arguments], Outcome]


class CallForm(NamedTuple):
    """A way to see a call, so that its step can be recorded.

    Attributes:
        applies: whether the form may concern a call. It is asked at every call.
        find: gives the call its form, or tries several, and finds its recorded step by the rest.
            `Arguments.in_form` notes how results come back.
    """

    applies: Callable[[Arguments], bool]
    find: Callable[[Arguments, Rest], Outcome]
