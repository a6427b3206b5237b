"""The tables of the report: confusion matrix, classes, training reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ostinato.report.markup import count, percent, plain, row, short, table, text
from ostinato.report.measures import Row

MAX_METRIC_ROWS = 30
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


def confusion_table(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """Counts `[C, C]`, a row for each true class, the cells tinted by their share of the row."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = []
    for true, name in enumerate(classes):
        counts = zip(matrix[true].tolist(), shares[true], strict=True)
        cells = "".join(
            _confusion_cell(number, share, true == predicted)
            for predicted, (number, share) in enumerate(counts)
        )
        rows.append(f'<tr><th scope="row">{text(short(name, 20))}</th>{cells}</tr>')
    long = max(len(plain(name)) for name in classes) > 4
    names = [f"<span>{text(short(name, 20))}</span>" for name in classes]
    return table(
        "Rows: true class. Columns: predicted class.",
        ['<span class="corner">true \\ predicted</span>', *names],
        rows,
        "confusion tall" if long else "confusion",
    )


def _confusion_cell(number: int, share: float, correct: bool) -> str:
    if number == 0:
        return '<td class="zero">0</td>'
    # The root and the start at 12 % let a single mistake show, on black too; at most 60 % of
    # colour keeps the number readable on it.
    root = np.sqrt(share)
    colour, strength = ("--low", 55 * root) if correct else ("--high", 12 + 100 * root)
    tint = f"color-mix(in srgb, var({colour}) {min(60, strength):.0f}%, transparent)"
    return f'<td style="background:{tint}">{count(number)}</td>'


def most_confused(matrix: np.ndarray, classes: Sequence[str], n: int) -> list[tuple[str, str, int]]:
    """The n most frequent mistakes, as (true, predicted, how often)."""
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:n]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [(classes[i], classes[j], int(mistakes[i, j])) for i, j in pairs if mistakes[i, j]]


def class_table(matrix: np.ndarray, classes: Sequence[str], kind: str, of: str) -> str:
    """Precision, recall, F1 and support of each class, and their means.

    Args:
        matrix: `[C, C]` counts, a row for each true class.
        classes: their names.
        kind, of: what a class is called, and what is classified.
    """
    right, support, given = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, which is shown as a dash
        scores = np.stack([right / given, right / support, 2 * right / (support + given)])
    rows = []
    for c, name in enumerate(classes):
        mistakes = np.where(np.arange(len(classes)) == c, 0, matrix[c])
        most = int(mistakes.argmax())
        taken = f"{short(classes[most], 24)} ({count(int(mistakes[most]))}\u00d7)"
        mistake = taken if mistakes[most] else "–"
        shares = [percent(share) for share in scores[:, c]]
        rows.append(row(name, [*shares, count(int(support[c])), mistake]))
    total = int(support.sum())
    equal = np.ones(len(classes))
    for weights, name in ((equal, "classes" if kind == "class" else f"{kind}s"), (support, of)):
        shares = [percent(_mean(each, weights)) for each in scores]
        rows.append(row(f"mean over {name}", [*shares, count(total), ""], "mean"))
    header = [kind, "precision", "recall", "F1", "support", "most often taken for"]
    return table(f"Scores of each {kind} on the test {of}", header, rows, "numbers classes")


def _mean(scores: np.ndarray, weights: np.ndarray) -> float:
    """The weighted mean of the scores that exist; NaN if none does."""
    there = ~np.isnan(scores)
    total = weights[there].sum()
    return float((scores[there] * weights[there]).sum() / total) if total else float("nan")


def steps_table(accuracy: np.ndarray, unit: str) -> str:
    """Accuracy `[T]` after each eighth of the steps."""
    marks = np.unique(np.ceil(np.linspace(0, len(accuracy), 9)[1:]).astype(int))
    rows = [row(mark, [percent(accuracy[mark - 1])]) for mark in marks]
    return table(f"Accuracy by {unit}s read", [f"{unit}s read", "accuracy"], rows, "numbers")


def measures_table(rows: Sequence[Row], baselines: Sequence[str]) -> str:
    """Measures of the network and of the baselines; the best of a row is marked."""
    lines = []
    for each in rows:
        marks = [' class="best"' if i == each.best else "" for i in range(len(each.cells))]
        cells = [f"<td{mark}>{text(c)}</td>" for mark, c in zip(marks, each.cells, strict=True)]
        lines.append(f'<tr><th scope="row">{text(each.name)}</th>{"".join(cells)}</tr>')
    header = ["measure", "network", *(text(name) for name in baselines)]
    caption = "Measures on the test part"
    told = f"{caption}; the best of each in bold" if baselines else caption
    return table(told, header, lines, "numbers measures")


def metrics_table(metrics: Sequence[dict[str, Any]]) -> str:
    """The reports of the training; of many, some at even distances with the first and the last."""
    shown = np.unique(np.linspace(0, len(metrics) - 1, MAX_METRIC_ROWS).round().astype(int))
    keys = [key for key in _METRICS if any(key in report for report in metrics)]
    cells = [[_metric(key, metrics[i]) for key in keys] for i in shown]
    rows = [row(first, rest) for first, *rest in cells]
    caption = f"{len(shown)} of {count(len(metrics))} reports of the training"
    return table(caption, [_METRICS[key] for key in keys], rows, "numbers")


def _metric(key: str, report: dict[str, Any]) -> str:
    value = report.get(key)
    if value is None:
        return "–"
    if key.endswith("accuracy"):
        return percent(value)
    return count(value) if isinstance(value, int) else f"{value:.4g}"
