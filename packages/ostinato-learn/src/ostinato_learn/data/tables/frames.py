"""Tables as estimators and models take them: a data frame, the path of a file, or `Examples`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.sequences.examples import Coded, Examples
from ostinato_learn.data.tables.roles import Roles

if TYPE_CHECKING:
    from ostinato_learn.tasks.base import TaskSpec

_FRAMES = ("columns", "column_names", "__arrow_c_stream__")  # pandas; pyarrow, Hugging Face; polars


def is_path(X: Any) -> bool:
    """Whether X is the path of a file; sequences are never one string."""
    return isinstance(X, (str, os.PathLike))


def is_frame(X: Any) -> bool:
    """Whether X is a table in memory, of any library; a column of one has no columns."""
    has_names = hasattr(X, "columns") or hasattr(X, "column_names")
    is_column = hasattr(X, "to_list") and not has_names
    return not is_column and any(hasattr(X, name) for name in _FRAMES)


def to_learn(
    X: Any,
    y: Any,
    task: TaskSpec,
    columns: Mapping[str, Any],
    trained: Roles | None = None,
    then: Callable[[Examples], object] | None = None,
) -> Examples:
    """The sequences of a table with their answers, which are found by the ids.

    Args:
        X: a table, or `Examples`, or their X.
        y: the answers to `Examples`, if they are not in these.
        task: what is learnt.
        columns: roles, and the column of the answers as `label`.
        trained: the roles that a model knows, instead of `columns`.
        then: see `asked_together`.

    Raises:
        ValueError, TypeError: see `read_examples`; or there are no answers.
    """
    if isinstance(X, Coded):
        X = X.examples()
    if isinstance(X, Examples):
        if columns:
            raise TypeError(f"X has its roles already, and {next(iter(columns))!r} was given")
        roles = X.roles and replace(X.roles, task=task.name)  # type: ignore[arg-type]
        found = replace(X, roles=roles, y=X.y if y is None else _as_listed(y))
    else:
        if y is not None:
            raise ValueError(
                "X is a table, and y was given; wanted label=, the name of the column of y, by "
                "which answers and sequences belong together"
            )
        from ostinato_learn.data.formats.content import TABLES, ending
        from ostinato_learn.data.tables.read_examples import read_to_learn

        roles = trained or _roles(task, columns)
        holds_y = is_path(X) and ending(Path(X)) not in TABLES  # arrays, which are named
        if roles.target is None and not roles.labels and not holds_y:
            shown = X if is_path(X) else "the data frame"
            raise ValueError(f"{shown}: which column is learnt? wanted label=, its name")
        found = read_to_learn(X, roles, then, columns)
    if found.y is None:
        raise ValueError(f"{found.source or 'X'} has no answers to learn; wanted y, or label=")
    return found


def _roles(task: TaskSpec, columns: Mapping[str, Any]) -> Roles:
    """The roles of columns, by keywords; `label` may have the flag's name: forecast="sales"."""
    rest = dict(columns)
    label = rest.pop(task.name if task.name in rest else "label", ())
    labels = (label,) if isinstance(label, str) else tuple(label)
    if len(labels) > 1 and not task.several_targets:
        raise ValueError(f"label names {len(labels)} columns; wanted one to {task.name}")
    if len(labels) == 1:
        rest["target"] = labels[0]
    elif labels:
        rest["labels"] = labels
    return Roles.given(task=task.name, **rest)


def _as_listed(y: Any) -> Any:
    """Answers as `Examples` have them: an array, or a list of arrays."""
    if isinstance(y, (list, tuple)) and len(y) and np.ndim(y[0]):
        return [np.asarray(each) for each in y]
    return y if isinstance(y, list) and len(y) and hasattr(y[0], "dtype") else np.asarray(y)


def to_answer(X: Any, roles: Roles | None, answers: bool = False) -> Any:
    """The `Examples` of a table for a model that knows these roles; anything else unchanged.

    Args:
        answers: whether the answers are read, too, to measure the model.

    Raises:
        ValueError: see `read_examples`; or X is a file, and the model was trained without names.
    """
    if isinstance(X, Coded):
        return X.examples()
    if isinstance(X, Examples) or not (is_path(X) or is_frame(X)):
        return X
    if roles is None:
        if is_frame(X):
            return X  # as an array
        raise ValueError(
            f"{X}: the model was trained without names of columns, which a file needs; wanted "
            "arrays, or a model fitted with label="
        )
    from ostinato_learn.data.tables.read_examples import read_examples, table_in
    from ostinato_learn.data.tables.shapes import to_examples

    if is_path(X):
        return read_examples(X, roles.for_model(answers))
    table = table_in(X)
    if roles.shape == "long" and roles.id is not None and roles.id not in table.columns:
        return X  # one sequence, or several in another form
    return to_examples(table, roles.for_model(answers))
