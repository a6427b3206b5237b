"""--truncate, for every task."""

from __future__ import annotations

import pytest
from cli_examples import lines
from task_files import QUICK, TASKS

from ostinato_learn.jobs.inputs import config as configuration
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


def test_no_step_is_refused(ostinato, data):
    outcome = ostinato("train", data, "--truncate", 0)
    assert outcome.code == 2
    assert "--truncate is '0'; wanted a whole number, 1 or more" in outcome.err
