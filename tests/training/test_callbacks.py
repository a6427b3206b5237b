from __future__ import annotations

import io
import json

from training_examples import Experiment

from ostinato.training import MetricsFile, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_metrics_file_has_the_reports_exactly(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("an old one\n")
    _, history = Experiment().run(callbacks=[MetricsFile(file)])
    assert [json.loads(line) for line in file.read_text().splitlines()] == history.reports


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
