"""Files that are broken in a way that people meet, each through the command line.

The answer is always exit 2 and one line that names the file, the place in it where there is one,
and the problem; no traceback, no run directory, nothing left in the folder.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from task_files import QUICK, TASKS

from ostinato_learn.cli import main

pa = pytest.importorskip("pyarrow")
from pyarrow import feather, parquet  # noqa: E402

from zoo.suites import one_in  # noqa: E402

CLASSIFY = ("--classify", "label", "--id", "id", "--time", "t", "--features", "x")
TAG = ("--tag", "label", "--id", "id", "--features", "x")
FORECAST = ("--forecast", "x", "--horizon", "2", "--id", "id", "--time", "t")
LANGUAGE = ("--language", "text")
WIDE = ("--classify", "label", "--shape", "wide")
NESTED = ("--classify", "label", "--features", "x")
NONE: tuple[str, ...] = ()

HEADER = b"id,t,x,label\n"
ROWS = [f"s{i},{t},{(i % 2) + 0.1 * t:.1f},{'ab'[i % 2]}" for i in range(12) for t in range(3)]


def rows(*changed: tuple[int, str], header: bytes = HEADER, n: int = len(ROWS)) -> bytes:
    """The good rows with some in the place of others; row 0 is line 2."""
    lines = list(ROWS[:n])
    for row, text in changed:
        lines[row] = text
    return header + "".join(f"{line}\n" for line in lines).encode()


def table_of(kind: str, **columns: object) -> bytes:
    file = io.BytesIO()
    if kind == "parquet":
        parquet.write_table(pa.table(columns), file)
    else:
        feather.write_feather(pa.table(columns), file)
    return file.getvalue()


def arrays_of(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def lines(*objects: object) -> bytes:
    return "\n".join(o if isinstance(o, str) else json.dumps(o) for o in objects).encode()


GOOD = rows()


def different(row_7: str) -> bytes:
    """Sequences of which no two are equal: of equal ones a check would speak first."""
    lines = [f"s{i},{t},{i}.{t},{'ab'[i % 2]}" for i in range(12) for t in range(3)]
    lines[7] = row_7
    return HEADER + "".join(f"{line}\n" for line in lines).encode()


Y = np.arange(8) % 2
X = np.ones((8, 3, 2))
# Twelve that differ: of equal ones with two labels a check would speak first.
WIDE_ROWS = b"label,v0,v1\n" + b"".join(b"%c,%d,2\n" % (b"ab"[i % 2], 10 + i) for i in range(12))
SEQUENCE = {"x": [1.0, 2.0], "label": "a"}

# A name, the file's ending, its content, the flags, and what the message says.
CASES: list[tuple[str, str, bytes, tuple[str, ...], str]] = [
    # Packing
    ("truncated gzip", ".csv.gz", gzip.compress(GOOD)[:-9], CLASSIFY, "not a whole gzip file"),
    ("gzip cut in its head", ".csv.gz", gzip.compress(GOOD)[:5], CLASSIFY, "not a whole gzip"),
    ("no gzip", ".csv.gz", GOOD, CLASSIFY, "not a whole gzip file"),
    ("gzip in a .csv", ".csv", gzip.compress(GOOD), CLASSIFY, "wanted a name that ends with .gz"),
    ("empty gzip", ".csv.gz", gzip.compress(b""), CLASSIFY, "the file is empty"),
    ("zip in a .csv", ".csv", b"PK\x03\x04" + GOOD, CLASSIFY, "ends with .xlsx"),
    ("old Excel", ".csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + GOOD, CLASSIFY, "Excel"),
    ("PDF", ".csv", b"%PDF-1.7\n" + GOOD, CLASSIFY, "PDF"),
    ("truncated text in gzip", ".txt.gz", gzip.compress(b"abc " * 99)[:-4], NONE, "gzip"),
    ("gzip in a .txt", ".txt", gzip.compress(b"abc " * 99), NONE, "ends with .gz"),
    # Encoding
    ("empty", ".csv", b"", CLASSIFY, "the file is empty"),
    ("a newline", ".csv", b"\n", CLASSIFY, "empty but for blanks"),
    ("blanks", ".csv", b" \n\t\n", CLASSIFY, "empty but for blanks"),
    ("Latin-1", ".csv", rows().replace(b"s3,", b"\xe83,"), CLASSIFY, "line 11: byte 1 is 0xe8"),
    ("UTF-16", ".jsonl", GOOD.decode().encode("utf-16"), CLASSIFY, "the text is UTF-16"),
    ("a zero byte", ".csv", rows((4, "s1,1,\0,b")), CLASSIFY, "line 6: a zero byte"),
    ("empty text", ".txt", b"", NONE, "the file is empty"),
    ("Latin-1 text", ".txt", b"caf\xe9 " * 99, NONE, "line 1: byte 4 is 0xe9"),
    ("UTF-16 text", ".txt", ("abc " * 99).encode("utf-16"), NONE, "UTF-16"),
    ("a zero byte in text", ".txt", b"abc\nd\0e\n" * 9, NONE, "line 2: a zero byte"),
    # Quotes
    ("an unclosed quote", ".csv", rows((1, 's0,1,"0.1,a')), CLASSIFY, "line 3, column 'x'"),
    ("a quote within", ".csv", rows((1, 's0,1,0.1,a"b')), CLASSIFY, "line 3, column 'label'"),
    ("a quote over rows", ".csv", rows((1, 's0,1,0.1,"a'), (5, 's1,2,1.2,b"')), CLASSIFY,
     "line 3, column 'label'"),
    ("a quote in the header", ".csv", rows(header=b'id,"t,x,label\n'), CLASSIFY, "line 1"),
    # Separators, header, fields
    ("semicolons or bars", ".csv", b"id;x|label\np;1|2\n", CLASSIFY, "--separator"),
    ("a wrong separator", ".csv", GOOD, (*CLASSIFY, "--separator", ";"), "one column only"),
    ("a separator of two characters", ".csv", GOOD, (*CLASSIFY, "--separator", "::"),
     "--separator is '::'; wanted one character, such as ; or"),
    ("a separator for JSON", ".jsonl", lines(SEQUENCE), (*NESTED, "--separator", ";"),
     "separator"),
    ("a header alone", ".csv", HEADER, CLASSIFY, "a header and no rows"),
    ("numbers as a header", ".csv", b"1,2,3,4\n" * 3, CLASSIFY, "line 1"),
    ("a name twice", ".csv", rows(header=b"id,t,x,x\n"), CLASSIFY, "the same name 'x'"),
    ("a field less", ".csv", rows((7, "s2,1,0.1")), CLASSIFY, "line 9: column 'label' is missing"),
    ("a field more", ".csv", rows((7, "s2,1,0.1,a,b")), CLASSIFY, "line 9: a field after"),
    ("fields of two lengths", ".csv", rows(*((i, "s1,2") for i in range(9))), CLASSIFY, "line 2"),
    ("an empty line", ".csv", rows((7, "")), CLASSIFY, "line 9: an empty line"),
    ("a huge field", ".csv", rows((2, f"s0,2,{'9' * 10**6}x,a")), CLASSIFY, "line 4, column 'x'"),
    ("a huge label", ".csv", rows((2, f"s0,2,1,{'u' * 10**6}")), CLASSIFY, "line 4"),
    ("a decimal comma", ".csv", rows((7, 's2,1,"0,1",a')), CLASSIFY, "wanted a point before"),
    # Columns
    ("no such target", ".csv", GOOD, ("--classify", "lable", "--id", "id"), "did you mean 'label'"),
    ("no such id", ".csv", GOOD, ("--classify", "label", "--id", "ids"), "no column 'ids'"),
    ("no such time", ".csv", GOOD, (*CLASSIFY, "--time", "when"), "no column 'when'"),
    ("no such feature", ".csv", GOOD, (*CLASSIFY, "--features", "x,y"), "no column 'y'"),
    ("no such group", ".csv", GOOD, (*CLASSIFY, "--group", "person"), "no column 'person'"),
    ("no such split", ".csv", GOOD, (*CLASSIFY, "--split", "part"), "no column 'part'"),
    ("two roles", ".csv", GOOD, (*CLASSIFY, "--features", "x,label"), "both target and features"),
    ("a feature twice", ".csv", GOOD, (*CLASSIFY, "--features", "x,x"), "twice"),
    ("no id", ".csv", GOOD.replace(b"id", b"name", 1), ("--classify", "label", "--features", "x"),
     "Name the column that distinguishes"),
    ("a split that names no parts", ".csv", GOOD.replace(b",0,", b",z,").replace(b",1,", b",z,")
     .replace(b",2,", b",z,"), ("--classify", "label", "--id", "id", "--features", "x", "--split",
     "t"), "line 2, column 't': 'z' is not a part"),
    ("nothing left for features", ".csv", GOOD.replace(b",x,", b",t2,"),
     ("--classify", "label", "--id", "id", "--time", "t", "--group", "t2"), "feature"),
    # Values
    ("a word among numbers", ".csv", rows((7, "s2,1,abc,a")), CLASSIFY,
     "line 9, column 'x': 'abc'"),
    ("a missing value", ".csv", different("s2,1,,a"), CLASSIFY, "line 9, column 'x': the value is"),
    ("NaN", ".csv", different("s2,1,NaN,a"), CLASSIFY, "line 9, column 'x': the value is missing"),
    ("infinity", ".csv", rows((7, "s2,1,inf,a")), CLASSIFY, "line 9, column 'x'"),
    ("more than float32", ".csv", rows((7, "s2,1,1e39,a")), CLASSIFY, "overflows float32"),
    ("more than float64", ".csv", rows((7, "s2,1,1e999,a")), CLASSIFY, "line 9, column 'x'"),
    ("no value in a column", ".csv", GOOD.replace(b".", b"").replace(b",0", b",").replace(
        b",1", b","), (*CLASSIFY, "--missing", "fill"), "column"),
    ("a label that changes", ".csv", rows((7, "s2,1,0.1,b")), CLASSIFY, "line 9, column 'label'"),
    ("a missing label", ".csv", rows((6, "s2,0,0.0,"), (7, "s2,1,0.1,"), (8, "s2,2,0.2,")),
     CLASSIFY, "line 8, column 'label'"),
    ("labels with decimals", ".csv",
     rows().replace(b",a\n", b",0.5\n").replace(b",b\n", b",1.5\n"), CLASSIFY, "wanted classes"),
    ("one class", ".csv", GOOD.replace(b",b\n", b",a\n"), CLASSIFY, "one class only"),
    ("one sequence", ".csv", rows(n=3), CLASSIFY, "no class has two examples"),
    # Order
    ("an id that comes back", ".csv", rows((9, "s0,0,0.1,a")), CLASSIFY, "'s0' comes back"),
    ("a missing id", ".csv", rows((9, ",7,0.1,a")), CLASSIFY, "line 11, column 'id'"),
    ("a missing time", ".csv", rows((7, "s2,,0.1,a")), CLASSIFY, "line 9, column 't'"),
    ("time that goes back", ".csv", rows((7, "s2,-1,0.1,a")), CLASSIFY, "line 9, column 't'"),
    ("a time twice", ".csv", rows((7, "s2,0,0.1,a")), CLASSIFY, "line 9, column 't': the time 0"),
    ("a time in words", ".csv", rows((7, "s2,noon,0.1,a")), CLASSIFY, "line 9, column 't'"),
    ("dates of other countries", ".csv", rows((0, "s0,31.12.2024,0.1,a")), CLASSIFY,
     "line 2, column 't': '31.12.2024' is not a time"),
    ("a date and a number", ".csv", rows((7, "s2,2024-01-01,0.1,a")), CLASSIFY, "line 9"),
    ("a date twice with --sort", ".csv", rows((7, "s2,0,0.1,a")), (*CLASSIFY, "--sort"), "twice"),
    # Tagging
    ("a missing tag", ".csv", rows((7, "s2,1,0.1,")), TAG, "line 9, column 'label'"),
    ("a column of too many words", ".csv",
     HEADER + b"".join(b"s%d,%d,w%d,a\n" % (i // 3, i, i) for i in range(9 * 10**4)),
     (*CLASSIFY, "--sort"), "line 2, column 'x'"),
    ("one tag", ".csv", GOOD.replace(b",b\n", b",a\n"), TAG, "one label only, 'a'"),
    ("a wide table to tag", ".csv", GOOD, (*TAG, "--shape", "wide", "--features", "t,x"),
     "a wide table"),
    ("tags in a list of another length", ".jsonl",
     lines(*[{"x": [1, 2], "label": ["a", "b"]}] * 4, {"x": [1, 2], "label": ["a"]}), NESTED_TAG :=
     ("--tag", "label", "--features", "x"), "line 5, column 'label': 1 values, and 2"),
    ("an empty list", ".jsonl", lines(*[{"x": [1], "label": ["a"]}] * 4, {"x": [], "label": []}),
     NESTED_TAG, "line 5, column 'x': an empty list"),
    # Forecasting
    ("no horizon", ".csv", GOOD, ("--forecast", "x", "--id", "id"), "--horizon"),
    ("series of words", ".csv", GOOD, ("--forecast", "label", "--horizon", "1", "--id", "id"),
     "line 2, column 'label'"),
    ("series that are too short", ".csv", GOOD, FORECAST, "the shortest series has 3 steps"),
    ("a series without a value", ".csv",
     HEADER + b"".join(b"s0,%d,,a\n" % t for t in range(20)), FORECAST, ""),
    ("infinity in a series", ".csv",
     HEADER + b"".join(b"s0,%d,%s,a\n" % (t, b"inf" if t == 9 else b"1") for t in range(20)),
     FORECAST, "line 11, column 'x'"),
    ("a date twice in a series", ".csv",
     HEADER + b"".join(b"s0,2024-01-%02d,1,a\n" % min(9, t) for t in range(1, 20)), FORECAST,
     "line 11, column 't': the time 2024-01-09"),
    ("known ahead and no feature", ".csv", GOOD, (*FORECAST, "--features", "x", "--known", "label"),
     "'label' is among known and not among the features"),
    ("a static that changes", ".csv",
     HEADER + b"".join(b"s0,%d,1,%d\n" % (t, t) for t in range(20)),
     (*FORECAST, "--static", "label"), "line 3, column 'label'"),
    # Wide tables
    ("a word in a wide table", ".csv", WIDE_ROWS + b"a,1,z\nb,1,2\n", WIDE, "line 14, column 'v1'"),
    ("a gap in a wide table", ".csv", WIDE_ROWS + b"a,1,\nb,1,2\n", WIDE, "line 14, column 'v1'"),
    ("an id twice in a wide table", ".csv", b"id,label,v0,v1\n1,a,1,2\n2,b,1,2\n1,a,1,2\n",
     (*WIDE, "--id", "id"), "line 4, column 'id'"),
    # JSON Lines
    ("no JSON", ".jsonl", lines(SEQUENCE, "{x: 1}"), NESTED, "line 2"),
    ("JSON over several lines", ".jsonl", json.dumps([SEQUENCE] * 3, indent=1).encode(), NESTED,
     "line 1"),
    ("a list", ".jsonl", lines(SEQUENCE, [1, 2]), NESTED, "line 2: found a list"),
    ("a number", ".jsonl", lines(SEQUENCE, 3), NESTED, "line 2: found a number"),
    ("a key twice", ".jsonl", lines(SEQUENCE, '{"x": [1], "x": [2]}'), NESTED, "line 2"),
    ("cut in the middle", ".jsonl", lines(SEQUENCE, SEQUENCE)[:-9], NESTED, "line 2"),
    ("lists without end", ".jsonl", lines("[" * 10**5), NESTED, "line 1"),
    ("a text in a list", ".jsonl", lines(SEQUENCE, {"x": [1.0, "two"], "label": "b"}), NESTED,
     "line 2"),
    ("a value instead of a list", ".jsonl", lines(SEQUENCE, {"x": 1.0, "label": "b"}), NESTED,
     "line 2"),
    ("null instead of a list", ".jsonl", lines(SEQUENCE, {"x": None, "label": "b"}), NESTED,
     "line 2"),
    ("an object", ".jsonl", lines({"x": {"a": 1}, "label": "b"}), NESTED, "'x.a'"),
    ("lists of lists", ".jsonl", lines(*[{"x": [[1], [2, 3]], "label": c} for c in "abab"]),
     NESTED, "line 1"),
    ("empty JSON Lines", ".jsonl", b"\n\n", NESTED, "empty"),
    # Parquet and Arrow
    ("no Parquet", ".parquet", GOOD, CLASSIFY, ""),
    ("truncated Parquet", ".parquet", table_of("parquet", id=[1, 2], x=[1.0, 2.0])[:-9], CLASSIFY,
     ""),
    ("Parquet without rows", ".parquet", table_of("parquet", id=pa.array([], pa.int64())),
     CLASSIFY, ""),
    ("Parquet without a column", ".parquet", table_of("parquet", id=[1], t=[1], x=[1.0]), CLASSIFY,
     "no column 'label'"),
    ("null in Parquet", ".parquet",
     table_of("parquet", x=[[1.0 + i, None] for i in range(4)], label=["a", "b"] * 2), NESTED,
     "row 1, column 'x'"),
    ("bytes in Parquet", ".parquet",
     table_of("parquet", x=[b"1", b"2"] * 2, label=["a", "b"] * 2), (*WIDE, "--features", "x"),
     "column 'x'"),
    ("no Arrow", ".arrow", GOOD, CLASSIFY, ""),
    ("truncated Arrow", ".arrow", table_of("arrow", id=[1, 2], x=[1.0, 2.0])[:-99], CLASSIFY, ""),
    # Arrays
    ("no .npz", ".npz", GOOD, NONE, "not an .npz archive"),
    ("truncated .npz", ".npz", arrays_of(X=X, y=Y)[:-30], NONE, ""),
    (".npz without X", ".npz", arrays_of(Z=X), NONE, "wanted X"),
    (".npz without y", ".npz", arrays_of(X=X), NONE, "no labels"),
    ("fewer labels", ".npz", arrays_of(X=X, y=Y[:5]), NONE, "X has 8 examples and y has 5"),
    ("objects", ".npz", arrays_of(X=X, y=np.array([{}] * 8)), NONE, "Python objects"),
    ("NaN in X", ".npz", arrays_of(X=X * np.nan, y=Y), NONE, "example 0, step 0, feature 0"),
    ("four axes", ".npz", arrays_of(X=np.ones((8, 3, 2, 2)), y=Y), NONE, "[8, 3, 2, 2]"),
    ("columns of .npz", ".npz", arrays_of(X=X, y=Y), ("--features", "a"), "--features is for"),
    (".ts without data", ".ts", b"@problemName x\n", NONE, "@data"),
    (".ts with a word", ".ts", b"@classLabel true a b\n@data\n1,2:a\n1,z:b\n", NONE, "line 4"),
    (".ts with an unknown class", ".ts", b"@classLabel true a b\n@data\n1,2:a\n1,3:c\n", NONE,
     "line 4"),
    # Texts
    ("a text of blanks", ".txt", b" \n \n", NONE, "empty"),
    ("no such column of texts", ".csv", b"text\nabc\ndef\n", ("--language", "lyrics"), "'lyrics'"),
    ("numbers as texts", ".jsonl", lines(*[{"text": 5}] * 4), LANGUAGE, "line 1, column 'text'"),
    ("a missing text", ".csv", b"id,text\n1,abc\n2,\n3,def\n", LANGUAGE, "line 3, column 'text'"),
    ("one row of text", ".csv", b"id,text\n1,a\n", LANGUAGE, ""),
    ("the column of a text", ".txt", b"abc " * 99, LANGUAGE, "has no column 'text'"),
    # Names
    ("another ending", ".dta", b"PK\x03\x04", CLASSIFY, "is not a data set"),
    ("another spreadsheet", ".ods", b"PK\x03\x04", CLASSIFY, "save the spreadsheet as .xlsx"),
    ("no ending", "", GOOD, CLASSIFY, "is not a data set"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of its own, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(outcome, file: object, problem: str) -> None:
    """Exit 2, and one line of words that names the file and the problem."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert outcome.err.startswith("ostinato: ")
    assert str(file) in outcome.err
    assert problem in outcome.err
    assert len(outcome.err) < 1000


