"""--truncate: for every task, and as files of earlier versions call it."""

from __future__ import annotations

import pytest
from cli_examples import lines
from four_tasks import QUICK, TASKS

from ostinato.cli import config as configuration
from zoo.suites import one_in


@pytest.mark.parametrize("task", one_in(3, ["classify", "tag", "forecast"]))
def test_gradients_end_in_the_run_that_asks_for_it(ostinato, tmp_path, task):
    flags, losses = (*TASKS[task](tmp_path), *QUICK, "--eval-every", 4), []
    for truncate in (1, 1000, None):
        run = tmp_path / f"run-{truncate}"
        more = () if truncate is None else ("--truncate", truncate)
        assert ostinato("train", *flags, *more, "--output", run).code == 0
        assert configuration.read_file(run / "config.toml").get("training.truncate") == truncate
        losses.append([report["loss"] for report in lines(run / "metrics.jsonl")])
    assert losses[0] != losses[1] == losses[2]


def test_a_language_model_has_windows_of_its_own(ostinato):
    assert "truncate = 128" in ostinato("train", "austen", "--print-config").out
    assert "truncate = 9" in ostinato("train", "austen", "--truncate", 9, "--print-config").out
    assert "truncate" not in ostinato("train", "mnist", "--print-config").out


def test_a_file_of_an_earlier_version_is_understood(ostinato, tmp_path):
    run, longer = tmp_path / "run", ("--iterations", 16)
    file, *_ = TASKS["language"](tmp_path)
    assert ostinato("train", file, *QUICK, "--truncate", 16, "--output", run).code == 0
    config = (run / "config.toml").read_text()
    assert "[training]" in config and config.count("truncate = 16\n") == 1
    config = config.replace("truncate = 16\n", "").replace("[task]\n", "[task]\ntruncate = 16\n")
    (run / "config.toml").write_text(config)
    assert ostinato("train", "--resume", "--output", run, *longer).code == 0
    assert configuration.read_file(run / "config.toml")["training.truncate"] == 16


def test_no_step_is_refused(ostinato, data):
    outcome = ostinato("train", data, "--truncate", 0)
    assert outcome.code == 2
    assert "--truncate is '0'; wanted a whole number, 1 or more" in outcome.err
