from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from cli_examples import SMALL, assert_same_run, lines, make_file

from ostinato_learn.jobs.inputs import config as configuration
from ostinato_learn.jobs.inputs.config import Config
from ostinato_learn.report.svg import inline_svg
from shared.reports import draw_by, label_alone


def test_a_run_leaves_what_it_promises(trained):
    assert {p.name for p in trained.iterdir()} == {
        "model",
        "config.toml",
        "metrics.jsonl",
        "losses.csv",
        "evaluation.json",
        "predictions.csv",
        "environment.json",
        "report.html",
        "checkpoint",
    }
    files = {"model.safetensors", "check.safetensors", "config.json", "README.md"}
    assert {p.name for p in (trained / "model").iterdir()} == files
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["test"]["n"] == 12
    assert evaluation["test"]["accuracy"] > 0.9
    assert evaluation["iterations"] == 200
    reports = [line["iteration"] for line in lines(trained / "metrics.jsonl")]
    assert reports == [*range(0, 200, 6), 200]  # 48 examples in eights: once an epoch
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["threads"]["torch"] == 1
    assert environment["data"]["n_train"] == 48


def test_predictions_are_those_of_the_saved_model(trained, data):
    import ostinato_learn
    from ostinato_learn.jobs.inputs import partition

    settings = configuration.resolve(configuration.read_file(trained / "config.toml"))
    test = partition.load(settings).test
    with (trained / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "prediction", "probability"]
    assert [row["label"] for row in rows] == test.y.tolist()
    assert [r["prediction"] for r in rows] == ostinato_learn.load(trained / "model").predict(
        test.X
    ).tolist()


def test_the_test_part_holds_its_share_of_every_class(data):
    from ostinato_learn.jobs.inputs import partition

    def loaded(seed):
        keys = {"data.source": str(data), "data.test_fraction": 0.25, "training.seed": seed}
        return partition.load(configuration.resolve(keys))

    parts = loaded(3)
    for label in ("up", "down"):
        assert (parts.train.y == label).sum() in (22, 23)  # of 30, a quarter being 7.5
        assert (parts.test.y == label).sum() in (7, 8)
    assert np.array_equal(parts.test.X, loaded(3).test.X)
    assert not np.array_equal(parts.test.X, loaded(4).test.X)


