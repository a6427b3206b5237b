"""A network's measures beside those of its baselines, in a table and in a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ostinato.report.markup import percent
from ostinato.report.page import RunFacts
from ostinato.report.panels import Cell, PagePanel, PageSection, PageTable, Sentence


@dataclass(frozen=True)
class Measure:
    """A measure as people read it.

    Attributes:
        words: its name.
        better: "higher" or "lower"; "" of what has no better side, as coverage.
        share: whether it is a share of 1, shown as a percentage.
        short: its name in a sentence, if it is another one.
    """

    words: str
    better: str
    share: bool = False
    short: str = ""

    def shown(self, value: float | None) -> str:
        """The value as a percentage or with four decimal places; a dash for None."""
        if value is None:
            return "–"
        return percent(value) if self.share else f"{value:.4f}"

    def loses(self, ours: float, theirs: float) -> bool:
        return theirs > ours if self.better == "higher" else theirs < ours


# Key of a measure → how it is read. The first that the network and a baseline both have is the one
# by which they are compared.
Measures = Mapping[str, Measure]
Baselines = Mapping[str, Mapping[str, Any]]  # name → key of a measure → its value


def section(
    facts: RunFacts, measures: Measures, more: Mapping[str, Any] | None = None, *below: PagePanel
) -> PageSection:
    """The measures on the test part, those of the baselines beside them, and who wins.

    Args:
        facts: of the run.
        measures: those of the task.
        more: measures that the evaluation may lack.
        below: panels under the table.
    """
    test = {**(more or {}), **facts.test}
    baselines = facts.evaluation.get("baselines", {})
    if not test:
        return PageSection("measures", "Measures", below, why="The test part was not measured.")
    told = _tested(facts) or verdict(measures, test, baselines)
    caption = "Measures on the test part" + "; the best of each in bold" * bool(baselines)
    table = PageTable(
        caption, ["measure", "network", *baselines], rows(measures, test, baselines),
        "numbers measures",
    )  # fmt: skip
    return PageSection("measures", "Measures", [*([told] if told else []), table, *below])


def rows(measures: Measures, test: Mapping[str, Any], baselines: Baselines) -> list[list[object]]:
    """The measures that the network has, with those of the baselines; the best is marked."""
    result = []
    for key, measure in measures.items():
        if test.get(key) is None:
            continue
        values = [test[key], *(theirs.get(key) for theirs in baselines.values())]
        known = [i for i, value in enumerate(values) if value is not None]
        cells: list[object] = [measure.shown(value) for value in values]
        if measure.better and len(known) > 1:
            sign = 1 if measure.better == "lower" else -1
            best = min(known, key=lambda i: sign * values[i])
            cells[best] = Cell(cells[best], "best")
        result.append([measure.words, *cells])
    return result


def _tested(facts: RunFacts) -> Sentence | None:
    """The verdict of a test on the same examples, if the evaluation has one (see `baselines`)."""
    told = facts.evaluation.get("verdict")
    if not isinstance(told, str):
        return None
    subject = "There is" if told.startswith("no ") else "The network is"
    css = "verdict" if told.startswith("better") else "verdict lost"
    return Sentence(f"{subject} {told}.".replace(" %", "\u202f%"), css)


def verdict(measures: Measures, test: Mapping[str, Any], baselines: Baselines) -> Sentence | None:
    """The network against the best baseline, by the first measure that both have; None without.

    Example:
        >>> forecasts = {"mase": Measure("MASE", "lower")}
        >>> verdict(forecasts, {"mase": 1.25}, {"last value": {"mase": 1.0}}).words
        'The network loses: it is worse than last value (1.2500 to 1.0000 by MASE).'
    """
    for key, measure in measures.items():
        theirs = {name: each[key] for name, each in baselines.items() if each.get(key) is not None}
        if not theirs or test.get(key) is None or not measure.better:
            continue
        pick = max if measure.better == "higher" else min
        name = pick(theirs, key=lambda each: theirs[each])
        ours, best = test[key], theirs[name]
        by = measure.short or measure.words
        how = f"{name} ({measure.shown(ours)} to {measure.shown(best)} by {by})"
        if measure.loses(ours, best):
            return Sentence(f"The network loses: it is worse than {how}.", "verdict lost")
        if ours == best:
            told = f"The network gains nothing: it is as good as {how}."
            return Sentence(told, "verdict lost")
        lost = ", ".join(_lost(measures, test, baselines[name]))
        but = f", but worse by {lost}" if lost else ""
        return Sentence(f"The network is better than {how}{but}.", "verdict")
    return None


def _lost(measures: Measures, test: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The measures by which a baseline is better."""
    return [
        measure.short or measure.words
        for key, measure in measures.items()
        if measure.better
        and None not in (test.get(key), theirs.get(key))
        and measure.loses(test[key], theirs[key])
    ]
