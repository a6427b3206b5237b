"""`Roles`: what each column of a user's table is for."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from ostinato_learn.data.formats.dates import SHORT_YEAR, TimeFormat
from ostinato_learn.data.formats.dialect import Decimal, Dialect
from ostinato_learn.data.questions import OpenQuestion, listed
from ostinato_learn.data.sequences import label_sets
from ostinato_learn.data.tables import time_column
from ostinato_learn.data.tables.column import Column, Nested, Unusable
from ostinato_learn.data.tables.text_column import Text
from ostinato_learn.data.tables.time_column import dates_in
from ostinato_learn.data.text.words import MAX_WORDS

if TYPE_CHECKING:
    from ostinato_learn.data.tables.table import Table

Shape = Literal["long", "nested", "wide"]
Repeated = Literal["error", "last", "mean"]
TaskName = Literal["classify", "tag", "regress", "forecast"]

# Names by which a column without a role is known, in any case.
_IDS = re.compile(r"id|sequence|sequence_id|seq_id|series|series_id|unique_id|uid", re.I)
# session_id, Trip ID, userId
_LIKE_IDS = re.compile(r".*[_ .-](?i:u?id)|.*[a-z]I[Dd]|(?i:dev|device)")
_TIMES = re.compile(
    r"(time|timestamp|datetime|date|ts|step|t|epoch|when)([ _.(]+(ms|s|us|ns|secs?|utc|unix)\)?)?",
    re.I,
)
_WORDS = frozenset(["word", "words", "token", "form"])  # the one feature of words to tag
_MOSTLY = 0.9  # of the values of an id of rows are there once
_NUMBER = re.compile(r"(?<!\d)\d{1,18}$")  # at the end of a name; more digits are a code


@dataclass(frozen=True)
class Roles:
    """Which column of a table has which role, and how the table holds sequences.

    The three shapes: *long*, a row is a time step; *nested*, a row is a sequence, whose columns
    hold lists; *wide*, a row is a sequence, and a column is a step; or one column holds texts, and
    their words are the steps.

    Attributes:
        shape: one of the three; None: found out, if only one is possible.
        id: names the sequence that a row belongs to.
        time: orders the steps of a sequence; dates or numbers.
        features: the inputs at each step; in a wide table, the steps in their order.
            Empty: all columns without another role, if all of them are numbers.
        target: the column to be predicted.
        task: the name of the task; None without a target.
        labels: if sequences may have several labels: columns of zeros and ones, one for each label,
            instead of a target; or, with a target, the labels that its lists may contain.
        between: the separator of the labels in the texts of the target; None: it holds lists.
        group: sequences of one group stay on one side of every split.
        split: the part of each sequence: train, validation or test.
        static: inputs that a sequence has once.
        known: those of the features that are known ahead of time (holidays, prices).
        categories: those of the features and static inputs that are names although they look like
            numbers (codes); a column of words always counts.
        sort: whether rows are sorted by id and time. None: they are where they are out of order,
            and their times leave one order only, as dates do.
        repeated: what rows of a sequence with one time are: "error"; "last", the last of them; or
            "mean", their mean (of names and labels the last).
        time_format: of dates such as 01/02/2024, "day-first" or "month-first"; of numbers, what
            they count from 1970 on: "seconds", "milliseconds", "microseconds". None: found out of
            the dates; numbers are taken as they are.
        every: the distance of the steps, "5min": rows go to the nearest step, and steps without a
            row have missing values; None: a row is a step.
        separator: between the fields of a CSV file; None: "," (a tab in a .tsv file). Where it, the
            decimal mark, the encoding or the thousands are left open, `read_examples` recognises
            them if the file cannot be read otherwise, and only one reading makes sense.
        decimal: the decimal mark of its numbers, "." or ",".
        encoding: of its bytes, by a name that Python knows, as "cp1252".
        na: fields that mean a missing value, besides those that always do.
        thousands: the sign between the thousands of its numbers; None: no sign.
        skip_lines: the number of lines above its header, besides those that begin with #.
        of_model: whether these are the columns of a trained model. Sequences may then have another
            shape, long or nested; and rows that are sequences may lack their id, and are numbered.

    Example:
        >>> from ostinato_learn.data.tables.roles import Roles
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
    labels: tuple[str, ...] = ()
    between: str | None = None
    group: str | None = None
    split: str | None = None
    static: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    sort: bool | None = None
    repeated: Repeated = "error"
    time_format: TimeFormat | None = None
    every: str | None = None
    separator: str | None = None
    decimal: Decimal = "."
    encoding: str = "utf-8"
    na: tuple[str, ...] = ()
    thousands: str | None = None
    skip_lines: int = 0
    of_model: bool = False

    @property
    def dialect(self) -> Dialect:
        """How the CSV file is written."""
        return Dialect(**{each.name: getattr(self, each.name) for each in fields(Dialect)})

    @staticmethod
    def given(**columns: Any) -> Roles:
        """Roles from keywords; several columns may come as a list, and a single one by itself.

        Raises:
            TypeError: there is no such role.
        """
        several = {f.name: isinstance(f.default, tuple) for f in fields(Roles)}
        strange = [name for name in columns if name not in several]
        if strange:
            near = difflib.get_close_matches(strange[0], several, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(several)}"
            raise TypeError(f"{strange[0]!r} is no role of a column; {hint}")

        def of(name: str, value: Any) -> Any:
            listed = not isinstance(value, str) and isinstance(value, Iterable)
            return value if not several[name] else tuple(value) if listed else (value,)

        return Roles(**{name: of(name, value) for name, value in columns.items()})

    def for_model(self, answers: bool) -> Roles:
        """These roles, with which a model was trained, for another table.

        Nothing is guessed again: there may be further columns, in any order. The id of rows that
        are sequences may be missing.

        Args:
            answers: whether the target is needed, to measure the model. A series to be forecast is
                always needed.
        """
        roles = replace(self, group=None, split=None, of_model=True)
        if answers or self.task == "forecast":
            return roles
        return replace(roles, target=None, labels=())

    def inputs(self) -> Roles:
        """The roles of the columns that a model needs to answer: no target, group or split."""
        return replace(self, target=None, labels=(), group=None, split=None)


