"""Python numbers that are the size of the batch: `B = x.shape[0]`, read before the scan.

A step is recorded on few rows. A number in a closure, global, attribute or item that equals the
batch of this call may mean its size: `x.view(B, -1)`, `torch.zeros(B, H)`. If a step cannot be
recorded otherwise, such numbers are set to the number of rows of each run. The recording is
compared with a run on the rows of the call, as for every step, and its guards require that the
number is the size of the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

from ostinato import tree
from ostinato.arguments import Arguments, Numbers
from ostinato.compiler import cache, torch_private
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.steps import code_key
from ostinato.forms import known
from ostinato.forms.form import Outcome, Rest

if TYPE_CHECKING:
    from ostinato.compiler.capture.guards.reads import Put

MOST_SIZES = 3  # sizes of the batch that are tried before a step is left to the Python loop
MOST_TRIES = 8  # sets of numbers to try, some 20 ms each


@dataclass
class _KnownNumbers:
    """The findings about the code of a step.

    Attributes:
        numbers: the numbers with which it was recorded.
        tried: sizes of the batch with which it could not be recorded.
    """

    numbers: Numbers | None = None
    tried: set[int] = field(default_factory=set)


_NOTHING = _KnownNumbers()


def applies(a: Arguments) -> bool:
    """Whether the step was recorded with numbers that are the size of its batch."""
    return _of(a).numbers is not None


def find(a: Arguments, rest: Rest) -> Outcome:
    """The call with those numbers."""
    return rest(_with_numbers(a, cast(Numbers, _of(a).numbers)))


def otherwise(a: Arguments, refusal: Unsupported, rest: Rest) -> Outcome:
    """The call with numbers that may be the size of its batch."""
    for form in _ways(a):
        known.answers.pop(code_key(a.given), None)  # a failed guess may be the number's doing
        attempt = rest(form)
        if not isinstance(attempt, Unsupported):
            known.numbers[code_key(a.given)] = _KnownNumbers(form.numbers)
            return attempt
    return refusal


def _of(a: Arguments) -> _KnownNumbers:
    found: _KnownNumbers = known.numbers.get(code_key(a.given), _NOTHING)
    return found


def _ways(a: Arguments) -> Iterator[Arguments]:
    """Which numbers may be the size of the batch, to be tried in this order."""
    n_rows = _n_rows(a)
    if n_rows < 2 or a.weights is not None:
        return
    of = known.numbers.setdefault(code_key(a.given), _KnownNumbers())
    if n_rows in of.tried or len(of.tried) >= MOST_SIZES:
        return
    of.tried.add(n_rows)
    codes = cache.codes_of(a.given)
    paths = list(dict.fromkeys(path for path, value, _ in _read(a, codes) if value == n_rows))
    but_one = [tuple([p for p in paths if p != without]) for without in paths]
    sets = dict.fromkeys([tuple(paths), *but_one, *[(path,) for path in paths]])
    sets.pop((), None)
    for chosen in itertools.islice(sets, MOST_TRIES):
        yield _with_numbers(a, Numbers(chosen, codes))


def _n_rows(a: Arguments) -> int:
    """B, if it is known before leaves without a batch are found; else 0."""
    sizes = [leaf.shape[1] for leaf in a.xs_leaves if leaf.dim() > 1]
    sizes += [leaf.shape[0] for leaf in a.init_leaves if leaf.dim() > 0]
    return sizes[0] if sizes else 0


def _read(a: Arguments, codes: dict[int, CodeType]) -> list[tuple[str, int, Put]]:
    """The whole numbers that the step reads and that may be replaced, with their paths."""
    from ostinato.compiler.capture.guards.observation import (
        Observation,  # not a part of every start
    )

    with torch_private.DisableTorchFunction():
        same = frozenset(codes.values())
        return Observation(a.given, codes, places=a.places, batch=((), 0), same=same).walk.whole


def _with_numbers(a: Arguments, numbers: Numbers) -> Arguments:
    step, n_rows = a.step, _n_rows(a)
    in_xs = [i for i, leaf in enumerate(a.xs_leaves) if leaf.dim() > 1]

    def rows(carry: Any, x: Any) -> int:
        leaf = tree.leaves(x)[in_xs[0]] if in_xs else tree.leaves(carry)[0]
        return int(leaf.shape[0])

    def numbered(carry: Any, x: Any) -> Any:
        n = rows(carry, x)
        if n == n_rows:
            return step(carry, x)
        puts = [
            put
            for path, value, put in _read(a, numbers.codes)
            if value == n_rows and path in numbers.paths
        ]
        for put in puts:
            put(n)
        try:
            return step(carry, x)
        finally:
            for put in puts:
                put(n_rows)

    return a.in_form("numbers that are the batch", step=numbered, numbers=numbers)
