"""Sections that the reports of several kinds of answer share: network, training, surroundings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ostinato_learn.anatomy import Anatomy
from ostinato_learn.report import parts, picture
from ostinato_learn.report.figures import Curve, Line, dots, limits
from ostinato_learn.report.markup import Html, count, counted, percent, tag, text
from ostinato_learn.report.page import RunFacts
from ostinato_learn.report.panels import (
    SCROLLS,
    Fold,
    Grid,
    Markup,
    PagePanel,
    PageSection,
    PageTable,
    PageText,
    SettingsTables,
    Word,
)
from ostinato_learn.report.svg import MUTED, WRONG

MAX_BATCHES = 500  # points of the loss of single batches
MAX_METRIC_ROWS = 30
SHOWN_WORDS = 80  # of a text
VALIDATION = {"color": WRONG, "marker": "s"}
_METRICS = {  # metric → column heading, in the order shown
    "iteration": "iteration",
    "epoch": "epoch",
    "loss": "loss",
    "train_accuracy": "training accuracy",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "learning_rate": "learning rate",
    "elapsed_s": "elapsed, s",
}


def words_read(words: Sequence[str]) -> PageText:
    """The words of a sequence; of a long text its beginning."""
    more = " …" if len(words) > SHOWN_WORDS else ""
    return PageText([Word(" ".join(words[:SHOWN_WORDS]) + more)], "words")


def fitted_of(estimator: Any) -> Any:
    """The model within an estimator, NotFittedError if it is not fitted; a model as it is."""
    return estimator._fitted() if hasattr(estimator, "_fitted") else estimator


def feature_names(fitted: Any) -> tuple[str, ...]:
    """The names of the features that a fitted model reads; empty if they have none."""
    preparation, frame = fitted.preparation, fitted.feature_names
    if preparation is not None:
        return preparation.columns
    return () if frame is None else tuple(map(str, frame))


def sequences(facts: RunFacts, lengths: np.ndarray, step: str) -> str:
    """A text: how many sequences training and test have, and the lengths `[N]` of the latter."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    n_train = facts.environment.get("data", {}).get("n_train")
    learnt = f"{count(n_train)} training and " if n_train else ""
    steps = counted(longest, step)
    if shortest < longest:
        steps = f"{count(shortest)} to {steps}"
    what = "texts" if step == "word" else "sequences"
    return f"{learnt}{count(len(lengths))} test {what} of {steps}"


def network(sizes: Anatomy | None) -> PageSection:
    """The network unrolled over time, and its equations, which a click shows."""
    if sizes is None:
        return PageSection("network", "Network", why="The sizes of the network are unknown.")
    wording = f"{picture.caption(sizes)}, {count(sizes.parameters)} parameters, unrolled over time"
    drawn = (
        f'<figure>{SCROLLS}<div class="scroll wide" tabindex="0">{picture.inline_svg(sizes)}</div>'
        f"{tag('figcaption', wording)}</figure>"
    )
    lines = Html("\n".join(map(text, sizes.equations)))
    biases = "Layers learn two biases, as those of PyTorch do; a single one here is their sum."
    equations = Markup(tag("pre", lines) + tag("p", biases))
    return PageSection("network", "Network", [Markup(drawn), Fold("The equations", [equations])])


def training(
    facts: RunFacts, wording: str, name: str = "Loss", *, accuracy: bool = False
) -> PageSection:
    """The loss over the iterations, and the accuracy of the batches.

    Args:
        facts: the facts of the run.
        wording: a sentence that explains the curves.
        name: the name of the loss, with its unit if it needs one.
        accuracy: whether the reports have an accuracy.
    """
    metrics = facts.metrics
    if not metrics:
        return PageSection("training", "Training", why="No curves: the run kept no metrics.")
    shown = [_loss(facts, name, wide=not accuracy)]
    if accuracy:
        shown.append(_accuracy(metrics))
    panels: list[PagePanel] = [Grid(shown), Fold("The numbers", [_numbers(metrics)])]
    return PageSection("training", "Training", panels, note=wording)


