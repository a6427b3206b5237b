"""train --dry-run: the data as they were understood, and what would be trained; nothing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.cli import jobs
from ostinato.cli.jobs.job import Job
from ostinato.cli.output import percent, times_as_text
from ostinato.cli.run import sources, summaries
from ostinato.cli.run.closed import closed
from ostinato.cli.run.config import ONLY, Config
from ostinato.cli.run.summaries import Rows
from ostinato.data.sequences.label_sets import joined
from ostinato.data.sequences.mapped import Mapped
from ostinato.data.sequences.prepare import Preparation
from ostinato.data.sequences.steps import label_counts

if TYPE_CHECKING:
    from ostinato.cli.jobs.classify import ClassifyJob
    from ostinato.cli.jobs.forecast import ForecastJob
    from ostinato.cli.jobs.language import LanguageJob
    from ostinato.cli.jobs.tag import TagJob
    from ostinato.cli.run.partition import Parts
    from ostinato.data.sequences.examples import Examples
    from ostinato.data.tables.roles import Roles

SHOWN = 4  # steps of the first example
MOST = 40  # columns that are shown


def shown(job: Job) -> str:
    """Columns with their roles, the first example, sizes of the parts, recipe and baselines."""
    settings, task = job.settings, jobs.task_of(job.settings)
    sections: dict[str, Rows] = {
        "data": [("source", str(settings.data.source)), ("aim", _aim(settings))]
    }
    sections |= {
        "classify": _sequences,
        "tag": _sequences,
        "forecast": _series,
        "language": _texts,
    }[task](job)  # type: ignore[operator]  # each takes its own kind of job
    sections["recipe"] = _recipe(settings, task)
    lines: list[str] = []
    for name, rows in sections.items():
        if rows:
            lines += [name, *(f"  {line}".rstrip() for line in summaries.aligned(rows))]
    return "\n".join(
        [*lines, "Nothing was trained or written; --print-config shows every setting."]
    )


def _aim(settings: Config) -> str:
    task = settings.task
    if task.forecast is not None:
        return f"forecast {task.horizon} steps of {task.forecast!r}"
    if task.tag is not None:
        return f"tag each step with {task.tag!r}"
    if jobs.task_of(settings) == "language":
        column = "" if task.language in (None, ONLY) else f" of {task.language!r}"
        return f"predict the next {task.level}{column}"
    return "classify" + ("" if task.classify is None else f" by {task.classify!r}")


def _sequences(job: ClassifyJob | TagJob) -> dict[str, Rows]:
    parts, settings = job.parts, job.settings
    train, test = parts.train, parts.test
    _check_prepared(parts, settings)
    labels, counts = _labels(train)
    _, test_counts = _labels(test, labels)
    total = max(1, int(test_counts.sum()))
    if train.roles is not None and train.roles.labels:
        frequent = np.where(2 * counts > len(train), test_counts, len(test) - test_counts).mean()
        told = ("always the more frequent answer", percent(float(frequent) / len(test)))
    else:
        most_frequent = float(test_counts[counts.argmax()] / total)
        told = ("always the most frequent label", percent(most_frequent))
    baselines = [told]
    if jobs.task_of(settings) == "classify":
        baselines.append(("RBF-SVM, logistic regression", "measured with a training"))
    return {
        "columns": _columns(settings, train.roles),
        "first example": _first(train),
        "parts": [
            ("training", _size(train)),
            *([("validation", _size(parts.validation))] if parts.validation is not None else []),
            ("test", _size(test)),
        ],
        "labels in training and test": [
            (str(label), f"{n:,}, {m:,}")
            for label, n, m in list(zip(labels, counts, test_counts, strict=True))[:MOST]
        ],
        "baselines on the test part": baselines,
    }


def _check_prepared(parts: Parts, settings: Config) -> None:
    """Refuse what a training would refuse, such as missing values; what lies in a file is left
    to it."""
    data = settings.data
    if parts.train.roles is None or isinstance(parts.train.X, Mapped):
        return
    preparation = Preparation.fit(parts.train, missing=data.missing, standardize=data.standardize)
    for part in (parts.validation, parts.test):
        if part is not None and not isinstance(part.X, Mapped):
            preparation.apply(part)


def _series(job: ForecastJob) -> dict[str, Rows]:
    series = job.series
    windows, horizon = job.n_windows(), job.settings.task.horizon
    return {
        "columns": _columns(job.settings, series.roles),
        "first series": _first(series),
        "parts": [
            ("series", _size(series)),
            ("test", f"the last {windows} x {horizon} steps of each"),
        ],
        "baselines on the test part": [
            (name, "measured with a training")
            for name in (
                "last value",
                *(["seasonal naive"] if job.settings.task.season > 1 else []),
            )
        ],
    }


def _texts(job: LanguageJob) -> dict[str, Rows]:
    texts, first = job.texts, job.texts.train[0]
    parts = {"training": texts.train, "validation": texts.validation, "test": texts.test}
    order = job.order
    return {
        "first text": [("begins", repr(first[:70]) + ("…" if len(first) > 70 else ""))],
        "parts": [
            (name, f"{len(part):,} texts of {sum(map(len, part)):,} characters")
            for name, part in parts.items()
            if part is not None
        ],
        "baselines on the test part": [
            (f"modified Kneser-Ney, {order}-grams", "measured with a training")
        ],
    }


def _labels(part: Examples, known: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a part, or those that are known, and how often each is there."""
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


def _columns(settings: Config, roles: Roles | None) -> Rows:
    """The columns of a table with their roles; none of a file of arrays."""
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
        "feature": roles.features, "static": roles.static, "known ahead": roles.known,
        "category": roles.categories, "label": labels,
    }  # fmt: skip
    for role, names in several.items():
        for name in names:
            of.setdefault(name, []).append(role)
    names = sources.table(source, settings.data).names
    rows = [(repr(name), ", ".join(of.get(name, ["left out"]))) for name in names[:MOST]]
    more = len(names) - len(rows)
    return [*rows, *([("…", f"{more:,} further columns")] if more else [])]


def _first(part: Examples) -> Rows:
    """The first sequence: its name, and its first steps feature by feature."""
    x, length = next(iter(part.X)), int(part.lengths[0])
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


def _size(part: Examples) -> str:
    shortest, longest = int(part.lengths.min()), int(part.lengths.max())
    steps = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    n = 0 if part.groups is None else len(np.unique(part.groups))
    groups = f", {n:,} group{'s' * (n > 1)}" if n else ""
    return f"{len(part):,} of {steps} steps{groups}"


def _recipe(settings: Config, task: str) -> Rows:
    model, training, unused = settings.model, settings.training, jobs.unused(settings)
    layers = "" if model.num_layers == 1 else f"{model.num_layers} layers of "
    both = (
        ", both directions" if model.bidirectional and "model.bidirectional" not in unused else ""
    )
    dropout = f", dropout {model.dropout:g}" if model.dropout else ""
    length = (
        f"{training.epochs:g} epochs" if training.epochs else f"{training.iterations:,} iterations"
    )
    clip = f", clipped at {training.clip_norm:g}" if training.clip_norm else ""
    origin, refused = settings.run.from_, closed(settings)
    return [
        *([("start", f"the weights of {origin}")] if origin else []),
        ("network", f"{layers}{model.cell}, {model.hidden_size} units{both}{dropout}"),
        ("length", f"{length}, {training.batch_size} at a time"),
        ("updates", f"{training.optimizer}, {training.learning_rate:g} {training.schedule}{clip}"),
        *([("closes", refused)] if refused else []),
    ]
