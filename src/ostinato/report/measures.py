"""The measures of each task in words, and a network's beside those of its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ostinato.report.markup import percent


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


Baselines = Mapping[str, Mapping[str, Any]]  # name → key of a measure → its value

# The first that the network and a baseline both have is the one by which they are compared.
REPORTED: dict[str, dict[str, Measure]] = {
    "classify": {
        "accuracy": Measure("accuracy", "higher", True),
        "loss": Measure("loss, nats", "lower"),
    },
    "several": {  # labels of a sequence
        "label_accuracy": Measure("labels right", "higher", True),
        "f1": Measure("F1 of labels", "higher", True),
        "accuracy": Measure("all labels of an example right", "higher", True),
        "loss": Measure("loss of a label, nats", "lower"),
    },
    "tag": {
        "accuracy": Measure("accuracy of a step's label", "higher", True),
        "f1": Measure("F1 of spans", "higher", True),
        "precision": Measure("precision of spans", "higher", True),
        "recall": Measure("recall of spans", "higher", True),
        "loss": Measure("loss per step, nats", "lower"),
        "unknown": Measure("unknown words", "", True),
    },
    "forecast": {
        "mase": Measure("MASE, mean absolute scaled error", "lower", short="MASE"),
        "wql": Measure("WQL, weighted quantile loss", "lower", short="WQL"),
        "mae": Measure("mean absolute error", "lower"),
        "pinball": Measure("pinball loss", "lower"),
        "coverage_80": Measure("inside the 80\u202f% interval", "", True),
    },
    "language": {
        "bits_per_character": Measure("bits per character", "lower"),
        "perplexity": Measure("perplexity of a token", "lower"),
        "unknown": Measure("unknown tokens", "", True),
    },
}


@dataclass(frozen=True)
class Row:
    """One measure of the network and of each baseline.

    Attributes:
        name: of the measure.
        cells: the network's first.
        best: which cell is the best one; None where none is.
    """

    name: str
    cells: tuple[str, ...]
    best: int | None


def rows(task: str, test: Mapping[str, Any], baselines: Baselines) -> list[Row]:
    """The rows of a table of measures: those that the network has."""
    result = []
    for key, measure in REPORTED[task].items():
        if test.get(key) is None:
            continue
        values = [test[key], *(theirs.get(key) for theirs in baselines.values())]
        known = [i for i, value in enumerate(values) if value is not None]
        best = None
        if measure.better and len(known) > 1:
            sign = 1 if measure.better == "lower" else -1
            best = min(known, key=lambda i: sign * values[i])
        result.append(Row(measure.words, tuple(map(measure.shown, values)), best))
    return result


def _lost(task: str, test: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The measures by which a baseline is better."""
    return [
        measure.short or measure.words
        for key, measure in REPORTED[task].items()
        if measure.better
        and test.get(key) is not None
        and theirs.get(key) is not None
        and measure.loses(test[key], theirs[key])
    ]


@dataclass(frozen=True)
class Verdict:
    """Whether a network was worth it.

    Attributes:
        told: in a plain sentence.
        lost: whether a baseline is better.
    """

    told: str
    lost: bool


def verdict(task: str, test: Mapping[str, Any], baselines: Baselines) -> Verdict | None:
    """The network against the best baseline, by the first measure that both have; None without.

    Example:
        >>> verdict("forecast", {"mase": 1.25}, {"last value": {"mase": 1.0}}).told
        'The network loses: it is worse than last value (1.2500 to 1.0000 by MASE).'
    """
    for key, measure in REPORTED[task].items():
        theirs = {name: each[key] for name, each in baselines.items() if each.get(key) is not None}
        if not theirs or test.get(key) is None or not measure.better:
            continue
        pick = max if measure.better == "higher" else min
        name = pick(theirs, key=lambda each: theirs[each])
        ours, best = test[key], theirs[name]
        how = (
            f"({measure.shown(ours)} to {measure.shown(best)} by {measure.short or measure.words})"
        )
        if measure.loses(ours, best):
            return Verdict(f"The network loses: it is worse than {name} {how}.", True)
        if ours == best:
            return Verdict(f"The network gains nothing: it is as good as {name} {how}.", True)
        lost = _lost(task, test, baselines[name])
        but = f", but worse by {', '.join(lost)}" if lost else ""
        return Verdict(f"The network is better than {name} {how}{but}.", False)
    return None
