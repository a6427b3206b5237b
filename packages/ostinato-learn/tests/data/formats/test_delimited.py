"""CSV: what is accepted is what Python's csv module reads, field by field."""

from __future__ import annotations

import csv
import io
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zoo.suites import draws

pytest.importorskip("pyarrow")
from ostinato_learn.data.formats.delimited import parse_delimited

FIELD = st.text(st.sampled_from('ab",;\n é'), max_size=6)


def by_csv(content, separator):
    """The rows of the slow reader, and the line at which each begins."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    rows, lines, line = [], [], 1
    for row in reader:
        rows.append(row)
        lines.append(line)
        line = reader.line_num + 1
    return rows, lines


def fields(table):
    return [[v.as_py() for v in table[name]._values] for name in table.names]


@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=6), st.sampled_from(",;\t"))
@draws(200)
def test_rows_that_python_writes_are_read_as_python_reads_them(rows, separator):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(["x", "y", "z"])
    writer.writerows(rows)
    content = file.getvalue()
    table = parse_delimited(content.encode(), "f.csv", separator)
    wanted, lines = by_csv(content, separator)
    assert fields(table) == [list(column) for column in zip(*wanted[1:], strict=True)]
    assert table.lines.tolist() == lines[1:]


@given(st.text(st.sampled_from('a1",\n'), max_size=30))
@example('x,y\n"a\nb",1\n')
@example('x,y\n"a""b",1\n')
@draws(500)
def test_any_text_is_read_as_python_reads_it_or_refused(text):
    """Nothing is read in another way than the strict reader does: neither rows nor lines."""
    content = "x,y\n" + text
    try:
        table = parse_delimited(content.encode(), "f.csv")
    except ValueError as error:
        assert str(error).startswith("f.csv")
        return
    wanted, lines = by_csv(content.rstrip("\n"), ",")
    assert fields(table) == [list(column) for column in zip(*wanted[1:], strict=True)]
    assert table.lines.tolist() == lines[1:]


def test_long_files_are_read_in_blocks(tmp_path):
    rows = [f"s{i},{i / 7!r},{'x' * (i % 50)}" for i in range(60_000)]  # some blocks of pyarrow's
    rows[50_000] = f'"{"y" * 3_000_000}",1,"a\nb"'  # a row larger than a block
    table = parse_delimited(("a,b,c\n" + "\n".join(rows)).encode(), "f.csv")
    assert len(table) == 60_000 and table.lines[[0, 50_000, 50_001]].tolist() == [2, 50_002, 50_004]
    assert table["b"].numbers()[:3].tolist() == [0, 1 / 7, 2 / 7]


@pytest.mark.parametrize("text", ["text,label\n", 'text,n\n"two\nlines, of text",3\n"one",4\n'])
def test_texts_may_have_several_lines(text):
    """Lines within quotes are rows only if they have numbers where the rows have them."""
    if text == "text,label\n":
        text += '"a line\nand, another",good\n"b",bad\n'
    assert len(parse_delimited(text.encode(), "f.csv")) == 2


def test_a_quoted_separator_before_a_number_does_not_shift_the_columns():
    text = 'a,b,c\n"x,y",1,2\n"p\nq",3,"r\ns"\n'
    assert parse_delimited(text.encode(), "f.csv")["b"].numbers().tolist() == [1, 3]
    with pytest.raises(ValueError, match="line 3, column 'a': a quoted field holds 1 further"):
        parse_delimited(b'a,b,c\n"x,y",1,2\n"p,1,2\nq",3,4\n', "f.csv")


def test_a_name_may_have_several_lines():
    """The first of which may hold a separator of other files, and none of this one."""
    table = parse_delimited(b'"Temperature (C;\nmean)",x\n1,2\n', "f.csv")
    assert table.names == ("Temperature (C;\nmean)", "x")


def test_long_names():
    name = "x" * 200_000
    assert parse_delimited(f'{name},"a ""b"" "\n1,2\n'.encode(), "f").names == (name, 'a "b"')


def test_a_column_without_a_name_is_left_out_and_that_is_said(caplog):
    table = parse_delimited(b",x\n0,1\n1,2\n", "f.csv")
    assert table.names == ("x",)
    assert "f.csv: left out the column without a name" in caplog.text


def test_names_lose_blanks():
    assert parse_delimited(b' id , "x y"\n1,2\n'.replace(b', "', b',"'), "f").names == ("id", "x y")


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["1", "+2", " 3 ", "-4.5", "1e3", ".5", "5."], [1, 2, 3, -4.5, 1000, 0.5, 5]),
        (["1", "", "NA", "nan", "null", "?"], [1] + [None] * 5),
        (["true", "FALSE", ""], [1, 0, None]),
        (["007", "1E-2"], [7, 0.01]),
        (["9007199254740993", "123456789012345678901"], [2.0**53, 123456789012345678901.0]),
        (
            ["0.1", "0.30000000000000004", "5e-324", "2.2250738585072011e-308"],
            [0.1, 0.30000000000000004, 5e-324, 2.2250738585072011e-308],
        ),
    ],
)
def test_numbers(texts, wanted):
    table = parse_delimited(("x,y\n" + "".join(f"{t},0\n" for t in texts)).encode(), "f.csv")
    found = [None if value != value else value for value in table["x"].numbers().tolist()]
    assert found == wanted


@pytest.mark.parametrize("text", ["abc", "1_000", "0x10", "1,5", "--1", "1e", "e5", "٣", "1 2"])
def test_no_numbers(text):
    table = parse_delimited(f'x,y\n1,0\n"{text}",0\n2,0\n'.encode(), "f.csv")
    assert not table["x"].is_numbers()
    with pytest.raises(ValueError, match=r"f\.csv, line 3, column 'x'"):
        table["x"].numbers()


def test_arrow_keeps_nothing_of_pythons_memory(monkeypatch):
    """Its threads may free the input when the interpreter ends, and abort if it is Python's."""
    from pyarrow import csv as arrow_csv

    kept, read_csv = [], arrow_csv.read_csv

    def keep(source, **options):
        kept.append(source)
        return read_csv(source, **options)

    monkeypatch.setattr(arrow_csv, "read_csv", keep)
    content = b"id,x\n" + b"a,1\n" * 1000
    before = sys.getrefcount(content)
    assert len(parse_delimited(content, "inline")["x"].numbers()) == 1000
    assert kept
    assert sys.getrefcount(content) == before
