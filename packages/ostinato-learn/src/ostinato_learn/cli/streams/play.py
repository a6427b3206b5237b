"""The loop of `ostinato stream`: rows in, answers out, snapshots between.

        wait for bytes → whole lines → keys and features → one push a row → answers, written at once
    → from time to time a snapshot

    source.py   bytes              answers.py   the format of answers
    columns.py  key and features   state.py     the file of the snapshots
    rows.py     lines, numbers

A signal takes effect after the rows at hand, or while their answers wait for a reader. A snapshot
always follows whole rows whose answers were written. After a kill between an answer and the next
snapshot, the answer is written again, with the same step; no answer is lost.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato_learn.cli.streams.answers import Form, KeyedStream, Line, plain, probability_of, show
from ostinato_learn.cli.streams.columns import (
    StreamColumns,
    columns_in,
    columns_of,
    columns_of_object,
)
from ostinato_learn.cli.streams.rows import BOM, Csv, Json, Keys, Lines, RowParser, decoded
from ostinato_learn.cli.streams.source import Input, InputFormat
from ostinato_learn.cli.streams.state import KeyState, Snapshot
from ostinato_learn.data.tables.names import known_names
from ostinato_learn.interrupt import Interrupt, Terminated
from ostinato_learn.jobs.failures import BadInput

if TYPE_CHECKING:
    from ostinato_learn.runtime.answers import Answer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """Which rows get an answer, and what happens to invalid lines.

    Attributes:
        on_change: only rows whose label differs from the one before.
        until: only the first row of a key whose probability reaches this; None: all.
        skip: leave out invalid lines; else stop at the first one.
    """

    on_change: bool = False
    until: float | None = None
    skip: bool = False


class StreamPlayer:
    """Plays the rows of an input through a model.

    Args:
        model: a model from `ostinato_learn.runtime.load`.
        source, input, rule: see there.
        as_json: whether answers are JSON in any case; else as the rows are.
        state: the file of the snapshots, or None.
        every: seconds between two snapshots.
    """

    def __init__(
        self,
        model: Any,
        source: InputFormat,
        input: Input,
        rule: Rule,
        as_json: bool = False,
        state: Path | None = None,
        every: float = 5.0,
    ):
        self.model, self.source, self.input, self.rule = model, source, input, rule
        self.as_json, self.state, self.every = as_json, state, every
        self.lines = Lines()
        self.answers: list[str] = []  # not written yet
        self.skipped = 0
        self.sessions: dict[str | None, KeyedStream] = {}
        self.rows: RowParser | None = None
        self.form: Form | None = None
        self.encoding = source.dialect.encoding
        self.saved_at = (time.monotonic(), 1)  # time and line of the last snapshot
        self.may_repeat_header = False
        self.label_texts: dict[Any, str] = {}
        of_rows = model.preparation is not None and model.preparation.reads_words
        if getattr(model, "vocabulary", None) is not None and not of_rows:
            raise BadInput("the model reads text; wanted a model of rows (for text see complete)")
        if model.gives_numbers and (rule.on_change or rule.until is not None):
            flag = "--on-change" if rule.on_change else "--until-confidence"
            raise BadInput(f"{flag} is for labels, and this model answers with numbers")
        self._stream()  # refuses a model that cannot stream, before anything is read
        if state is not None:
            self._resume(state)

    def run(self) -> None:
        """Until the input ends, or every answer is given.

        Raises:
            BadInput: a line is invalid; the lines before it were answered and saved.
        """
        try:
            for piece in self.input.pieces(self._until_snapshot):
                self._play_and_write(self.lines.add(piece))
                if self._until_snapshot() == 0:
                    self._snapshot()
                if self._all_sure():
                    break
            else:
                self._end()
        except (BadInput, Terminated, KeyboardInterrupt):
            if not self.answers:  # else nobody reads them, and the last snapshot stays valid
                self._snapshot()
            raise
        self._snapshot()
        self._tell()

    def _play_and_write(self, lines: Sequence[bytes], ended: bool = True) -> None:
        """Answer whole lines. Answers are kept until all are written."""
        with Interrupt() as interrupt:
            try:
                self._answer(lines, ended)
            finally:
                if show(self.answers, lambda: interrupt.requested):
                    self.answers.clear()

    # ---- rows

    def _answer(self, lines: Sequence[bytes], ended: bool) -> None:
        if lines and self.rows is None:
            lines = self._begin(lines, ended)
        elif lines and self.may_repeat_header:
            lines = self._without_header(lines)
        if lines:
            self._play_rows(lines, ended)

    def _play_rows(self, lines: Sequence[bytes], ended: bool) -> None:
        """Parse all lines at once; if one is invalid, each by itself."""
        assert self.rows is not None
        try:
            texts = decoded(lines, self.encoding)
            whole = [text for text in texts if text]  # a line may be blank
            keys, X = self.rows.parse(whole) if whole else (None, ())
        except (ValueError, csv.Error) as problem:
            if len(lines) == 1:
                self._refuse(lines, ended, str(problem))
                return
            for i, line in enumerate(lines, 1):
                if not self._all_sure():
                    self._play_rows([line], ended or i < len(lines))
            return
        rows_at = [i for i, text in enumerate(texts) if text]
        first = 0  # the first line that is not yet reported as done
        played, refused = self._push(keys, X, 0)
        while refused is not None:
            at = rows_at[played]
            self.lines.done(lines[first:at])
            first = at + 1
            self._refuse(lines[at:first], ended or first < len(lines), refused)
            played, refused = self._push(keys, X, played + 1)
        self.lines.done(lines[first:], ended)

    def _push(self, keys: Keys, X: Any, first: int) -> tuple[int, str | None]:
        """Push the rows one by one; the number of a refused row and the reason, if there is one."""
        assert self.form is not None
        sessions, line = self.sessions, self.form.line()
        for i in range(first, len(X)):
            key = None if keys is None else keys[i]
            session = sessions.get(key)
            if session is None:
                session = self._new(key)
            if session.stream is None:  # an earlier step was sure enough
                continue
            try:
                answer = session.stream.push(X[i])
            except ValueError as problem:
                return i, str(problem)
            if answer is not None:
                self._tell_answer(session, answer, line)
        return len(X), None

    def _tell_answer(self, session: KeyedStream, answer: Answer, line: Line) -> None:
        """Write an answer, if the rule says so."""
        label = answer.label
        if self.rule.on_change and session.answered and label == session.label:
            return
        probability, until = probability_of(answer), self.rule.until
        if until is not None:
            if probability < until:
                return
            session.stream = None
        session.label, session.answered = label, True
        self.answers.append(line(session.shown, answer.n, self._text(label), probability))

    def _new(self, key: str | None) -> KeyedStream:
        assert self.form is not None
        session = KeyedStream(key, self._stream(), self.form.key_text(key))
        self.sessions[key] = session
        return session

    def _stream(self, state: bytes | None = None) -> Any:
        return self.model.stream(state)

    def _text(self, label: Any) -> str:
        assert self.form is not None
        if self.form.numbers:
            return self.form.label_text(label)
        text = self.label_texts.get(label)
        if text is None:
            text = self.label_texts[label] = self.form.label_text(label)
        return text

    def _refuse(self, line: Sequence[bytes], ended: bool, problem: str) -> None:
        """Skip an invalid line, or raise BadInput."""
        if not self.rule.skip:
            raise BadInput(
                f"{self.source.shown}, line {self.lines.number}: {problem}; "
                "--skip leaves such lines out, and counts them"
            )
        self.skipped += 1
        self.lines.done(line, ended)

    def _all_sure(self) -> bool:
        """Whether the only stream has already given its only answer."""
        session = self.sessions.get(None)
        return session is not None and session.stream is None

    # ---- the first line, and the last

    def _begin(self, lines: Sequence[bytes], ended: bool) -> Sequence[bytes]:
        """Find from the first line how rows are read; returns the lines that are rows."""
        blank = 0
        while blank < len(lines) and self._is_above(lines[blank]):
            blank += 1
        self.lines.done(lines[:blank], ended or blank < len(lines))
        lines = lines[blank:]
        if not lines:
            return lines
        is_json = lines[0].removeprefix(BOM.encode()).lstrip()[:1] in (b"{", b"[")
        encoding = "utf-8" if is_json else self.source.dialect.encoding
        try:
            (first,) = decoded(lines[:1], encoding)
        except ValueError as problem:
            raise BadInput(f"{self.source.shown}, line {self.lines.number}: {problem}") from None
        has_header = False
        if is_json:
            columns = columns_of_object(first, self.source, self.model)
        else:
            columns, has_header = columns_in(first, self.source, self.model)
        self._read_as(is_json, columns)
        assert self.form is not None
        header = self.form.header()
        if header is not None:
            self.answers.append(header)
        if has_header:
            self.lines.done(lines[:1], ended or len(lines) > 1)
            return lines[1:]
        return lines

    def _is_above(self, line: bytes) -> bool:
        """Whether a line is blank, or a comment: not a header of the model's columns."""
        line = line.strip(b"\r\xef\xbb\xbf")
        if not line.startswith(b"#"):
            return not line
        fields = line.decode("utf-8", "replace").split(self.source.dialect.between(".csv"))
        return not {*(self.model.columns or ["#"])} <= {field.strip(' "') for field in fields}

    def _without_header(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """The lines without the header, which the writer of a pipe may have repeated."""
        self.may_repeat_header = False
        assert self.rows is not None
        try:
            (first,) = decoded(lines[:1], self.encoding)
        except ValueError:  # the row is refused later
            return lines
        if first != self.source.dialect.between(".csv").join(self.rows.columns.names):
            return lines
        self.lines.done(lines[:1])
        return lines[1:]

    def _read_as(self, is_json: bool, columns: StreamColumns) -> None:
        preparation = self.model.preparation
        missing = preparation is not None and preparation.missing != "error"
        names = [] if preparation is None else known_names(preparation)
        words = preparation is not None and preparation.reads_words
        self.encoding = "utf-8" if is_json else self.source.dialect.encoding
        if is_json:
            self.rows = Json(columns, missing, names, words)
        else:
            self.rows = Csv(columns, missing, names, words, self.source.dialect)
        self.form = Form(is_json or self.as_json, columns.key, self.model.gives_numbers)

    def _end(self) -> None:
        """Handle a last line without an end. With a state it is left for the next command, since
        its writer may not have finished it."""
        rest = self.lines.rest()
        if rest and self.state is not None and self.input.is_file:
            _log.warning("the last line has no end yet, and was left for the next time")
        elif rest:
            self._play_and_write([rest], ended=False)

    def _tell(self) -> None:
        for name, n in (self.rows.n_unknown if self.rows else {}).items():
            if n:
                _log.warning(
                    "%s: %s values of %r were not in the training part and are read as unknown",
                    self.source.shown,
                    f"{n:,}",
                    name,
                )
        if self.skipped:
            _log.warning("%d lines were invalid, and left out", self.skipped)
        if self.rule.until is not None:
            unsure = sum(session.stream is not None for session in self.sessions.values())
            if unsure:
                _log.warning(
                    "%d of %d streams never reached %g", unsure, len(self.sessions), self.rule.until
                )

    # ---- snapshots

    def _until_snapshot(self) -> float | None:
        """Seconds until the next one is due; None if nothing happened since the last one."""
        when, line = self.saved_at
        if self.state is None or self.rows is None or line == self.lines.number:
            return None
        return max(0.0, when + self.every - time.monotonic())

    def _snapshot(self) -> None:
        if self.state is None or self.rows is None:
            return
        snapshot = Snapshot(
            position=self.lines.position,
            line=self.lines.number,
            skipped=self.skipped,
            begins=self.input.begins(self.lines.position),
            rows={
                "json": isinstance(self.rows, Json),
                "columns": list(self.rows.columns.names),
                **self._asked,
            },
            keys=[
                KeyState(s.key, s.stream and s.stream.save(), plain(s.label), s.answered)
                for s in self.sessions.values()
            ],
        )
        snapshot.write(self.state)
        self.saved_at = (time.monotonic(), self.lines.number)

    @property
    def _asked(self) -> dict[str, Any]:
        """What a user asks for, as JSON values: a stream goes on with the same."""
        return {
            "key": self.source.key,
            **asdict(self.source.dialect),
            "na": list(self.source.dialect.na),
            "rule": [self.rule.on_change, self.rule.until],
        }

    def _resume(self, path: Path) -> None:
        """Resume from a snapshot, if there is one.

        Raises:
            BadInput: it belongs to another input, to other rows, or to another model.
        """
        snapshot = Snapshot.read(path)
        if snapshot is None:
            return
        anew = "; give the same as then, or another --state to begin anew"
        for name, value in self._asked.items():
            kept = snapshot.rows.get(name)
            if kept != value:
                raise BadInput(f"{path} was made with {name} {kept}, not {value}{anew}")
        columns = columns_of(list(snapshot.rows["columns"]), self.source, self.model)
        self._read_as(bool(snapshot.rows["json"]), columns)
        self._find_place(snapshot, path)
        assert self.form is not None
        for k in snapshot.keys:
            try:
                stream = None if k.state is None else self._stream(k.state)
            except ValueError as problem:
                raise BadInput(f"{path}: {problem}") from None
            label = tuple(k.label) if isinstance(k.label, list) else k.label
            shown = self.form.key_text(k.key)
            self.sessions[k.key] = KeyedStream(k.key, stream, shown, label, k.answered)
        self.saved_at = (time.monotonic(), self.lines.number)

    def _find_place(self, snapshot: Snapshot, path: Path) -> None:
        """Continue after the last row that was answered."""
        self.skipped = snapshot.skipped
        if (snapshot.begins is None) != (not self.input.is_file):
            was, now = ("a file", "a pipe") if snapshot.begins else ("a pipe", "a file")
            raise BadInput(f"{path} was made with {was}, and {self.source.shown} is {now}")
        if snapshot.begins is None:
            self.lines = Lines(snapshot.position, snapshot.line)
            self.may_repeat_header = True
            return
        _, n = snapshot.begins
        if self.input.size < snapshot.position or self.input.begins(n) != snapshot.begins:
            raise BadInput(
                f"{self.source.shown} is not the file that {path} was made with, or was cut; take "
                "that file, or another --state to begin anew"
            )
        self.input.go_to(snapshot.position)
        self.lines = Lines(snapshot.position, snapshot.line)
