"""What `collect` computes from a classifier, compared with doing it one example at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_reader
import torch

from ostinato_learn import SequenceClassifier
from ostinato_learn.data import Ragged
from ostinato_learn.report import RunFacts, write_report
from ostinato_learn.report import classify as collecting
from ostinato_learn.report.classify import collect
from ostinato_learn.tasks.classify import by_step


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sequences(n: int = 40, longest: int = 9, seed: int = 0) -> tuple[Ragged, np.ndarray]:
    """Sequences whose first feature drifts up, down or not at all."""
    rng = np.random.default_rng(seed)
    labels = np.array(["down", "level", "up"])[np.arange(n) % 3]
    drift = {"down": -0.4, "level": 0.0, "up": 0.4}
    rows = [rng.normal(size=(rng.integers(2, longest + 1), 2)) + drift[label] for label in labels]
    return Ragged.from_list(rows), labels


def fitted(**parameters: Any) -> SequenceClassifier:
    X, y = sequences(60, seed=1)
    options: dict[str, Any] = {"hidden_size": 8, "iterations": 30, "batch_size": 20}
    options |= {"recipe": "notebook", **parameters}
    return SequenceClassifier(**options).fit(X, y)


@pytest.fixture(scope="module", params=["rnn", "gru", "lstm"])
def classifier(request: pytest.FixtureRequest) -> SequenceClassifier:
    return fitted(cell=request.param, dropout=0.5, num_layers=2)


@pytest.fixture(params=["one batch", "small batches"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "small batches":
        monkeypatch.setattr(by_step, "BATCH_FLOATS", 9 * 19 * 3)  # three rows of the longest


def test_beliefs_and_states_are_those_of_the_example_alone(
    classifier: SequenceClassifier, batches: None
) -> None:
    X, y = sequences()
    data = collect(classifier, X, y, RunFacts(title="drift"), n_hardest=10)
    assert data.classes == ["down", "level", "up"] and len(data.hardest) == 10
    for view in data.hardest:
        for t in range(len(view.x)):
            alone = classifier.predict_proba([view.x[: t + 1]])[0]
            assert view.beliefs is not None
            assert np.abs(view.beliefs[t] - alone).max() < 1e-5
        with torch.no_grad():
            _, states = classifier.net_.forward_steps(torch.from_numpy(view.x)[None])
        assert view.states is not None and view.states.shape == (len(view.x), 8)
        assert np.abs(view.states - states[0].numpy()).max() < 1e-5
        assert view.prediction == data.classes[int(view.beliefs[-1].argmax())]


def test_accuracy_by_step_is_that_of_the_cut_sequences(
    classifier: SequenceClassifier, batches: None
) -> None:
    X, y = sequences()
    data = collect(classifier, X, y, RunFacts(title="drift"))
    assert data.accuracy_by_step is not None
    wanted = [classifier.score([x[:t] for x in X], y) for t in range(1, X.max_length + 1)]
    assert data.accuracy_by_step.tolist() == pytest.approx(wanted)
    assert data.accuracy_by_step[-1] == pytest.approx((data.y_pred == data.y_true).mean())


def test_arrays_of_one_length(classifier: SequenceClassifier, batches: None) -> None:
    X = np.random.default_rng(3).normal(size=(20, 6, 2))
    y = classifier.predict(X)
    y[:4] = "level"
    data = collect(classifier, X, y, RunFacts(title="array"))
    assert data.accuracy_by_step is not None and data.accuracy_by_step.shape == (6,)
    assert data.accuracy_by_step[-1] == pytest.approx(classifier.score(X, y))
    assert np.allclose(data.proba, classifier.predict_proba(X))


def test_the_hardest_are_the_misclassified_by_loss_then_the_narrowest() -> None:
    proba = np.array(
        [
            [0.90, 0.05, 0.05],  # right, margin 0.85
            [0.10, 0.80, 0.10],  # wrong, p = 0.1
            [0.45, 0.40, 0.15],  # right, margin 0.05
            [0.02, 0.49, 0.49],  # wrong, p = 0.02
            [0.10, 0.30, 0.60],  # wrong, p = 0.1, by a smaller margin than example 1
        ]
    )
    order = collecting._hardest(proba, np.zeros(5, dtype=int), 5)
    # example 1 misses by 0.7, example 4 by 0.5: the wider miss has the lower margin
    assert order.tolist() == [3, 1, 4, 2, 0]
    assert collecting._hardest(proba, np.zeros(5, dtype=int), 2).tolist() == [3, 1]


def test_a_bidirectional_network_is_shown_without_beliefs(tmp_path: Path) -> None:
    X, y = sequences()
    model = fitted(bidirectional=True)
    data = collect(model, X, y, RunFacts(title="both ways", config={"model": model.net_.config}))
    for t, share in enumerate(data.accuracy_by_step, start=1):
        assert share == pytest.approx(model.score([x[:t] for x in X], y))
    assert data.n_cut == len(X)
    assert all(view.beliefs is None and view.states is None for view in data.hardest)
    write_report(tmp_path / "report.html", data)
    page = report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "reads from both ends" in page.sections["hardest"]
    assert "The test sequences, cut after every step and read anew" in page.sections["steps"]


def test_of_many_long_sequences_some_are_cut_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = sequences()
    model = fitted(bidirectional=True)
    weights, longest = sum(p.numel() for p in model.net_.parameters()), X.max_length
    monkeypatch.setattr(by_step, "CUT_WORK", 30 * weights * longest * (longest + 1))
    assert collect(model, X, y, RunFacts(title="few")).accuracy_by_step is None
    monkeypatch.setattr(by_step, "LEAST_CUT", 30)
    data = collect(model, X, y, RunFacts(title="some"))
    assert data.n_cut == 30 and len(data.accuracy_by_step) == longest


def test_features_have_their_names_and_texts_their_words(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frames = [pd.DataFrame(x, columns=["speed", "<road>"]) for x in sequences(12)[0]]
    words = [np.array(["late", "parcel", "again"][: 1 + i % 3]) for i in range(12)]
    y = sequences(12)[1]
    options = {"hidden_size": 4, "iterations": 2, "batch_size": 6, "bidirectional": False}
    for X, shown in ((frames, {"speed", "<road>"}), (words, {"words read"})):
        data = collect(SequenceClassifier(**options).fit(X, y), X, y, RunFacts(title="t"))
        write_report(tmp_path / "report.html", data)
        page = report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert shown <= set(page.svg_texts[next(n for n in page.svg_texts if "Example 1" in n)])
    assert "12 test texts of 1 to 3 words, 3 classes" in page.text
    assert "late parcel" in page.sections["hardest"]


def test_sizes_of_network_and_data(classifier: SequenceClassifier) -> None:
    X, y = sequences()
    data = collect(classifier, X, y, RunFacts(title="sizes"))
    assert (data.lengths == X.lengths).all()
    assert data.network is not None and data.network.n_steps is None
    assert data.network.parameters == sum(p.numel() for p in classifier.net_.parameters())
    same = collect(classifier, np.zeros((3, 6, 2), np.float32), y[:3], RunFacts(title="one length"))
    assert same.network is not None and same.network.n_steps == 6


def test_what_is_passed_on_arrives(tmp_path: Path) -> None:
    X, y = sequences()
    model = fitted()
    metrics = [{"iteration": 0, "loss": 1.0, "train_accuracy": 0.5}]
    evaluation = {"test": model.evaluate(X, y)}
    facts = RunFacts(
        title="t",
        metrics=metrics,
        losses=[(0, 1.0)],
        evaluation=evaluation,
        config={"a": 1},
        environment={"b": 2},
    )
    data = collect(model, X, y, facts, n_hardest=1)
    assert (data.metrics, data.evaluation, data.title) == (metrics, evaluation, "t")
    assert data.losses == [(0, 1.0)]
    assert (data.config, data.environment, len(data.hardest)) == ({"a": 1}, {"b": 2}, 1)
    write_report(tmp_path / "report.html", data)
    page = report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert f"{100 * model.score(X, y):.2f}\u202f%" in page.text


def test_integer_labels_keep_their_values() -> None:
    X = np.random.default_rng(0).normal(size=(12, 3, 1))
    y = np.array([7, -2, 40] * 4)
    model = SequenceClassifier(hidden_size=4, iterations=2, batch_size=6).fit(X, y)
    data = collect(model, X, y, RunFacts(title="integers"))
    assert data.classes == ["-2", "7", "40"]
    assert data.y_true.tolist() == [1, 0, 2] * 4


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda y: y[:-1], r"collect: y has shape \[39\]; wanted \[40\]"),
        (
            lambda y: np.where(y == "up", "sideways", y),
            "y has the label 'sideways', which was not trained",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(change: Callable[[Any], Any], shown: str) -> None:
    X, y = sequences()
    with pytest.raises(ValueError, match=shown):
        collect(fitted(), X, change(y), RunFacts(title="t"))
