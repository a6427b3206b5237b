from __future__ import annotations

import pytest

from ostinato_learn import files
from ostinato_learn.jobs.runs import rundir
from ostinato_learn.jobs.runs.rundir import RunDir, RunDirError


def begun(path) -> RunDir:
    run = rundir.create(path)
    run.begin("[data]\n", {"date": "today"}, {"config.json": b"{}"})
    return run


def test_a_new_run_makes_its_parents(tmp_path):
    assert rundir.create(tmp_path / "a" / "b").path.is_dir()


def test_what_is_there_is_refused_whatever_it_is(tmp_path):
    begun(tmp_path / "run")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("run", "folder", "file"):
        with pytest.raises(RunDirError, match="exists already"):
            rundir.create(tmp_path / name)


def test_overwrite_takes_a_run_or_an_empty_folder_and_nothing_else(tmp_path):
    run = begun(tmp_path / "run")
    run.evaluation.write_text("{}")
    run.checkpoint.mkdir()
    (run.path / ".checkpoint.old").mkdir()  # what a kill may leave
    (run.path / ".metrics.jsonl.0123abcd.new").touch()
    (run.path / "notes.txt").write_text("mine")
    again = rundir.create(run.path, overwrite=True)
    assert [p.name for p in again.path.iterdir()] == ["notes.txt"]

    (tmp_path / "empty").mkdir()
    rundir.create(tmp_path / "empty", overwrite=True)

    (tmp_path / "thesis").mkdir()
    precious = tmp_path / "thesis" / "config.toml"
    precious.write_text("[data]\n")
    for path in (precious.parent, precious):
        with pytest.raises(RunDirError, match="not the directory of an ostinato run"):
            rundir.create(path, overwrite=True)
    assert precious.read_text() == "[data]\n"


def test_a_name_that_asks_for_a_number_takes_the_next_number(tmp_path):
    assert rundir.create(tmp_path / "mnist-N").path.name == "mnist-1"
    assert rundir.create(tmp_path / "mnist-N").path.name == "mnist-2"
    for other in ("mnist-9", "mnist-x", "mnist-07", "other-30"):
        (tmp_path / other).mkdir()
    assert rundir.create(tmp_path / "mnist-N").path.name == "mnist-10"


def test_reopen(tmp_path):
    with pytest.raises(RunDirError, match=r"nothing: there is no run to resume$"):
        rundir.reopen(tmp_path / "nothing")
    begun(tmp_path / "run-3")
    assert rundir.reopen(tmp_path / "run-3") == RunDir(tmp_path / "run-3")
    with pytest.raises(RunDirError, match=r"the newest is .*run-3"):
        rundir.reopen(tmp_path / "run-N")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirError, match="nothing to resume"):
        rundir.reopen(tmp_path / "file")


def test_finished_is_what_has_a_whole_evaluation(tmp_path):
    run = begun(tmp_path / "run")
    results = {"test": {"n": 1}, "elapsed_s": 1.0, "iterations": 2, "outcome": "finished"}
    assert run.is_run()
    assert run.results() is None
    files.write_json(run.evaluation, {})
    assert run.results() is None
    files.write_json(run.evaluation, results)
    assert run.results() == results
