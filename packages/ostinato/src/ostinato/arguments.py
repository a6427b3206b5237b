"""The arguments of `scan`, checked and flattened."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ostinato import tree
from ostinato.eager import (
    RowSpans,
    Step,
    Tree,
    check_tensors,
    describe,
    split_result,
    time_length,
)

if TYPE_CHECKING:
    from types import CodeType

    from ostinato.compiler.shared import Shared
    from ostinato.compiler.transforms.stand_ins import StandIns


class Results(NamedTuple):
    """What a scan returns, as leaves.

    Attributes:
        ys: the outputs of all steps, with time first.
        finals: the leaves of the last carry.
        y_spec: the structure of the outputs.
    """

    ys: Sequence[Tensor]
    finals: Sequence[Tensor]
    y_spec: tree.Spec


class Applied(NamedTuple):
    """A form that a call was given; see `forms/`.

    Attributes:
        name: what `explain` shows.
        back: converts the results into those of the call before; None: they are the same.
    """

    name: str
    back: Callable[[Results], Results] | None = None


class Numbers(NamedTuple):
    """Python numbers of a step that are the size of the batch.

    Attributes:
        paths: the paths where they are read.
        codes: the code of the step, by id.
    """

    paths: tuple[str, ...]
    codes: dict[int, CodeType]


class Arguments(NamedTuple):
    """The arguments of one call of `scan`.

    Attributes:
        step: the step to run.
        given: the caller's step; with resets, `step` is a wrapper of it.
        leaves: the leaves of init as given: `[B, …]`, or `[1, B, …]` if of_layer.
        carry_spec: the structure of init.
        xs_leaves: the leaves of xs, time along `dim`.
        xs_spec: the structure of xs.
        dim, reverse: as for `scan`.
        ragged: lengths, resets and restart.
        of_layer: whether the first and the last carry have torch.nn's axis of layers.
        weights: the tensors that a layer's step captures; None for a user's step.
        variant: every other value that a layer's step depends on, hashable.
        memory: the budget of bytes, or None.
        truncate: after how many steps the gradient of the carry stops; None: never.
        shared: which leaves have no batch; None where all have one. See compiler/shared.py.
        forms: the forms that the call was given, in order. See forms/.
        of_loop: whether it is a loop's, whose rows may read each other: a scan's do not.
        examined: whether it may be recorded.
        places: containers and keys that the step's state is put into while it runs.
        answers: the guessed values of branches on the batch; None without such branches. See
            forms/answers.py.
        numbers: Python numbers of the step that equal the size of the batch. See
            forms/batch_numbers.py.
        stand_ins: plain tensors in place of those that transforms around the call have wrapped;
            None without transforms. See compiler/transforms/.
    """

    step: Step
    given: Step
    leaves: list[Tensor]
    carry_spec: Any
    xs_leaves: list[Tensor]
    xs_spec: Any
    dim: int
    reverse: bool
    ragged: RowSpans
    of_layer: bool
    weights: list[Tensor] | None = None
    variant: Any = None
    memory: int | None = None
    truncate: int | None = None
    shared: Shared | None = None
    forms: tuple[Applied, ...] = ()
    of_loop: bool = False
    examined: bool = True
    places: Sequence[tuple[Any, Any]] = ()
    answers: tuple[bool, ...] | None = None
    numbers: Numbers | None = None
    stand_ins: StandIns | None = None

    def in_form(
        self, name: str, back: Callable[[Results], Results] | None = None, **changed: Any
    ) -> Arguments:
        """The call in a further form, with these attributes changed."""
        return self._replace(forms=(*self.forms, Applied(name, back)), **changed)

    @property
    def rows(self) -> tuple[list[Tensor], list[Tensor]]:
        """The leaves of init and of xs, all with a batch."""
        if self.shared is None:
            return self.leaves, self.xs_leaves
        return self.shared.rows(self.leaves, self.xs_leaves)

    @property
    def n_rows(self) -> int:
        """B."""
        if self.shared is not None:
            return self.shared.n_rows
        first = self.xs_leaves[0]
        if first.dim() < 2:  # a number for each step
            return next((leaf.shape[1] for leaf in self.xs_leaves if leaf.dim() > 1), 0)
        return first.shape[1]

    @property
    def init_leaves(self) -> list[Tensor]:
        """The leaves of init, `[B, …]`."""
        return [leaf.squeeze(0) for leaf in self.leaves] if self.of_layer else self.leaves

    @property
    def init(self) -> Tree:
        """The first carry in the user's structure, its leaves `[B, …]`."""
        return tree.unflatten(self.init_leaves, self.carry_spec)

    @property
    def first_x(self) -> list[Tensor]:
        """The leaves of xs at t = 0, `[B, …]`."""
        return [leaf.select(self.dim, 0) for leaf in self.xs_leaves]

    def flat(self, states: list[Tensor], xs: list[Tensor]) -> tuple[list[Tensor], Tree]:
        """Call the step on leaves: (leaves of the new carry, output)."""
        carry, x = tree.unflatten(states, self.carry_spec), tree.unflatten(xs, self.xs_spec)
        # The leaves as given: squeezing them would be recorded as an operation of the step.
        like = tree.unflatten(self.leaves, self.carry_spec)
        return split_result(self.step(carry, x), like, self.carry_spec)