def resolve(roles: Roles, table: Table) -> Roles:
    """The roles with every name as the table has it, and with what is left open found out.

    The log says in one line what was found.

    Raises:
        ValueError: a column does not exist, or has two roles; more than one reading is possible.
    """
    given = _exact(_without_lost_id(roles, table), table)
    _check_apart(given, table)
    given = _as_it_lies(given, table)
    full = given if given.shape else replace(given, shape=_shape(given, table))
    full = _named(full, table)
    if not full.features:
        full = replace(full, features=_features(full, table))
    _check_among("known", full.known, full.features, table)
    _check_among("categories", full.categories, (*full.features, *full.static), table)
    if full.target and full.task is None:
        full = replace(full, task=_task(full, table))
    full = _with_labels(full, table)
    if full.time and full.time_format is None:
        full = replace(full, time_format=_single(table[full.time]).time_format())
    _tell(given, full, table)
    return full


def _without_lost_id(roles: Roles, table: Table) -> Roles:
    """Without an id that a table for a model may lack, and lacks."""
    if not roles.of_model or roles.id is None or roles.id in table.columns:
        return roles
    has_lists = any(isinstance(table.columns.get(name), Nested) for name in roles.features)
    return replace(roles, id=None) if has_lists or roles.shape in ("nested", "wide") else roles


def _exact(roles: Roles, table: Table) -> Roles:
    def one(name: str | None, role: str) -> str | None:
        return name if name is None else table.exact(name, role)

    def some(names: tuple[str, ...], role: str) -> tuple[str, ...]:
        return tuple(table.exact(name, role) for name in names)

    return replace(
        roles,
        id=one(roles.id, "id"),
        time=one(roles.time, "time"),
        features=some(roles.features, "features"),
        target=one(roles.target, "target"),
        labels=roles.labels if roles.target else some(roles.labels, "label"),
        group=one(roles.group, "group"),
        split=one(roles.split, "split"),
        static=some(roles.static, "static"),
        known=some(roles.known, "known"),
        categories=some(roles.categories, "categories"),
    )


def _check_apart(roles: Roles, table: Table) -> None:
    """No column has two roles, but for an id that groups, and a series that is its own input."""
    taken: dict[str, str] = {}
    single = {name: getattr(roles, name) for name in ("id", "time", "target", "group", "split")}
    several = [(name, "features") for name in roles.features]
    several += [(name, "static") for name in roles.static]
    several += [(name, "label") for name in roles.labels if not roles.target]
    for name, role in [(name, role) for role, name in single.items() if name] + several:
        before = taken.setdefault(name, role)
        allowed = {(role, role), ("id", "group")}
        if roles.task == "forecast":
            allowed.add(("target", "features"))
        if (before, role) not in allowed:
            raise ValueError(
                f"{table.source}: the column {name!r} is both {before} and {role}; wanted one role "
                "for each column"
            )
    for role, names in (("features", roles.features), ("labels", roles.labels)):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(f"{table.source}: the column {name!r} is twice among the {role}")
            seen.add(name)


