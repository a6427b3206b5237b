"""Documents and tagged words."""

from __future__ import annotations

import gzip

import pytest

from ostinato_learn.data import Roles, read_conll, read_documents, read_examples, stream_examples
from ostinato_learn.data.formats.conll import parse_conll_table

TEXT = "\ufeffOne line.\r\nAnother.\r\n \t\r\n\r\n  A second  \r\n"


@pytest.mark.parametrize(
    ("each", "wanted"),
    [
        ("blank", ["One line.\nAnother.", "A second"]),
        ("line", ["One line.", "Another.", "A second"]),
        ("file", ["One line.\nAnother.\n \t\n\n  A second"]),
    ],
)
def test_documents(tmp_path, each, wanted):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8", newline="")
    assert read_documents(path, each) == wanted
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert read_documents(tmp_path / "a.txt.gz", each) == wanted


def test_documents_of_a_table(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.csv").write_text('text,n\n"Two\nlines, said she.",1\n Other ,2\n')
    (tmp_path / "a.jsonl").write_text('{"text": "Two\\nlines, said she."}\n{"text": "Other"}\n')
    for name in ("a.csv", "a.jsonl"):
        found = read_documents(tmp_path / name, column="text")
        assert found == ["Two\nlines, said she.", "Other"]
    for column, wanted in [
        (None, "which column holds the text.*'text', 'n'"),
        ("txt", "no column 'txt'.*did you mean 'text'"),
    ]:
        with pytest.raises(ValueError, match=wanted):
            read_documents(tmp_path / "a.csv", column=column)
    (tmp_path / "b.csv").write_text("text,n\na,1\n,2\n")
    with pytest.raises(ValueError, match="line 3, column 'text': the text is missing"):
        read_documents(tmp_path / "b.csv", column="text")
    (tmp_path / "b.jsonl").write_text('{"text": 1}')
    with pytest.raises(ValueError, match="line 1, column 'text': the column holds no text"):
        read_documents(tmp_path / "b.jsonl", column="text")


def test_what_documents_refuse(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="each='word' is not known"):
        read_documents(tmp_path / "a.txt", each="word")
    with pytest.raises(ValueError, match="a text has no columns"):
        read_documents(tmp_path / "a.txt", column="text")


CONLL = """-DOCSTART- -X- O

Jane NNP B-PER
slept VBD O

# NN O
-DOCSTART- -X- O
Bath NNP B-LOC
"""


def test_conll(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text(CONLL)
    found = read_conll(path)
    assert found.words == [["Jane", "slept"], ["#"], ["Bath"]]
    assert [tags.tolist() for tags in found.tags] == [["B-PER", "O"], ["O"], ["B-LOC"]]
    assert found.documents.tolist() == [0, 0, 1] and len(found) == 3
    assert read_conll(path, tag=1).tags[0].tolist() == ["NNP", "VBD"]
    path.write_text("New York\tB-LOC\nis\tO\n")
    assert read_conll(path).words == [["New York", "is"]]
    with pytest.raises(
        ValueError, match=r"line 1: 2 columns .*; wanted at least 4, separated by tabs"
    ):
        read_conll(path, tag=3)


def test_universal_dependencies(tmp_path):
    rows = [
        "# text = vámonos",
        "1-2\tvámonos" + "\t_" * 8,
        "1\tvamos\tir\tVERB" + "\t_" * 6,
        "1.1\tx" + "\t_" * 8,
        "2\tnos\tyo\tPRON" + "\t_" * 6,
    ]
    path = tmp_path / "a.conllu"
    path.write_text("\n".join(rows), encoding="utf-8")
    found = read_conll(path)
    assert found.words == [["vamos", "nos"]] and found.tags[0].tolist() == ["VERB", "PRON"]


def test_conll_as_a_table(tmp_path, caplog):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.conll"
    path.write_text(CONLL)
    examples = read_examples(path, Roles(target="tag", task="tag", group="document"))
    assert [tags.tolist() for tags in examples.y] == [["B-PER", "O"], ["O"], ["B-LOC"]]
    assert examples.groups.tolist() == [0, 0, 1] and examples.ids.tolist() == [1, 2, 3]
    assert examples.features == ("word",)
    assert examples.categories == {"word": ("#", "Bath", "Jane", "slept")}
    assert examples.place(2, 0) == f"{path}, line 6, column 'word'"
    assert "id 'id'; 1 feature: 'word'; left out 'column 2'" in caplog.text
    other = read_examples(path, Roles(target="column 2", task="tag", features=("word", "tag")))
    assert other.y[0].tolist() == ["NNP", "VBD"] and other.categories["tag"][0] == "B-LOC"
    assert [len(part) for part in stream_examples(path, examples.roles)] == [3]
    path.write_text("a B\nb\n")
    with pytest.raises(
        ValueError, match=r"a\.conll, line 2: 1 columns in 'b'; wanted 2, as in line 1"
    ):
        read_examples(path)
    path = tmp_path / "a.conllu"
    path.write_text("1\tBath\tbath\tPROPN" + "\t_" * 6)
    examples = read_examples(path, Roles(target="tag", task="tag"))
    assert examples.y[0].tolist() == ["PROPN"] and examples.categories["word"] == ("Bath",)
    assert read_examples(path, Roles(target="lemma", task="tag")).y[0].tolist() == ["bath"]


def test_words_alone_are_a_table_without_tags(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.conll"
    path.write_text("Emma\nwalked\n\nBath\n")
    table = parse_conll_table(path.read_bytes(), str(path))
    assert list(table.columns) == ["id", "document", "word"] and len(table.lines) == 3
    with pytest.raises(ValueError, match="wanted at least 2, separated by blanks: a word and its"):
        read_conll(path)


def test_the_header_of_an_abc_file_is_no_tune(tmp_path):
    header, one, two = "%abc-2.1\nM:4/4\nO:Irish", "X:1\nT:One\nK:G\nGABc|", "X: 2\nK:D\nd2|"
    path = tmp_path / "tunes.abc"
    for above in (header + "\n\n", header + "\n"):  # the second without a blank line after it
        path.write_text(f"{above}{one}\n\nTunes of the west.\n\n{two}\n")
        assert read_documents(path) == [one, two]
    path.write_text("GABc|\n\nd2|")  # fragments
    assert read_documents(path) == ["GABc|", "d2|"]
    path = path.rename(tmp_path / "tunes.txt")
    path.write_text(f"{header}\n\n{one}")
    assert read_documents(path) == [header, one]
