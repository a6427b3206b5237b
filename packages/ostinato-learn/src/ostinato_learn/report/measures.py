"""A network's measures beside those of its baselines, in a table and in a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostinato_learn.report.page import RunFacts
from ostinato_learn.report.panels import Cell, PageSection, PageTable, Sentence
from ostinato_learn.tasks.base import MeasureSpec

# Key of a measure → how it is read.
Measures = Mapping[str, MeasureSpec]
Baselines = Mapping[str, Mapping[str, Any]]  # name → key of a measure → its value


def section(
    facts: RunFacts, measures: Measures, more: Mapping[str, Any] | None = None
) -> PageSection:
    """The measures on the test part, those of the baselines, and which is better.

    Args:
        facts: the facts of the run.
        measures: the measures of the task.
        more: values of measures that the evaluation may lack.
    """
    test = {**(more or {}), **facts.test}
    baselines = facts.evaluation.get("baselines", {})
    if not test:
        return PageSection("measures", "Measures", why="The test part was not measured.")
    sentence = _tested(facts)
    caption = "Measures on the test part" + "; the best of each in bold" * bool(baselines)
    header, lines = ["measure", "network", *baselines], rows(measures, test, baselines)
    table = PageTable(caption, header, lines, "numbers measures")
    return PageSection("measures", "Measures", [sentence, table] if sentence else [table])


def rows(measures: Measures, test: Mapping[str, Any], baselines: Baselines) -> list[list[object]]:
    """The measures that the network has, with those of the baselines; the best is marked."""
    result = []
    for key, measure in measures.items():
        if test.get(key) is None:
            continue
        values = [test[key], *(theirs.get(key) for theirs in baselines.values())]
        known = [i for i, value in enumerate(values) if value is not None]
        cells: list[object] = [_shown(measure, value) for value in values]
        if measure.sided and len(known) > 1:
            sign = 1 if measure.lower else -1
            best = min(known, key=lambda i: sign * values[i])
            cells[best] = Cell(cells[best], "best")
        result.append([measure.words, *cells])
    return result


def _shown(measure: MeasureSpec, value: float | None) -> str:
    return "–" if value is None else measure.shown(value).replace(" ", "\u202f")


def _tested(facts: RunFacts) -> Sentence | None:
    """The verdict of a test on the same examples, if the evaluation has one (see `baselines`)."""
    sentence = facts.evaluation.get("verdict")
    if not isinstance(sentence, str):
        return None
    subject = "There is" if sentence.startswith("no ") else "The network is"
    css = "verdict" if sentence.startswith("better") else "verdict lost"
    css = "note" if sentence.startswith("not tested") else css
    return Sentence(f"{subject} {sentence}.".replace(" %", "\u202f%"), css)