def test_there_are_more_than_a_hundred_files():
    assert len({name for name, *_ in CASES}) == len(CASES) >= 100


@pytest.mark.parametrize(
    ("ending", "content", "flags", "problem"),
    one_in(3, [c[1:] for c in CASES], of_several=True),
    ids=[c[0] for c in CASES],
)
def test_a_broken_file_is_refused(ostinato, folder, ending, content, flags, problem):
    file = folder / f"file{ending}"
    file.write_bytes(content)
    outcome = ostinato("train", file, *flags, *QUICK, "--quiet", "--output", folder / "run")
    named = "" if problem.startswith("--") else file  # of a flag the message names that
    assert_refused(outcome, named, problem)
    assert [path.name for path in folder.iterdir()] == [file.name]


def test_the_good_files_are_not_refused(ostinato, folder):
    for name, content, flags in (
        ("a.csv", GOOD, CLASSIFY),
        ("b.csv", GOOD, TAG),
        ("c.csv", HEADER + b"".join(b"s0,%d,%d,a\n" % (t, t % 4) for t in range(20)), FORECAST),
        ("d.jsonl", lines(*[SEQUENCE, {"x": [1, 3], "label": "b"}] * 6), NESTED),
        ("e.csv", b"label,v0,v1\n" + b"a,1,2\nb,1,3\n" * 6, WIDE),
        ("f.npz", arrays_of(X=X, y=Y), NONE),
        ("g.csv", b"text\nabcabc\nbcabca\ncabcab\nabcabc\n", LANGUAGE),
        ("h.txt", b"abc " * 99, NONE),
    ):
        (folder / name).write_bytes(content)
        arguments = ("train", folder / name, *flags, "--dry-run")
        assert ostinato(*arguments).code == 0, name


