"""A file of many tunes in ABC notation: each is a document."""

from __future__ import annotations

import csv
import io
import json

from task_files import QUICK


def tunes(path, n=20):
    each = "X:{0}\nT:Tune {0}\nK:D\n|:d2fd cAFA|B2AB defe:|\n"
    path.write_text("%abc-2.1\n\n" + "\n".join(each.format(i) for i in range(n)))
    return path


def test_tunes_are_documents(tmp_path, ostinato, monkeypatch):
    file = tunes(tmp_path / "tunes.abc")
    shown = ostinato("train", file, "--language", "--dry-run").out
    assert "predict the next character\n" in shown
    assert "training   16 texts" in shown  # the line before the first tune is a header
    flags = ("--language", *QUICK, "--output", tmp_path / "run", "--quiet")
    assert ostinato("train", file, *flags).code == 0
    outcome = ostinato("predict", tmp_path / "run", file)
    assert len(list(csv.DictReader(io.StringIO(outcome.out)))) == 20
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert ostinato("predict", tmp_path / "run", "-") == outcome
    assert json.loads(ostinato("evaluate", tmp_path / "run", file, "--json").out)["unknown"] == 0


def test_the_message_for_an_unknown_ending_says_what_to_do(tmp_path, ostinato):
    tunes(tmp_path / "tunes.doc")
    outcome = ostinato("train", tmp_path / "tunes.doc", "--language")
    assert outcome.code == 2
    assert "FILE.txt, FILE.abc. A file needs one of these endings" in outcome.err
