"""Classifying where a sequence may have several labels, from a file to the report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from task_files import QUICK

from ostinato_learn import load
from ostinato_learn.cli import main
from ostinato_learn.metrics import label_sets as label_metrics

LABELS = ("frost", "rain", "wind")  # sorted, as those in a column of lists are
COLUMNS = ("--id", "id", "--features", "t,p")


def rows(n: int = 60) -> list[tuple[str, list[tuple[float, float]], list[int]]]:
    """Sequences of two features: the first tells of frost, the second of rain and wind."""
    generator = np.random.default_rng(0)
    found = []
    for i in range(n):
        y = (generator.random(3) < (0.3, 0.4, 0.5)).astype(int)
        x = generator.normal(size=(4, 2)) * 0.3
        x += (-2 * y[0], -2 * y[1] - y[2])
        found.append((f"s{i}", x.round(4).tolist(), y.tolist()))
    return found


def of_columns(path: Path) -> Path:
    """A column of zeros and ones for each label."""
    lines = ["id,t,p,frost,rain,wind"]
    for name, x, y in rows():
        lines += [f"{name},{a},{b},{','.join(map(str, y))}" for a, b in x]
    path.write_text("\n".join(lines))
    return path


def of_lists(path: Path) -> Path:
    """One column of texts in which a sign divides the labels."""
    lines = ["id,t,p,weather"]
    for name, x, y in rows():
        weather = "|".join(label for label, has in zip(LABELS, y, strict=True) if has)
        lines += [f"{name},{a},{b},{weather}" for a, b in x]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The run on columns, beside its file."""
    import torch

    folder, threads = tmp_path_factory.mktemp("several"), torch.get_num_threads()
    file = of_columns(folder / "weather.csv")
    flags = (*QUICK[:-2], "--iterations", 60, "--learning-rate", 0.02, "--quiet")
    arguments = ("train", file, "--classify", ",".join(LABELS), *COLUMNS, *flags)
    assert main([str(a) for a in (*arguments, "--output", folder / "run")]) == 0
    torch.set_num_threads(threads)
    return folder / "run"


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def as_matrix(texts: list[str]) -> np.ndarray:
    return np.array([[label in text.split(";") for label in LABELS] for text in texts]).astype(int)


def test_results_are_those_of_the_predictions(run):
    results = json.loads((run / "evaluation.json").read_text())
    lines = table(run / "predictions.csv")
    y, answers = (as_matrix([line[name] for line in lines]) for name in ("label", "prediction"))
    measured = label_metrics.measure(y, answers)
    assert {name: results["test"][name] for name in measured} == measured
    assert results["test"]["n"] == len(lines) == 12
    assert measured["label_accuracy"] > 0.8
    commoner = results["baselines"]["the more frequent answer to each label"]
    assert commoner["label_accuracy"] < measured["label_accuracy"]
    assert "verdict" in results


def test_labels_of_the_file_are_those_of_the_predictions(run):
    of_file = {name: y for name, _, y in rows()}
    for line in table(run / "predictions.csv"):
        assert as_matrix([line["label"]])[0].tolist() == of_file[line["id"]]