def test_a_bomb_is_not_unpacked(ostinato, folder, monkeypatch):
    from ostinato_learn.data.formats import content

    monkeypatch.setattr(content, "MAX_UNPACKED", 1 << 16)
    bomb = folder / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(HEADER + b"s0,1,0.1,a\n" * 100_000))
    outcome = ostinato("train", bomb, *CLASSIFY, "--quiet", "-o", folder / "run")
    assert_refused(outcome, bomb, "unpack to more than")
    assert [path.name for path in folder.iterdir()] == [bomb.name]


def test_files_that_are_not_there_or_no_files(ostinato, folder):
    (folder / "folder.csv").mkdir()
    for name, said in (("gone.csv", "no such file"), ("folder.csv", "a directory; wanted a file")):
        outcome = ostinato("train", folder / name, *CLASSIFY, "--quiet", "-o", folder / "run")
        assert_refused(outcome, folder / name, said)
    assert not (folder / "run").exists()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run of each task that reads tables."""
    folder = tmp_path_factory.mktemp("runs")
    for task in ("classify", "tag", "forecast"):
        file, *flags = TASKS[task](folder)
        arguments = ("train", file, *flags, *QUICK, "--iterations", 2, "--quiet")
        assert main([str(a) for a in (*arguments, "--output", folder / task)]) == 0
    return folder


@pytest.mark.parametrize("task", one_in(3, ["classify", "tag", "forecast"]))
def test_broken_files_are_refused_by_trained_models_too(ostinato, runs, folder, task):
    """Both from a file and from standard input, where the message names that."""
    whole = (runs / f"{task}.csv").read_bytes()
    header = whole[: whole.index(b"\n") + 1]
    column = {"classify": b"a", "tag": b"a", "forecast": b"value"}[task]
    broken = {
        "empty": (b"", "the file is empty"),
        "cut": (whole[:-9].rsplit(b",", 1)[0], f"line {whole.count(10)}"),
        "header": (header, "a header and no rows"),
        "latin": (whole.replace(b"s3,", b"\xe93,", 1), "0xe9"),
        "column": (
            whole.replace(b"," + column + b",", b",zz,", 1).replace(
                b"," + column + b"\n", b",zz\n", 1
            ),
            "no column",
        ),
        "word": (_with_last(whole, column, b"abc"), "'abc'"),
        "large": (_with_last(whole, column, b"1e400"), f"line {whole.count(10)}"),
        "order": (_with_rows_exchanged(whole), "column 't'"),
    }
    before = None
    for name, (content, problem) in broken.items():
        file = folder / f"{name}.csv"
        file.write_bytes(content)
        before = sorted(folder.iterdir())
        for command in ("predict", "evaluate"):
            outcome = ostinato(command, runs / task, file, "--quiet")
            assert_refused(outcome, file, problem)
        assert sorted(folder.iterdir()) == before


def _with_rows_exchanged(content: bytes) -> bytes:
    """The third row before the second: numbers of time that fall once."""
    lines = content.splitlines(True)
    return b"".join([*lines[:2], lines[3], lines[2], *lines[4:]])


@pytest.mark.parametrize("content", [b"", b"\n", b"id,t,a\n", b"\xff\xfe\x00", b"{", b"PK\x03\x04"])
def test_broken_standard_input(ostinato, runs, monkeypatch, content):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert_refused(ostinato("predict", runs / "tag", "-", "--quiet"), "standard input", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model/config.json", b"{"),
        ("model/config.json", b"{}"),
        ("model/config.json", None),
        ("model/model.safetensors", b"\0" * 40),
        ("model/model.safetensors", b""),
        ("model/model.safetensors", None),
        ("config.toml", b"# ostinato: the resolved configuration of this run\n[data\n"),
    ],
)
def test_a_damaged_run_is_refused(ostinato, runs, folder, name, content):
    shutil.copytree(runs / "tag", folder / "run")
    path = folder / "run" / name
    path.unlink() if content is None else path.write_bytes(content)
    before = sorted(folder.rglob("*"))
    outcome = ostinato("predict", folder / "run", runs / "tag.csv", "--quiet")
    assert_refused(outcome, folder / "run", "")
    assert sorted(folder.rglob("*")) == before


def test_check_reads_broken_files_in_the_same_way(ostinato, folder):
    for name, ending, content, flags, problem in CASES:
        if flags == CLASSIFY and ending == ".csv" and "line " in problem:
            file = folder / f"{name.replace(' ', '-')}.csv"
            file.write_bytes(content)
            if "missing" in name or name == "NaN":  # which check reports instead
                continue
            assert_refused(ostinato("check", file, *flags, "--quiet"), file, problem)


def _with_last(content: bytes, column: bytes, value: bytes) -> bytes:
    """The table with another value in the last row of a column."""
    header, *rows = content.rstrip(b"\n").split(b"\n")
    fields = rows[-1].split(b",")
    fields[header.split(b",").index(column)] = value
    return b"\n".join([header, *rows[:-1], b",".join(fields)]) + b"\n"
