"""Files that are broken, each in a way that people meet: the error names file, place and remedy.

The answer is always a `ValueError`, which the command line turns into one line and exit 2.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ostinato_learn.data import Preparation, Roles, read_conll, read_documents, read_examples
from ostinato_learn.data.formats import content

pa = pytest.importorskip("pyarrow")
from pyarrow import feather, ipc, parquet  # noqa: E402

LONG = Roles(id="id", time="t", features=("x",), target="label", task="classify")
WIDE = Roles(shape="wide", features=("a", "b"), target="label")
NESTED = Roles(shape="nested", id="id", features=("x",), target="label", task="classify")
TAG = Roles(id="id", features=("x",), target="label", task="tag")
SERIES = Roles(id="id", time="t", target="x", task="forecast")

HEADER = b"id,t,x,label\n"
GOOD = HEADER + b"p,1,0.5,up\np,2,1.5,up\nq,1,2.5,down\n"
TRIALS = b"who,trial,note,t,x,label\n" + b"".join(
    b"%s,%d,%d,%d,1,up\n" % (who, trial, 7 * t + trial, t)
    for who in (b"ann", b"bob")
    for trial in (1, 2, 3)
    for t in (0, 1)
)


def long(*rows):
    return HEADER + "".join(f"{row}\n" for row in rows).encode()


def wide(*rows):
    return b"label,a,b\n" + "".join(f"{row}\n" for row in rows).encode()


def parquet_of(**columns):
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def arrow_of(**columns):
    file = io.BytesIO()
    feather.write_feather(pa.table(columns), file)
    return file.getvalue()


def stream_of(**columns):
    file = io.BytesIO()
    table = pa.table(columns)
    with ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return file.getvalue()


def npz_of(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy_of(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lines(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


# A name, the file's ending, its content, the roles, and what the error says after the file's name.
TABLES = [
    # Packing
    ("truncated gzip", ".csv.gz", gzip.compress(GOOD)[:-12], LONG, "not a whole gzip file"),
    ("gzip with a changed byte", ".csv.gz", gzip.compress(GOOD)[:-9] + b"\0" * 9, LONG, "gzip"),
    ("no gzip", ".csv.gz", GOOD, LONG, "not a whole gzip file"),
    ("gzip under another name", ".csv", gzip.compress(GOOD), LONG, "gzip; wanted a name .* .gz"),
    ("zip under another name", ".csv", b"PK\x03\x04" + GOOD, LONG, "ZIP archive, .* or Excel"),
    ("parquet as csv", ".csv", parquet_of(id=[1]), LONG, "Parquet; wanted a name"),
    ("empty gzip", ".csv.gz", gzip.compress(b""), LONG, "the file is empty"),
    # Encoding
    ("empty", ".csv", b"", LONG, "the file is empty"),
    ("blanks alone", ".csv", b"\n \n\n", LONG, "empty but for blanks"),
    ("a mark alone", ".csv", b"\xef\xbb\xbf", LONG, "empty but for blanks"),
    ("Latin-1", ".csv", long("p,1,0.5,up").replace(b"up", b"\xe8p"), LONG,
     "line 2: byte 9 is 0xe8"),
    ("UTF-16", ".jsonl", GOOD.decode().encode("utf-16"), LONG, "the text is UTF-16"),
    ("a zero byte", ".csv", GOOD.replace(b"1.5", b"1\x005"), LONG, "line 3: a zero byte"),
    ("a return within", ".csv", GOOD.replace(b"1.5", b"1\r5"), LONG, "line 3.*carriage return"),
    # Quotes
    ("an unclosed quote", ".csv", long('p,1,"0.5,up', "p,2,1,up"), LONG,
     "line 2, column 'x'.*quote"),
    ("a quote that swallows rows up to another", ".csv",
     long('p,1,1,"up', "p,2,2,up", "p,3,3,up", 'p,4,4,up"', "q,1,1,down"), LONG,
     "line 2, column 'label': a quoted field holds 3 further lines"),
    ("an unclosed quote before quoted rows", ".csv",
     long('"p",1,0.5,"up', '"p",2,1,"up"', '"q",1,1,"down"'), LONG,
     "line 2, column 'label': the quote that opens here"),
    ("a quote within", ".csv", long('p,1,0.5,u"p'), LONG, "line 2, column 'label': a quote within"),
    ("text after a quote", ".csv", long('p,1,0.5,"up"s'), LONG, "line 2, column 'label'"),
    ("a quote in the header", ".csv", b'id,"t,x\n' + b"1,2,3\n", LONG, "line 1"),
    # Separators, header, fields
    ("semicolons or bars", ".csv", b"id;x|y\np;1|2\n", LONG,
     r"line 1: one column only.*separator=';'"),
    ("tabs and quotes", ".csv", b'id\ttext\n1\ta "b" c\n', Roles(),
     "line 2, column 'text': a quote within a field"),
    ("blanks", ".csv", GOOD.replace(b",", b" "), LONG, "line 1.*separated by blanks"),
    ("a header alone", ".csv", HEADER, LONG, "a header and no rows"),
    ("no header", ".csv", b"1,2,3,4\n5,6,7,8\n", LONG, "line 1: the first line has numbers only"),
    ("a column twice", ".csv", b"id,x, x\n1,2,3\n", LONG, "line 1: the columns 2 and 3.*'x'"),
    ("a field less", ".csv", long("p,1,0.5,up", "p,2,1.5"), LONG,
     "line 3: column 'label' is missing"),
    ("a field more", ".csv", long("p,1,0.5,up,"), LONG, "line 2: a field after the last column"),
    ("a comma for the point", ".csv", long("p,1,0,5,up"), LONG, "line 2: a field after the last"),
    ("an empty line", ".csv", long("p,1,0.5,up", "", "p,2,1.5,up"), LONG, "line 3: an empty line"),
    # Names of columns
    ("a wrong column", ".csv", GOOD.replace(b"label", b"lable"), LONG,
     "there is no column 'label'.*'id', 't', 'x', 'lable'; did you mean 'lable'"),
    ("another case", ".csv", GOOD.replace(b"id", b"ID"), LONG, "no column 'id'.*did you mean 'ID'"),
    # Numbers
    ("a word in numbers", ".csv", long("p,1,0.5,up", "p,2,abc,up", "p,3,1,up"), LONG,
     "line 3, column 'x': 'abc' is not a number"),
    ("a decimal comma", ".csv", long('p,1,"0,5",up', "p,2,1.5,up"), LONG,
     "line 2, column 'x': '0,5' is not a number; wanted a point before its decimals"),
    ("decimal commas and points", ".csv",
     long(*(f'p,{i},"{i},5",up' for i in range(300)), "p,300,0.25,up"), LONG,
     "line 2, column 'x': '0,5' is not a number; wanted a point before its decimals"),
    ("infinity", ".csv", long("p,1,0.5,up", "p,2,-inf,up"), LONG, "line 3, column 'x'.*infinite"),
    ("more than float32", ".csv", long("p,1,1e39,up"), LONG, "line 2, column 'x': 1e.39 overflows"),
    ("more than float64", ".csv", long("p,1,1e999,up"), LONG, "line 2, column 'x'"),
    ("NaN", ".csv", long("p,1,0.5,up", "p,2,NaN,up"), LONG,
     "line 3, column 'x': the value is missing"),
    ("a blank number", ".csv", long("p,1,0.5,up", "p,2,,up"), LONG, "line 3, column 'x'.*missing"),
    ("no number at all", ".csv", long("p,1,,up", "p,2,,up"), LONG, "line 2, column 'x'.*missing"),
    ("a huge field", ".csv", long("p,1,0.5,up", f"p,2,{'9' * 10**5}x,up"), LONG,
     "line 3, column 'x': '9{39}…' is not a number"),
    ("a huge label", ".csv", long("p,1,0.5," + "u" * 10**5), LONG,
     "line 2, column 'label': a text of 100,000 characters"),
    ("a text in a wide table", ".csv", wide("up,1,2", "down,3,x"), WIDE, "line 3, column 'b'"),
    ("words in a wide table", ".csv", wide("up,1,u", "down,3,v"), WIDE,
     "line 2, column 'b': a text"),
    ("unequal rows of a wide table", ".csv", wide("up,1,2", "down,3,"), WIDE,
     "line 3, column 'b': the value is missing"),
    ("ids as a feature", ".csv",
     long(*(f"p,{i},word{i},up" for i in range(300))), LONG, "column 'x': .* 300 different names"),
    # Order
    ("an id comes back", ".csv", long("p,1,1,up", "q,1,1,down", "p,0,1,up"), LONG,
     r"line 4, column 'id': 'p' comes back .* line 2\).*--sort"),
    ("trials counted for each person", ".csv", TRIALS, replace(LONG, id="trial"),
     r"line 8, column 'trial': 1 comes back .* line 3, with another 'who'\); wanted one column "
     "that distinguishes all sequences, as 'trial' and 'who' do together$"),
    ("rows in any order", ".csv",
     b"who,id,t,x,label\n"
     + b"".join(b"%d,%d,%d,1,up\n" % (i % 5, i % 3, i * 5 % 12) for i in range(12)),
     LONG, r"line 5, column 'id': 0 comes back .* line 2\); wanted .*--sort"),
    ("time runs back", ".csv", long("p,2,1,up", "p,1,1,up"), LONG, "line 3, column 't'.*--sort"),
    ("a time twice", ".csv", long("p,1,1,up", "p,1,1,up"), LONG,
     "line 3, column 't': the time 1 comes twice"),
    ("no time", ".csv", long("p,1,1,up", "p,,1,up"), LONG,
     "line 3, column 't': the time is missing"),
    ("no id", ".csv", long("p,1,1,up", ",2,1,up"), LONG, "line 3, column 'id': the id is missing"),
    ("no date", ".csv", long("p,2024-01-01,1,up", "p,yesterday,1,up"), LONG,
     "line 3, column 't': 'yesterday' is not a time"),
    ("an ambiguous date", ".csv", long("p,01/02/2024,1,up"), LONG,
     "line 2, column 't': the date '01/02/2024' can be read in two ways"),
    # Answers
    ("two labels of a sequence", ".csv", long("p,1,1,up", "p,2,1,down"), LONG,
     "line 3, column 'label': 'down', and 'up' earlier"),
    ("no label", ".csv", long("p,1,1,", "q,1,1,up"), LONG, "line 2, column 'label'.*missing"),
    ("no tag", ".csv", long("p,1,1,up", "p,2,1,"), TAG, "line 3, column 'label'.*missing"),
    ("a series of words", ".csv", long("p,1,1,up", "p,2,high,up"), SERIES, "line 3, column 'x'"),
    ("an infinite series", ".csv", long("p,1,1,up", "p,2,inf,up"), SERIES, "line 3, column 'x'"),
    # JSON Lines
    ("half an object", ".jsonl", lines({"id": 1}, '{"id": 2, "x"'), NESTED, "line 2: "),
    ("an array", ".jsonl", lines("[1, 2]"), NESTED, "line 1: found a list; wanted an object"),
    ("JSON over lines", ".jsonl", b'[\n{"id": 1}\n]', NESTED, "line 1: .*not JSON Lines"),
    ("a key twice", ".jsonl", b'{"id": 1, "id": 2}', NESTED, "line 1: the key 'id' comes twice"),
    ("keys that differ in blanks", ".jsonl", b'{"id": 1, " x": [1]}\n{"id": 2, "x": [1]}', NESTED,
     "the keys ' x' and 'x' differ in blanks alone"),
    ("endless lists", ".jsonl", b'{"x": ' + b"[" * 10**5, NESTED, "line 1: "),
    ("lists of unequal lengths", ".jsonl",
     lines({"id": 1, "a": [1, 2], "b": [1, 2]}, {"id": 2, "a": [1], "b": [1, 2]}),
     Roles(features=("a", "b")), "line 2, column 'b': 2 values, and 1 in 'a'"),
    ("an empty list", ".jsonl", lines({"id": 1, "x": [1], "label": "u"},
     {"id": 2, "x": [], "label": "v"}), NESTED, "line 2, column 'x': an empty list"),
    ("no list", ".jsonl", lines({"id": 1, "x": [1], "label": "u"}, {"id": 2, "label": "v"}), NESTED,
     "line 2, column 'x': the value is missing; wanted a list"),
    ("a number instead", ".jsonl", lines({"id": 1, "x": 1, "label": "u"}), NESTED,
     "line 1, column 'x': a single value; wanted a list"),
    ("a text in a list", ".jsonl", lines({"id": 1, "x": [1, "2"], "label": "u"}), NESTED,
     "line 1, column 'x', value 2: '2' is a text"),
    ("null in a list", ".jsonl", lines({"id": 1, "x": [1, None], "label": "u"}), NESTED,
     "line 1, column 'x', value 2: the value is missing"),
    ("an id twice", ".jsonl",
     lines(*[{"id": i, "x": [1], "label": "u"} for i in (1, 2, 1)]), NESTED,
     "line 3, column 'id': 1 is the id of line 1 too"),
    ("an endless number", ".jsonl", b'{"id": 1, "x": [1' + b"0" * 9999 + b']}', NESTED,
     "line 1"),
    # Parquet and Arrow
    ("a cut parquet", ".parquet", parquet_of(id=[1], x=[[1.0]])[:-9], NESTED,
     "not a whole file"),
    ("no parquet", ".parquet", GOOD, NESTED, "not a whole file"),
    ("a cut arrow", ".arrow", arrow_of(id=[1], x=[[1.0]])[:99], NESTED, "not a whole file"),
    ("a cut stream", ".arrow", stream_of(id=[1] * 99, x=[[1.0]] * 99)[:-600], NESTED,
     "not a whole file"),
    ("no arrow", ".feather", GOOD, NESTED, "not a whole file"),
    ("a name that is no text", ".arrow", stream_of(abcdefgh=[1]).replace(b"abcdefgh", b"\x90" * 8),
     NESTED, "the file is damaged .*decode"),
    ("no rows", ".parquet", parquet_of(id=pa.array([], pa.int8())), NESTED,
     "the table has no rows"),
    ("no list in parquet", ".parquet", parquet_of(id=[1, 2], x=[[1.0], None], label=["u", "v"]),
     NESTED, "row 2, column 'x': the list is missing"),
    ("bytes", ".parquet", parquet_of(id=[1], x=[[1.0]], label=[b"u"]), NESTED,
     "column 'label': values of the type binary"),
    ("a struct", ".parquet", parquet_of(id=[1], x=[{"a": 1}], label=["u"]), NESTED,
     "no column 'x'.*the columns are 'id', 'x.a', 'label'"),
    ("a list of structs", ".parquet", parquet_of(id=[1], x=[[{"a": 1}]], label=["u"]), NESTED,
     "no column 'x'.*the columns are 'id', 'x.a', 'label'"),
    # Arrays
    ("no npz", ".npz", b"PK nothing", None, "npz"),
    ("other arrays", ".npz", npz_of(A=np.zeros(3)), None, "found the arrays A"),
    ("labels of another length", ".npz", npz_of(X=np.zeros((3, 2)), y=np.zeros(2)), None,
     "3 examples"),
    ("an infinite array", ".npz", npz_of(X=np.full((1, 2, 1), np.inf)), None, "example 0, step 0"),
    ("a cut npy", ".npy", npy_of(np.zeros((3, 2)))[:-5], None, "cannot be read as .npy"),
    ("a promise of much", ".npy",
     npy_of(np.zeros((3, 2))).replace(b"(3, 2), }       ", b"(3000000, 200000), }"), None, "npy"),
    ("objects", ".npy", npy_of(np.array([None, 1])), None, "cannot be read as .npy.*X.astype"),
    ("a series without steps", ".npy", npy_of(np.zeros((3, 0, 1))), None, "has no steps"),
    ("a column of arrays", ".npz", npz_of(X=np.zeros((3, 2))), LONG, "names a column"),
    ("unequal dimensions", ".ts", b"@data\n1,2:3\n", None, "line 2: dimension 2 has 1 values"),
    ("another kind", ".docx", b"x", None, "unknown kind of file"),
    ("no kind", "", b"x", None, "unknown kind of file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "content", "roles", "wanted"),
    [case[1:] for case in TABLES],
    ids=[case[0] for case in TABLES],
)
def test_malformed(tmp_path, ending, content, roles, wanted):
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="(?s)" + wanted) as error:
        Preparation.fit(read_examples(path, roles))
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < len(str(path)) * 2 + 500, "an error is read on a screen"
    assert list(tmp_path.iterdir()) == [path], "nothing is left behind"


TEXTS = [
    ("empty text", read_documents, b"", "empty"),
    ("text in Latin-1", read_documents, b"one\ntw\xf6", "line 2: byte 3 is 0xf6"),
    ("binary text", read_documents, b"%PDF-1.4\n", "PDF"),
    ("a word without a tag", read_conll, b"Jane B-PER\nslept\n", "line 2: 1 columns in 'slept'"),
    ("a further column", read_conll, b"a O\nb X O\n", "line 2: 3 columns in 'b X O'; wanted 2"),
    ("an empty column", read_conll, b"a\tO\n\tO\n", r"line 2: column 1 is empty"),
    ("boundaries alone", read_conll, b"-DOCSTART- O\n\n\n", "there are no words"),
]


@pytest.mark.parametrize(
    ("read", "text", "wanted"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS]
)
def test_malformed_text(tmp_path, read, text, wanted):
    path = tmp_path / "file.txt"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*{wanted}"):
        read(path)


def test_a_file_that_unpacks_to_a_hundred_times_its_size(tmp_path, monkeypatch):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(HEADER + b"p,1,0.5,up\n" * 10**5))
    monkeypatch.setattr(content, "CHUNK", 1 << 12)
    monkeypatch.setattr(content, "MAX_UNPACKED", 1 << 16)
    with pytest.raises(ValueError, match=r"a\.csv\.gz: .* bytes of gzip unpack to more than"):
        read_examples(path, LONG)
    monkeypatch.setattr(content, "MAX_UNPACKED", 1 << 28)
    with pytest.raises(ValueError, match="comes twice"):  # a small one is read
        read_examples(path, LONG)


def test_a_parquet_file_of_more_rows_than_memory(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"x": np.zeros(10**6)}), path)
    assert path.stat().st_size < 10**5
    monkeypatch.setattr("os.sysconf", lambda name: 1000)  # a page, and how many there are
    with pytest.raises(ValueError, match=r"a\.parquet needs \d+ GB as arrays; this machine has"):
        read_examples(path, Roles(task="forecast", target="x"))
    lists = pa.array([np.zeros(10**5)] * 3)
    parquet.write_table(pa.table({"x": lists}), path, row_group_size=1)
    with pytest.raises(ValueError, match=r"a\.parquet needs \d+ GB as arrays; this machine has"):
        read_examples(path, Roles())


def test_an_old_way_to_end_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(GOOD.replace(b"\n", b"\r"))
    assert read_examples(path, LONG).y.tolist() == ["up", "down"]
