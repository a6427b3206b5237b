"""Python numbers that are the size of the batch: `B = x.shape[0]`, read before the scan.

A step is recorded on few rows. A number in a closure, global, attribute or item that equals the
batch of this call may mean its size: `x.view(B, -1)`, `torch.zeros(B, H)`. If a step cannot be
recorded otherwise, such numbers are set to the number of rows of each run. The recording is
compared with a run on the rows of the call, as for every step, and its guards require that the
number is the size of the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from ostinato import tree
from ostinato.compiler import torch_private
from ostinato.compiler.steps import code_key, known_numbers

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.guards.reads import Put

MOST_SIZES = 3  # sizes of the batch that are tried before a step is left to the Python loop
MOST_TRIES = 8  # sets of numbers to try, some 20 ms each


class Numbers(NamedTuple):
    """Numbers that are the size of the batch.

    Attributes:
        paths: the paths where they are read.
        codes: the code of the step, by id.
    """

    paths: tuple[str, ...]
    codes: dict[int, CodeType]


@dataclass
class _KnownNumbers:
    """The findings about the code of a step.

    Attributes:
        numbers: the numbers with which it was recorded.
        tried: sizes of the batch with which it could not be recorded.
    """

    numbers: Numbers | None = None
    tried: set[int] = field(default_factory=set)


def known(a: Arguments) -> Arguments:
    """The call with the numbers that are the size of its batch, if that is known of its step."""
    found = known_numbers.get(code_key(a.given))
    return a if found is None or found.numbers is None else _with_numbers(a, found.numbers)


def ways(
    a: Arguments, codes_of: Callable[[Any], dict[int, CodeType]]
) -> Iterator[Arguments]:
    """Which numbers may be the size of the batch, to be tried in this order; codes_of: a step."""
    n_rows = _n_rows(a)
    if n_rows < 2 or a.weights is not None or a.numbers is not None:
        return
    of = known_numbers.setdefault(code_key(a.given), _KnownNumbers())
    if n_rows in of.tried or len(of.tried) >= MOST_SIZES:
        return
    of.tried.add(n_rows)
    codes = codes_of(a.given)
    paths = list(dict.fromkeys(path for path, value, _ in _read(a, codes) if value == n_rows))
    but_one = [tuple([p for p in paths if p != without]) for without in paths]
    sets = dict.fromkeys([tuple(paths), *but_one, *[(path,) for path in paths]])
    sets.pop((), None)
    for chosen in itertools.islice(sets, MOST_TRIES):
        yield _with_numbers(a, Numbers(chosen, codes))


def remember(a: Arguments) -> None:
    """The numbers of this call are the size of the batch in those of the same step."""
    known_numbers[code_key(a.given)] = _KnownNumbers(a.numbers)


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
            put for path, value, put in _read(a, numbers.codes)
            if value == n_rows and path in numbers.paths
        ]  # fmt: skip
        for put in puts:
            put(n)
        try:
            return step(carry, x)
        finally:
            for put in puts:
                put(n_rows)

    return replace(a, step=numbered, numbers=numbers)
