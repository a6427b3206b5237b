"""The forms of a call, in the order in which they are tried.

A step is recorded on rows of real numbers: every leaf has the batch as its first axis, and no row
reads another. Many calls are given in other forms; each form makes one of them such a call, and its
results those of the call as it was given. `explain` shows the forms of a call.

    form             concerns                                 makes of it
    transforms       calls under torch.func                   plain tensors replace wrapped ones
    time first       dim is not 0                             the axis of time is moved to the front
    one row          rows of a loop read each other           the whole batch is one row
    batch numbers    a number equals the size of the batch    it is set to the rows of each run
    answers          branches on values of the batch          the answers of the first element
    pairs            complex leaves                           real leaves with an axis of two
    restarts         resets                                   the step selects the restart values
    folded           a carry `[B]`                            one row of B columns
    turned           the batch is the second axis             it is moved to the front
    shared           leaves without a batch                   each row gets a copy

A form is called with the call and the forms after it. It may try them several times: with the call
as it is, then, if that is refused, with another one. `compiler/recorded.py` is the end of the list.
"""

from __future__ import annotations

from functools import partial

from ostinato.arguments import Arguments
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.recorded import recorded_call
from ostinato.forms import adapted, answers, batch_numbers, plain, shared
from ostinato.forms.form import CallForm, Outcome, Rest

FORMS = (
    CallForm(plain.always, plain.transforms),
    CallForm(plain.has_another_axis, plain.time_first),
    CallForm(shared.may_be_one_row, shared.one_row),
    CallForm(plain.always, batch_numbers.find),
    CallForm(plain.always, answers.find),
    CallForm(adapted.has_complex, adapted.pairs),
    CallForm(plain.has_restarts, plain.restarts),
    CallForm(shared.may_fold, shared.folded),
    CallForm(plain.always, adapted.turned),
    CallForm(plain.always, shared.shared),
)


def _found(a: Arguments, first: int = 0) -> Outcome:
    """Find the recorded step of a call by the forms from `first` on."""
    for i in range(first, len(FORMS)):
        applies, find = FORMS[i]
        if applies(a):
            return find(a, _AFTER[i])
    return recorded_call(a)


_AFTER: tuple[Rest, ...] = tuple([partial(_found, first=i + 1) for i in range(len(FORMS))])


def compiled(a: Arguments) -> ScanCall:
    """The recorded step with its tensors.

    Raises:
        Unsupported: the call runs in the Python loop.
        Elsewhere: the same, for a reason that needs no warning (a GPU, say).
    """
    outcome = _found(a)
    if isinstance(outcome, Unsupported):
        raise outcome.bare()
    return outcome
