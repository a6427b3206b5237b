"""Sheets of Excel give the examples of the CSV file that would be exported from them."""

from __future__ import annotations

import datetime
import io
import zipfile

import numpy as np
import pytest

from ostinato_learn.data import Roles, read_examples, stream_examples

openpyxl = pytest.importorskip("openpyxl")
pytest.importorskip("pyarrow")

DAY = datetime.datetime(2024, 1, 31, 9, 5)
ROLES = Roles(id="trip", time="when", features=("x", "road"), target="mode", task="classify")


def written(path, rows, *others):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title, cells in others:
        sheet = book.create_sheet(title)
        for row in cells:
            sheet.append(row)
    book.save(path)


ROWS = [
    ["trip", "when", "x", "road", "mode", None],
    [7, DAY, 0.1, "a, b", "walk", None],
    [7, DAY + datetime.timedelta(minutes=1), None, 'say "hi"', "walk", None],
    [8, DAY, 1e300 / 1e299, "two\nlines", "bike", None],
    [None],
]


def test_cells_are_values(tmp_path, caplog):
    path = tmp_path / "a.xlsx"
    written(path, ROWS, ("empty", []), ("notes", [["of Ann"]]))
    for found in (read_examples(path, ROLES), *stream_examples(path, ROLES)):
        assert found.ids.tolist() == [7, 8] and found.y.tolist() == ["walk", "bike"]
        np.testing.assert_array_equal(found.values[:, 0], np.float32([0.1, np.nan, 10]))
        assert found.categories == {"road": ("a, b", 'say "hi"', "two lines")}
        assert str(found.times[0][1])[:19] == "2024-01-31T09:06:00"
        assert found.place(2, 0).endswith("line 4, column 'x'")  # the number of the row
    assert "read the sheet 'Sheet'; there are also 'notes'" in caplog.text


def test_sheets_that_people_have(tmp_path):
    """A title and an empty row above the header, and words for missing values."""
    path = tmp_path / "a.xlsx"
    rows = [["Glucose of Ann"], [], ["id", "x"], ["s", 1.5], ["s", "Low"], ["s", "n/a"]]
    written(path, rows)
    with pytest.raises(ValueError, match=r"skip_lines=2 \(--skip-lines 2\)"):
        read_examples(path, id="id", features=("x",))
    with pytest.raises(ValueError, match=r"line 5, column 'x': 'Low' is not a number"):
        read_examples(path, id="id", features=("x",), skip_lines=2, na=("n/a",))
    found = read_examples(path, id="id", features=("x",), skip_lines=2, na=("Low", "n/a"))
    np.testing.assert_array_equal(found.values[:, 0], [1.5, np.nan, np.nan])
    with pytest.raises(ValueError, match=r"separator is for .csv and .tsv files"):
        read_examples(path, id="id", separator=";")


def test_what_is_no_workbook_is_refused(tmp_path):
    path = tmp_path / "a.xlsx"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/workbook.xml", b"0" * (1 << 29))
    for content, message in (
        (b"id,x\na,1\n", "a.xlsx: not a whole Excel file"),
        (b"PK\x03\x04" + bytes(99), "a.xlsx: not a whole Excel file"),
        (archive.getvalue(), r"bytes of .xlsx unpack to more than"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_examples(path, ROLES)
    written(path, [])
    with pytest.raises(ValueError, match=r"a.xlsx: the sheets have no cells; wanted a table"):
        read_examples(path, ROLES)