def _check_among(role: str, names: tuple[str, ...], allowed: tuple[str, ...], table: Table) -> None:
    among = set(allowed)
    for name in names:
        if name not in among:
            raise ValueError(
                f"{table.source}: the column {name!r} is among {role} and not among the features; "
                "wanted it in both: name it with features (--features) too"
            )


def _shape(roles: Roles, table: Table) -> Shape:
    """The only shape that fits.

    Raises:
        ValueError: more than one column does.
    """
    asked = roles.features or [n for n in _rest(roles, table) if not _is_row_id(n, table)]
    if any(isinstance(table[name], Nested) for name in asked):
        return "nested"
    for name in roles.features:
        if isinstance(table[name], Unusable):
            table[name].numbers()  # raises the reason why its values cannot be used
    if roles.time or roles.task in ("tag", "forecast"):
        return "long"
    if roles.id:
        return "long" if _repeats(roles.id, table) else "wide"
    if any(_tells_apart(name, table) for name in _called(_IDS, roles, table)):
        return "long"
    if not roles.features and _steps(roles, table):
        return "wide"
    texts = [name for name in asked if not table[name].is_numbers()]
    if texts and len(texts) == len(asked) == 1:  # each row a text, whose words are the steps
        return "wide"
    column = _like_an_id(roles, table)
    if column is None and any(_is_prose(table[name]) for name in texts):
        return "wide"
    named = "" if column is None else f" {shlex.quote(column)}"
    raise OpenQuestion(
        f"{table.source}: is a row a step or a whole sequence? Name the column that distinguishes "
        f"sequences as id (--id{named}), or say shape='wide' (--shape wide) if each row is a "
        f"sequence; the columns are {', '.join(map(repr, table.names[:20]))}",
        **({"shape": "wide"} if column is None else {"id": column}),
    )


def _as_it_lies(roles: Roles, table: Table) -> Roles:
    """Roles of a long table for one whose features are lists; of a model, the reverse too."""
    asked = roles.features or ((roles.target,) if roles.target else ())
    is_nested = any(isinstance(table[name], Nested) for name in asked)
    if roles.shape == "long" and is_nested:
        return replace(roles, shape="nested")
    if roles.of_model and roles.shape == "nested" and roles.id and asked and not is_nested:
        return replace(roles, shape="long")
    return roles


def _named(roles: Roles, table: Table) -> Roles:
    """With the columns for id and time, if just one is called so."""
    if roles.id is None:
        found: list[str] = []
        for names in (_IDS, _LIKE_IDS):
            found = found or [
                name
                for name in _called(names, roles, table)
                if (roles.shape == "long") == _tells_apart(name, table)
            ]
        if len(found) == 1:
            roles = replace(roles, id=found[0])
        elif roles.shape == "long" and roles.task not in ("tag", "forecast"):
            likely = _like_an_id(roles, table)
            named = "" if likely is None else f" {shlex.quote(likely)}"
            message = (
                f"{table.source}: which column distinguishes the sequences? Name it as id "
                f"(--id{named}); the columns are {', '.join(map(repr, table.names[:20]))}"
            )
            raise ValueError(message) if likely is None else OpenQuestion(message, id=likely)
    if roles.time is None and roles.shape != "wide":
        found = _called(_TIMES, roles, table)
        if not found:
            features = set(roles.features)
            rest = [name for name in _rest(roles, table) if name not in features]
            by_values = time_column.found(table, rest, roles.id, roles.task == "forecast")
            found = [] if by_values is None else [by_values]
        if len(found) == 1:
            roles = replace(roles, time=found[0])
    return roles


def _features(roles: Roles, table: Table) -> tuple[str, ...]:
    """All columns without a role, if that is unambiguous; a series needs no features."""
    if roles.task == "forecast" and roles.shape != "wide":
        return roles.known
    if roles.shape == "wide" and (steps := _steps(roles, table)):
        return steps
    rest = _rest(roles, table)
    if roles.shape == "wide" and len(rest) == 1:  # a number, or a text, in each row
        return tuple(rest)
    words = [name for name in rest if name.casefold() in _WORDS]
    if roles.task == "tag" and len(words) == 1:
        return tuple(words)
    if roles.shape == "nested":
        rest = [name for name in rest if isinstance(table[name], Nested)]
    else:
        named = set(roles.categories)
        texts = [name for name in rest if name not in named and not table[name].is_numbers()]
        if texts:
            _refuse_texts(texts, rest, roles, table)
    if not rest:
        raise ValueError(
            f"{table.source}: no column is left for the features; the columns are "
            f"{', '.join(map(repr, table.names[:20]))}"
        )
    return tuple(rest)