def checked(
    step: Step,
    init: Tree,
    xs: Tree,
    dim: int,
    reverse: bool,
    lengths: Any = None,
    resets: Any = None,
    restart: Any = None,
    of_layer: bool = False,
    memory: int | str | None = None,
    truncate: int | None = None,
    weights: list[Tensor] | None = None,
    variant: Any = None,
) -> Arguments:
    """The arguments of `scan`, or of a layer's scan, checked.

    Raises:
        TypeError, ValueError: as `scan`.
    """
    if not callable(step):
        raise TypeError(
            f"scan: step is {describe(step)}; wanted a function of the carry and one element of xs "
            "(the order is scan(step, init, xs))"
        )
    dim = _whole_number("dim", dim, "the number of an axis")
    leaves, carry_spec = tree.flatten(init)
    check_tensors("init", leaves)
    xs_leaves, xs_spec = tree.flatten(xs)
    check_tensors("xs", xs_leaves)
    n_steps = time_length(xs_leaves, dim)
    a = Arguments(
        step,
        step,
        leaves,
        carry_spec,
        xs_leaves,
        xs_spec,
        dim,
        reverse,
        RowSpans(None, None, [], n_steps),
        of_layer,
        weights,
        variant,
        None if memory is None else bytes_in(memory),
        None if truncate is None else checked_truncate(truncate),
    )
    if lengths is None and resets is None and restart is None:
        return a
    spans = RowSpans.of(a.init, a.init_leaves, n_steps, lengths, resets, restart, reverse)
    return a._replace(ragged=spans)


def add_shapes(error: Exception, a: Arguments) -> None:
    """Add a note to an error of the step: the shapes that it was called with, and a remedy.

    Other errors of `scan` already say what to do.
    """
    text = str(error)
    if text.startswith(("scan:", "OSTINATO")) and "step turned carry" not in text:
        return
    x = tree.unflatten(a.first_x, a.xs_spec)
    note = (
        f"scan called step with the carry {describe(a.init)} and the element {describe(x)}: xs has "
        f"T={a.ragged.n_steps} steps along dim={a.dim}. {_remedy(a)}"
    )
    add_note = getattr(error, "add_note", None)
    if add_note is not None:
        add_note(note)
    elif error.args and isinstance(error.args[0], str):  # before Python 3.11
        error.args = (f"{error.args[0]}\n{note}", *error.args[1:])


def _remedy(a: Arguments) -> str:
    init, x, xs = a.init_leaves[0], a.first_x[0], a.xs_leaves[0]
    n_rows = init.shape[0] if init.dim() else None
    if n_rows in (None, *x.shape[:1]):
        return "step is given the carry first, then the element"
    if init.dim() > xs.dim():
        return "init has more axes than xs: the order is scan(step, init, xs)"
    if a.dim == 0 and a.ragged.n_steps == n_rows and xs.dim() > 2:
        return f"xs seems to be batch-first, with B={n_rows} as init has it: pass dim=1"
    if a.dim == 1 and xs.dim() > 2 and xs.shape[1] == n_rows:
        return f"xs seems to have time first, then the B={n_rows} rows of init: pass dim=0"
    return f"init has {n_rows} rows: wanted init [B, …] and xs [T, B, …] with the same B"


_UNITS = {"B": 1} | {
    f"{prefix}{kind}": base**power
    for kind, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("kMGT", start=1)
}


def bytes_in(memory: int | str) -> int:
    """A budget in bytes: a number of bytes, or a text like "64MB" or "1.5 GiB".

    Raises:
        TypeError, ValueError: it is neither.
    """
    wanted = f'a number of bytes, or a text like "64MB" ({", ".join(_UNITS)})'
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", memory)
        units = {unit.lower(): size for unit, size in _UNITS.items()} | {"": 1}
        if found is None or found[2].lower() not in units:
            raise ValueError(f"scan: memory is {memory!r}; wanted {wanted}")
        n = int(float(found[1]) * units[found[2].lower()])
    else:
        n = _whole_number("memory", memory, wanted)
    if n < 1:
        raise ValueError(f"scan: memory is {memory!r}; wanted at least one byte")
    return n


def checked_truncate(truncate: int) -> int:
    """The number of steps after which the gradient of the carry stops.

    Raises:
        TypeError, ValueError: it is not a whole number, 1 or more.
    """
    n = _whole_number("truncate", truncate, "a whole number of steps")
    if n < 1:
        raise ValueError(
            f"scan: truncate is {n}; wanted at least 1, the steps after which the gradient of the "
            "carry stops (None: it never does)"
        )
    return n


def _whole_number(name: str, given: Any, wanted: str) -> int:
    """`given` as an int; raise TypeError if it is not one, with `wanted` in the message."""
    try:
        n = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        n = None
    if n is None:
        raise TypeError(f"scan: {name} is {describe(given)}; wanted {wanted}")
    return n
