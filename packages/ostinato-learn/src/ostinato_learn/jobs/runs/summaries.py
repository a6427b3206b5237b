"""The summary at the end of a training."""

from __future__ import annotations

from typing import Any

from ostinato_learn import tasks
from ostinato_learn.jobs.output import percent
from ostinato_learn.jobs.runs.rundir import RunDir

Rows = list[tuple[str, str]]


def summary(evaluation: dict[str, Any], run: RunDir | None) -> str:
    """The results of a run as lines, with the verdict on the network and the best baseline."""
    task, test = evaluation.get("task", "classify"), evaluation["test"]
    rows: Rows = []
    if task == "classify" and "label_accuracy" in test:
        rows += _labels(test)
    elif task == "classify":
        rows += _accuracy(test)
        rows.append(("loss on them", f"{test['loss']:.4f}"))
    else:
        rows += _measures(task, test)
    rows += findings(evaluation)
    rows += _baselines(task, test, evaluation.get("baselines", {}))
    if "verdict" in evaluation:
        rows.append(("  the network is", evaluation["verdict"]))
    rows.append(("elapsed time", f"{evaluation['elapsed_s']:.1f} s"))
    name = "evaluation" if run is None else "evaluation and report"
    rows.append((name, f"{evaluation['evaluation_s']:.1f} s"))
    if run is not None and run.report.is_file():
        rows.append(("report", str(run.report)))
    lines = aligned(rows)
    if run is None:
        lines.append("Nothing was written; --output DIR keeps the model, the metrics and a report.")
    return "\n".join(lines)


def measured(task: str, measures: dict[str, Any]) -> str:
    """The measures of a model as lines, for `evaluate`."""
    if "label_accuracy" in measures:
        return "\n".join(aligned(_labels(measures)))
    return "\n".join(aligned(_measures(task, measures)))


def findings(results: dict[str, Any]) -> Rows:
    """The findings that put the measures in doubt; see `findings.py`."""
    return [(f"  {each['severity']}", each["message"]) for each in results.get("findings", [])]


def aligned(rows: Rows) -> list[str]:
    """A line for each name and value, with the values below one another."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}   {value}" for name, value in rows]


def _measures(task: str, test: dict[str, Any]) -> Rows:
    rows = [
        (measure.words, measure.shown(test[name]))
        for name, measure in tasks.named(task).measures.items()
        if test.get(name) is not None
    ]
    if task == "forecast":
        rows.append(("values that were forecast", f"{test['n']:,}"))
    size = test.get("vocabulary_size")
    return [*rows, ("tokens in the vocabulary", f"{size:,}")] if size else rows


def _baselines(task: str, test: dict[str, Any], baselines: dict[str, dict[str, Any]]) -> Rows:
    """The first measure of each baseline that has it."""
    known = tasks.named(task)
    name = known.first_measure(test)
    return [
        (f"  {baseline}", known.measures[name].shown(measures[name]))
        for baseline, measures in baselines.items()
        if measures.get(name) is not None
    ]


def _labels(test: dict[str, Any]) -> Rows:
    """The measures for sequences that may have several labels."""
    return [
        (f"labels right on all {test['n']:,} test examples", percent(test["label_accuracy"])),
        ("all labels of an example right", percent(test["accuracy"])),
        ("F1 of labels", percent(test["f1"])),
        ("loss on them", f"{test['loss']:.4f}"),
    ]


def _accuracy(measured: dict[str, Any]) -> Rows:
    rows = [(f"accuracy on all {measured['n']:,} test examples", percent(measured["accuracy"]))]
    if "most_frequent_class" in measured:  # runs of older versions lack it
        share = percent(measured["most_frequent_class"])
        rows.append(("  always the most frequent class", share))
    return rows