def _refuse_texts(texts: list[str], rest: list[str], roles: Roles, table: Table) -> NoReturn:
    """Say which of the columns without a role holds no numbers, and what it may be.

    Raises:
        ValueError: always.
    """
    has_times = roles.time is not None or roles.shape == "wide"
    dates = [n for n in texts if not has_times and dates_in(table[n]) is not None]
    if dates:
        raise OpenQuestion(
            f"{table.source}: the column {dates[0]!r} holds dates; name it as time (--time "
            f"{shlex.quote(dates[0])}), or name the features (--features)",
            time=dates[0],
        )
    for name in texts:
        column = table[name]
        if isinstance(column, Text) and column.share_of_numbers() >= 0.5:
            column.numbers()  # raises the error for the first value that is not a number
    kept = tuple(n for n in rest if n not in texts or _may_be_names(table[n], roles))
    flag = f"--features {shlex.quote(listed(kept))}" if kept else "--features"
    columns = [table[name] for name in texts]
    firsts = {c.name: c.head(100).trimmed() for c in columns if isinstance(c, Text)}
    dates = [n for n, values in firsts.items() if SHORT_YEAR.match(values[0])]
    of_words = [n for n, values in firsts.items() if any(" " in value for value in values)]
    why = "does not hold numbers"
    if dates:
        why = f"is text; if {firsts[dates[0]][0]!r} is a date, the year needs four digits"
    ways, answer = f"name the features ({flag}), of which some may hold names", kept
    if roles.shape == "wide" and of_words:
        answer = (of_words[0],)
        ways = f"name a column of texts alone (--features {shlex.quote(of_words[0])})"
        ways += f", or the features ({flag} --shape wide)" if kept else ""
    message = f"{table.source}: which columns are features? {(dates or texts)[0]!r} {why}; {ways}"
    raise OpenQuestion(message, features=answer) if answer else ValueError(message)


def _is_prose(column: Column) -> bool:
    """Whether a column holds texts of several words, each once, as reviews are."""
    if not isinstance(column, Text):
        return False
    texts = column.head(100).trimmed()
    return len({*texts}) == len(texts) and all(text.count(" ") >= 2 for text in texts)


