"""The rows of a CSV or TSV file, checked before they are parsed.

pyarrow parses fast and tolerates errors: an unclosed quote swallows rows, text that is not UTF-8
becomes bytes, a wrong separator makes one wide column. So the structure is checked first, over all
bytes at once:

    quotes      every second one opens a field, the others close one; each is at an end of a field
                or is one of a doubled pair
    rows        line ends outside of quotes
    fields      separators outside of quotes; in each row as many as in the header
"""

from __future__ import annotations

import itertools
import shlex
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data.formats.arrow import owned
from ostinato_learn.data.formats.content import MAX_ROW, check_width, line_of
from ostinato_learn.data.formats.dialect import Dialect
from ostinato_learn.data.formats.numbers import is_number
from ostinato_learn.data.formats.recognize import SEPARATORS
from ostinato_learn.data.questions import OpenQuestion
from ostinato_learn.data.tables.column import place_of
from ostinato_learn.data.tables.table import Column, Table, Text, unnamed

_QUOTE, _NEWLINE = ord('"'), ord("\n")


def parse_delimited(
    content: bytes,
    source: str,
    separator: str = ",",
    skipped: int = 0,
    dialect: Dialect | None = None,
) -> Table:
    """A table of texts, whose types are found out when they are used.

    Args:
        content: UTF-8, lines end with a newline.
        source: the file's name, for messages.
        separator: one character.
        skipped: the number of lines of the file between the header and the rows of `content`.
        dialect: how numbers and missing values are written.

    Raises:
        ValueError: a quote is not closed; a row has another number of fields than the header; the
            separator is another; the header is missing, alone, or names a column twice.

    Example:
        >>> from ostinato_learn.data.formats.delimited import parse_delimited
        >>> table = parse_delimited(b"id,x\\na,1\\na,2.5\\n", "inline")
        >>> table.names, table["x"].numbers().tolist()
        (('id', 'x'), [1.0, 2.5])
    """
    layout = _Layout.of(content, source, separator, skipped)
    with needs("ostinato-learn[tables]", "pyarrow"):
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import csv as arrow_csv
    keys = [str(i) for i in range(len(layout.names))]
    parsed = arrow_csv.read_csv(
        pa.BufferReader(owned(memoryview(content)[layout.body :])),
        read_options=arrow_csv.ReadOptions(
            column_names=keys, block_size=max(1 << 20, 2 * layout.longest)
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=separator, newlines_in_values=layout.has_quotes
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(keys, pa.string()),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    if len(parsed) != len(layout.lines):
        raise ValueError(
            f"{source}: parsed {len(parsed)} rows where {len(layout.lines)} were counted; the file "
            "has line ends or quotes that can be read in two ways"
        )

    def place(row: int) -> str:
        return f"{source}, line {layout.lines[row]}"

    dialect = replace(dialect or Dialect(), separator=separator)
    markers = pa.array(dialect.na, pa.string())
    columns: dict[str, Column] = {}
    for name, values in zip(layout.names, parsed.columns, strict=True):
        if dialect.na:
            is_missing = pc.is_in(pc.utf8_trim_whitespace(values), value_set=markers)
            values = pc.if_else(is_missing, "", values)
        columns[name] = Text(name, place_of(place, name), values, untyped=True, dialect=dialect)
    return Table(source, "line", layout.lines, unnamed(columns, source))


@dataclass(frozen=True)
class _Layout:
    """Where the rows of a file are.

    Attributes:
        names: of the columns.
        body: the byte at which the rows begin.
        lines: the line at which each row begins, `[N]`.
        longest: bytes of the longest row.
        has_quotes: whether any field is quoted, and so may go over several lines.
    """

    names: tuple[str, ...]
    body: int
    lines: np.ndarray
    longest: int
    has_quotes: bool

    @staticmethod
    def of(content: bytes, source: str, separator: str, skipped: int) -> _Layout:
        content = content if content.endswith(b"\n") else content + b"\n"
        data = np.frombuffer(content, np.uint8)
        quotes = np.flatnonzero(data == _QUOTE)
        separators = _outside(np.flatnonzero(data == ord(separator)), quotes)
        newlines = np.flatnonzero(data == _NEWLINE)
        scan = _Scan(content, source, separator, skipped, quotes, separators)
        scan.check_separator()
        scan.check_quotes()
        ends = _outside(newlines, quotes)
        starts = np.concatenate([[0], ends[:-1] + 1])
        lines = np.searchsorted(newlines, starts) + 1
        starts, ends, lines = _without_blank_ends(starts, ends, lines)
        lines[1:] += skipped
        scan.check_lines(starts, ends, lines, scan.above(starts, ends, lines))
        names = scan.header(starts[0], ends[0], lines[0])
        if len(starts) == 1:
            raise ValueError(f"{source}: a header and no rows below it; wanted at least one row")
        scan.check_fields(ends, lines, names, scan.above(starts, ends, lines))
        scan.check_swallowed(starts, ends, newlines, names)
        return _Layout(
            names,
            int(starts[1]),
            lines[1:],
            int((ends - starts).max()) + 1,
            len(quotes) > 0,
        )


@dataclass(frozen=True)
class _Scan:
    """The special characters of a file: positions of quotes, and of separators outside quotes."""

    content: bytes
    source: str
    separator: str
    skipped: int  # lines between the header and the rows
    quotes: np.ndarray
    separators: np.ndarray

    def check_separator(self) -> None:
        """Another character may separate, if this one is not in the header.

        The quotes of such a file would seem to be wrong: they are not next to its separators.
        """
        begin = len(self.content) - len(self.content.lstrip(b"\n"))
        header = self.content[begin : self.content.find(b"\n", begin)].decode()
        is_whole = header.count('"') % 2 == 0  # no quoted name continues in the next line
        if is_whole and self.separator not in header:
            self._check_header(header, 1 + begin)

    def check_quotes(self) -> None:
        """Raise ValueError unless each quote is at an end of a field, or doubled within one."""
        quotes = self.quotes
        if len(quotes) == 0:
            return
        data = np.frombuffer(b"\n" + self.content + b"\n", np.uint8)  # a neighbour on both sides
        limits = np.array([ord(self.separator), _NEWLINE], np.uint8)
        opening, closing = quotes[0::2], quotes[1::2]
        opens = np.isin(data[opening], limits)  # data is shifted: the byte before
        opens[1:] |= opening[1:] == closing[: len(opening) - 1] + 1
        closes = np.isin(data[closing + 2], limits)
        following = opening[1:][: len(closing)]
        closes[: len(following)] |= following == closing[: len(following)] + 1
        wrong_opening = np.flatnonzero(~opens)[:1]
        wrong_closing = np.flatnonzero(~closes)[:1]
        if len(wrong_opening) and (not len(wrong_closing) or wrong_opening[0] <= wrong_closing[0]):
            raise ValueError(
                f"{self._place(int(opening[wrong_opening[0]]))}: a quote within a field; wanted "
                'the whole field in quotes, and each quote within it doubled: "a ""b"" c"'
            )
        if len(wrong_closing):
            raise self._unclosed(int(wrong_closing[0]))
        if len(opening) > len(closing):
            raise self._unclosed(len(closing))

    def above(self, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> int:
        """The lines above the header, where most rows have other numbers of fields than the first.

        Then the header may be the first line with as many, and the lines above it something else.
        """
        counts = self._fields_of(ends)
        usual = int(np.bincount(counts).argmax())
        i = int(np.argmax(counts == usual))
        if counts[0] == usual or i > len(counts) // 2:
            return 0
        return int(lines[i]) - 1

    def check_lines(
        self, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray, above: int
    ) -> None:
        """No line is empty, none is too long, and none has a return within it."""
        blank = np.flatnonzero(starts == ends)
        if len(blank):
            raise _refusal(
                f"{self.source}, line {lines[blank[0]]}: an empty line; wanted a row in each line, "
                "and an id that distinguishes the sequences",
                above,
            )
        longest = int((ends - starts).argmax())
        if ends[longest] - starts[longest] > MAX_ROW:
            raise ValueError(
                f"{self.source}, line {lines[longest]}: a row of "
                f"{ends[longest] - starts[longest]:,} bytes; wanted at most {MAX_ROW:,}"
            )
        if (position := self.content.find(b"\r")) >= 0:
            raise ValueError(
                f"{self._place(position)}: a carriage return within a line; wanted lines that "
                "end with a newline, or with both"
            )

    def header(self, start: int, end: int, line: int) -> tuple[str, ...]:
        """The names of the columns, without blanks around them."""
        names = tuple(name.strip() for name in self._fields(start, end))
        check_width(len(names), self.source)
        if all(is_number(name) for name in names):
            raise ValueError(
                f"{self.source}, line {line}: the first line has numbers only "
                f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''}); wanted the names of "
                "the columns there"
            )
        decimals = [name for name in names if "." in name and is_number(name)]
        if 2 * len(decimals) > len(names):
            raise ValueError(
                f"{self.source}, line {line}: the first line holds numbers ({decimals[0]}, …), as "
                "if it were a row; wanted the names of the columns there"
            )
        seen: dict[str, int] = {}
        for i, name in enumerate(names, 1):
            if name and name in seen:
                raise ValueError(
                    f"{self.source}, line {line}: the columns {seen[name]} and {i} have the same "
                    f"name {name!r}; wanted a name of its own for each"
                )
            seen[name] = i
        return names

    def _fields_of(self, ends: np.ndarray) -> np.ndarray:
        """The number of fields of each row, `[N]`."""
        return np.diff(np.searchsorted(self.separators, ends), prepend=0) + 1

    def check_fields(
        self, ends: np.ndarray, lines: np.ndarray, names: tuple[str, ...], above: int
    ) -> None:
        """Each row has as many fields as the header."""
        counts = self._fields_of(ends)
        wrong = np.flatnonzero(counts != len(names))
        if not len(wrong):
            return
        count = int(counts[wrong[0]])
        where = f"{self.source}, line {lines[wrong[0]]}"
        others = f" ({len(wrong):,} such rows)" if len(wrong) > 1 else ""
        if count < len(names):
            problem = f"column {names[count]!r} is missing: {count} fields"
        else:
            problem = f"a field after the last column {names[-1]!r}: {count} fields"
        raise _refusal(
            f"{where}: {problem}, the header has {len(names)}{others}; wanted as many, separated "
            f"by {self.separator!r}, and a text with {self.separator!r} in it in quotes",
            above,
        )

    def check_swallowed(
        self, starts: np.ndarray, ends: np.ndarray, newlines: np.ndarray, names: tuple[str, ...]
    ) -> None:
        """No quoted field holds lines that are rows: a quote too many joins rows silently.

        A field may have several lines (a review, an address). They are rows if each has the
        number of fields of a row, and numbers where the first row has them.
        """
        if len(self.quotes) == 0 or len(names) == 1:
            return
        n_lines = np.searchsorted(newlines, ends) - np.searchsorted(newlines, starts) + 1
        separator = self.separator.encode()
        first = self._fields(int(starts[1]), int(ends[1]))
        numbers = [i for i, field in enumerate(first) if is_number(field)]
        if not numbers:
            return
        for row in np.flatnonzero(n_lines > 1).tolist():
            lines = self.content[starts[row] : ends[row]].split(b"\n")
            fields = [line.split(separator) for line in lines]
            if all(
                len(parts) == len(names) and all(is_number(parts[i].strip(b'" ')) for i in numbers)
                for parts in fields
            ):
                opened = self.quotes[np.searchsorted(self.quotes, starts[row])]
                raise ValueError(
                    f"{self._place(int(opened))}: a quoted field holds {len(lines) - 1} further "
                    "lines that are rows themselves; wanted its quote closed on its own line"
                )

    def _fields(self, start: int, end: int) -> list[str]:
        """The fields of the row between two bytes, without their quotes."""
        first, last = np.searchsorted(self.separators, [start, end])
        limits = [start - 1, *self.separators[first:last].tolist(), end]
        fields = [self.content[a + 1 : b].decode() for a, b in pairwise(limits)]
        return [f[1:-1].replace('""', '"') if f.startswith('"') else f for f in fields]

    def _check_header(self, header: str, line: int) -> None:
        """One column only: is it that another character separates?"""
        for other in SEPARATORS:
            if other != self.separator and other in header:
                raise OpenQuestion(
                    f"{self.source}, line {line}: one column only, {_short(header)}, with "
                    f"{other!r} in its name; if that separates the columns, give "
                    f"separator={other!r} (--separator {shlex.quote(other)})",
                    separator=other,
                )
        if len(header.split()) > 1 and self._splits_at_blanks(len(header.split())):
            raise ValueError(
                f"{self.source}, line {line}: one column only, {_short(header)}; the columns are "
                f"separated by blanks, wanted {self.separator!r}"
            )

        for other in SEPARATORS:
            if other != self.separator and self._separates_below(other):
                raise OpenQuestion(
                    f"{self.source}, line {line}: one column only, {_short(header)}, and {other!r} "
                    f"in each row below; if that separates the columns, give separator={other!r} "
                    f"(--separator {shlex.quote(other)})",
                    separator=other,
                )

    def _separates_below(self, other: str) -> bool:
        """Whether another character is as often in most of the next rows, as below a title."""
        rows = self.content.split(b"\n", 50)[1:50]
        counts = np.bincount([row.count(other.encode()) for row in rows if row.strip()] or [0])
        usual = int(counts.argmax())
        return usual > 0 and 2 <= 0.9 * counts.sum() <= counts[usual] and not len(self.separators)

    def _splits_at_blanks(self, n: int) -> bool:
        rows = self.content.split(b"\n", 4)[1:4]
        return all(len(row.split()) == n for row in rows if row.strip())

    def _unclosed(self, pair: int) -> ValueError:
        """The error for a quoted field that goes wrong at a pair of quotes."""
        opening, closing = self.quotes[0::2], self.quotes[1::2]
        while pair > 0 and opening[pair] == closing[pair - 1] + 1:  # doubled: it began before
            pair -= 1
        return ValueError(
            f"{self._place(int(opening[pair]))}: the quote that opens here is not closed at the "
            "end of its field; wanted a closing quote before the next separator or line end"
        )

    def _place(self, position: int) -> str:
        number = line_of(self.content, position)
        number += self.skipped if number > 1 else 0
        return f"{self.source}, line {number}{self._column(position)}"

    def _column(self, position: int) -> str:
        """The column of a byte in words; none if quotes or rows go wrong before it."""
        start = self.content.rfind(b"\n", 0, position) + 1
        header = self.content.lstrip(b"\n").partition(b"\n")[0].decode()
        names = header.split(self.separator)
        column = self.content.count(self.separator.encode(), start, position)
        if '"' in header.replace(f'"{self.separator}"', "").strip('"') or column >= len(names):
            return ""
        return f", column {names[column].strip().strip(chr(34)).strip()!r}"


def _refusal(message: str, above: int) -> ValueError:
    """The error for rows that are unlike the first line, perhaps because it is not the header."""
    if not above:
        return ValueError(message)
    return OpenQuestion(
        f"{message}; if the header is line {above + 1}, leave out the lines above it: "
        f"skip_lines={above} (--skip-lines {above})",
        skip_lines=above,
    )


def _outside(positions: np.ndarray, quotes: np.ndarray) -> np.ndarray:
    """The positions outside of quotes: an even number of quotes precedes them."""
    if len(quotes) == 0:
        return positions
    return positions[np.searchsorted(quotes, positions) % 2 == 0]


def _without_blank_ends(*rows: Any) -> tuple[np.ndarray, ...]:
    """Rows without the empty lines at the begin and at the end of the file."""
    starts, ends = rows[0], rows[1]
    full = np.flatnonzero(starts != ends)
    return tuple(row[full[0] : full[-1] + 1] for row in rows)


def _short(text: str) -> str:
    shown = "".join(itertools.islice(text, 40))
    return repr(shown if len(text) <= 40 else shown + "…")
