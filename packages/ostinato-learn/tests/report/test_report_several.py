"""The report where a sequence may have several labels: its numbers compared with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import report_reader

from ostinato_learn import SequenceClassifier
from ostinato_learn.report import RunFacts, write_report
from ostinato_learn.report.classify_several import SeveralData, collect_several

LABELS = ("rain", "<wind>", "frost")


def fitted(n: int = 30):
    generator = np.random.default_rng(0)
    X = [generator.normal(size=(generator.integers(2, 9), 2)) for _ in range(n)]
    y = (generator.random((n, 3)) < (0.6, 0.5, 0.1)).astype(int)
    options = {"hidden_size": 4, "iterations": 10, "batch_size": 8, "recipe": "notebook"}
    return SequenceClassifier(**options).fit(X, y), X, y


def data_of(y: np.ndarray, proba: np.ndarray) -> SeveralData:
    return SeveralData(
        title="t", labels=list(LABELS), y_true=y, proba=proba, each_length=np.arange(len(y)) + 1
    )


def test_the_hardest_are_those_with_the_greatest_loss():
    model, X, y = fitted()
    data = collect_several(model, X, y, RunFacts(title="t"))
    proba = model.predict_proba(X)
    loss = [
        -sum(np.log(p if has else 1 - p) for p, has in zip(proba[n], y[n], strict=True))
        for n in range(len(y))
    ]
    wrong = [n for n in np.argsort(loss)[::-1] if ((proba[n] > 0.5) != (y[n] > 0)).any()]
    assert [view.name for view in data.hardest] == [str(n) for n in wrong[:8]]
    for view, n in zip(data.hardest, wrong, strict=False):
        has = {str(c) for c in range(3) if y[n, c]}
        given = {str(c) for c in range(3) if proba[n, c] > 0.5}
        assert {*view.missed} == has - given
        assert {*view.invented} == given - has
        assert {*view.right} == given & has


def test_the_page_counts_as_a_loop_does(tmp_path):
    generator = np.random.default_rng(3)
    y, proba = generator.integers(0, 2, (50, 3)), generator.random((50, 3))
    y[:, 2], proba[:, 2] = 0, 0.1  # a label that is never there and never given
    write_report(tmp_path / "report.html", data_of(y, proba))
    page = report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))
    scores = {
        cells[0]: cells[1:] for cells in page.tables["Scores of each label on the test examples"]
    }
    for c, label in enumerate(LABELS[:2]):
        both = sum(y[n, c] and proba[n, c] > 0.5 for n in range(50))
        given, there = int((proba[:, c] > 0.5).sum()), int(y[:, c].sum())
        shares = (both / given, both / there, 2 * both / (given + there))
        assert scores[label] == [*(f"{100 * s:.2f}\u202f%" for s in shares), str(there), str(given)]
    assert scores["frost"] == ["–", "–", "–", "0", "0"]
    sets = page.tables["Sets of labels"][1:]
    assert {name: int(n) for name, n, _ in sets} == {
        name: sum(row.tolist() == wanted for row in y)
        for name, wanted in (
            ("(no label)", [0, 0, 0]),
            ("rain", [1, 0, 0]),
            ("<wind>", [0, 1, 0]),
            ("rain;<wind>", [1, 1, 0]),
        )
    }
    assert not page.unclosed


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"proba \[4, 3\]; wanted \[5, 3\]"):
        data_of(np.zeros((5, 3), int), np.zeros((4, 3)))
