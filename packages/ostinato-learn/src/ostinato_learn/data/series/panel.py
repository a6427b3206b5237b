"""`Panel`: many series of numbers over time, with what else is known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.sequences.as_array import array_of, numbers, run_back
from ostinato_learn.data.sequences.mapped import Pieces, is_mapped, stretches
from ostinato_learn.data.sequences.ragged import Ragged, offsets_of
from ostinato_learn.data.tables.feature_names import are_steps, column_names, in_order, is_frame

if TYPE_CHECKING:
    from ostinato_learn.data.sequences.preparation import Preparation
    from ostinato_learn.data.tables.roles import Roles

Names = Mapping[str, np.ndarray]
BLOCK = 1 << 21  # numbers in memory at a time of series on disk: 16 MB, some times when read
LARGEST = float(np.finfo(np.float32).max)  # networks compute in float32


@dataclass(frozen=True, eq=False)
class Panel:
    """N series to be forecast, stored end to end; made by `Panel.of` or `as_panel`.

    The arrays may lie on disk (`joined`); then `parts` gives some series at a time.

    Attributes:
        target: `[ΣT]` float64, the values of all series; NaN where one is missing.
        offsets: `[N + 1]` int64; series i is `target[offsets[i]:offsets[i + 1]]`, T_i values.
        past: `[ΣT, P]` float64, inputs that are known for the same steps as the target.
        future: `[ΣU, K]` float64, inputs that are known in advance, such as the day of the week:
            U_i steps from the first step of series i, at least T_i, and T_i + horizon to forecast
            its next values.
        future_offsets: `[N + 1]` int64, the offsets of `future`.
        static: `[N, S]` float64, inputs that do not change over time.
        names: of the columns of data frames, by "X" (the target and the past inputs), "future" and
            "static"; empty for arrays.

    Example:
        >>> panel = Panel.of([[1.0, 2.0, 3.0], [4.0, 5.0]])
        >>> panel.target, panel.offsets
        (array([1., 2., 3., 4., 5.]), array([0, 3, 5]))
    """

    target: np.ndarray
    offsets: np.ndarray
    past: np.ndarray
    future: np.ndarray
    future_offsets: np.ndarray
    static: np.ndarray
    names: Names = field(default_factory=dict)

    @staticmethod
    def of(
        target: Sequence[Any], *, past: Any = None, future: Any = None, static: Any = None
    ) -> Panel:
        """A panel from one array for each series.

        Args:
            target: N arrays `[T_i]`; NaN is a missing value.
            past: N arrays `[T_i, P]`, or `[T_i]` for P = 1.
            future: N arrays `[U_i, K]`, or `[U_i]` for K = 1, with U_i ≥ T_i.
            static: `[N, S]`, or `[N]` for S = 1.

        Raises:
            ValueError, TypeError: shapes do not fit together; a value is infinite, too large for
                float32 or not a number; an input (not the target) is missing. The message names it.

        Example:
            >>> panel = Panel.of([[1.0, 2.0, 3.0], [4.0, 5.0]], static=[0, 1])
            >>> len(panel), panel.lengths, panel.n_static
            (2, array([3, 2]), 1)
        """
        if len(target) == 0:
            raise ValueError("X has no series; wanted at least one")
        series = [_column(values, f"series {i}") for i, values in enumerate(target)]
        lengths = np.array([len(values) for values in series])
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            raise ValueError(f"series {empty[0]} of X has no steps; wanted at least one")
        offsets = offsets_of(lengths)
        _check_values(np.concatenate(series), _Place("X", offsets), missing=True)
        before, _ = _inputs(past, "past", lengths, exactly=True)
        known, ends = _inputs(future, "future", lengths, exactly=False)
        fixed = _static(static, len(series))
        names = _names(future=future, static=static)
        return Panel(np.concatenate(series), offsets, before, known, ends, fixed, names)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """T of each series, `[N]` int64."""
        return np.diff(self.offsets)

    @property
    def n_past(self) -> int:
        """P, the features that are known up to the present."""
        return self.past.shape[1]

    @property
    def n_future(self) -> int:
        """K, the features whose future is known."""
        return self.future.shape[1]

    @property
    def n_static(self) -> int:
        """S, the numbers that a series has once."""
        return self.static.shape[1]

    def series(self, i: int) -> np.ndarray:
        """The values of series i, `[T_i]`."""
        return self.target[self.offsets[i] : self.offsets[i + 1]]

    def before(self, steps: int) -> Panel:
        """The panel as it was `steps` steps before the end of each series.

        Inputs known in advance stay, since they were known then.

        Raises:
            ValueError: a series does not have more steps than that.
        """
        lengths = self.lengths
        short = np.flatnonzero(lengths <= steps)
        if len(short):
            raise ValueError(
                f"series {short[0]} has {lengths[short[0]]} steps; wanted more than the {steps} "
                "that are to be held back"
            )
        if steps == 0:
            return self
        if self.on_disk:
            return Panel.joined((part.before(steps) for _, part in self.parts()), on_disk=True)
        position = np.arange(len(self.target)) - np.repeat(self.offsets[:-1], lengths)
        kept = position < np.repeat(lengths - steps, lengths)
        return replace(
            self,
            target=self.target[kept],
            offsets=offsets_of(lengths - steps),
            past=self.past[kept],
        )

    @property
    def on_disk(self) -> bool:
        """Whether the values are read when they are asked for."""
        return is_mapped(self.target)

    def parts(self) -> Iterator[tuple[np.ndarray, Panel]]:
        """All series in their order: their positions and their panel, in memory.

        All at once if they are in memory, else some at a time.
        """
        if not self.on_disk:
            yield np.arange(len(self)), self
            return
        for chosen in stretches(self.lengths * (1 + self.n_past + self.n_future), BLOCK):
            yield chosen, self._read(int(chosen[0]), int(chosen[-1]) + 1)

    def _read(self, start: int, stop: int) -> Panel:
        """Series start…stop−1, copied."""
        offsets = self.offsets[start : stop + 1]
        ahead = self.future_offsets[start : stop + 1]
        return replace(
            self,
            target=np.array(self.target[offsets[0] : offsets[-1]]),
            offsets=offsets - offsets[0],
            past=np.array(self.past[offsets[0] : offsets[-1]]),
            future=np.array(self.future[ahead[0] : ahead[-1]]),
            future_offsets=ahead - ahead[0],
            static=self.static[start:stop],
        )

    @staticmethod
    def joined(panels: Iterable[Panel], on_disk: bool) -> Panel:
        """The series of several panels, one or more, with the same inputs, in memory or on disk."""
        target, past, future = (Pieces(on_disk) for _ in range(3))
        static, lengths, ahead = [], [], []
        for panel in panels:
            target.append(panel.target)
            past.append(panel.past)
            future.append(panel.future)
            static.append(panel.static)
            lengths.append(panel.lengths)
            ahead.append(np.diff(panel.future_offsets))
            names = panel.names
        return Panel(
            target=target.joined(),
            offsets=offsets_of(np.concatenate(lengths)),
            past=past.joined(),
            future=future.joined(),
            future_offsets=offsets_of(np.concatenate(ahead)),
            static=np.concatenate(static),
            names=names,
        )


def column_names_from(value: Any, where: str) -> Names:
    """`Panel.names` as a saved model has them; `where` names them in errors.

    Raises:
        ValueError: they are something else.
    """
    sound = isinstance(value, dict) and value.keys() <= {"X", "future", "static"}
    for columns in value.values() if sound else ():
        sound &= isinstance(columns, list) and all(isinstance(column, str) for column in columns)
    if not sound:
        raise ValueError(f"{where} are not names of columns; it is damaged")
    return {name: np.array(columns, dtype=object) for name, columns in value.items()}


def as_panel(
    X: Any, *, future: Any = None, static: Any = None, trained: Preparation | None = None
) -> Panel:
    """Check series and bring them into the form that forecasting works on.

    Args:
        X: one of
            an array `[T]`: a single series;
            an array or data frame `[N, T]`: N series, a row each;
            an array `[N, T, 1 + P]`: N series in column 0 with P past inputs;
            a list or object array of N arrays `[T_i]` or `[T_i, 1 + P]`;
            a `Ragged` of 1 + P features; a `Panel`.
        future, static: as for `Panel.of`; of a single series `future` may be one array `[U, K]`,
            and for arrays of one length `[N, U, K]`.
        trained: the preparation of the table that a model was trained on: data frames get their
            columns in its order, the target first.

    Raises:
        ValueError, TypeError: see `Panel.of`; a data frame has other columns than the table.

    Example:
        >>> import numpy as np
        >>> len(as_panel(np.zeros(9))), len(as_panel(np.zeros((4, 9))))
        (1, 4)
        >>> as_panel([np.zeros((9, 3)), np.zeros((5, 3))]).n_past
        2
    """
    if isinstance(X, Panel):
        if future is not None or static is not None:
            raise ValueError("X is a Panel, which holds its inputs; future and static were given")
        return X
    if trained is not None and trained.roles is not None:
        X, future, static = _in_order(X, future, static, trained, trained.roles)
    _check_rows(X)
    _check_aligned(X, future, "future")
    _check_aligned(X, static, "static")
    if isinstance(X, Ragged):
        arrays = list(X)
    elif _is_one_series(X):
        arrays = [_numbers(X, "X")]
        future = [future] if isinstance(future, np.ndarray) and future.ndim < 3 else future
    else:
        arrays = _arrays(X, "X")
    _check_steps(X)
    parts = [_two_axes(array, f"X[{i}]") for i, array in enumerate(arrays)]
    widths = [part.shape[1] for part in parts]
    if len(set(widths)) > 1:
        i = next(i for i, width in enumerate(widths) if width != widths[0])
        raise ValueError(
            f"X[{i}] has {widths[i]} columns, X[0] has {widths[0]}; wanted the same in all series: "
            "the target and the past inputs"
        )
    if widths and widths[0] == 0:
        raise ValueError("X has no columns; wanted the target in the first")
    past = [part[:, 1:] for part in parts] if widths and widths[0] > 1 else None
    made = Panel.of([part[:, 0] for part in parts], past=past, future=future, static=static)
    if getattr(X, "ndim", 1) == 2:  # its columns are steps
        return made
    return replace(made, names={**made.names, **_names(X=X)})


def _in_order(
    X: Any, future: Any, static: Any, trained: Preparation, roles: Roles
) -> tuple[Any, Any, Any]:
    """Data frames with their columns as in the table of the training; all else as it is."""
    past: list[str] = []
    ahead: list[str] = []
    for feature in trained.features:
        (ahead if feature.name in roles.known else past).extend(feature.columns)
    if roles.target is not None:
        wanted = [roles.target, *past]
        if not is_frame(X):
            X = in_order(X, wanted)
        elif set(column_names(X)) & set(wanted):  # type: ignore[arg-type]  # else they are steps
            raise ValueError(
                f"X is one data frame with columns of {wanted}, as a single series has them; "
                "wanted a list of data frames, one for each series: [part[columns] for _, part in "
                "X.groupby(id)]"
            )
    return X, in_order(future, ahead, "future"), in_order(static, trained.static_columns, "static")


def _names(**frames: Any) -> dict[str, np.ndarray]:
    """The names of the columns of arguments that are data frames, or lists of data frames."""
    found = {}
    for name, value in frames.items():
        is_series = getattr(value, "ndim", 0) == 1 and hasattr(value, "tolist")  # of frames
        listed = value.tolist() if is_series else value
        several = listed[:1] if isinstance(listed, (list, tuple)) else [listed]
        if any(len(getattr(each, "columns", ())) > 1 for each in several):  # one has no order
            columns = column_names(listed, name)
            if columns is not None:
                found[name] = columns
    return found


def _check_rows(X: Any) -> None:
    """Refuse a data frame whose rows are dates: they would be taken for as many series."""
    index = getattr(getattr(X, "index", None), "dtype", None)
    if getattr(X, "ndim", None) == 2 and getattr(index, "kind", None) == "M":
        raise ValueError(
            "the rows of X are dates, and its columns seem to be series; wanted a row for each "
            "series: pass X.T"
        )


def _check_steps(X: Any) -> None:
    """Refuse a table whose columns are not steps, or are dates that do not increase."""
    if getattr(X, "ndim", len(getattr(X, "shape", ()))) != 2:
        return
    n, steps = X.shape
    if run_back(getattr(X, "columns", None)):
        raise ValueError(
            "the columns of X are dates, and they do not increase; wanted the oldest step first: "
            "X.sort_index(axis=1), of dates that are text after pandas.to_datetime"
        )
    if not are_steps(column_names(X)) or (steps == 1 and n > 1):
        raise ValueError(
            f"X is one table, and would be {n} series of {'one step' if steps == 1 else steps}; "
            "wanted a list of series, [X] of a single one, or [part[columns] for _, part in "
            "X.groupby(id)]; if each row is a series, pass np.asarray(X)"
        )


def _check_aligned(X: Any, inputs: Any, name: str) -> None:
    """Refuse frames of inputs in which a name or a time of X is at another place."""
    if all(hasattr(each, "columns") and hasattr(each, "index") for each in (X, inputs)):
        pairs = [("index", X.index, inputs.index)]
        if name == "future":  # whose columns are steps, as those of X
            pairs.append(("columns", X.columns, inputs.columns))
    elif isinstance(X, (list, tuple)) and isinstance(inputs, (list, tuple)) and name == "future":
        indices = ([getattr(each, "index", None) for each in part] for part in (X, inputs))
        pairs = [("index", *pair) for pair in zip(*indices, strict=False)]  # lengths: see Panel.of
    else:
        return
    for what, mine, other in pairs:
        kinds = [getattr(getattr(labels, "dtype", None), "kind", "-") for labels in (mine, other)]
        if not {*kinds} <= {"M", "O", "U", "T"}:  # numbers often count the rows of each frame
            continue
        n = min(len(mine), len(other))
        apart = np.flatnonzero(np.asarray(mine)[:n] != np.asarray(other)[:n])
        if len(apart) and {*mine} & {*other}:
            i = int(apart[0])
            raise ValueError(
                f"the {what} of {name} has {str(other[i])!r} where that of X has "
                f"{str(mine[i])!r}; wanted the same series, and the same first time, in one order: "
                f"choose them with {name}.loc"
            )


def _is_one_series(X: Any) -> bool:
    if isinstance(X, (list, tuple)):
        return len(X) > 0 and np.ndim(X[0]) == 0
    return getattr(X, "ndim", None) == 1 and len(X) > 0 and np.ndim(X[0:1].tolist()[0]) == 0


def _arrays(value: Any, name: str) -> list[np.ndarray]:
    """The parts along the first axis of an array, or of a list of arrays."""
    if isinstance(value, (list, tuple)):
        return [_numbers(part, f"{name}[{i}]") for i, part in enumerate(value)]
    array = array_of(value, name, "an array for each series")
    if array.ndim == 0:
        raise ValueError(f"{name} is {value!r}; wanted an array of series, or a list of arrays")
    if array.dtype == object:  # of arrays, or of Python's numbers
        return _arrays(array.tolist(), name)
    if array.ndim > 3:
        raise ValueError(
            f"{name} has shape {list(array.shape)}; wanted [T] for one series, [N, T], "
            "[N, T, 1 + past inputs], or a list of arrays. Reshape your data"
        )
    if array.ndim == 2 and array.shape[1] == 0:  # in scikit-learn's words
        raise ValueError(
            f"{name} has 0 feature(s) (shape={array.shape}) while a minimum of 1 is required; "
            "wanted [series, steps]"
        )
    return list(_numbers(array, name))


def _numbers(value: Any, name: str) -> np.ndarray:
    """`value` as float64."""
    return numbers(value, name, "an array for each series").astype(np.float64)


def _column(value: Any, name: str) -> np.ndarray:
    array = _numbers(value, name)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {list(array.shape)}; wanted [steps]")
    return array


def _two_axes(value: Any, name: str) -> np.ndarray:
    array = _numbers(value, name)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} has shape {list(array.shape)}; wanted [steps] or [steps, columns]"
        )
    return array if array.ndim == 2 else array[:, None]


def _inputs(
    value: Any, name: str, lengths: np.ndarray, exactly: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs over time, end to end, and their offsets; without columns if there are no inputs."""
    if value is None:
        return np.zeros((lengths.sum(), 0)), offsets_of(lengths)
    parts = [_two_axes(part, f"{name}[{i}]") for i, part in enumerate(_arrays(value, name))]
    if len(parts) != len(lengths):
        raise ValueError(
            f"{name} is given for {len(parts)} series, and there are {len(lengths)}; wanted one "
            "array for each"
        )
    for i, part in enumerate(parts):
        if part.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"{name}[{i}] has {part.shape[1]} columns, {name}[0] has {parts[0].shape[1]}; "
                "wanted the same in all"
            )
        if len(part) != lengths[i] if exactly else len(part) < lengths[i]:
            wanted = "as many" if exactly else "as many or more"
            raise ValueError(
                f"{name}[{i}] has {len(part)} steps and series {i} has {lengths[i]}; "
                f"wanted {wanted}"
            )
    offsets = offsets_of(np.array([len(part) for part in parts]))
    values = np.concatenate(parts)
    _check_values(values, _Place(name, offsets), missing=False)
    return values, offsets


def _static(value: Any, n: int) -> np.ndarray:
    if value is None:
        return np.zeros((n, 0))
    array = _numbers(value, "static")
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != n:
        raise ValueError(
            f"static has shape {list(array.shape)}; wanted [{n}, S], a row for each series"
        )
    _check_values(array, lambda row, column: f"static[{row}, {column}]", missing=False)
    return array


@dataclass(frozen=True)
class _Place:
    """Names a row and a column of series laid end to end, for messages."""

    name: str
    offsets: np.ndarray

    def __call__(self, row: int, column: int) -> str:
        i = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f"{self.name}: series {i}, step {row - self.offsets[i]}, column {column}"


def _check_values(values: np.ndarray, where: Callable[[int, int], str], missing: bool) -> None:
    wrong = np.abs(values) > LARGEST  # False for NaN
    if not missing:
        wrong |= np.isnan(values)
    if not wrong.any():
        return
    first = tuple(np.argwhere(wrong)[0].tolist())
    value = values[first]
    remedy = "" if missing else "; fill missing inputs in (only the target may have NaN)"
    raise ValueError(
        f"{where(first[0], first[-1] if len(first) == 2 else 0)} is {value}; "
        f"wanted numbers that fit in float32, not infinity{remedy}"
    )
