"""What a form is."""

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

    Both functions give the call the form, or try several, and find its recorded step by the rest.
    `Arguments.in_form` notes how results come back.

    Attributes:
        applies: whether the call must be seen in this form; it is asked at every call.
        find: finds the step of such a call.
        otherwise: finds the step of a call that was refused without this form: given the call, the
            refusal and the rest, it returns the refusal if the form does not help. It is not asked
            about a final refusal.
    """

    applies: Callable[[Arguments], bool] | None = None
    find: Callable[[Arguments, Rest], Outcome] | None = None
    otherwise: Callable[[Arguments, Unsupported, Rest], Outcome] | None = None