def _loss(facts: RunFacts, name: str, wide: bool) -> Curve:
    """The curves of the loss: single batches (faint), their running mean, and validation.

    Without `losses`, the batches of the reports are shown.
    """
    lines = _course(np.array(facts.losses, float)) if facts.losses else []
    if not lines:
        lines = _reported(facts.metrics, "loss", "training batch", {"marker": "o"})
    lines += _reported(facts.metrics, "validation_loss", "validation", VALIDATION)
    values = np.concatenate([[np.nan], *(line.y for line in lines)])
    values = values[~np.isnan(values)]
    decades = len(values) > 0 and 0 < 30 * values.min() < values.max()
    return Curve(
        id="loss",
        label=_label(name, "loss", facts.metrics),
        lines=lines,
        x="iteration",
        title=name,
        log="y" if decades else "",
        y_limits=(None, None) if decades else (0, None),
        wide=wide,
    )


def _course(losses: np.ndarray) -> list[Line]:
    """The lines of `[K, 2]` iterations and losses of single batches."""
    iterations, values = losses.T
    window = max(1, len(values) // 25)
    mean = parts.running_mean(values, window)
    smooth = np.unique(np.linspace(0, len(values) - 1, MAX_BATCHES).round().astype(int))
    wording = "training batch" if window == 1 else f"mean of {window} of them"
    lines = [Line(iterations[smooth], mean[smooth], wording)]
    if window > 1:
        every = f"a batch every {iterations[1] - iterations[0]:.0f} iterations"
        shown = parts.extremes(values, MAX_BATCHES)
        faint = {"color": MUTED, "alpha": 0.5, "linewidth": 0.6}
        lines.insert(0, Line(iterations[shown], values[shown], every, faint))
    return lines


def _reported(
    metrics: Sequence[dict[str, Any]], key: str, name: str, style: Mapping[str, Any]
) -> list[Line]:
    """An entry of the reports over the iterations at which it was reported."""
    known = [report for report in metrics if np.isfinite(report.get(key, np.nan))]
    if not known:
        return []
    x, y = np.array([[report["iteration"], report[key]] for report in known], float).T
    few = {**dots(len(known)), **style} if dots(len(known)) else {**style, "marker": None}
    return [Line(x, y, name, few)]


def _accuracy(metrics: Sequence[dict[str, Any]]) -> Curve:
    """The accuracy over iterations; the axis fits the reports after the start."""
    lines = _reported(metrics, "train_accuracy", "training batch", {"marker": "o"})
    lines += _reported(metrics, "validation_accuracy", "validation", VALIDATION)
    ends, start = accuracy_limits(metrics), metrics[0]["train_accuracy"]
    cut = f"Below the axis: {percent(start)} before the first update." if start < ends[0] else ""
    return Curve(
        id="accuracy",
        label=_label("Accuracy", "train_accuracy", metrics),
        caption=cut,
        lines=lines,
        x="iteration",
        title="Accuracy",
        shares="y",
        y_limits=ends,
    )


def accuracy_limits(metrics: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The ends of the axis; accuracies before the first update are outside if far lower."""
    shares = [[r[k] for k in r if k.endswith("accuracy")] for r in metrics]
    low, high = limits(np.concatenate(shares[1:] or shares))
    start = min(shares[0])
    return (low, high) if start < low - (high - low) else limits(np.concatenate(shares))


def _label(name: str, key: str, metrics: Sequence[dict[str, Any]]) -> str:
    first, last = metrics[0], metrics[-1]
    return (
        f"{name} over {count(last['iteration'])} iterations: "
        f"{first[key]:.4g} at the start, {last[key]:.4g} at the end"
    )


def _numbers(metrics: Sequence[dict[str, Any]]) -> PageTable:
    """The reports of the training; of many, the first, the last and some at equal distances."""
    shown = np.unique(np.linspace(0, len(metrics) - 1, MAX_METRIC_ROWS).round().astype(int))
    keys = [key for key in _METRICS if any(key in report for report in metrics)]
    rows = [[_metric(key, metrics[i]) for key in keys] for i in shown]
    caption = f"{len(shown)} of {count(len(metrics))} reports of the training"
    return PageTable(caption, [_METRICS[key] for key in keys], rows)


def _metric(key: str, report: dict[str, Any]) -> str:
    value = report.get(key)
    if value is None:
        return "–"
    if key.endswith("accuracy"):
        return percent(value)
    return count(value) if isinstance(value, int) else f"{value:.4g}"


def surroundings(facts: RunFacts) -> list[PageSection]:
    """All settings of the run; the machine, the versions and the data of the run."""
    wording = dict(facts.environment)
    if "command" in wording:
        wording["command"] = facts.command
    return [
        PageSection(
            name,
            name.title(),
            [SettingsTables(values)] if values else [],
            why=f"The {name} is unknown.",
        )
        for name, values in (("configuration", facts.config), ("environment", wording))
    ]
