"""How CSV is written: commas before decimals, and other encodings than UTF-8."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data import Roles, read_examples, stream_examples
from ostinato_learn.data.formats.delimited import parse_delimited
from ostinato_learn.data.formats.dialect import Dialect
from ostinato_learn.data.tables import blocks
from zoo.suites import draws

pytest.importorskip("pyarrow")

PLAIN = "id;t;größe;art\na;0;1.5;öl\na;1;-0.25;öl\nb;0;3;luft\nb;1;+4e-1;luft\n"
NAMES = {"id": "id", "time": "t", "features": ("größe",), "target": "art", "task": "classify"}
ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-16-be", "cp437")


def _values(examples):
    """All steps of all sequences, `[ΣT, F]`."""
    return np.concatenate(list(examples.sequences))


def _same(a, b):
    assert _values(a).tolist() == _values(b).tolist()
    assert a.y.tolist() == b.y.tolist()
    assert a.ids.tolist() == b.ids.tolist()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_as_the_plain_file(tmp_path, monkeypatch, encoding, decimal, ends):
    """Whole, and in blocks that end within a character."""
    plain, other = tmp_path / "plain.csv", tmp_path / "other.csv"
    plain.write_text(PLAIN, encoding="utf-8")
    content = PLAIN.replace(".", decimal).replace("\n", ends).encode(encoding)
    other.write_bytes(content)
    wanted = read_examples(plain, Roles(**NAMES, separator=";"))
    roles = Roles(**NAMES, separator=";", decimal=decimal, encoding=encoding)
    _same(read_examples(other, roles), wanted)
    for size in (3, 7, 32):
        monkeypatch.setattr(blocks, "BLOCK", size)
        for source in (other, io.BytesIO(content)):
            parts = list(stream_examples(source, roles))
            assert np.concatenate([*map(_values, parts)]).tolist() == _values(wanted).tolist()
            assert [y for p in parts for y in p.y.tolist()] == wanted.y.tolist()
            assert [i for p in parts for i in p.ids.tolist()] == wanted.ids.tolist()


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=8))
@draws(100)
def test_numbers_with_commas(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("numbers") / "numbers.csv"
    rows = [f"a;{number!r}".replace(".", ",") for number in numbers]
    path.write_text("\n".join(["id;x", *rows]) + "\n")
    found = read_examples(path, Roles(id="id", features=("x",), separator=";", decimal=","))
    assert _values(found)[:, 0].tolist() == np.array(numbers, np.float32).tolist()


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        ("1.234,5", "--thousands ."),
        ("1.234", "--thousands ."),
        ("1,2,3", "nothing before thousands"),
        ("1'234,5", "nothing before thousands"),
        ("·5", "nothing before thousands"),
    ],
)
def test_what_precedes_thousands_is_not_a_number(tmp_path, number, wanted):
    path = tmp_path / "thousands.csv"
    path.write_text(f"id;x\na;1,5\na;{number}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"line 3, column 'x'.*{number}.*{re.escape(wanted)}"):
        read_examples(path, Roles(id="id", features=("x",), separator=";", decimal=","))


def test_missing_values_dates_and_names_stay_what_they_are(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("id;day;x;kind\n1,5;01.02.2024;1,5;a,b\n1,5;02.02.2024;.;a,b\n")
    roles = Roles(
        id="id",
        time="day",
        features=("x", "kind"),
        time_format="day-first",
        separator=";",
        decimal=",",
    )
    found = read_examples(path, roles)
    assert found.ids.tolist() == ["1,5"]
    assert found.categories == {"kind": ("a,b",)}
    assert np.isnan(_values(found)[1, 0])
    assert str(found.times[0][1])[:10] == "2024-02-02"


ABOVE = {
    "nothing": ("", {}),
    "comments": ("# made by a logger, 2024\n# units: s, m\n", {}),
    "one comment": ('# 5" disk\n', {}),
    "lines": ("Glucose, of Ann\nserial 7\n\n", {"skip_lines": 3}),
    "lines and comments": ("Report\n# a,b\n", {"skip_lines": 1}),
}


@pytest.mark.parametrize("above", ABOVE)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lines_above_the_header_are_left_out(tmp_path, monkeypatch, above, ends):
    """And lines keep their numbers in the file."""
    head, written = ABOVE[above]
    content = (head + "id,t,x\na,0,1\na,1,2\nb,0,3\n").replace("\n", ends)
    path = tmp_path / "a.csv"
    path.write_text("\ufeff" + content, "utf-8", newline="")
    roles = Roles(id="id", time="t", features=("x",), **written)
    found = read_examples(path, roles)
    assert _values(found)[:, 0].tolist() == [1, 2, 3]
    monkeypatch.setattr(blocks, "BLOCK", len(head) + 30)
    parts = list(stream_examples(io.BytesIO(content.encode()), roles))
    assert np.concatenate([*map(_values, parts)])[:, 0].tolist() == [1, 2, 3]
    place = f"line {head.count(chr(10)) + 4}, column 'x'"
    assert place in found.place(2, 0) and place in parts[-1].place(len(parts[-1].values) - 1, 0)
    path.write_text(content.replace("b,0,3", "b,0,x"), "utf-8", newline="")
    with pytest.raises(ValueError, match=place):
        read_examples(path, roles)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("#id,x\na,1\n", ("#id", "x")),  # a header that is marked, as some programs do
        ("# by a logger\n#id,x\na,1\n", ("#id", "x")),
        ("# Ann, Bob\nid,x\na,1\n", ("id", "x")),
        ("# Ann, Bob\nid,x\na,b\n", ("# Ann", "Bob")),  # nothing tells which it is
        ("#x\n1\n2\n", ("#x",)),
        ("#id,x,y\na,NA,b\nc,1,d\n", ("#id", "x", "y")),
        ("#id,x,y\na,,b\nc,1,d\n", ("#id", "x", "y")),
    ],
)
def test_a_header_may_begin_like_a_comment(content, names):
    text = Dialect().without_head(content.encode(), ",")
    assert text.count(b"\n") == content.count("\n")
    assert parse_delimited(text, "f.csv").names == names


@pytest.mark.parametrize("above", ["Glucose, of Ann\nserial 7\n", "Report\n\n"])
def test_lines_above_a_header_are_reported(tmp_path, above):
    path = tmp_path / "a.csv"
    path.write_text(above + "id,t,x\n" + "a,0,1\n" * 9)
    with pytest.raises(ValueError, match=r"header is line 3, .*skip_lines=2 \(--skip-lines 2\)"):
        read_examples(path, Roles(id="id", features=("x",)))


def test_declared_markers_are_missing_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,x,kind\na,Low,up\na, n/a ,off\na,3,Low\n")
    roles = Roles(id="id", features=("x", "kind"), na=("Low", "n/a", "off"))
    found = read_examples(path, roles)
    assert np.isnan(_values(found)).tolist() == [[True, False], [True, True], [False, True]]
    with pytest.raises(ValueError, match=r"'Low' is not a number; .* na=\('Low',\) \(--na Low\)"):
        path.write_text("id,x\na,Low\na,2\na,3\n")
        read_examples(path, Roles(id="id", features=("x",)))


@pytest.mark.parametrize(
    ("text", "thousands", "decimal", "wanted"),
    [
        ("1,234.5", ",", ".", 1234.5),
        ("-1,234,567", ",", ".", -1234567),
        ("1.234,5", ".", ",", 1234.5),
        ("1.234", ".", ",", 1234),
        ("1 234,5", " ", ",", 1234.5),
        ("12'345", "'", ".", 12345),
        ("999.5", ",", ".", 999.5),
        ("12,34", ",", ".", None),
        ("1,2345", ",", ".", None),
        ("1.23.4", ".", ",", None),
    ],
)
def test_signs_between_thousands(tmp_path, text, thousands, decimal, wanted):
    path = tmp_path / "a.csv"
    path.write_text(f"id;x\na;{text}\na;7\na;\n", "utf-8")
    roles = Roles(id="id", features=("x",), separator=";", decimal=decimal, thousands=thousands)
    if wanted is None:
        with pytest.raises(ValueError, match=r"line 2, column 'x': .* is not a number"):
            read_examples(path, roles)
        return
    values = _values(read_examples(path, roles))[:, 0]
    assert values[0] == wanted and values[1] == 7 and np.isnan(values[2])


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (
            {"decimal": ",", "separator": ","},
            r"2 questions.*--separator ';'|one column.*--separator ';'",
        ),
        ({"encoding": "klingon"}, "encoding is 'klingon', which is not known; wanted"),
        ({"decimal": "comma"}, "decimal is 'comma'; wanted '.' or ','"),
        ({"thousands": "."}, "thousands is '.'; wanted a sign that is not before decimals"),
        ({"separator": "::"}, "separator is '::'; wanted one character"),
        ({"encoding": None}, "encoding is None, which is not known"),
        ({"encoding": "undefined"}, "encoding is 'undefined', which is not known"),
        ({"encoding": "hex"}, "encoding is 'hex', which is not known"),
        ({"encoding": "ascii"}, r"file.csv: the file is not in the encoding ascii .*--encoding"),
    ],
)
def test_refused(tmp_path, written, wanted):
    path = tmp_path / "file.csv"
    path.write_text(PLAIN, encoding="utf-8")
    for read in (read_examples, lambda *given: list(stream_examples(*given))):
        with pytest.raises(ValueError, match=wanted):
            read(path, Roles(**NAMES, **written))


@pytest.mark.parametrize("written", [{"separator": ";"}, {"decimal": ","}, {"encoding": "cp1252"}])
def test_of_csv_alone(written):
    with pytest.raises(ValueError, match=f"f.jsonl: {next(iter(written))} is for .csv and .tsv"):
        Dialect(**written).check(".jsonl", "f.jsonl")
