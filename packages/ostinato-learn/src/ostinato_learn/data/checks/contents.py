"""What is in one part: its labels, columns, lengths and times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ostinato_learn.data.checks.finding import Finding, Severity, plural, share
from ostinato_learn.data.checks.side import Side
from ostinato_learn.data.tables.resample import UNITS

HANDFUL = 5  # examples of a class: with fewer, neither training nor a score can be trusted
IMBALANCE = 0.9
NEARLY_EMPTY = 0.95
OUTLYING_LENGTH = 10  # times the length that 99 % of the sequences do not exceed
CUT_SHARE = 0.2


def labels(train: Side, test: Side | None) -> Iterator[Finding]:
    """Classes: how many, how large, and whether both sides have the same."""
    if train.labels is None:
        return
    if train.of_each is not None:
        yield from _several(train.of_each, None if test is None else test.of_each)
        return
    names, numbers = train.classes
    counts = np.bincount(numbers)
    total, noun = len(train.labels), "step" if isinstance(train.examples.y, list) else "sequence"
    if len(names) == 1:
        yield Finding(
            "serious",
            "one-class",
            f"every {noun} has the label {_name(names[0])}; there is nothing to learn",
            1,
            (f"class {_name(names[0])}",),
            "is this the column of the labels?",
        )
    elif len(names) > total / 2 and total >= 2 * HANDFUL:
        yield Finding(
            "serious",
            "label-per-sequence",
            f"there are {len(names):,} labels for {plural(total, noun)}; most occur once",
            len(names),
            tuple(f"class {_name(name)}" for name in names[:3]),
            "is this the column of the labels? To predict a number, forecast",
        )
    else:
        yield from _shares(names, counts, noun)
    if test is not None and test.labels is not None:
        yield from _unknown(names, test)


def _several(train: dict[str, np.ndarray], test: dict[str, np.ndarray] | None) -> Iterator[Finding]:
    """Labels of which a sequence may have several, each of them a question of its own."""
    n = len(next(iter(train.values())))
    counts = {name: int(has.sum()) for name, has in train.items()}
    if same := [name for name, count in counts.items() if count in (0, n)]:
        lines = tuple(
            f"label {_name(name)}: {'all' if counts[name] else 'none'} of them" for name in same[:3]
        )
        unknown = [name for name in same if not counts[name] and test and test[name].any()]
        yield Finding(
            "serious" if unknown or len(same) == len(train) else "warning",
            "one-class",
            f"{share(len(same), len(train))} labels are the same for all sequences to learn from"
            + (", though the test part has them" if unknown else ""),
            len(same),
            lines,
            "leave these labels out, or split so that the training part has sequences with them "
            "and without",
        )
    few = {
        name: min(count, n - count)
        for name, count in counts.items()
        if 0 < min(count, n - count) < HANDFUL
    }
    if few:
        yield Finding(
            "warning",
            "small-class",
            f"{share(len(few), len(train))} labels separate fewer than {HANDFUL} sequences from "
            "the others",
            len(few),
            tuple(f"label {_name(name)}: {plural(few[name], 'sequence')}" for name in [*few][:3]),
            "collect more sequences with them, join them with another label, or leave them out",
        )


def _shares(names: np.ndarray, counts: np.ndarray, noun: str) -> Iterator[Finding]:
    total = int(counts.sum())
    if (small := np.flatnonzero(counts < HANDFUL)).size:
        yield Finding(
            "warning",
            "small-class",
            f"{share(len(small), len(names))} classes have fewer than {HANDFUL} {noun}s",
            len(small),
            tuple(f"class {_name(names[i])}: {plural(int(counts[i]), noun)}" for i in small[:3]),
            "collect more of them, join them with another class, or leave them out",
        )
    largest = int(counts.argmax())
    if counts[largest] >= IMBALANCE * total:
        yield Finding(
            "warning",
            "imbalance",
            f"{share(int(counts[largest]), total)} {noun}s have the label "
            f"{_name(names[largest])}: a model that always gives it has that accuracy",
            int(counts[largest]),
            (f"class {_name(names[largest])}",),
            "compare with this baseline; class_weight='balanced' weighs the classes alike",
        )


def _unknown(names: np.ndarray, test: Side) -> Iterator[Finding]:
    own, numbers = test.classes
    strange = ~np.isin(own.astype(str), names.astype(str))
    if strange.any():
        unknown, n = own[strange], int(strange[numbers].sum())
        yield Finding(
            "serious",
            "unknown-label",
            f"{share(n, len(numbers))} labels of the test part do not occur in the training part",
            n,
            tuple(f"class {_name(name)}" for name in unknown[:3]),
            "split so that the training part has every class, or leave these out",
        )


def columns(side: Side) -> Iterator[Finding]:
    """Values that are missing or infinite; columns without information (not for a test part)."""
    n_steps = len(side.values)
    missing, infinite = np.zeros((2, side.n_features), np.int64)
    low = np.full(side.n_features, np.inf, np.float32)
    high = -low
    for start in range(0, n_steps, 2**16):
        values = side.values[start : start + 2**16]
        missing += np.isnan(values).sum(axis=0)
        infinite += np.isinf(values).sum(axis=0)
        low = np.fmin(low, np.fmin.reduce(values, axis=0))
        high = np.fmax(high, np.fmax.reduce(values, axis=0))
    named = f" of the {side.name} part" if side.name else ""
    if infinite.any():
        yield Finding(
            "serious",
            "infinite-values",
            f"{share(int(infinite.sum()), side.values.size)} values{named} are infinite; training "
            "refuses them",
            int(infinite.sum()),
            _first_places(side, np.isinf),
            "mark them as missing, or leave these sequences out",
        )
    empty = missing >= NEARLY_EMPTY * n_steps
    if empty.any() and side.name != "test":
        yield Finding(
            "warning",
            "empty-column",
            f"{plural(int(empty.sum()), 'column')} {_is(empty.sum())} nearly empty",
            int(empty.sum()),
            tuple(
                f"{side.feature(f)}: {share(int(missing[f]), n_steps)} missing"
                for f in np.flatnonzero(empty)[:3]
            ),
            "leave them out",
        )
    if missing.any() and not (empty | (missing == 0)).all():
        yield Finding(
            "warning",
            "missing-values",
            f"{share(int(missing.sum()), side.values.size)} values{named} are missing, in "
            f"{plural(int((missing > 0).sum()), 'column')}",
            int(missing.sum()),
            _first_places(side, np.isnan),
            _remedy_of_missing(side),
        )
    constant = (low == high) & ~empty & (n_steps > 1)
    if constant.any() and side.name != "test":
        yield Finding(
            "warning",
            "constant-column",
            f"{plural(int(constant.sum()), 'column')} {_is(constant.sum())} constant",
            int(constant.sum()),
            tuple(f"{side.feature(f)}: {low[f]:g}" for f in np.flatnonzero(constant)[:3]),
            "leave them out: they carry no information",
        )


def _remedy_of_missing(side: Side) -> str:
    roles = side.examples.roles
    if roles is not None and roles.task == "forecast":
        return (
            "a forecast steps over them, and takes inputs from the step before; say what else an "
            "input is (--missing dose=zero), or fill them in"
        )
    return "say how to fill them in (--missing mask, fill or forward); else training refuses them"


def _first_places(side: Side, wrong: np.ufunc) -> tuple[str, ...]:
    """The first three values for which `wrong` holds, in words."""
    places: list[str] = []
    for start in range(0, len(side.values), 2**16):
        for row, f in np.argwhere(wrong(side.values[start : start + 2**16]))[:3]:
            i = int(np.searchsorted(side.offsets, start + row, side="right")) - 1
            step = int(start + row - side.offsets[i])
            places.append(f"{side.place(i)}, step {step}, {side.feature(int(f))}")
        if len(places) >= 3:
            break
    return tuple(places[:3])


def lengths(side: Side) -> Iterator[Finding]:
    """Sequences that are empty, far longer than the others, of one step, or cut."""
    n = side.lengths
    if (empty := np.flatnonzero(n == 0)).size:
        yield Finding(
            "serious",
            "empty-sequence",
            f"{share(len(empty), len(n))} {side.sequences} have no steps",
            len(empty),
            tuple(map(side.place, empty[:3])),
            "leave them out",
        )
    if n.max() == n.min():
        return
    usual = float(np.quantile(n, 0.99))
    if (long := np.flatnonzero(n > OUTLYING_LENGTH * usual)).size:
        yield Finding(
            "warning",
            "long-sequence",
            f"{share(len(long), len(n))} {side.sequences} are over {OUTLYING_LENGTH} times as long "
            f"as 99 % of them ({usual:,.0f} steps)",
            len(long),
            tuple(f"{side.place(i)}: {n[i]:,} steps" for i in long[:3]),
            "cut them, or leave them out: a batch is as long as its longest sequence",
        )
    if (single := np.flatnonzero(n == 1)).size:
        yield Finding(
            "note",
            "one-step",
            f"{share(len(single), len(n))} {side.sequences} have one step (the median is "
            f"{np.median(n):,.0f})",
            len(single),
            tuple(map(side.place, single[:3])),
            "are these whole?",
        )
    at_most = n == n.max()
    if at_most.mean() >= CUT_SHARE and len(np.unique(n)) > 3:
        yield Finding(
            "note",
            "cut-sequence",
            f"{share(int(at_most.sum()), len(n))} {side.sequences} have exactly {n.max():,} steps, "
            "and none has more: longer ones seem to have been cut",
            int(at_most.sum()),
            tuple(map(side.place, np.flatnonzero(at_most)[:3])),
            "if the end of a sequence matters, raise the limit where the file is made",
        )


def times(side: Side) -> Iterator[Finding]:
    """Gaps, steps back in time, and series with another frequency than most."""
    if side.examples.times is None or len(side.values) < 2:
        return
    clock = np.concatenate(side.examples.times)
    if clock.dtype.kind == "M":
        clock = clock.astype("datetime64[ns]").astype(np.int64)
    sequence = np.repeat(np.arange(len(side)), side.lengths)
    inside = sequence[1:] == sequence[:-1]
    steps, sequence, at = np.diff(clock)[inside], sequence[1:][inside], np.flatnonzero(inside) + 1
    if len(steps) == 0:
        return
    back = steps <= 0
    if back.any():
        yield Finding(
            "serious",
            "time-order",
            f"{plural(int(back.sum()), 'step')} {_is(back.sum())} not later than the one before",
            int(back.sum()),
            _time_places(side, sequence[back], at[back]),
            "sort by time, and remove duplicates",
        )
    own = _medians(steps, sequence, len(side))
    usual = np.median(own[~np.isnan(own)])
    other = np.flatnonzero(np.abs(own - usual) > 0.01 * abs(usual))
    if len(other):
        yield Finding(
            "warning",
            "frequency",
            f"{share(len(other), len(side))} {side.sequences} have another time between steps than "
            f"most, {_duration(side, usual)}",
            len(other),
            tuple(f"{side.place(i)}: {_duration(side, own[i])}" for i in other[:3]),
            f"resample them to one frequency{_every(side, usual)}, or add the time between steps "
            "as a feature",
        )
    gaps = steps > 1.5 * own[sequence]
    if gaps.any():
        severity: Severity = "warning" if gaps.mean() >= 0.001 else "note"
        yield Finding(
            severity,
            "gaps",
            f"{share(int(gaps.sum()), len(steps))} steps come after a gap: over 1.5 times the "
            f"usual time, in {plural(len(np.unique(sequence[gaps])), 'sequence')}",
            int(gaps.sum()),
            _time_places(side, sequence[gaps], at[gaps]),
            f"fill the gaps with missing values{_every(side, usual)}, cut there, or add the time "
            "between steps as a feature",
        )


def _medians(steps: np.ndarray, sequence: np.ndarray, n: int) -> np.ndarray:
    """The (lower) median step of each sequence, `[N]` float64; NaN for those of one step."""
    order = np.lexsort((steps, sequence))
    counts = np.bincount(sequence, minlength=n)
    middle = np.cumsum(counts) - counts + (counts - 1) // 2
    medians = np.full(n, np.nan)
    medians[counts > 0] = steps[order[middle[counts > 0]]]
    return medians


def _time_places(side: Side, sequences: np.ndarray, steps: np.ndarray) -> tuple[str, ...]:
    assert side.examples.times is not None
    places = []
    for i, row in zip(sequences[:3], steps[:3], strict=True):
        time = str(side.examples.times[i][row - side.offsets[i]])
        places.append(f"{side.place(i)}, at {time.removesuffix('.000000000')}")
    return tuple(places)


def _duration(side: Side, ticks: float) -> str:
    assert side.examples.times is not None
    if side.examples.times[0].dtype.kind != "M":
        return f"{ticks:g}"
    unit = next((unit for unit, size in reversed(UNITS.items()) if ticks >= size), "ms")
    return f"{ticks / UNITS[unit]:g} {unit}"


def _every(side: Side, ticks: float) -> str:
    """The flag for steps of this duration, where it is allowed: not for numbers, tags, months.

    A clock that is not exact, such as 5.02 min, means a whole number.
    """
    roles, times = side.examples.roles, side.examples.times
    dates = times is not None and times[0].dtype.kind == "M"
    if roles is None or roles.task == "tag" or not dates or ticks >= 28 * UNITS["d"]:
        return ""
    n, unit = _duration(side, ticks).split()
    whole = round(float(n))
    return f" (--every {whole if abs(float(n) - whole) <= 0.02 * whole else n}{unit})"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _name(label: object) -> str:
    return repr(str(label)) if isinstance(label, str) else str(label)
