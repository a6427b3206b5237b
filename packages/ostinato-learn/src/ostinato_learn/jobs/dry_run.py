"""train --dry-run: the data as they were understood, and what would be trained, for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn import tasks
from ostinato_learn.data.sequences.label_sets import joined
from ostinato_learn.data.sequences.mapped import Mapped
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.sequences.step_labels import label_counts
from ostinato_learn.jobs.inputs import partition, sources
from ostinato_learn.jobs.inputs.config import Config
from ostinato_learn.jobs.inputs.task import task_of
from ostinato_learn.jobs.output import percent, times_as_text
from ostinato_learn.jobs.runs import summaries
from ostinato_learn.jobs.runs.summaries import Rows
from ostinato_learn.tasks import recipe

if TYPE_CHECKING:
    from ostinato_learn.data.sequences.examples import Examples
    from ostinato_learn.data.tables.roles import Roles
    from ostinato_learn.jobs.base import Job
    from ostinato_learn.jobs.inputs.partition import Parts
    from ostinato_learn.jobs.parts import PartsJob

SHOWN = 4  # steps of the first example
MOST = 40  # columns shown


def shown(job: Job, measured: tuple[float, int] | None = None) -> str:
    """Columns with their roles, the first example, sizes of the parts, recipe and baselines.

    Args:
        measured: the result of `timing.measured`, if it is known.
    """
    settings = job.settings
    sections: dict[str, Rows] = {"data": [("source", str(settings.data.source)), ("aim", job.aim)]}
    sections |= job.shown()
    from ostinato_learn.jobs import timing

    time = timing.estimate(*(measured or timing.measured(job)))
    sections["recipe"] = [*_recipe(settings), ("time", time)]
    lines: list[str] = []
    for name, rows in sections.items():
        if rows:
            lines += [name, *(f"  {line}".rstrip() for line in summaries.aligned(rows))]
    return "\n".join(
        [*lines, "No model was trained, nothing written; --print-config shows every setting."]
    )


def of_parts(job: PartsJob) -> dict[str, Rows]:
    """The sections of a job on columns, first example and parts."""
    parts, settings = job.parts, job.settings
    _check_prepared(parts, settings)
    every = [("training", parts.train), ("validation", parts.validation), ("test", parts.test)]
    return {
        "columns": columns(settings, parts.train.roles),
        "first example": first(parts.train),
        "parts": [(name, size(part)) for name, part in every if part is not None],
    }


def of_sequences(job: PartsJob, *baselines: tuple[str, str]) -> dict[str, Rows]:
    """The sections of a job that learns labels; `baselines` are further baselines."""
    of_all, train, test = of_parts(job), job.parts.train, job.parts.test
    labels, counts = _labels(train)
    _, test_counts = _labels(test, labels)
    total = max(1, int(test_counts.sum()))
    if train.roles is not None and train.roles.labels:
        frequent = np.where(2 * counts > len(train), test_counts, len(test) - test_counts).mean()
        constant = ("always the more frequent answer", percent(float(frequent) / len(test)))
    else:
        most_frequent = float(test_counts[counts.argmax()] / total)
        constant = ("always the most frequent label", percent(most_frequent))
    return of_all | {
        "labels in training and test": [
            (str(label), f"{n:,}, {m:,}")
            for label, n, m in list(zip(labels, counts, test_counts, strict=True))[:MOST]
        ],
        "baselines on the test part": [constant, *baselines],
    }


def _check_prepared(parts: Parts, settings: Config) -> None:
    """Refuse data that a training would refuse, such as missing values; sequences on disk are left
    to the training."""
    data = settings.data
    if parts.train.roles is None or isinstance(parts.train.sequences, Mapped):
        return
    missing = partition.how_missing(parts.train, data.missing)
    preparation = Preparation.fit(parts.train, missing=missing, standardize=data.standardize)
    for part in (parts.validation, parts.test):
        if part is not None and not isinstance(part.sequences, Mapped):
            preparation.apply(part)


def _labels(part: Examples, known: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a part, or the known labels, and their numbers."""
    if part.roles is not None and part.roles.labels:
        return np.array(part.roles.labels), part.y.sum(axis=0)
    if hasattr(part.y, "dtype"):
        found, counts = np.unique(part.y, return_counts=True)
    else:
        found, counts = label_counts(part.y)
    if known is None:
        return found, counts
    number = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return known, np.array([number.get(label, 0) for label in known.tolist()])


def columns(settings: Config, roles: Roles | None) -> Rows:
    """The columns of a table with their roles; empty for a file of arrays."""
    source = settings.data.source or ""
    if roles is None or not sources.is_table(source):
        return []
    single = ("id", "time", "target", "group", "split")
    labels = () if roles.target else roles.labels
    of: dict[str, list[str]] = {}
    for role in single:
        if getattr(roles, role):
            of.setdefault(getattr(roles, role), []).append(role)
    several: Mapping[str, Sequence[str]] = {
        "feature": roles.features,
        "static": roles.static,
        "known ahead": roles.known,
        "category": roles.categories,
        "label": labels,
    }
    for role, names in several.items():
        for name in names:
            of.setdefault(name, []).append(role)
    names = sources.table(source, settings.data).names
    rows = [(repr(name), ", ".join(of.get(name, ["left out"]))) for name in names[:MOST]]
    more = len(names) - len(rows)
    return [*rows, *([("…", f"{more:,} further columns")] if more else [])]


def first(part: Examples) -> Rows:
    """The first sequence: its name, and its first steps feature by feature."""
    x, length = next(iter(part.sequences)), int(part.lengths[0])
    rows = [("name", str(part.ids[0])), ("steps", f"{length:,}")]
    more = " …" if length > SHOWN else ""
    if part.times is not None:
        times = times_as_text([part.times[0]])[0][:SHOWN]
        rows.append(("time", "  ".join(map(str, times)) + more))
    for i, name in list(enumerate(part.features))[:MOST]:
        words = part.categories.get(name)
        rows.append((repr(name), "  ".join(_value(v, words) for v in x[:SHOWN, i]) + more))
    y = part.y
    if y is not None and not hasattr(y, "dtype"):
        rows.append(("answer", "  ".join(map(str, y[0][:SHOWN].tolist())) + more))
    elif y is not None and part.roles is not None and part.roles.labels:
        rows.append(("answer", str(joined(y[:1], part.roles.labels)[0]) or "none"))
    elif y is not None:
        rows.append(("answer", str(y[0])))
    return rows


def _value(value: float, words: Sequence[str] | None) -> str:
    if np.isnan(value):
        return "missing"
    return f"{value:.6g}" if words is None else words[int(value)]


def size(part: Examples) -> str:
    """The numbers of sequences, steps and groups of a part."""
    shortest, longest = int(part.lengths.min()), int(part.lengths.max())
    steps = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    n = 0 if part.groups is None else len(np.unique(part.groups))
    groups = f", {n:,} group{'s' * (n > 1)}" if n else ""
    return f"{len(part):,} of {steps} steps{groups}"


def _recipe(settings: Config) -> Rows:
    origin = settings.run.from_
    refused = tasks.named(task_of(settings)).rules_out(settings)
    return [
        *([("start", f"the weights of {origin}")] if origin else []),
        *recipe.rows(dict(settings.items())),
        *([("rules out", refused)] if refused else []),
    ]
