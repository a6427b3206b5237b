"""Spreadsheets of Excel (.xlsx), read as the CSV file that would be exported from them."""

from __future__ import annotations

import csv
import datetime
import io
import logging
import zipfile
from typing import Any

from ostinato.internal import needs
from ostinato_learn.data.formats.content import check_unpacked

ENDING = ".xlsx"

_log = logging.getLogger(__name__)


def as_csv(content: bytes, source: str) -> bytes:
    """The first sheet that has cells as CSV in UTF-8, a line for each of its rows.

    Cells of a formula have the value that Excel saved with it.

    Raises:
        ValueError: the file is damaged, packs far more than it holds, or has no cells.
        ModuleNotFoundError: openpyxl is not installed.
    """
    with needs("ostinato-learn[excel]", "openpyxl"):
        import openpyxl
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        check_unpacked(unpacked, len(content), source, ENDING)
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = {sheet.title: list(sheet.values) for sheet in book.worksheets}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as problem:
        if isinstance(problem, ValueError) and str(problem).startswith(source):
            raise
        raise ValueError(f"{source}: not a whole Excel file ({problem})") from None
    filled = {name: rows for name, rows in sheets.items() if any(map(_is_filled, rows))}
    if not filled:
        raise ValueError(f"{source}: the sheets have no cells; wanted a table")
    name, rows = next(iter(filled.items()))
    if len(filled) > 1:
        _log.warning(
            "%s: read the sheet %r; there are also %s",
            source,
            name,
            ", ".join(map(repr, list(filled)[1:])),
        )
    while not _is_filled(rows[-1]):
        rows.pop()
    width = max(i + 1 for row in rows for i, cell in enumerate(row) if cell is not None)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    is_above = any(len(row) >= width and None not in row[:width] for row in rows)
    for row in rows:
        cells = [*row, *[None] * width][:width]
        is_above = is_above and None in cells  # a title has fewer fields than the header
        while is_above and cells and cells[-1] is None:
            cells.pop()
        if _is_filled(row):
            writer.writerow([_written(cell) for cell in cells])
        else:
            text.write("\n")
    return text.getvalue().encode()


def _is_filled(row: Any) -> bool:
    return any(cell is not None for cell in row)


def _written(cell: Any) -> str:
    """A cell as text, which is read as the same value."""
    if cell is None:
        return ""
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(" ")
    return " ".join(cell.split()) if isinstance(cell, str) else str(cell)
