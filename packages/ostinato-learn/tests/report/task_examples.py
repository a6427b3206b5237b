"""Runs of taggers, forecasters and language models made up for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import report_examples as examples

from ostinato_learn.metrics.spans import span_errors, span_scores
from ostinato_learn.report import RunFacts
from ostinato_learn.report.forecast import ForecastData, SeriesView
from ostinato_learn.report.language import Completion, LanguageData, Sample
from ostinato_learn.report.tag import TaggingData, TagView

HOSTILE = examples.HOSTILE
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def facts(name: str = "made up", **evaluation: Any) -> RunFacts:
    data = examples.run()
    reports = [{**report, "validation_loss": report["loss"] * 1.1} for report in data.metrics]
    return RunFacts(
        title=name,
        metrics=reports,
        losses=[(10 * i, 2.3 / (1 + i)) for i in range(500)],
        evaluation={"elapsed_s": 12.5, **evaluation},
        config={"model": {"cell": name}},
        environment=data.environment | {"data": {"n_train": 7}},
    )


def tagging(
    n: int = 12, longest: int = 30, classes: list[str] | None = None, name: str = "made up"
) -> TaggingData:
    """A tagger of vectors; two lanes of each sequence."""
    rng = np.random.default_rng(0)
    classes = classes or ["walking", "sitting", "running"]
    lengths = rng.integers(longest // 2, longest + 1, n)
    total = int(lengths.sum())
    y_true = np.repeat(rng.integers(0, len(classes), total // 5 + 1), 5)[:total]
    wrong = rng.random(total) < 0.2
    y_pred = np.where(wrong, rng.integers(0, len(classes), total), y_true)
    starts = np.cumsum(lengths) - lengths
    views = [
        TagView(
            name=f"{name} {i}",
            start=2,
            length=int(lengths[i]),
            n_wrong=int((y_true != y_pred)[starts[i] : starts[i] + lengths[i]].sum()),
            true=y_true[starts[i] + 2 : starts[i] + lengths[i]],
            predicted=y_pred[starts[i] + 2 : starts[i] + lengths[i]],
            x=rng.normal(size=(lengths[i] - 2, 3)),
        )
        for i in range(3)
    ]
    return TaggingData(
        **vars(facts(name, baselines={name: {"accuracy": 0.9}}, test={"accuracy": 0.8})),
        classes=classes,
        lengths=lengths,
        y_true=y_true,
        y_pred=y_pred,
        confidence=rng.uniform(0.3, 1, total),
        hardest=views,
        read="3 numbers",
        parameters=1234,
    )


def words(name: str = "made up") -> TaggingData:
    """A tagger of words that are spans."""
    classes = ["B-PER", "I-PER", f"B-{name}", "O"]
    true, predicted = [0, 1, 3, 2, 3, 3], [0, 3, 3, 0, 3, 2]
    tags = [[classes[i] for i in each] for each in (true, predicted)]
    view = TagView(
        name=name,
        start=0,
        length=6,
        n_wrong=3,
        true=np.array(true),
        predicted=np.array(predicted),
        words=["Jane", "Austen", "wrote", name, ",", "then"],
    )
    return TaggingData(
        **vars(facts(name, test={"accuracy": 0.5, "loss": 1.0})),
        classes=classes,
        lengths=np.array([6]),
        y_true=np.array(true),
        y_pred=np.array(predicted),
        confidence=np.linspace(0.3, 1, 6),
        hardest=[view],
        scheme="iob2",
        spans=span_scores(tags[:1], tags[1:]),
        span_errors=span_errors(tags[:1], tags[1:]),
        read="a word",
    )


def forecasts(n: int = 9, horizon: int = 4, name: str = "made up") -> ForecastData:
    """Two forecasts of each series."""
    rng = np.random.default_rng(0)
    series = np.repeat(np.arange(n), 2)
    actual = rng.normal(size=(2 * n, horizon))
    actual[1, -1] = np.nan
    spread = np.array([-1.3, -0.5, 0.0, 0.5, 1.3])
    quantiles = 0.3 * actual[:, :, None] + spread
    quantiles = np.where(np.isnan(quantiles), spread, quantiles)
    days = np.datetime64("2024-03-01", "ns") + np.arange(40) * np.timedelta64(1, "D")
    views = [
        SeriesView(
            name=f"{name} {i}",
            x=days if i else np.arange(40),
            values=rng.normal(size=40),
            windows=[(32, quantiles[2 * i]), (32 + horizon, quantiles[2 * i + 1])],
            place=place,
            error=1.5,
        )
        for i, place in enumerate(["worst", "middle", "best"][:n])
    ]
    return ForecastData(
        **vars(
            facts(
                name,
                test={"mase": 1.2, "wql": 0.5, "coverage_80": 0.75},
                baselines={"last value": {"mase": 1.0, "wql": 0.6}, name: {"mase": 1.1}},
            )
        ),
        levels=LEVELS,
        series=series,
        actual=actual,
        quantiles=quantiles,
        scales=rng.uniform(0.5, 2, 2 * n),
        names=[f"{name} {i}" for i in range(n)],
        views=views,
        naive={"last value": np.zeros_like(quantiles), name: np.ones_like(quantiles)},
        read="4 steps ahead from the last 12",
        parameters=99,
    )


def language(level: str = "word", name: str = "made up") -> LanguageData:
    token = name if level == "word" else "e"
    return LanguageData(
        **vars(
            facts(
                name,
                test={
                    "bits_per_character": 2.5,
                    "perplexity": 101.0,
                    "unknown": 0.02,
                    "top1": 0.2,
                    "top3": 0.4,
                },
                baselines={name: {"bits_per_character": 2.75, "perplexity": 90.0}},
            )
        ),
        level=level,
        vocabulary_size=500,
        n_documents=3,
        n_characters=900,
        completions=[
            Completion(
                f"{name} is a ",
                [("truth", 0.5), (token, 0.25)],
                f"truth universally {name}",
                name,
            )
        ],
        samples=[Sample(0.5, f"First.\n{name}", 30), Sample(1.0, name, 3)],
        passage=[(token, 0.0), ("\n", 5.0), ("\ufffd", 99.0)],
        by_position=np.array([[4.5, 9.0], [12.5, 8.0]]),
        parameters=77,
    )


ALL = {
    "tagging": tagging,
    "tagged words": words,
    "many labels": lambda: tagging(classes=[f"label {i}" for i in range(30)]),
    "forecasts": forecasts,
    "one series": lambda: forecasts(1, 1),
    "language": language,
    "characters": lambda: language("character"),
    "hostile tagging": lambda: tagging(name=HOSTILE, classes=[HOSTILE, "]]> $_$", "--><b>"]),
    "hostile words": lambda: words(HOSTILE),
    "hostile forecasts": lambda: forecasts(name=HOSTILE),
    "hostile language": lambda: language(name=HOSTILE),
}