def _may_be_names(column: Column, roles: Roles) -> bool:
    """Whether a column of texts may be a feature: few names, each of them in several rows."""
    if roles.shape == "wide" or isinstance(column, (Nested, Unusable)):
        return False
    try:
        codes, names = column.names()
    except ValueError:  # longer texts
        return False
    return len(names) <= min(MAX_WORDS, len(codes) // 2)


def _with_labels(roles: Roles, table: Table) -> Roles:
    """With the labels in the lists of the target, if it holds several labels a sequence."""
    if roles.task != "classify" or roles.target is None or roles.labels:
        return roles
    several = label_sets.found(table[roles.target])
    return roles if several is None else replace(roles, labels=several[0], between=several[1])


def _single(column: Column) -> Column:
    """The column of single values: of lists, their values."""
    return column.inner if isinstance(column, Nested) else column


def _task(roles: Roles, table: Table) -> TaskName:
    if roles.shape == "long" or isinstance(table[roles.target or ""], Nested):
        raise ValueError(
            f"{table.source}: what is the target {roles.target!r} for? Give task: 'classify' (one "
            "label for a sequence, or a list of its labels), 'tag' (one for each step) or "
            "'forecast' (the series itself)"
        )
    return "classify"


def _rest(roles: Roles, table: Table) -> list[str]:
    """The columns without a role."""
    taken = {roles.id, roles.time, roles.target, roles.group, roles.split, *roles.static}
    taken |= set() if roles.target else {*roles.labels}
    return [name for name in table.names if name not in taken]


def _called(names: re.Pattern[str], roles: Roles, table: Table) -> list[str]:
    """Columns without a role that have one of these names."""
    features = set(roles.features)
    rest = [name for name in _rest(roles, table) if name not in features]
    chosen = [name for name in rest if names.fullmatch(name)]
    if roles.shape == "nested" and names is _TIMES:
        return [name for name in chosen if isinstance(table[name], Nested)]
    return [name for name in chosen if not isinstance(table[name], Nested)]


def _is_row_id(name: str, table: Table) -> bool:
    """Whether a column is called an id, and is another one in each row."""
    called = _IDS.fullmatch(name) or _LIKE_IDS.fullmatch(name)
    single = not isinstance(table[name], (Nested, Unusable))
    return bool(called) and single and not _tells_apart(name, table)


def _like_an_id(roles: Roles, table: Table) -> str | None:
    """The name of the only column that may be the id of a long table."""
    found = [name for name in _called(_LIKE_IDS, roles, table) if _repeats(name, table)]
    if found:
        return found[0] if len(found) == 1 else None
    runs = {name: _runs(name, roles, table) for name in _rest(roles, table)}
    longest = max(runs.values(), default=0)
    found = [name for name, n in runs.items() if n == longest > 1]
    return found[0] if len(found) == 1 else None


def _runs(name: str, roles: Roles, table: Table) -> int:
    """The number of values of a column, if each is in one run of rows that have one target."""
    columns = [table[each] for each in (name, roles.target) if each]
    if any(isinstance(column, (Nested, Unusable)) for column in columns):
        return 0
    try:
        codes, values = columns[0].factor()
        targets = [column.factor()[0] for column in columns[1:]]
    except ValueError:  # longer texts, infinite numbers
        return 0
    changes = np.diff(codes) != 0
    together = int(changes.sum()) + 1 == len(values) <= len(codes) // 2
    one_target = not any((np.diff(each) != 0)[~changes].any() for each in targets)
    return len(values) if together and one_target else 0


def _tells_apart(name: str, table: Table) -> bool:
    """Whether a column may be the id of several rows: not if few of its values come twice."""
    return len(table[name].factor()[1]) <= _MOSTLY * len(table)


def _repeats(name: str, table: Table) -> bool:
    """Whether some value of a column comes more than once."""
    return len(table[name].factor()[1]) < len(table)


def _steps(roles: Roles, table: Table) -> tuple[str, ...]:
    """The columns that are numbered one after the other (t0, t1, …), if they are of one name.

    In the order of their numbers: some programs sort columns as texts (t1, t10, t2).

    Raises:
        ValueError: the table is declared wide, but has several names, that is features.
    """
    of_name: dict[str, dict[int, str]] = {}
    numbered = [m for m in map(_NUMBER.search, _rest(roles, table)) if m]
    for m in numbered:
        of_name.setdefault(m.string[: m.start()], {})[int(m[0])] = m.string
    runs = [of for of in of_name.values() if len(of) > 1 and max(of) - min(of) == len(of) - 1]
    if len(runs) > 1 and roles.shape == "wide":
        named = ", ".join(repr(of[min(of)]) for of in runs[:4])
        raise ValueError(
            f"{table.source}: columns are numbered under {len(runs)} names ({named}, …), and a "
            "wide table holds one feature: name its columns in their order with features "
            "(--features), or write the table with a row a step"
        )
    if len(of_name) != 1 or not runs or len(runs[0]) < len(numbered):  # or t1 and t01
        return ()
    return tuple(runs[0][n] for n in sorted(runs[0]))


def _tell(given: Roles, full: Roles, table: Table) -> None:
    """Say what was found out, and which columns are left out.

    If shape and features were given, for example by a model, further columns are not mentioned.
    """
    found = list(_found_out(given, full))
    notes = [f"taken as {'; '.join(found)}"] if found else []
    features = set(full.features)
    left_out = [name for name in _rest(full, table) if name not in features]
    if left_out and (given.shape is None or full.features != given.features):
        notes.append(f"left out {', '.join(map(repr, left_out[:8]))}" + "…" * (len(left_out) > 8))
    if notes:
        import logging  # not needed to read a saved model

        logging.getLogger(__name__).warning("%s: %s", table.source, "; ".join(notes))


def _found_out(given: Roles, full: Roles) -> Iterator[str]:
    """The roles that were not given, in words."""
    if given.shape is None and (full.shape == "wide" or given.id != full.id):
        yield f"shape {full.shape}"
    if given.shape is None and full.shape == "long" and full.id is None:
        yield "a single sequence (no --id)"
    for role in ("id", "time", "task"):
        if getattr(given, role) != getattr(full, role):
            yield f"{role} {getattr(full, role)!r}"
    if full.time_format != given.time_format:
        yield f"times {full.time_format}"
    if full.features and not given.features:
        noun = "feature" if len(full.features) == 1 else "features"
        yield f"{len(full.features)} {noun}: {_shown(full.features)}"
    if full.labels and not given.labels:
        how = "" if full.between is None else f", {full.between!r} between them"
        yield (
            f"several labels a sequence{how}: {_shown(full.labels)}; none where {full.target!r} is "
            "empty"
        )


def _shown(names: tuple[str, ...]) -> str:
    """Names in a message, of many the first and the last."""
    shown = [repr(name) for name in names]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "…", shown[-1]])
