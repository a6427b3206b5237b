"""The report of a regressor: its errors, and its predictions beside the true values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.report import common, measures
from ostinato_learn.report.figures import Figure
from ostinato_learn.report.page import PageData, RunFacts
from ostinato_learn.report.panels import Grid, PageSection, PageTable, Tile
from ostinato_learn.saved.card import n_parameters
from ostinato_learn.tasks import named

if TYPE_CHECKING:
    from ostinato_learn.data.sequences.examples import Examples
    from ostinato_learn.tasks.regress.model import Regressor

SHOWN = 2_000  # points of a figure
WORST = 12  # sequences in the table


@dataclass(frozen=True, eq=False, kw_only=True)
class Against(Figure):
    """Predictions `[N]` over true values, with the line on which both are equal."""

    actual: np.ndarray
    predicted: np.ndarray
    name: str

    def draw(self, fig: Any) -> None:
        ax = fig.subplots()
        ends = [
            min(self.actual.min(), self.predicted.min()),
            max(self.actual.max(), self.predicted.max()),
        ]
        ax.plot(ends, ends, color="0.6", linewidth=1)
        ax.scatter(self.actual, self.predicted, s=8, alpha=0.5, linewidths=0)
        ax.set_xlabel(f"{self.name}, what came")
        ax.set_ylabel("prediction")


@dataclass(frozen=True, eq=False, kw_only=True)
class NumbersData(PageData):
    """The contents of a regressor's report.

    Args:
        title, …, environment, parameters: see `RunFacts` and `PageData`.
        targets: the names of the K targets.
        actual, predicted: the true values and the predictions, `[N, K]`.
        ids: `[N]`, the names of the test sequences.
        lengths: `[N]`, the numbers of their steps.
    """

    targets: tuple[str, ...]
    actual: np.ndarray
    predicted: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray

    def sizes(self) -> str:
        return common.sequences(self, self.lengths, "step")

    def tiles(self) -> list[Tile]:
        known = named("regress").measures
        shown = [(name, self.test.get(name)) for name in ("r2", "mae", "rmse")]
        return [Tile(known[n].shown(v), known[n].words) for n, v in shown if v is not None]

    def sections(self) -> list[PageSection | None]:
        rows = np.sort(np.random.default_rng(0).permutation(len(self.actual))[:SHOWN])
        figures = [
            Against(
                id=f"against-{k}",
                label=f"predictions of {name} over what came",
                actual=a[rows],
                predicted=p[rows],
                name=name,
            )
            for k, (name, a, p) in enumerate(
                zip(self.targets, self.actual.T, self.predicted.T, strict=True)
            )
        ]
        return [
            measures.section(self, named("regress").measures),
            PageSection("against", "Predictions", [Grid(figures)]),
            self._worst(),
            common.training(self, "The loss is in units of the targets' deviation."),
            *common.surroundings(self),
        ]

    def _worst(self) -> PageSection:
        errors = (np.abs(self.predicted - self.actual) / self.actual.std(axis=0).clip(1e-30)).max(1)
        worst = np.argsort(-errors, kind="stable")[:WORST]
        header = ["sequence", *(f"{n}, {w}" for n in self.targets for w in ("came", "prediction"))]
        rows = [
            [
                self.ids[i],
                *(
                    f"{v:.6g}"
                    for pair in zip(self.actual[i], self.predicted[i], strict=True)
                    for v in pair
                ),
            ]
            for i in worst
        ]
        table = PageTable("The largest errors, in deviations of the target", header, rows)
        return PageSection("worst", "Largest errors", [table])


def collect_numbers(
    model: Regressor, part: Examples, answers: np.ndarray, facts: RunFacts
) -> NumbersData:
    """The contents of a report.

    Args:
        model: the regressor.
        part: the test part.
        answers: `[N, K, Q]`, the result of `predict_quantiles`.
        facts: the facts of the run.
    """
    return NumbersData(
        **vars(facts),
        targets=model.targets,
        actual=part.y,
        predicted=model.points(answers).reshape(part.y.shape),
        ids=part.ids,
        lengths=part.lengths,
        parameters=n_parameters(model.net.state_dict()),
    )