def test_without_output_nothing_is_written_and_the_last_line_says_so(
    ostinato, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    outcome = ostinato("train", data, *SMALL, "--iterations", 3)
    assert outcome.code == 0
    assert "Nothing was written" in outcome.out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [data]


def test_json_is_all_there_is_on_stdout(ostinato, data, tmp_path):
    outcome = ostinato(
        "train", data, *SMALL, "--iterations", 3, "--json", "--output", tmp_path / "r"
    )
    result = json.loads(outcome.out)
    assert result["run"] == str(tmp_path / "r")
    assert result["test"]["n"] == 12
    assert "iteration" in outcome.err


def test_reports_at_zero_every_so_many_and_the_end(ostinato, data):
    outcome = ostinato("train", data, *SMALL, "--iterations", 7, "--eval-every", 3)
    reports = [line.split()[1] for line in outcome.err.splitlines() if line.startswith("iter")]
    assert reports == ["0", "3", "6", "7"]


def test_print_config_resolves_and_stops(ostinato, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[model]\ncell = 'gru'\nlayers = 2\n[training]\nepochs = 3\n")
    outcome = ostinato(
        "train", "mnist", "--config", file, "--set", "layers=3", "--iterations", 9, "--print-config"
    )
    file.write_text(outcome.out)
    resolved = configuration.resolve(configuration.read_file(file))
    assert resolved == Config().updated(
        {
            "data.source": "mnist",
            "data.standardize": False,  # by the recipe of mnist
            "model.cell": "gru",
            "model.layers": 3,
            "training.iterations": 9,
        }
    )


def test_a_file_for_the_test_part(ostinato, data, tmp_path):
    other = make_file(tmp_path / "other.npz", n=10)
    outcome = ostinato("train", data, "--test", other, *SMALL, "--iterations", 3, "--json")
    assert json.loads(outcome.out)["test"]["n"] == 10


def test_class_weights_reach_the_training_by_label(ostinato, data, monkeypatch):
    from ostinato_learn.training import loop

    seen = []
    monkeypatch.setattr(loop, "train", lambda *_, **options: seen.append(options) or 1 / 0)
    ostinato("train", data, "--class-weight", "up=0.5, down=2")
    ostinato("train", data, "--class-weight", "balanced")
    assert [options["class_weight"] for options in seen] == [{1: 0.5, 0: 2.0}, "balanced"]


def test_class_weights_of_numbers():
    from ostinato_learn.jobs.classify import parsed_weights as parsed

    assert parsed("7=2,-1=0", np.array([7, -1, 7])) == {7: 2.0, -1: 0.0}


def test_an_existing_output_is_refused_before_anything_is_done(ostinato, trained, data):
    before = (trained / "evaluation.json").stat().st_mtime_ns
    outcome = ostinato("train", data, "--output", trained)
    assert outcome.code == 2
    assert "--resume" in outcome.err
    assert "--overwrite" in outcome.err
    assert (trained / "evaluation.json").stat().st_mtime_ns == before


def test_the_time_of_evaluation_and_report_is_shown(ostinato, data, tmp_path):
    arguments = ("train", data, *SMALL, "--iterations", 5)
    outcome = ostinato(*arguments, "--output", tmp_path / "run")
    assert re.search(r"^evaluation and report: \d+\.\d s$", outcome.err, re.MULTILINE)
    assert re.search(r"^evaluation and report +\d+\.\d s$", outcome.out, re.MULTILINE)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluation_s"] > 0
    assert re.search(r"^evaluation +\d+\.\d s$", ostinato(*arguments).out, re.MULTILINE)


def test_the_losses_are_kept_and_a_resumed_run_has_the_same(ostinato, data, tmp_path, monkeypatch):
    def losses_alone(name, *figure):
        return (inline_svg if name == "loss" else label_alone)(name, *figure)

    draw_by(monkeypatch, losses_alone)
    run = tmp_path / "run"
    assert ostinato("train", data, *SMALL, "--iterations", 40, "--output", run).code == 0
    written = (run / "losses.csv").read_text()
    assert [line.split(",")[0] for line in written.splitlines()] == [
        "iteration",
        "0",
        "10",
        "20",
        "30",
    ]
    (run / "evaluation.json").unlink()  # as if it had been killed before its end
    page = (run / "report.html").read_text()
    assert ostinato("train", "--resume", "--output", run).code == 0
    assert (run / "losses.csv").read_text() == written
    figure = re.compile(r'<svg[^>]*aria-label="Loss over.*?</svg>', re.DOTALL)
    now = (run / "report.html").read_text()
    assert "<path" in figure.search(now)[0] == figure.search(page)[0]


def test_overwrite_begins_again(ostinato, trained, data):
    outcome = ostinato("train", data, *SMALL, "--iterations", 5, "--output", trained, "--overwrite")
    assert outcome.code == 0
    assert [line["iteration"] for line in lines(trained / "metrics.jsonl")][-1] == 5


def test_a_finished_run_is_left_alone(ostinato, trained):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    outcome = ostinato("train", "--resume", "--output", trained)
    assert outcome.code == 0
    assert "is finished" in outcome.out
    assert before == {p: p.stat().st_mtime_ns for p in trained.rglob("*")}


def test_resume_refuses_other_parameters_by_both_values(ostinato, trained):
    outcome = ostinato("train", "--resume", "--output", trained, "--hidden-size", 5)
    assert outcome.code == 2
    assert "model.hidden_size is now 5" in outcome.err
    assert "began with 4" in outcome.err


def test_resume_refuses_data_that_has_changed(ostinato, trained, data):
    (trained / "evaluation.json").unlink()  # as if it had been killed before its end
    make_file(data, n=62)
    outcome = ostinato("train", "--resume", "--output", trained)
    assert outcome.code == 2
    assert "has changed since the run" in outcome.err


def test_a_diverged_run_fails_and_keeps_its_last_good_checkpoint(ostinato, data, tmp_path):
    run = tmp_path / "run"
    outcome = ostinato(
        "train", data, *SMALL, "--optimizer", "sgd", "--learning-rate", 1e38, "--iterations", 50,
        "--weight-decay", 10, "--checkpoint-every", 1, "--output", run,
    )  # fmt: skip
    assert outcome.code == 1
    assert "at iteration" in outcome.err
    assert str(run / "checkpoint") in outcome.err
    assert "Traceback" not in outcome.err
    assert (run / "checkpoint" / "checkpoint.json").is_file()


def test_ctrl_c_keeps_a_checkpoint_and_resume_ends_the_same(ostinato, data, tmp_path, monkeypatch):
    from ostinato_learn import training

    flags = (data, *SMALL, "--iterations", 20, "--eval-every", 5)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert ostinato("train", *flags, "--output", whole).code == 0

    def press(self, run):
        if run.iteration == 13:
            run.history.outcome = "interrupted"
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "on_iteration", press)
        outcome = ostinato("train", *flags, "--output", broken)
    assert outcome.code == 130
    assert "iteration 13" in outcome.err
    assert f"ostinato train --resume --output {broken}" in outcome.err

    assert ostinato("train", "--resume", "--output", broken).code == 0
    assert_same_run(whole, broken)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "ostinato: what should be learnt? wanted mnist"),
        (("train", "mnst"), "'mnst' is not a data set"),
        (("train", "gone.npz"), "gone.npz: no such file"),
        (("train", "mnist", "--hidden-size", "x"), "--hidden-size is 'x'"),
        (("train", "mnist", "--itrations", "3"), "--iterations"),
        (("train", "mnist", "--set", "cel=gru"), "did you mean cell"),
        (("train", "mnist", "--resume"), "--resume needs --output"),
        (("train", "mnist", "--resume", "--overwrite", "--output", "x"), "wanted one"),
        (("train", "mnist", "--test", "x.npz"), "x.npz: no such file"),
        (
            ("train", "vowels", "--as-sequence", "pixels"),
            "--as-sequence is for images, not for vowels",
        ),
        (("train", "vowels", "--optimizer", "adam", "--momentum", "0.5"), "momentum"),
        (("train", "vowels", "--patience", "2"), "validation"),
        (("train", "vowels", "--class-weight", "99=1"), "no class '99'"),
        (("train", "vowels", "--class-weight", "heavy"), "wanted balanced"),
        (("train", "mnist", "--iterations", "1", "--epochs", "1"), "both iterations and epochs"),
        (("evaluate", "gone"), "no such run or model"),
        (("predict", "gone", "x.npz"), "no such run or model"),
        (("train", "gone"), "'gone' is not a data set"),
        (("trian",), "train"),
        ((), "Usage"),
    ],
)
def test_mistakes_get_a_clear_line_and_leave_nothing(
    ostinato, arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    output = (
        ("--output", "x") if arguments[:1] == ("train",) and "--resume" not in arguments else ()
    )
    outcome = ostinato(*arguments, *output)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    if arguments:
        assert len(outcome.err.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"X" * 1000])
