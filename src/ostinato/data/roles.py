"""`Roles`: what each column of a person's table is for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Shape = Literal["long", "nested", "wide"]
TaskName = Literal["classify", "tag", "forecast"]


@dataclass(frozen=True)
class Roles:
    """The columns of a table by their names, and how sequences lie in it.

    The three shapes: *long*, a row is a time step; *nested*, a row is a sequence, whose columns
    hold lists; *wide*, a row is a sequence, and a column is a step.

    Attributes:
        shape: one of the three; None: found out, if only one is possible.
        id: names the sequence that a row belongs to.
        time: orders the steps of a sequence; dates or numbers.
        features: what the model sees at each step; of a wide table, the steps in their order.
            Empty: all columns without another role, if all of them are numbers.
        target: what the model shall answer.
        task: what kind of answer; None if there is no target.
        group: sequences of one group stay on one side of every split.
        split: the part of each sequence: train, validation or test.
        static: inputs that a sequence has once.
        known: those of the features that are known ahead of time (holidays, prices).
        sort: whether rows may stand in any order; they are sorted by id and time.
        separator: between the fields of a CSV file; None: "," (a tab in a .tsv file).

    Example:
        >>> from ostinato.data.roles import Roles
        >>> roles = Roles(id="trip", time="t", features=("x", "y"), target="mode", task="classify")
        >>> roles.inputs().target is None
        True
    """

    shape: Shape | None = None
    id: str | None = None
    time: str | None = None
    features: tuple[str, ...] = ()
    target: str | None = None
    task: TaskName | None = None
    group: str | None = None
    split: str | None = None
    static: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    sort: bool = False
    separator: str | None = None

    def inputs(self) -> Roles:
        """The roles of the columns that a model needs to answer: no target, group or split."""
        return replace(self, target=None, group=None, split=None)
