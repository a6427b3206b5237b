"""What a user meets in the first hour: runs found by their directory, lists in TOML, notes."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest
from task_files import QUICK, TASKS

import ostinato_learn as package
from ostinato_learn.jobs import output, timing
from ostinato_learn.jobs.inputs import config as configuration


def test_a_run_is_loaded_by_its_directory(ostinato, trained):
    X = np.zeros((2, 5, 2), np.float32)
    for load in (package.load, package.runtime.load):
        proba = [load(path).predict_proba(X) for path in (trained, trained / "model")]
        assert (proba[0] == proba[1]).all()
    assert package.runtime.verify(trained).n_different == 0
    with pytest.raises(ValueError, match=r"has no config\.json"):
        package.runtime.load(trained.parent)


def test_settings_with_commas_may_be_lists_in_toml(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('[data]\nfeatures = ["a", "b, c"]\n[task]\nclassify = ["x"]\n')
    given = configuration.read_file(path)
    assert given == {"data.features": 'a,"b, c"', "task.classify": "x"}
    for wrong in ('[data]\nid = ["a"]\n', "[data]\nfeatures = [1]\n", "[data]\nfeatures = []\n"):
        path.write_text(wrong)
        with pytest.raises(configuration.ConfigError, match="wanted text"):
            configuration.read_file(path)


def test_long_work_says_what_it_is(ostinato, trained, data, tmp_path, monkeypatch):
    arguments = ("train", data, "--iterations", 2, "--hidden-size", 4, "--output")
    assert "evaluating" not in ostinato("evaluate", trained).err
    monkeypatch.setattr(output, "SILENT_S", 0.0)
    assert ostinato("evaluate", trained).err == "evaluating …\n"
    loud = ostinato(*arguments, tmp_path / "loud").err
    assert "\nevaluating …\nwriting the report …\nevaluation and report: " in loud
    assert ostinato(*arguments, tmp_path / "still", "--quiet").err == ""


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "task, flags, refused",
    [
        ("classify", (), ("export", "stream")),
        slow("classify", ("--readout", "mean"), ("export", "stream")),
        slow("tag", ("--crf",), ("export", "stream")),
        slow("classify", ("--no-bidirectional", "--missing", "forward"), ("stream",)),
        slow("tag", ("--no-bidirectional",), ()),
    ],
)
def test_what_a_choice_closes_is_said_before_the_training(ostinato, tmp_path, task, flags, refused):
    path, *roles = TASKS[task](tmp_path)
    run, line = tmp_path / "run", ("train", path, *roles, *QUICK, *flags)
    plan, trained = ostinato(*line, "--dry-run").out, ostinato(*line, "-o", run)
    assert trained.code == 0
    ruled_out = next((row for row in plan.splitlines() if row.startswith("  rules out ")), "")
    note = ruled_out.removeprefix("  rules out ").strip()
    assert (note in trained.err.split("iteration      0")[0]) and bool(note) == bool(refused)
    assert ("export --to c" in note) == ("export" in refused)
    assert ("refuse" in note.partition("stream")[2][:25]) == ("stream" in refused)
    for name, command in {
        "export": ("export", run, "--to", "c", "-o", tmp_path / "it.c"),
        "stream": ("stream", run, path, "--key", "id"),
    }.items():
        assert (ostinato(*command).code == 2) == (name in refused)


@pytest.mark.parametrize("where", ["stream", "c"])
def test_for_chooses_a_network_that_can_go_there(ostinato, tmp_path, where):
    path, *roles = TASKS["classify"](tmp_path)
    run, line = tmp_path / "run", ("train", path, *roles, *QUICK, "--for", where)
    assert "rules out" not in ostinato(*line, "--dry-run").out
    assert ostinato(*line, "-o", run).code == 0
    assert ostinato("stream", run, path, "--key", "id").code == 0
    assert ostinato("export", run, "--to", "c", "-o", tmp_path / "it.c").code == 0


@pytest.mark.parametrize(
    "task, flags, message",
    [
        ("classify", ("--for", "stream", "--bidirectional"), "reads from the end"),
        ("classify", ("--for", "stream", "--missing", "forward"), "missing='forward'"),
        ("tag", ("--for", "c", "--crf"), "CRF"),
        ("forecast", ("--for", "stream"), "no streams"),
    ],
)
def test_what_cannot_go_there_is_refused_before_the_training(
    ostinato, tmp_path, task, flags, message
):
    path, *roles = TASKS[task](tmp_path)
    refused = ostinato("train", path, *roles, *QUICK, *flags, "-o", tmp_path / "run")
    assert refused.code == 2
    assert f"--for {flags[1]}" in refused.err
    assert message in refused.err
    assert not (tmp_path / "run").exists()


def planned(out):
    """The rows of a section of --dry-run that have one line each."""
    rows = (line.strip().split("  ", 1) for line in out.splitlines() if line.startswith("  "))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


@pytest.mark.parametrize(
    "characters, network, length",
    [
        (22_000, "lstm, 128 units", "30 epochs, 8 at a time"),
        pytest.param(600_000, "lstm, 256 units", "21 epochs, 32 at a time", marks=pytest.mark.slow),
    ],
)
def test_a_language_model_is_of_the_size_of_its_text(
    ostinato, tmp_path, characters, network, length
):
    words = np.array(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "off", "to", "see"])
    drawn = words[np.random.default_rng(0).integers(0, len(words), characters // 3)]
    text = tmp_path / "text.txt"
    text.write_text(" ".join(drawn)[: characters * 5 // 4])  # a fifth of it is the test part
    plan = planned(ostinato("train", text, "--dry-run").out)
    assert (plan["network"], plan["length"]) == (network, length)
    chosen = ostinato("train", text, "--dry-run", "--hidden-size", 16, "--epochs", 2).out
    assert planned(chosen)["network"] == "lstm, 16 units"
    assert planned(chosen)["length"].startswith("2 epochs")


@pytest.mark.parametrize("task", TASKS)
def test_the_time_of_a_training_is_estimated_and_bounded(ostinato, tmp_path, monkeypatch, task):
    path, *roles = TASKS[task](tmp_path)
    line = ("train", path, *roles, "--hidden-size", 4, "--threads", 1)
    long = ("--iterations", 10_000_000)
    plan = planned(ostinato(*line, *long, "--dry-run").out)
    assert plan["time"].endswith("on this machine, for 10,000,000 updates")
    measured = []
    with monkeypatch.context() as patch:
        patch.setattr(timing, "measured", lambda job: measured.append(job) or (0.01, 10_000_000))
        plan = planned(ostinato(*line, *long, "--minutes", 1, "--dry-run").out)
    assert plan["time"] == "about 54 s on this machine, for 5,400 updates"
    assert len(measured) == 1
    run = tmp_path / "run"
    bounded = ostinato(*line, *long, "--minutes", 0.01, "-o", run)
    assert "updates of the 10,000,000 planned" in bounded.err
    made = configuration.read_file(run / "config.toml")["training.iterations"]
    assert 1 <= made < 600_000  # a µs an update, were they as quick as that
    assert ostinato("train", path, *roles, *QUICK, "--minutes", 100).code == 0  # all 12 of them


@pytest.mark.parametrize(
    "task, n, verdict",  # of networks after one update
    [
        ("forecast", 8, "WORSE than seasonal naive ("),  # eight waves that repeat
        ("forecast", 1, "not tested against"),
        ("language", 240, "WORSE than modified Kneser-Ney, 8-grams ("),  # 14 stretches
        ("language", 20, "not tested against"),
        ("regress", 40, "WORSE than ridge regression on summaries ("),
        ("regress", 20, "not tested against"),
        ("tag", 80, "better than always the most frequent label ("),
        ("tag", 20, "not tested against"),
    ],
)
def test_the_verdict_is_that_of_a_test(ostinato, tmp_path, task, n, verdict):
    path, *roles = TASKS[task](tmp_path, n=n)
    line = ("train", path, *roles, *QUICK, "--iterations", 1, "-o", tmp_path / "run")
    assert f" {verdict}" in ostinato(*line).out
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert kept["verdict"].startswith(verdict)
    page = html.unescape((tmp_path / "run" / "report.html").read_text()).replace("\u202f", " ")
    assert kept["verdict"] in page


def test_forecasts_that_differ_by_chance_are_not_called_better():
    from ostinato_learn.jobs.forecast import _verdict

    generator = np.random.default_rng(0)
    series, theirs = np.repeat(np.arange(20), 5), generator.uniform(1, 2, 100)
    alike = theirs * generator.choice([0.99, 1.01], 100)
    assert _verdict(theirs, alike, series, "it").startswith("no significant difference from it")
    assert _verdict(theirs, theirs * 0.99, series, "it") == "better than it"
    assert _verdict(theirs, theirs * 1.01, series, "it") == "WORSE than it"
    assert _verdict(theirs, theirs * 0.99, series * 0, "it") == "better than it"  # by windows
    assert _verdict(theirs[:5], alike[:5], series[:5], "it").startswith("not tested against it")
