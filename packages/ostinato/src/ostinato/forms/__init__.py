"""The forms of a call, in the order in which they are tried.

A step is recorded on rows of real numbers: every leaf has the batch as its first axis, and no row
reads another. Many calls are given in other forms; each form makes one of them such a call, and its
results those of the call as it was given. `explain` shows the forms of a call.

    form             concerns                                 makes of it
    time first       dim is not 0                             the axis of time is moved to the front
    one row          rows of a loop read each other           the whole batch is one row
    batch numbers    a number equals the size of the batch    it is set to the rows of each run
    answers          branches on values of the batch          the answers of the first element
    pairs            complex leaves                           real leaves with an axis of two
    restarts         resets                                   the step selects the restart values
    folded           a carry `[B]`                            one row of B columns
    turned           the batch is the second axis             it is moved to the front
    shared           leaves without a batch                   each row gets a copy

A call gets the first form that applies to it, then the forms after that one see the new call;
`compiler/recorded.py` is the end of the list. If the step is refused there, the forms that were
passed over are asked whether they help, the last one first. Under torch.func the whole list sees
plain tensors in place of wrapped ones.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from ostinato.arguments import Arguments
from ostinato.compiler.errors import Transformed, Unsupported
from ostinato.compiler.lock import one_at_a_time
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.recorded import recorded_call
from ostinato.forms import adapted, known, plain, shared
from ostinato.forms.form import CallForm, Outcome, Rest


def _rare(module: str, findings: known.Recent) -> CallForm:
    """A form whose module is no part of every start; it applies only if it found something."""

    def function(name: str) -> Any:
        with one_at_a_time:  # a fork waits for the import
            return getattr(importlib.import_module(f"ostinato.forms.{module}"), name)

    return CallForm(
        lambda a: bool(findings) and function("applies")(a),
        lambda a, rest: function("find")(a, rest),
        lambda a, refusal, rest: function("otherwise")(a, refusal, rest),
    )


FORMS = (
    CallForm(plain.has_another_axis, plain.time_first),
    CallForm(shared.is_one_row, shared.known_row, shared.one_row),
    _rare("batch_numbers", known.numbers),
    _rare("answers", known.answers),
    CallForm(adapted.has_complex, adapted.pairs),
    CallForm(plain.has_restarts, plain.restarts),
    CallForm(shared.may_fold, shared.folded),
    CallForm(otherwise=adapted.turned),
    CallForm(shared.has_numbers_alone, shared.numbers_alone, shared.shared),
)


def _found(a: Arguments, first: int = 0) -> Outcome:
    """Find the recorded step of a call by the forms from `first` on."""
    for i, applies, find in _APPLYING[first]:
        if applies(a):
            outcome = find(a, _AFTER[i])
            break
    else:
        outcome, i = recorded_call(a), len(FORMS)
    while isinstance(outcome, Unsupported) and not outcome.is_final and i > first:
        i -= 1
        otherwise = FORMS[i].otherwise
        if otherwise is not None:
            outcome = otherwise(a, outcome, _AFTER[i])
    return outcome


_AFTER: tuple[Rest, ...] = tuple([partial(_found, first=i + 1) for i in range(len(FORMS))])
# For each form, those from it on that may apply: every call asks them.
_APPLYING = [
    [(i, f.applies, f.find) for i, f in enumerate(FORMS) if i >= first and f.applies and f.find]
    for first in range(len(FORMS) + 1)
]


def compiled(a: Arguments) -> ScanCall:
    """The recorded step with its tensors.

    Raises:
        Unsupported: the call runs in the Python loop.
        Elsewhere: the same, for a reason that needs no warning (a GPU, say).
    """
    outcome = _found(a)
    if isinstance(outcome, Transformed):
        from ostinato.compiler.transforms.stand_ins import StandIns  # not a part of every start

        outcome = _found(a.in_form("outside of transforms", stand_ins=StandIns()))
    if isinstance(outcome, Unsupported):
        raise outcome.bare()
    return outcome
