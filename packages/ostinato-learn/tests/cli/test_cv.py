"""ostinato cv."""

from __future__ import annotations

import csv
import json
import statistics

import numpy as np
import pytest
import task_files
from task_files import QUICK, TASKS

from ostinato_learn.cli.cv import summary
from ostinato_learn.data.sequences import splits
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.inputs import config as configuration
from zoo.suites import one_in


def folds_of(arguments, k, **more):
    """The jobs of a cross-validation of a file and its flags."""
    source, *flags = map(str, arguments)
    given = {"data.source": source, **more}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        option = configuration.find(flag[2:].replace("-", "_"), "test")
        given[option.key] = option.check(value, flag)
    return list(registry.folds(configuration.resolve(given), given, k))


@pytest.mark.parametrize("task", one_in(4, TASKS))
def test_each_task_has_a_spread_and_paired_differences(ostinato, tmp_path, task):
    arguments = TASKS[task](tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = ostinato("cv", *arguments, *QUICK, "--folds", 3, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["task"] == task
    assert result["folds"] == 3
    for found in result["measures"].values():
        assert len(found["values"]) == 3
        assert found["mean"] == pytest.approx(sum(found["values"]) / 3)
        assert found["sd"] == pytest.approx(statistics.stdev(found["values"]))
    assert result["baselines"]
    for baseline in result["baselines"].values():
        difference = baseline["difference"]
        name = difference["measure"]
        ours, theirs = result["measures"][name], baseline["measures"][name]
        each = [a - b for a, b in zip(ours["values"], theirs["values"], strict=True)]
        assert difference["values"] == each
        better = [d < 0 if task in ("forecast", "language") else d > 0 for d in each]
        assert difference["better_in"] == sum(better)
    assert sorted(tmp_path.iterdir()) == before
    assert outcome.err.count("of 3: ") == 3


def test_a_fold_is_what_a_run_on_its_parts_gives(ostinato, tmp_path):
    """The slow way: a column that names the parts of each fold, and a run for each."""
    file, *flags = task_files.classify(tmp_path)
    arguments = (file, *flags, *QUICK, "--group", "person")
    outcome = ostinato("cv", *arguments, "--folds", 3, "--json")
    values = json.loads(outcome.out)["measures"]
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    first = {row["id"]: row for row in reversed(rows)}
    ids = list(dict.fromkeys(row["id"] for row in rows))
    groups = [first[i]["person"] for i in ids]
    kinds = [first[i]["kind"] for i in ids]
    for number, (_, test) in enumerate(splits.folds(40, 3, 0, groups=groups, stratify=kinds)):
        tested = {ids[i] for i in test}
        other = tmp_path / f"fold{number}.csv"
        with other.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, [*rows[0], "part"])
            writer.writeheader()
            for row in rows:
                writer.writerow(row | {"part": "test" if row["id"] in tested else "train"})
        run = ostinato("train", other, *flags, *QUICK, "--split", "part", "--json")
        result = json.loads(run.out)["test"]
        assert result["accuracy"] == values["accuracy"]["values"][number]
        assert result["loss"] == values["loss"]["values"][number]


def test_origins_of_forecasts_roll(ostinato, tmp_path):
    """The slow way: a file that ends where the fold ends, and a run on it."""
    file, *flags = task_files.forecast(tmp_path)
    found = json.loads(ostinato("cv", file, *flags, *QUICK, "--folds", 3, "--json").out)
    header, *lines = file.read_text().splitlines()
    for number, end in enumerate((40, 50, 60)):  # five windows of two steps a fold
        kept = [line for line in lines if int(line.split(",")[1]) < end]
        shorter = tmp_path / f"until{end}.csv"
        shorter.write_text("\n".join([header, *kept]) + "\n")
        run = json.loads(ostinato("train", shorter, *flags, *QUICK, "--json").out)
        for name in ("mase", "wql"):
            assert run["test"][name] == found["measures"][name]["values"][number]


def test_no_group_is_on_both_sides_and_every_sequence_is_tested_once(tmp_path):
    arguments = (*task_files.classify(tmp_path), "--group", "person")
    tested = []
    for job in folds_of(arguments, 4, **{"training.validation_fraction": 0.25}):
        train, test, validation = job.parts.train, job.parts.test, job.parts.validation
        for one, other in ((train, test), (train, validation), (validation, test)):
            assert not set(one.groups) & set(other.groups)
        tested += test.ids.tolist()
    assert sorted(tested) == sorted(f"s{i}" for i in range(40))


def test_a_text_is_cut_into_stretches_tested_once_each(tmp_path):
    arguments = task_files.language(tmp_path)
    text = arguments[0].read_text().rstrip()
    jobs_ = folds_of(arguments, 3, **{"training.validation_fraction": 0.2})
    assert "".join(job.texts.test[0] for job in jobs_).rstrip() == text
    middle = jobs_[1].texts
    ends = [a + b for a, b in zip(middle.train, middle.validation, strict=True)]
    assert (ends[0] + middle.test[0] + ends[1]).rstrip() == text


def test_parts_that_a_file_keeps_for_testing_stay_out(tmp_path):
    file, *flags = task_files.tag(tmp_path)
    header, *lines = file.read_text().splitlines()
    parts = [f"{line},{'test' if line.startswith(('s1,', 's2,')) else 'train'}" for line in lines]
    file.write_text("\n".join([header + ",part", *parts]) + "\n")
    tested = [
        i for job in folds_of((file, *flags, "--split", "part"), 3) for i in job.parts.test.ids
    ]
    assert sorted(tested) == sorted(f"s{i}" for i in range(30) if i not in (1, 2))


def test_output_holds_what_json_shows(ostinato, tmp_path):
    file = tmp_path / "cv.json"
    arguments = ("cv", *task_files.tag(tmp_path), *QUICK, "--folds", 2, "-o", file)
    outcome = ostinato(*arguments, "-q")
    assert outcome.code == 0
    result = json.loads(file.read_text())
    assert "±" in outcome.out
    assert f"{100 * result['measures']['accuracy']['mean']:.2f} ±" in outcome.out
    refused = ostinato(*arguments)
    assert refused.code == 2
    assert "--overwrite" in refused.err


def test_a_configuration_is_enough(ostinato, tmp_path):
    arguments = ("cv", *task_files.tag(tmp_path), *QUICK)
    config = tmp_path / "c.toml"
    config.write_text(ostinato("train", *arguments[1:], "--print-config").out)
    found, same = (
        json.loads(ostinato(*each, "--folds", 2, "--json").out)["measures"]
        for each in (arguments, ("cv", "--config", config))
    )
    assert found == same
    outcome = ostinato("cv")
    assert outcome.code == 2
    assert "what should be learnt" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--folds", 1), "--folds"),
        (("--folds", 30), "wanted each label in two folds"),
        (("--from", "x"), "--from"),
        (("-o", "no/such/place.json"), "there is no directory"),
        (("--hidden-size", "many"), "--hidden-size is 'many'"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(ostinato, tmp_path, monkeypatch, arguments, message):
    file, *flags = task_files.classify(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = file.read_text().splitlines()
    rare = [line.replace(",down", ",rare") if line.startswith("s0,") else line for line in lines]
    file.write_text("\n".join(rare) + "\n")
    outcome = ostinato("cv", file, *flags, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == [file]


def test_series_too_short_for_the_folds(ostinato, tmp_path):
    outcome = ostinato("cv", *task_files.forecast(tmp_path, steps=9), "--folds", 4)
    assert outcome.code == 2
    assert "wanted more than 5 horizons of 2" in outcome.err


def test_ctrl_c_keeps_nothing(ostinato, tmp_path, monkeypatch):
    from ostinato_learn.training import loop

    made = []

    def press(*arguments):
        made.append(0)
        if len(made) > 15:
            raise KeyboardInterrupt
        return measure(*arguments)

    measure = loop._measure
    monkeypatch.setattr(loop, "_measure", press)
    file = tmp_path / "cv.json"
    outcome = ostinato("cv", *task_files.tag(tmp_path), *QUICK, "--folds", 3, "-o", file)
    assert outcome.code == 130
    assert "interrupted in fold 2 of 3; nothing was written" in outcome.err
    assert not file.exists()


def test_simple_methods_that_differ_between_folds_are_one_baseline():
    def fold(accuracy, **baselines):
        measured = {name: {"accuracy": value} for name, value in baselines.items()}
        return {"test": {"accuracy": accuracy}, "baselines": measured}

    found = summary([fold(0.9, majority=0.5, svm=0.8), fold(0.7, majority=0.4, logistic=0.8)])
    best = found["baselines"]["the best simple method of each fold"]["difference"]
    assert np.allclose(best["values"], [0.1, -0.1])
    assert best["better_in"] == 1
    assert found["baselines"]["majority"]["difference"]["better_in"] == 2


def test_a_measure_without_a_number_in_one_fold():
    def fold(value):
        baselines = {"last value": {"mase": 2.0}}
        return {"task": "forecast", "test": {"mase": value, "mae": 1.0}, "baselines": baselines}

    found = summary([fold(value) for value in (1.0, float("nan"), 3.0)])
    assert found["measures"]["mase"]["values"] == [1.0, None, 3.0]
    assert found["measures"]["mase"]["mean"] == 2.0
    assert found["baselines"]["last value"]["difference"]["values"] == [-1.0, None, 1.0]