def test_a_file_without_labels_is_answered(run, tmp_path, ostinato):
    lines = (run.parent / "weather.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join(line.rsplit(",", 3)[0] for line in lines))
    outcome = ostinato("predict", run, tmp_path / "new.csv", "--proba")
    found = list(csv.DictReader(outcome.out.splitlines()))
    assert [line["id"] for line in found] == [name for name, _, _ in rows()]
    model = load(run / "model")
    proba = model.predict_proba(_examples(run.parent / "weather.csv", model))
    for line, p in zip(found, proba, strict=True):
        answer = [float(line[f"probability_{label}"]) for label in LABELS]
        assert answer == pytest.approx(p.tolist(), abs=1e-6)
        assert as_matrix([line["prediction"]])[0].tolist() == (p > 0.5).astype(int).tolist()
        assert float(line["probability"]) == pytest.approx(np.maximum(p, 1 - p).min(), abs=1e-6)


def _examples(path, model):
    from ostinato_learn.data import read_examples

    return read_examples(path, model._fitted().preparation.roles.inputs())


def test_a_column_of_lists_is_learnt_like_columns(run, tmp_path, ostinato):
    file = of_lists(tmp_path / "weather.csv")
    flags = (*QUICK[:-2], "--iterations", 60, "--learning-rate", 0.02)
    outcome = ostinato(
        "train", file, "--classify", "weather", *COLUMNS, *flags, "-o", tmp_path / "run"
    )
    assert outcome.code == 0
    assert "several labels a sequence, '|' between them: 'frost', 'rain', 'wind'" in outcome.err
    for name in ("predictions.csv", "losses.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()
    again = ostinato("evaluate", tmp_path / "run", file, "--json")
    assert json.loads(again.out)["n"] == 60


def test_the_report_tells_of_each_label(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Scores of each label on the test examples" in page
    assert "the more frequent answer to each label" in page


def test_two_runs_are_compared_by_whole_sets(run, tmp_path, ostinato):
    file = run.parent / "weather.csv"
    arguments = ("train", file, "--classify", ",".join(LABELS), *COLUMNS, *QUICK)
    assert ostinato(*arguments, "-o", tmp_path / "other").code == 0
    outcome = ostinato("compare", run, tmp_path / "other", "--json")
    (test,) = json.loads(outcome.out)["tests"]
    lines = [table(each / "predictions.csv") for each in (run, tmp_path / "other")]
    right = [[line["label"] == line["prediction"] for line in each] for each in lines]
    assert test["n"] == len(right[0])
    assert test["worse"] == sum(a and not b for a, b in zip(*right, strict=True))


def test_dry_run_and_check_know_the_labels(run, ostinato):
    file = run.parent / "weather.csv"
    shown = ostinato("train", file, "--classify", ",".join(LABELS), *COLUMNS, "--dry-run").out
    assert re.search(r"'rain' +label\n", shown)
    assert "always the more frequent answer" in shown
    checked = ostinato("check", file, "--classify", ",".join(LABELS), *COLUMNS)
    assert checked.out.startswith(f"{file}: 60 sequences")
    for outcome in (checked, ostinato("check", run)):
        assert outcome.code == 1
        assert "first step alone predicts whether a sequence has the label 'rain'" in outcome.out


@pytest.mark.parametrize(
    "change, flags, said",
    [
        ((",1,0,0\n", ",1,0,7\n"), (), "column 'wind': 7; wanted 0 or 1"),
        (("", ""), ("--class-weight", "balanced"), "--class-weight is for one label a sequence"),
        (("", ""), ("--classify", "rain,wnd"), "no column 'wnd' (given as label)"),
    ],
)
def test_refused(run, tmp_path, ostinato, change, flags, said):
    text = (run.parent / "weather.csv").read_text().replace(*change)
    (tmp_path / "bad.csv").write_text(text)
    asked = ("--classify", ",".join(LABELS)) if "--classify" not in flags else ()
    outcome = ostinato(
        "train", tmp_path / "bad.csv", *asked, *COLUMNS, *flags, "-o", tmp_path / "run"
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_test_file_has_no_further_labels(run, tmp_path, ostinato):
    file = of_lists(tmp_path / "weather.csv")
    lines = file.read_text().splitlines()
    (tmp_path / "later.csv").write_text("\n".join([*lines[:5], *(f"x,{i},1,hail" for i in (1, 2))]))
    outcome = ostinato(
        "train", file, "--classify", "weather", *COLUMNS, "--test", tmp_path / "later.csv"
    )
    assert outcome.code == 2
    assert "later.csv, line 6, column 'weather': the label 'hail' is not among" in outcome.err
