"""Arguments of fit and predict that would be taken for something else are refused."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn import SequenceClassifier, SequenceForecaster, SequenceTagger

pd = pytest.importorskip("pandas")
SMALL = {"hidden_size": 4, "iterations": 1, "random_state": 0}
GENERATOR = np.random.default_rng(0)
N, STEPS = 20, 6
LONG = pd.DataFrame(GENERATOR.normal(size=(N * STEPS, 2)), columns=["a", "b"]).assign(
    id=np.repeat(np.arange(N), STEPS), mode=np.repeat(np.where(np.arange(N) % 2, "up", "down"), 6)
)
FRAMES = [part[["a", "b"]] for _, part in LONG.groupby("id")]
LABELS = LONG.groupby("id")["mode"].first()
TAGS = [np.where(frame["a"] > 0, "p", "q") for frame in FRAMES]
SERIES = GENERATOR.normal(size=30)
DAYS = pd.date_range("2024-01-01", periods=30)

SHORT_DAYS = [f"{day.month}/{day.day}/{day.year}" for day in DAYS]

SALES = pd.DataFrame([SERIES, -SERIES], index=["Basel", "Bern"], columns=DAYS)
PROMO = pd.DataFrame(GENERATOR.random((2, 32)), SALES.index, pd.date_range(DAYS[0], periods=32))


def classify(X, y=LABELS):
    return SequenceClassifier(**SMALL).fit(X, y)


def forecaster():
    return SequenceForecaster(horizon=2, **SMALL)


def backwards(frame):
    return frame.set_index(DAYS[: len(frame)][::-1])


ONE_COLUMN = [frame[["a"]] for frame in FRAMES]
NESTED = pd.DataFrame({name: [f[name].tolist() for f in FRAMES] for name in "ab"})

CASES = {
    "a long frame": (lambda: classify(LONG[["a", "b"]], LONG["mode"]), "120 sequences.*groupby"),
    "one column of it": (lambda: classify(LONG[["a"]], LONG["mode"]), "120 sequences.*groupby"),
    "as an array": (
        lambda: classify(LONG[["a", "b"]].to_numpy(), LONG["mode"]),
        r"120 sequences of 2 steps.*\[:, :, None\]",
    ),
    "one frame to predict": (
        lambda: classify(ONE_COLUMN).predict(ONE_COLUMN[0]), r"one data frame.*\[X\]",
    ),
    "one array to predict": (
        lambda: classify(FRAMES).predict(FRAMES[0].to_numpy()), r"single sequence x .*x\[None\]",
    ),
    "lists in cells": (lambda: classify(NESTED), "cells are lists.*np.stack"),
    "arrays in cells": (lambda: classify(NESTED.map(np.array)), "cells are lists.*np.stack"),
    "numbers as texts": (
        lambda: classify([["1.5", "2"], ["3", "4"], ["5", "6"]], [0, 1, 0]), "'1.5'.*float",
    ),
    "numbers as texts to tag": (
        lambda: SequenceTagger(**SMALL).fit([["1.5", "2"]], [["a", "b"]]), "'1.5'.*float",
    ),
    "newest first to classify": (
        lambda: classify([backwards(f) for f in FRAMES]), r"X\[0\].*sort_index",
    ),
    "newest first to tag": (
        lambda: SequenceTagger(**SMALL).fit([backwards(f) for f in FRAMES], TAGS), "sort_index",
    ),
    "one newest first to tag": (
        lambda: SequenceTagger(**SMALL).fit(backwards(FRAMES[0]), TAGS[0]), "sort_index",
    ),
    "newest first": (
        lambda: forecaster().fit(pd.Series(SERIES, index=DAYS[::-1])), "dates.*sort_index",
    ),
    "one of several newest first": (
        lambda: forecaster().fit([SERIES, pd.Series(SERIES, index=DAYS[::-1])]), r"X\[1\]",
    ),
    "newest first in columns": (
        lambda: forecaster().fit(pd.DataFrame([SERIES], columns=DAYS[::-1])), "columns.*dates",
    ),
    "days as texts, newest first": (
        lambda: forecaster().fit(pd.Series(SERIES, index=DAYS.strftime("%d.%m.%Y")[::-1])),
        "dates.*sort_index.*to_datetime",
    ),
    "days as texts, sorted as texts": (
        lambda: forecaster().fit(pd.DataFrame([SERIES], columns=sorted(SHORT_DAYS))),
        "columns.*dates.*sort_index.*to_datetime",
    ),
    "future of series in another order": (
        lambda: forecaster().fit(SALES, future=PROMO[::-1]), "index of future has 'Bern' where",
    ),
    "static of series in another order": (
        lambda: forecaster().fit(SALES, static=PROMO.iloc[::-1, :1]), "index of static has 'Bern'",
    ),
    "future from another day on": (
        lambda: forecaster().fit(SALES.iloc[:, 4:], future=PROMO),
        "columns of future has '2024-01-01 00:00:00' where that of X has '2024-01-05 00:00:00'",
    ),
    "future in a list from another day on": (
        lambda: forecaster().fit([SALES.T["Basel"][4:]], future=[PROMO.T["Basel"]]),
        "index of future.*future.loc",
    ),
    "one frame of series": (
        lambda: forecaster().fit(pd.DataFrame(SERIES.reshape(6, 5), columns=list("abcde"))),
        "6 series.*groupby",
    ),
    "one column to forecast": (
        lambda: forecaster().fit(SERIES).predict(SERIES[:, None]), r"30 series of one step.*\[X\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_can_hardly_be_meant_is_refused(case):
    call, message = CASES[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()


def test_what_is_meant_is_taken():
    """Rows that are sequences, whose labels come in runs or whose columns are counted."""
    X = GENERATOR.normal(size=(60, 12))
    y = np.repeat(["up", "down"] * 3, 10)
    for rows in (
        X,
        pd.DataFrame(X),
        pd.DataFrame(X, columns=[f"t{i}" for i in range(12)]),
        pd.DataFrame(X, columns=[f"2024-{i + 1:02d}" for i in range(12)]),
    ):
        classify(rows, y)
    classify(X[:, :2], np.where(GENERATOR.random(60) > 0.5, "up", "down"))
    classify(X[:, :2, None], y)
    classify(X[:, :2], np.sort(y))
    classify([["12", "7"], ["3", "12"], ["7", "7"]], [0, 1, 0])  # numbers of goods
    forecaster().fit(pd.DataFrame(X, columns=DAYS[:12])).predict(X)
    forecaster().fit([pd.Series(SERIES, index=DAYS)])
    forecaster().fit(pd.DataFrame([SERIES], columns=SHORT_DAYS))
    forecaster().fit(SALES, future=PROMO).predict(SALES, future=PROMO)
    forecaster().fit(SALES, future=PROMO.to_numpy())
    forecaster().fit([SALES.T["Basel"]], future=[PROMO.T["Basel"]])
