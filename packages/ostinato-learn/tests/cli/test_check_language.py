"""ostinato check of texts, of columns of texts, and of language runs."""

from __future__ import annotations

import csv
import json
from itertools import pairwise

import pytest
from task_files import QUICK

from ostinato_learn import datasets


@pytest.fixture(scope="module")
def novel():
    return datasets.austen()["Persuasion"][:60_000]


def posts(path, novel, *more, n=60):
    """A table of stretches of a novel, and further rows of (text, part)."""
    cuts = pairwise(700 * i + 37 * (i * i % 11) for i in range(n + 1))
    rows = [(novel[a:b].strip(), "train" if i % 6 else "test") for i, (a, b) in enumerate(cuts)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "part"), *rows, *more])
    return path


def test_a_novel(ostinato, tmp_path, novel):
    path = tmp_path / "novel.txt"
    path.write_text(novel, encoding="utf-8")
    done = ostinato("check", path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{path}: 1 document for training, 1 for testing; 48,000 to 48,000")
    assert done.out.endswith("\n\nnothing found\n")


def test_a_column_of_texts(ostinato, tmp_path, novel):
    more = [("the MÃ¼nchen paper", "train"), (novel[:600], "test"), (novel[:600], "test")]
    path = posts(tmp_path / "posts.csv", novel, *more)
    shown = json.loads(ostinato("check", path, "--language", "text", "--json").out)
    assert (shown["documents"], shown["test_documents"]) == (63, None)
    assert {f["code"] for f in shown["findings"]} == {"copies", "broken-decoding"}
    done = ostinato("check", path, "--language", "text", "--split", "part")
    assert "51 documents for training, 12 for testing" in done.out


def test_another_file_to_test_on(ostinato, tmp_path, novel):
    path = posts(tmp_path / "posts.csv", novel)
    other = posts(tmp_path / "other.csv", novel, n=5)
    flags = ("--language", "text", "--test", other)
    assert ostinato("check", path, *flags).code == 1


def test_tunes(ostinato, tmp_path):
    tune = "X:{0}\nT:Tune {0}\nK:D\n|:d2fd cAFA|B2AB defe|d2fd cAFA|B2Ac d4:|\n"
    path = tmp_path / "tunes.abc"
    path.write_text("\n".join(tune.format(i) for i in range(20)))
    done = ostinato("check", path)
    assert done.code == 0
    assert "tunes.abc: 20 documents; " in done.out


def test_a_run_and_its_training_tell_the_same(ostinato, tmp_path, novel):
    path = posts(tmp_path / "posts.csv", novel, (novel[:737].strip(), "train"))
    run, flags = tmp_path / "run", ("--language", "text", "--split", "part")
    trained = ostinato("train", path, *flags, *QUICK, "--output", run)
    assert trained.code == 0
    message = "1 of 10 (10 %) test documents are training documents too"
    assert message in trained.err
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    done = ostinato("check", run)
    assert done.code == 1
    assert f"serious: {message}" in done.out
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
