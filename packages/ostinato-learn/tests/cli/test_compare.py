"""ostinato compare."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
from task_files import QUICK, TASKS

import ostinato_learn as package
from ostinato_learn.jobs.runs import paired
from ostinato_learn.jobs.runs.paired import NotComparable
from ostinato_learn.tasks import verdicts
from ostinato_learn.tasks.verdicts import flips
from zoo.suites import one_in


def rows(**columns):
    values = [[str(value) for value in column] for column in columns.values()]
    return [dict(zip(columns, line, strict=True)) for line in zip(*values, strict=True)]


def two_runs(ostinato, folder, task, *more):
    """The paths of a short and a longer training on the same data."""
    arguments = (*TASKS[task](folder), *QUICK[:-2], "-q", *more)
    paths = [folder / "short", folder / "long"]
    for path, iterations in zip(paths, (3, 60), strict=True):
        outcome = ostinato("train", *arguments, "--iterations", iterations, "-o", path)
        assert outcome.code == 0, outcome.err
    return paths


# --- the tests, against slow ones -------------------------------------------------------------


def test_mcnemar_is_the_binomial_test_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, 60)
    one, other = (np.where(generator.random(60) < share, label, 9) for share in (0.6, 0.8))
    found = paired.classify(
        rows(index=range(60), label=label, prediction=one),
        rows(index=range(60), label=label, prediction=other),
    )
    better = int(((other == label) & (one != label)).sum())
    worse = int(((one == label) & (other != label)).sum())
    assert (found.better, found.worse, found.n) == (better, worse, 60)
    assert found.p == pytest.approx(stats.binomtest(better, better + worse, 0.5).pvalue)
    assert found.ahead == (better > worse)
    assert found.difference == pytest.approx((other == label).mean() - (one == label).mean())


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_flips_count_all_ways_to_swap(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    ways = [
        abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-9
        for signs in itertools.product([-1, 1], repeat=n)
    ]
    assert flips(d) == np.mean(ways)


def test_drawn_flips_come_near_all_flips(monkeypatch):
    d = np.random.default_rng(5).normal(0.4, 1, 14)
    exact = flips(d)
    assert 0.02 < exact < 0.6
    monkeypatch.setattr(verdicts, "ALL_FLIPS", 13)
    monkeypatch.setattr(verdicts, "AT_ONCE", 1000)  # in several parts
    # Of 10,000 draws the share is off by 0.005 in a standard deviation.
    assert flips(d) == pytest.approx(exact, abs=0.02)


def test_a_difference_that_chance_makes_is_found_as_often_as_chance_makes_it():
    generator = np.random.default_rng(6)
    found = [flips(generator.normal(0, 1, 8)) < 0.05 for _ in range(400)]
    assert 0.02 < np.mean(found) < 0.08  # 0.05 ± three deviations of 0.011


def test_taggers_are_compared_by_sequences():
    ids = np.repeat([f"s{i}" for i in range(8)], 5)
    label = np.tile(list("abcab"), 8)
    one = label.copy()
    other = label.copy()
    one[[0, 1, 2, 5, 10]] = "x"  # wrong in three steps of s0, one of s1 and one of s2
    other[[3, 15]] = "x"  # wrong in one step of s0 and one of s3
    found = paired.tag(
        rows(id=ids, step=np.tile(range(1, 6), 8), label=label, prediction=one),
        rows(id=ids, step=np.tile(range(1, 6), 8), label=label, prediction=other),
    )
    assert (found.better, found.worse, found.n) == (3, 1, 8)
    assert found.p == pytest.approx(2 * (1 + 4) / 2**4)
    assert found.difference == pytest.approx(3 / 40)
    assert found.ahead


def forecasts(n_series, seed, worse=0.0, levels=(0.1, 0.5, 0.9)):
    """Lines of predictions.csv: three windows of two steps of each series, of sizes 1, 2, …"""
    generator = np.random.default_rng(seed)
    lines = []
    for i in range(n_series):
        for step in range(6):
            value = np.random.default_rng([i, step]).normal() * (1 + i)
            centre = value + (generator.normal() + worse) * (1 + i)
            quantiles = {f"q{q:g}": f"{centre + (q - 0.5) * (1 + i)}" for q in levels}
            lines.append(
                {"id": f"s{i}", "step": str(step), "value": str(value), "prediction": str(centre)}
                | quantiles
            )
    return lines


def slow_loss(lines, units):
    """The mean pinball loss of each unit."""
    losses = {}
    for line, unit in zip(lines, units, strict=True):
        y = float(line["value"])
        for name, f in line.items():
            if name.startswith("q"):
                q, f = float(name[1:]), float(f)
                losses.setdefault(unit, []).append(q * (y - f) if y >= f else (1 - q) * (f - y))
    return np.array([np.mean(found) for found in losses.values()])


@pytest.mark.parametrize(("n_series", "unit"), [(9, "series"), (3, "forecasts")])
def test_forecasters_are_compared_by_series_or_by_windows_of_few(n_series, unit):
    a, b = forecasts(n_series, 1), forecasts(n_series, 2, worse=1.0)
    found = paired.forecast(a, b, horizon=2)
    names = [line["id"] if unit == "series" else (line["id"], int(line["step"]) // 2) for line in a]
    one, other = slow_loss(a, names), slow_loss(b, names)
    relative = 2 * (other - one) / (one + other)
    assert (found.unit, found.n) == (unit, 9)
    assert found.difference == pytest.approx(relative.mean())
    assert (found.better, found.worse) == ((relative < 0).sum(), (relative > 0).sum())
    assert found.p == flips(relative)
    assert not found.ahead


def test_forecasts_without_a_value_are_left_out_and_other_levels_compare_the_median():
    a, b = forecasts(8, 1), forecasts(8, 2)
    for lines in (a, b):
        lines[0]["value"] = "nan"
    full = paired.forecast(a, b, horizon=2)
    assert full.measure.endswith("quantile loss")
    assert full.difference == pytest.approx(
        (lambda one, other: (2 * (other - one) / (one + other)).mean())(
            *(slow_loss(lines[1:], [line["id"] for line in lines[1:]]) for lines in (a, b))
        )
    )
    other = paired.forecast(a, [{k: v for k, v in line.items() if k != "q0.9"} for line in b], 2)
    assert other.measure.endswith("absolute error")


def test_predictions_of_other_examples_are_not_paired():
    a = rows(id=["a", "b"], label=["x", "y"], prediction=["x", "x"])
    b = rows(id=["b", "a"], label=["y", "x"], prediction=["x", "x"])
    with pytest.raises(NotComparable, match="column id"):
        paired.classify(a, b)
    with pytest.raises(NotComparable, match="have no index"):
        paired.classify(a, rows(index=[0, 1], label=["x", "y"], prediction=["x", "x"]))
    with pytest.raises(NotComparable, match="too few sequences for a test: 2"):
        paired.tag(a, a)


# --- through the command line -----------------------------------------------------------------


@pytest.mark.parametrize("task", one_in(4, TASKS))
def test_two_runs_of_each_task_side_by_side(ostinato, tmp_path, task):
    more = ("--test-fraction", 0.5) if task != "forecast" else ()
    short, longer = two_runs(ostinato, tmp_path, task, *more)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    outcome = ostinato("compare", short, longer)
    assert outcome.code == 0, outcome.err
    result = json.loads(ostinato("compare", short, longer, "--json").out)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for path, shown in zip((short, longer), result["runs"], strict=True):
        kept = json.loads((path / "evaluation.json").read_text())
        assert shown["test"] == kept["test"]
        assert f"{kept['elapsed_s']:.1f} s" in outcome.out
        net = package.load(path / "model").net_
        assert shown["parameters"] == sum(p.numel() for p in net.parameters())
    assert "training.iterations" in outcome.out
    assert "model.cell" not in outcome.out  # the same in both
    (test,) = result["tests"]
    assert test["runs"] == [str(short), str(longer)]
    if task == "language":
        assert "keep no losses" in test["reason"] and test["reason"] in outcome.out
        return
    assert 0 < test["p"] <= 1
    assert f"p = {test['p']:.3g}" in outcome.out
    assert test["assumption"] in outcome.out


def test_a_run_is_no_different_from_itself_and_several_are_compared_with_the_first(
    ostinato, trained, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    outcome = ostinato("compare", trained, copy, trained, "--json")
    tests = json.loads(outcome.out)["tests"]
    assert [test["runs"] for test in tests] == [[str(trained), str(copy)], [str(trained)] * 2]
    assert [(test["better"], test["worse"], test["p"]) for test in tests] == [(0, 0, 1.0)] * 2
    reported = ostinato("compare", trained, copy, trained).out
    assert "the difference is not significant" in reported
    assert "Of 2 tests, each is significant below 0.05 / 2." in reported


def test_other_test_parts_are_not_tested_and_the_reason_is_said(ostinato, trained, tmp_path):
    def reason(file, before, after):
        path = tmp_path / "other"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(trained, path)
        text = (path / file).read_text()
        assert before in text
        (path / file).write_text(text.replace(before, after, 1))
        outcome = ostinato("compare", trained, path)
        assert outcome.code == 0
        (line,) = [line for line in outcome.out.splitlines() if "no test: " in line]
        return line

    assert "training.seed is 0 and 1" in reason("config.toml", "seed = 0", "seed = 1")
    drawn = reason("config.toml", "test_fraction = 0.2", "test_fraction = 0.3")
    assert "data.test_fraction is 0.2 and 0.3" in drawn
    data = json.loads((trained / "environment.json").read_text())["data"]
    (digest,) = data["sha256"].values()
    assert "tested on different data" in reason("environment.json", digest, digest[::-1])
    assert "does not say which data" in reason("environment.json", "sha256", "md5")
    first = (trained / "predictions.csv").read_text().splitlines()[1]
    assert "differ in the column index" in reason("predictions.csv", f"{first}\n", "")
    (trained / "predictions.csv").unlink()
    assert "predictions.csv is missing" in reason("config.toml", "seed", "seed")


def task_files_npz(folder):
    from cli_examples import make_file

    return make_file(folder / "test.npz", n=20)


def test_the_same_test_file_is_the_same_part_whatever_was_learnt_from(ostinato, tmp_path):
    test = task_files_npz(tmp_path)
    with np.load(test) as arrays:
        np.savez(tmp_path / "more.npz", X=arrays["X"][:12], y=arrays["y"][:12])
    paths = [tmp_path / "one", tmp_path / "other"]
    for path, source in zip(paths, (test, tmp_path / "more.npz"), strict=True):
        assert ostinato("train", source, "--test", test, *QUICK, "-q", "-o", path).code == 0
    (found,) = json.loads(ostinato("compare", *paths, "--json").out)["tests"]
    assert found["n"] == 20


def test_what_cannot_be_compared_is_named(ostinato, trained, tmp_path):
    assert "wanted two or more" in ostinato("compare", trained).err
    assert "no such run" in ostinato("compare", trained, tmp_path / "gone").err
    assert "it has no results" in ostinato("compare", trained, trained / "model").err
    tagger = tmp_path / "tagger"
    shutil.copytree(trained, tagger)
    config = tagger / "model" / "config.json"
    config.write_text(config.read_text().replace("sequence_classifier", "sequence_tagger"))
    outcome = ostinato("compare", trained, tagger)
    assert outcome.code == 2
    assert "was trained to classify" in outcome.err
    (trained / "evaluation.json").unlink()
    outcome = ostinato("compare", trained, trained)
    assert outcome.code == 2
    assert "is not finished" in outcome.err