def test_a_damaged_file_is_named(ostinato, tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    outcome = ostinato("train", path)
    assert outcome.code == 2
    assert "bad.npz" in outcome.err
    assert "Traceback" not in outcome.err


def test_files_that_cannot_be_learnt_from(ostinato, tmp_path):
    path = tmp_path / "d.npz"
    X = np.zeros((6, 3, 1), np.float32)
    for arrays, message in (
        ({"X": X}, "no labels"),
        ({"X": X, "y": np.linspace(0, 1, 6)}, "wanted classes"),
        ({"X": X, "y": np.arange(6)}, "no class has two examples"),
        ({"X": X, "y": np.zeros(6, int)}, "one class"),
        ({"X": X + np.nan, "y": np.arange(6) % 2}, "NaN"),
    ):
        np.savez(path, **arrays)
        outcome = ostinato("train", path)
        assert outcome.code == 2, message
        assert message.lower() in outcome.err.lower()


def test_a_bug_shows_its_traceback(ostinato, data, monkeypatch):
    from ostinato_learn.jobs.inputs import partition

    monkeypatch.setattr(partition, "_divided", lambda *_: np.zeros(3).reshape(7))
    outcome = ostinato("train", data)
    assert outcome.code == 1
    assert "Traceback" in outcome.err
