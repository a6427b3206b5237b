"""What the sections say is what the data hold; what is missing is left out, with the reason."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import report_examples as examples
import report_reader
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from ostinato_learn.anatomy import Anatomy
from ostinato_learn.report import classify as classify
from ostinato_learn.report import common, labels, markup, sequences, write_report
from ostinato_learn.report.classify import ReportData, StepView
from zoo.suites import draws

pytestmark = pytest.mark.slow


def read(tmp_path: Path, data: ReportData) -> report_reader.Page:
    write_report(tmp_path / "report.html", data)
    return report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))


def number(cell: str) -> float:
    return float(cell.replace("\u202f%", "").replace(",", ""))


def texts(page: report_reader.Page, label: str) -> list[str]:
    """The texts of the one figure whose label begins so."""
    (found,) = [t for name, t in page.svg_texts.items() if name.startswith(label)]
    return found


def test_the_head_tells_the_evaluation(tmp_path: Path) -> None:
    head = read(tmp_path, examples.run()).text.partition("Training")[0]
    for text in (
        "made up, rnn, 16 units",
        "97.24\u202f%",
        "accuracy on all 10,000 test examples",
        "0.0987",
        "5,000",
        "1\u202fmin 16\u202fs",
        "2025-01-31 · A processor · Linux 6 · 2 threads · PyTorch 2.6.0",
    ):
        assert text in head


def test_the_head_has_data_network_pace_and_command(tmp_path: Path) -> None:
    data = examples.run()
    environment = {
        **data.environment,
        "data": {"n_train": 60000},
        "command": ["ostinato", "train", "my data.npz", "--cell", "gru"],
    }
    network, lengths = Anatomy("gru", None, 1, 16, 10), np.linspace(7, 2429, 300).astype(int)
    page = read(
        tmp_path,
        examples.without(
            data, environment=environment, network=network, lengths=lengths, parameters=1234
        ),
    )
    head = page.text.partition("Training")[0]
    assert "60,000 training and 300 test sequences of 7 to 2,429 steps of 1 number, 10" in head
    assert "parameters1,234" in head
    assert "15.14\u202fms each" in head  # 75.7 s for 5,000 iterations
    assert "always the most frequent class: " in head
    command = "ostinato train 'my data.npz' --cell gru"
    assert shlex.split(command) == environment["command"]
    assert command in head and command in page.sections["environment"]
    picture = texts(page, "gru: T steps of 1, 16 hidden, 10 classes, unrolled over time")
    assert picture.count("W") == 3 and "y" in picture
    assert "z_t" in page.sections["network"]  # the equations


def test_more_classes_than_a_picture_shows(tmp_path: Path) -> None:
    page = read(tmp_path, examples.run(n=30, n_classes=1001))
    for name in ("confusion", "classes"):
        assert "None: there are 1,001 classes, more than 1,000." in page.sections[name]


def test_the_interval_is_wilsons() -> None:
    # Wilson's interval for 8 of 10, as tabled in textbooks: 0.490 to 0.943
    low, high = labels.interval(0.8, 10)
    assert low == pytest.approx(0.490, abs=5e-4) and high == pytest.approx(0.943, abs=5e-4)
    assert labels.interval(1.0, 5)[1] == 1.0 and labels.interval(0.0, 5)[0] == 0.0


def test_the_confusion_matrix_counts(tmp_path: Path) -> None:
    data = examples.run()
    rows = read(tmp_path, data).tables["Rows: true class. Columns: predicted class."]
    assert rows[0][1:] == data.classes
    assert [row[0] for row in rows[1:]] == data.classes
    counted = np.array([[number(cell) for cell in row[1:]] for row in rows[1:]])
    assert (counted == confusion_matrix(data.y_true, data.y_pred)).all()
    assert counted.sum() == 300


def test_the_scores_of_each_class(tmp_path: Path) -> None:
    data = examples.run()
    rows = read(tmp_path, data).tables["Scores of each class on the test examples"][1:]
    shown = np.array([[number(cell) for cell in row[1:5]] for row in rows[:10]])
    for column, score in enumerate((precision_score, recall_score, f1_score)):
        wanted = 100 * score(data.y_true, data.y_pred, average=None)
        assert np.abs(shown[:, column] - wanted).max() <= 0.005 + 1e-9  # two digits
    assert (shown[:, 3] == np.bincount(data.y_true)).all()
    macro = 100 * recall_score(data.y_true, data.y_pred, average="macro")
    assert number(rows[10][2]) == pytest.approx(macro, abs=0.0051)


def test_a_class_that_is_never_there_has_dashes(tmp_path: Path) -> None:
    data = examples.bare()
    wide = np.hstack([data.proba, np.zeros((4, 1))])
    data = examples.without(data, classes=["a", "b", "never"], proba=wide)
    rows = read(tmp_path, data).tables["Scores of each class on the test examples"]
    assert rows[3] == ["never", "–", "–", "–", "0", "–"]
    assert rows[2] == ["b", "100.00\u202f%", "50.00\u202f%", "66.67\u202f%", "2", "a (1×)"]


def test_many_classes_become_an_image(tmp_path: Path) -> None:
    page = read(tmp_path, examples.ragged(50))
    assert "Rows: true class. Columns: predicted class." not in page.tables
    names = texts(page, "Confusion matrix of 50 classes")
    assert names.count("speaker 49") == 2 and {"true", "predicted"} <= set(names)
    assert len(page.tables["Scores of each class on the test examples"]) == 1 + 50 + 2


def test_the_curves_and_their_numbers(tmp_path: Path) -> None:
    page = read(tmp_path, examples.run())
    assert "2.3 at the start, 0.08846 at the end" in next(iter(page.svg_texts))
    rows = page.tables["6 of 6 reports of the training"]
    assert rows[0][:4] == ["iteration", "epoch", "loss", "training accuracy"]
    assert [row[0] for row in rows[1:]] == ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]
    assert rows[1][2] == "2.3" and rows[-1][3] == "96.60\u202f%"
    assert "validation" not in texts(page, "Loss")
    validated = {"validation_loss": 0.5, "validation_accuracy": 0.9}
    metrics = [{**examples.report(i), **validated} for i in range(1001)]
    del metrics[0]["validation_loss"]
    page = read(tmp_path, examples.without(examples.run(), metrics=metrics))
    for curve in ("Loss over", "Accuracy over"):
        assert {"training batch", "validation"} <= set(texts(page, curve))
    rows = page.tables["30 of 1,001 reports of the training"]
    assert len(rows) == 31 and rows[1][0] == "0" and rows[-1][0] == "1,000"
    at = rows[0].index("validation loss")
    assert rows[1][at] == "–" and rows[2][at] == "0.5"


def test_the_course_of_the_loss_is_faint_under_its_running_mean(tmp_path: Path) -> None:
    losses = [(10 * i, 2.3 / (1 + i)) for i in range(500)]
    shown = texts(read(tmp_path, examples.without(examples.run(), losses=losses)), "Loss over")
    assert {"a batch every 10 iterations", "mean of 20 of them"} <= set(shown)
    few = texts(read(tmp_path, examples.without(examples.run(), losses=losses[:9])), "Loss over")
    assert not [text for text in few if "batch" in text or "mean" in text]  # one line: no legend


def test_the_accuracy_axis_is_where_the_data_are(tmp_path: Path) -> None:
    def with_shares(*shares: float) -> ReportData:
        reports = [examples.report(1000 * i) for i in range(len(shares))]
        for report, share in zip(reports, shares, strict=True):
            report["train_accuracy"] = share
        return examples.without(examples.run(), metrics=reports)

    data = with_shares(0.08, 0.95, 0.91, 0.97)
    low, high = common.accuracy_limits(data.metrics)
    assert 0.89 < low < 0.91 and 0.97 < high < 0.99
    text = "Below the axis: 8.00\u202f% before the first update."
    assert text in read(tmp_path, data).sections["training"]
    for near in (with_shares(0.89, 0.95, 0.91, 0.97), with_shares(0.1, 0.3, 0.97)):
        low, _ = common.accuracy_limits(near.metrics)
        assert low < near.metrics[0]["train_accuracy"]
        assert "Below the axis" not in read(tmp_path, near).sections["training"]
    assert common.accuracy_limits(with_shares(1.0).metrics) == pytest.approx((0.99, 1.01))


def test_a_loss_that_became_nan_is_a_gap(tmp_path: Path) -> None:
    metrics = [examples.report(i) for i in range(3)]
    metrics[2]["loss"] = float("nan")
    page = read(tmp_path, examples.without(examples.run(), metrics=metrics))
    assert "nan" in page.tables["3 of 3 reports of the training"][3]


def test_accuracy_by_step(tmp_path: Path) -> None:
    data = examples.run()
    assert data.accuracy_by_step is not None
    page = read(tmp_path, data)
    rows = page.tables["Accuracy by rows read"]
    assert [row[0] for row in rows[1:]] == ["4", "7", "11", "14", "18", "21", "25", "28"]
    assert number(rows[4][1]) == pytest.approx(100 * data.accuracy_by_step[13], abs=0.0051)
    # nine tenths of the rise are first reached by 0.1 + 0.87 · t / 27 at t = 25, the 26th row
    text = (
        "10.00\u202f% after the first row, 97.00\u202f% after all 28; nine tenths of the rise are "
    )
    assert f"{text}kept after 26." in page.sections["steps"]
    chance = np.bincount(data.y_true).max() / 300
    assert f"most frequent class, {100 * chance:.2f}" in page.sections["steps"]


def test_no_step_is_named_where_chance_makes_the_difference(tmp_path: Path) -> None:
    """300 examples: the standard error of a difference near 20 % is 3.3 %, three of them 9.8 %."""
    rng = np.random.default_rng(0)
    for first, last, named in ((0.2, 0.27, False), (0.2, 0.33, True), (0.33, 0.2, False)):
        accuracy = np.linspace(first, last, 90)
        accuracy[1:-1] += rng.uniform(-0.05, 0.05, 88)
        data = examples.without(examples.run(), accuracy_by_step=accuracy)
        text = read(tmp_path, data).sections["steps"]
        assert ("nine tenths" in text) is named
        noise = "no significant difference with 300 examples" in text
        assert noise is (abs(last - first) < 0.098)


def test_a_hard_example_tells_what_the_network_believed(tmp_path: Path) -> None:
    beliefs = np.full((28, 3), 0.1)
    beliefs[:10, 0] = beliefs[10:20, 1] = beliefs[20:, 2] = 0.8
    view = StepView(np.eye(28), "cat", "dog", beliefs, None)
    data = examples.run(classes=["ant", "cat", "dog"], n_classes=3)
    page = read(tmp_path, examples.without(data, hardest=[view]))
    text = page.sections["hardest"]
    assert "cat taken for dog" in text
    assert "In the end 80.0\u202f% for dog, 10.0\u202f% for cat." in text
    assert "The last change of mind, away from cat, came with row 21." in text
    assert {"ant", "cat", "dog", "rows read"} <= set(texts(page, "Example 1: true class cat"))
    assert "states" not in page.sections


def test_a_right_example_and_a_steady_belief(tmp_path: Path) -> None:
    view = StepView(np.zeros((4, 2)), "a", "a", np.tile([0.9997, 0.0003], (4, 1)), None)
    text = read(tmp_path, examples.without(examples.bare(), hardest=[view])).sections["hardest"]
    assert "a, found" in text and "then those that it got right most narrowly, and its" in text
    assert "In the end 100.0\u202f% for a. The same class led from the first step on." in text
    assert classify._share(0.0003) == "under 0.1\u202f%"


def test_pictures_are_shown_as_pictures_and_other_sequences_over_time(tmp_path: Path) -> None:
    pictures = read(tmp_path, examples.run())
    inks = [i for i in pictures.ids() if i.endswith("-ink")]
    assert inks == ["hardest-1-ink", "hardest-2-ink", "hardest-3-ink", "hidden-states-ink"]
    page = read(tmp_path, examples.ragged())
    assert not [i for i in page.ids() if i.endswith("-ink")]
    assert {"12 features", "steps read", "speaker 3"} <= set(texts(page, "Example 1"))
    assert "40 features" in texts(page, "Example 4")
    for x in (np.full((28, 28), 2.0), np.zeros((27, 28))):
        assert not sequences.is_image(x)


def test_of_many_classes_the_lanes_show_those_that_mattered(tmp_path: Path) -> None:
    page = read(tmp_path, examples.ragged(50))
    view = examples.ragged(50).hardest[1]
    names = [t for t in texts(page, "Example 2") if t.startswith("speaker")]
    assert view.beliefs is not None and len(names) == sequences.MAX_LANES
    assert {view.label, view.prediction} <= set(names)
    assert f"speaker {view.beliefs.max(axis=0).argmax()}" in names


def test_a_lane_is_as_long_as_the_belief() -> None:
    from matplotlib.figure import Figure

    beliefs = np.array([[0.25, 0.75], [0.5, 0.5]])
    drawn = sequences.Beliefs(
        id="a", label="a", x=None, beliefs=beliefs, classes=["a", "b"], true=0, chosen=1
    )
    ax = Figure().add_subplot()
    drawn.lanes_down(ax)
    for lane, patch in enumerate(ax.patches):
        values, edges, baseline = patch.get_data()  # type: ignore[attr-defined]
        assert baseline == lane and edges.tolist() == [0, 1, 2]
        assert np.allclose(values - lane, sequences.LANE * beliefs[:, lane])


@pytest.mark.parametrize("n_features", [1, 12, 300])
def test_thousands_of_steps_make_no_large_page(tmp_path: Path, n_features: int) -> None:
    """Of noise, the hardest to compress."""
    rng = np.random.default_rng(0)
    classes = [f"class {c}" for c in range(6)]
    data = examples.without(
        examples.run(n_classes=6, classes=classes),
        hardest=[
            examples.view(classes, rng.normal(size=(2429, n_features)), rng) for _ in range(6)
        ],
        accuracy_by_step=rng.uniform(size=2429),
        losses=[(10 * i, loss) for i, loss in enumerate(rng.uniform(size=20_000))],
    )
    page = read(tmp_path, data)
    assert (tmp_path / "report.html").stat().st_size < 500_000
    assert "What is longer than 200 steps is drawn in 200 parts" in page.sections["hardest"]
    assert page.tables["Accuracy by steps read"][-1][0] == "2429"


def test_what_is_too_wide_for_a_phone_says_so(tmp_path: Path) -> None:
    page = read(tmp_path, examples.run())
    assert page.sections["confusion"].count("scrolls sideways") == 1
    assert page.sections["classes"].count("scrolls sideways") == 1
    assert "scrolls sideways" not in page.sections["steps"]
    small = read(tmp_path, examples.bare())
    assert "scrolls sideways" not in small.sections["confusion"]


def test_a_single_mistake_shows(tmp_path: Path) -> None:
    y_true, y_pred = np.repeat([[0, 0, 1], [0, 1, 1]], [10_000, 1, 10], axis=1)
    section = labels.confusion(y_true, y_pred, ["a", "b"])
    tints = re.findall(r"var\(--(\w+)\) (\d+)%", section.html())
    assert tints == [("low", "55"), ("high", "13"), ("low", "55")]


def test_a_bidirectional_network_has_no_beliefs_by_step(tmp_path: Path) -> None:
    page = read(tmp_path, examples.bidirectional())
    why = "No beliefs by step: a bidirectional network reads from both ends at once."
    assert why in page.sections["steps"] and why in page.sections["hardest"]
    assert "states" not in page.sections and "#states" not in page.text
    assert len([i for i in page.ids() if i.endswith("-ink")]) == 3  # the pictures are still there


def test_a_bare_run_says_what_it_leaves_out(tmp_path: Path) -> None:
    page = read(tmp_path, examples.bare())
    text, loss = page.sections, -np.log([0.9, 0.8, 0.4, 0.7]).mean()
    assert "75.00\u202f%" in page.text and f"{loss:.4f}" in page.text  # of no evaluation
    assert "No mistakes" not in text["confusion"] and "elapsed" not in page.text
    assert "the run kept no metrics" in text["training"]
    assert "were not computed" in text["steps"]
    assert "no test example was kept" in text["hardest"]
    assert "is unknown" in text["configuration"] and "is unknown" in text["environment"]


def test_configuration_and_environment_are_shown_whole(tmp_path: Path) -> None:
    config = {"title": "x", "model": {"cell": "gru", "deep": {"layers": 2}}, "empty": {}}
    page = read(tmp_path, examples.without(examples.run(), config=config))
    assert page.tables["model"] == [["cell", "gru"], ["deep.layers", "2"]]
    assert page.tables["general"] == [["date", "2025-01-31T10:00:00+00:00"]]  # the environment's
    assert "titlex" in page.sections["configuration"].replace("\n", "")
    assert page.tables["packages"] == [["torch", "2.6.0"]]


@draws(200)
@given(st.floats(min_value=0, max_value=400_000))
def test_a_duration_reads_as_it_is(seconds: float) -> None:
    unit = {"h": 3600, "min": 60, "s": 1}
    parts = markup.duration(seconds).split(" ")
    read = sum(float(p.split("\u202f")[0]) * unit[p.split("\u202f")[1]] for p in parts)
    assert abs(read - seconds) <= (0.051 if seconds < 60 else 0.5 if seconds < 3599 else 60)
