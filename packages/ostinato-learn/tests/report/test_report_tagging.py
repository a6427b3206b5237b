"""A tagger's report: what is collected, compared with plain loops, and what the page says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_reader
import task_examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from ostinato_learn import SequenceTagger
from ostinato_learn.report import RunFacts, labels, write_report
from ostinato_learn.report import tag as module
from ostinato_learn.report.sequences import runs
from ostinato_learn.report.tag import TaggingData, _colours, _families, collect_tagging
from zoo.suites import draws


def read(tmp_path: Path, data: Any) -> report_reader.Page:
    write_report(tmp_path / "report.html", data)
    return report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))


def sequences(n: int = 20, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(rng.integers(2, 9), 2)) for _ in range(n)]
    return X, [np.where(x[:, 0] + 0.7 * rng.normal(size=len(x)) > 0, "up", "down") for x in X]


def fitted(X: Any, y: Any, **options: Any) -> SequenceTagger:
    given = {"hidden_size": 6, "iterations": 6, "batch_size": 8, "random_state": 0} | options
    return SequenceTagger(**given).fit(X, y)


@pytest.mark.parametrize("crf", [False, True])
def test_labels_and_their_probabilities_are_those_of_each_sequence_alone(crf: bool) -> None:
    X, y = sequences()
    tagger = fitted(X, y, crf=crf)
    data = collect_tagging(tagger, X, y, RunFacts(title="t"))
    assert data.classes == ["down", "up"] and data.scheme is None and data.spans is None
    step = 0
    for x, true in zip(X, y, strict=True):
        answer, shares = tagger.predict([x])[0], tagger.predict_proba([x])[0]
        for t in range(len(x)):
            assert data.classes[data.y_true[step]] == true[t]
            assert data.classes[data.y_pred[step]] == answer[t]
            assert data.confidence[step] == pytest.approx(shares[t, data.y_pred[step]], abs=1e-6)
            step += 1
    assert step == len(data.y_true) and data.read == "2 numbers"
    assert data.parameters == sum(p.numel() for p in tagger.net_.parameters())


def test_the_sequences_with_most_errors_come_first_and_none_without() -> None:
    X, y = sequences()
    data = collect_tagging(
        fitted(X, y), X, y, RunFacts(title="t"), ids=[f"s{i}" for i in range(20)]
    )
    starts = np.cumsum(data.lengths) - data.lengths
    wrong = [
        int((data.y_true != data.y_pred)[a : a + n].sum())
        for a, n in zip(starts, data.lengths, strict=True)
    ]
    assert [view.n_wrong for view in data.hardest] == sorted(wrong, reverse=True)[:6]
    for view in data.hardest:
        i = int(view.name[1:])
        assert wrong[i] == view.n_wrong and view.length == len(X[i])
        assert np.allclose(view.x, X[i], atol=1e-6)
        assert (view.true == data.y_true[starts[i] : starts[i] + len(X[i])]).all()
    assert module._hardest(np.array([False, True, False]), np.array([1, 1, 1]), 3) == [1]


def test_words_are_shown_as_they_are_and_spans_counted() -> None:
    X = [["Miss", "Anne", "met", "Mary"], ["Mary", "left"]] * 5
    y = [["B-P", "I-P", "O", "B-P"], ["B-P", "O"]] * 5
    data = collect_tagging(fitted(X, y, iterations=1), X, y, RunFacts(title="t"))
    assert data.scheme == "iob2" and data.spans is not None and data.span_errors is not None
    assert data.spans.n_true == 15 == sum(data.span_errors.values()) - data.span_errors["spurious"]
    for view in data.hardest:
        assert view.words in X and view.x is None
    own = collect_tagging(
        fitted(*sequences()),
        *sequences(),
        RunFacts(title="t"),
        words=[["w"] * len(x) for x in sequences()[0]],
    )
    assert own.hardest[0].words == ["w"] * own.hardest[0].length and own.read == "a word"


def test_of_a_long_sequence_the_part_with_most_errors_is_shown() -> None:
    rng = np.random.default_rng(0)
    for n, most in ((5, 9), (9, 9), (400, 160), (161, 160)):
        wrong = rng.random(n) < 0.1
        start = module._densest(wrong, most)
        best = max(wrong[k : k + most].sum() for k in range(max(1, n - most + 1)))
        assert wrong[start : start + most].sum() == best and start <= max(0, n - most)


@draws(60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 9))
def test_groups_by_length_and_position_count_every_answer_once(
    lengths: list[int], seed: int
) -> None:
    right = np.random.default_rng(seed).random(sum(lengths)) < 0.6
    parts = np.split(right, np.cumsum(lengths)[:-1])
    each = np.array([part.sum() for part in parts])
    found = labels.by_length(np.array(lengths), np.array(lengths), each)
    if len(set(lengths)) == 1:
        assert found is None
    else:
        assert (
            found is not None and found.n.sum() == sum(lengths) and found.right.sum() == sum(each)
        )
        for name, n, hits in zip(found.names, found.n, found.right, strict=True):
            low, high = (int(x) for x in (name.split("–") * 2)[:2])
            inside = [i for i, length in enumerate(lengths) if low <= length <= high]
            assert n == sum(lengths[i] for i in inside) and hits == sum(each[i] for i in inside)
    found = labels.by_position(np.array(lengths), right)
    for name, n, hits in zip(found.names, found.n, found.right, strict=True):
        low, high = (int(x) for x in (name.split("–") * 2)[:2])
        assert n == sum(len(part[low - 1 : high]) for part in parts)
        assert hits == sum(part[low - 1 : high].sum() for part in parts)


def test_calibration_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    sure = np.append(rng.uniform(0.2, 1, 500), [1.0, 0.0])
    right = rng.random(502) < sure**2  # too sure
    found, mean = labels.by_confidence(sure, right)
    error = 0.0
    for tenth in range(10):
        inside = (sure >= tenth / 10) & ((sure < (tenth + 1) / 10) | (tenth == 9))
        assert found.n[tenth] == inside.sum() and found.right[tenth] == right[inside].sum()
        if inside.any():
            assert mean[tenth] == pytest.approx(sure[inside].mean())
            error += inside.sum() * abs(right[inside].mean() - sure[inside].mean()) / 502
    assert labels.calibration_error(found, mean) == pytest.approx(error) and error > 0.1
    assert "too confident by" in labels.calibration(sure, right, "labels").html()
    honest = rng.random(502) < sure
    assert "no significant difference" in labels.calibration(sure, honest, "labels").html()
    assert "too cautious by" in labels.calibration(sure, np.ones(502, bool), "labels").html()


def test_runs_are_the_stretches_of_equal_labels() -> None:
    given = np.array([2, 2, 0, 0, 0, 2, 1])
    assert runs(given) == [(0, 2), (2, 5), (5, 6), (6, 7)]
    assert runs(given[:1]) == [(0, 1)]


def test_the_page_says_what_the_data_hold(tmp_path: Path) -> None:
    data = task_examples.tagging()
    page = read(tmp_path, data)
    rows = page.tables["Rows: true class. Columns: predicted class."][1:]
    counted = np.array([[int(cell) for cell in row[1:]] for row in rows])
    assert counted.sum() == len(data.y_true)
    assert counted.trace() == accuracy_score(data.y_true, data.y_pred, normalize=False)
    for true in range(3):
        for predicted in range(3):
            both = (data.y_true == true) & (data.y_pred == predicted)
            assert counted[true, predicted] == both.sum()
    assert "80.00\u202f%" in page.text and "1,234" in page.text
    view = data.hardest[0]
    assert f"{view.name}: {view.n_wrong} of {view.length} labels wrong" in page.sections["hardest"]
    label = next(label for label in page.svg_texts if label.startswith(f"Sequence {view.name}"))
    assert {"true", "predicted", "wrong", "step", "3 features"} <= set(page.svg_texts[label])
    assert "spans" not in page.sections and "walking" in page.sections["hardest"]
    # One figure of a constant answer is on the page: that of the baselines, if there are any.
    assert "the most frequent of them alone" not in page.text
    alone = np.bincount(data.y_true).max() / len(data.y_true)
    page = read(tmp_path, replace(data, evaluation={}))
    assert f"the most frequent of them alone: {100 * alone:.2f}\u202f%" in page.text


@pytest.mark.usefixtures("undrawn")
def test_words_and_spans_on_the_page(tmp_path: Path) -> None:
    data = task_examples.words("LOC")
    page = read(tmp_path, data)
    reported = page.sections["hardest"]
    for word in ("Jane", "Austen", "wrote", "3 of 6 labels wrong"):
        assert word in reported
    assert reported.count("I-PER") == 1 and reported.count("B-PER") == 2
    assert page.tables["Spans of each type"][1:] == [
        ["LOC", "0.00\u202f%", "0.00\u202f%", "0.00\u202f%", "1", "1"],
        ["PER", "0.00\u202f%", "0.00\u202f%", "0.00\u202f%", "1", "2"],
    ]
    rows = dict(page.tables["What became of the spans"][1:])
    assert rows["found with another beginning or end"] == "1"
    assert rows["found with another type"] == "1"
    assert rows["predicted where there is none"] == "1"
    assert page.tables["Measures on the test part"][-3:] == [
        ["loss per step", "1.0000"],
        ["precision of spans", "0.00\u202f%"],
        ["recall of spans", "0.00\u202f%"],
    ]


def test_labels_of_a_type_share_a_colour_and_what_is_outside_has_none() -> None:
    data = task_examples.words("LOC")
    families = _families(data)
    assert families == ["PER", "PER", "LOC", ""]
    assert _colours(data, families) == [0, 0, 1, None]
    many = task_examples.ALL["many labels"]()
    colours = _colours(many, _families(many))
    shown = {int(i) for v in many.hardest for i in (*v.true, *v.predicted)}
    assert [c for c in colours if c is not None and c >= 0] == list(range(8))
    assert colours.count(-1) == len(shown) - 8


@pytest.mark.slow
def test_thousands_of_long_sequences_make_no_large_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(3000, 12)) for _ in range(8)]
    y = [rng.integers(0, 12, 3000) for _ in X]
    data = collect_tagging(fitted(X[:2], y[:2], iterations=1), X, y, RunFacts(title="long"))
    page = read(tmp_path, data)
    assert (tmp_path / "report.html").stat().st_size < 500_000
    assert "steps" in page.sections["hardest"] and data.hardest[0].length == 3000


def test_what_does_not_fit_is_refused() -> None:
    data = task_examples.tagging()
    with pytest.raises(ValueError, match=r"y_pred has shape \[3\]; wanted"):
        TaggingData(**{**vars(data), "y_pred": data.y_pred[:3]})
    X, y = sequences()
    y[3] = np.full(len(y[3]), "sideways")
    with pytest.raises(ValueError, match="'sideways', which was not trained"):
        collect_tagging(fitted(*sequences()), X, y, RunFacts(title="t"))
