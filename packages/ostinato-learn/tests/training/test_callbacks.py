from __future__ import annotations

import io
import json
import os
import re

import pytest
from test_loop import CtrlC
from training_examples import Experiment

from ostinato_learn.training import Checkpoint, LossFile, MetricsFile, Progress, callbacks


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_metrics_file_has_the_reports_exactly(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("an old one\n")
    _, history = Experiment().run(callbacks=[MetricsFile(file)])
    assert [json.loads(line) for line in file.read_text().splitlines()] == history.reports


def test_the_loss_file_has_the_loss_of_every_tenth_iteration_exactly(tmp_path):
    file = tmp_path / "losses.csv"
    file.write_text("an old one\n")
    _, history = Experiment(plan={"eval_every": 10}).run(callbacks=[LossFile(file)])
    lines = file.read_text().splitlines()
    assert lines[0] == "iteration,loss"
    written = [(int(i), float(loss)) for i, loss in (line.split(",") for line in lines[1:])]
    assert written == history.course
    reported = list(zip(history["iteration"], history["loss"], strict=True))
    assert written == reported[:2] == [(0, history.losses[0]), (10, history.losses[1])]


def test_a_resumed_loss_file_is_that_of_an_uninterrupted_training(tmp_path):
    plan = {"iterations": 34}
    Experiment(plan=plan).run(callbacks=[LossFile(tmp_path / "whole.csv")])
    parts = [LossFile(tmp_path / "losses.csv"), Checkpoint(tmp_path / "c")]
    with pytest.raises(KeyboardInterrupt):
        Experiment(plan=plan).run(callbacks=[CtrlC(21), *parts])
    Experiment(plan=plan).run(callbacks=parts, resume=tmp_path / "c")
    assert (tmp_path / "losses.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len((tmp_path / "whole.csv").read_text().splitlines()) == 1 + 4


def test_progress_is_a_line_for_each_report_where_there_is_no_terminal():
    stream = io.StringIO()
    _, history = Experiment().run(callbacks=[Progress(stream)])
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(history.reports)
    assert lines[0].startswith("iteration      0   epoch  0.00   loss ")
    assert "validation loss" in lines[0]
    assert "\r" not in stream.getvalue()


def test_progress_is_a_bar_on_a_terminal_and_the_lines_stay():
    stream = Terminal()
    _, history = Experiment().run(callbacks=[Progress(stream)])
    text = stream.getvalue()
    assert text.count("iteration ") == len(history.reports)
    assert "\r" in text and "/14" in text and "it/s" in text and "accuracy" in text


def test_each_line_has_the_pace_and_the_time_left_but_the_first_and_the_last():
    stream = io.StringIO()
    Experiment().run(callbacks=[Progress(stream)])
    lines = stream.getvalue().splitlines()
    paced = [re.search(r" it/s, .+ left", line) is not None for line in lines]
    assert paced == [False, True, True, True, True, False]


def test_after_a_second_a_line_says_how_long_it_will_take(monkeypatch):
    monkeypatch.setattr(callbacks, "ANNOUNCE_AFTER_S", 0)
    stream = io.StringIO()
    Experiment().run(callbacks=[Progress(stream)])
    lines = [line for line in stream.getvalue().splitlines() if not line.startswith("iteration")]
    assert len(lines) == 1
    assert re.fullmatch(r"14 iterations: [\d,.]+ it/s, .+ left", lines[0])


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 120), (24, 120)])
def test_the_bar_on_a_terminal_of_any_size_also_one_that_does_not_know_it(rows, columns):
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with os.fdopen(slave, "w") as stream:
        Experiment(plan={"eval_every": 14}).run(callbacks=[Progress(stream)])
        shown = os.read(master, 100_000).decode()
    os.close(master)
    bar = next(part for part in re.split("[\r\n]", shown) if "/14" in part)
    assert "it/s" in bar and "%|" in bar
    assert len(bar) <= (columns if rows else 80)
