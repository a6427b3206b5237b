"""The loop of `ostinato stream`: rows in, answers out, snapshots between.

    wait for bytes → whole lines → keys and features → one push a row → answers, written at once
                                                                       → now and then a snapshot

A signal that comes while rows are played takes effect behind them, so that a snapshot is always one
of whole rows whose answers were written. An answer can be written twice (after a kill between it
and the next snapshot), with the same step, and none is lost.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import select
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato.cli.failures import BadInput
from ostinato.cli.stream_answers import Form, Session, plain, probability_of, show
from ostinato.cli.stream_rows import (
    BOM,
    Columns,
    Csv,
    Json,
    Keys,
    Lines,
    Rows,
    begins_with_header,
)
from ostinato.cli.stream_state import KeyState, Snapshot
from ostinato.interrupt import Interrupt, Terminated

BLOCK = 1 << 16  # bytes that are read at once: some thousand rows
HEAD = 4096  # bytes at the beginning of a file by which it is known again

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """Which rows get an answer, and what becomes of lines that are wrong.

    Attributes:
        on_change: only a label that differs from the one before.
        until: only the first of a key whose probability reaches this; None: all.
        skip: leave out lines that are wrong; else stop at the first one.
    """

    on_change: bool = False
    until: float | None = None
    skip: bool = False


@dataclass(frozen=True)
class Source:
    """How the input was described.

    Attributes:
        name: of the file, or "-".
        key: the column of the key, or None.
        names: of the columns; None: the first line has them.
        separator: of CSV.
    """

    name: str
    key: str | None = None
    names: list[str] | None = None
    separator: str = ","

    @property
    def shown(self) -> str:
        return "standard input" if self.name == "-" else self.name


class Input:
    """Bytes from a file, a pipe or a terminal."""

    def __init__(self, handle: int):
        self.handle = handle
        self.is_file = stat.S_ISREG(os.fstat(handle).st_mode)

    def pieces(self, deadline: Callable[[], float | None]) -> Iterator[bytes]:
        """What comes, as it comes; b"" when nothing came until the deadline, in seconds from now
        (None: there is none)."""
        while True:
            if not self.is_file and os.name != "nt":
                ready, _, _ = select.select([self.handle], [], [], deadline())
                if not ready:
                    yield b""
                    continue
            piece = os.read(self.handle, BLOCK)
            if not piece:
                return
            yield piece

    def begins(self, at_most: int) -> tuple[str, int] | None:
        """By what a file is known again: SHA-256 and number of its first bytes."""
        if not self.is_file:
            return None
        content = os.pread(self.handle, min(at_most, HEAD), 0)
        return hashlib.sha256(content).hexdigest(), len(content)

    def go_to(self, position: int) -> None:
        os.lseek(self.handle, position, os.SEEK_SET)

    @property
    def size(self) -> int:
        return os.fstat(self.handle).st_size


class Player:
    """Plays the rows of an input through a model.

    Args:
        model: what `ostinato.runtime.load` gives.
        source, input, rule: see there.
        as_json: whether answers are JSON in any case; else as the rows are.
        state: the file of the snapshots, or None.
        every: seconds between two of them.
    """

    def __init__(
        self,
        model: Any,
        source: Source,
        input: Input,
        rule: Rule,
        as_json: bool = False,
        state: Path | None = None,
        every: float = 5.0,
    ):
        self.model, self.source, self.input, self.rule = model, source, input, rule
        self.as_json, self.state, self.every = as_json, state, every
        self.lines = Lines()
        self.skipped = 0
        self.sessions: dict[str | None, Session] = {}
        self.rows: Rows | None = None
        self.form: Form | None = None
        self.saved_at = (time.monotonic(), 1)  # when, and the line then
        self.may_repeat_header = False
        self.label_texts: dict[Any, str] = {}
        if getattr(model, "vocabulary", None) is not None:
            raise BadInput("the model reads text; wanted one of rows of numbers (see complete)")
        model.stream()  # refuses a model that cannot stream, before anything is read
        if state is not None:
            self._resume(state)

    def run(self) -> None:
        """Until the input ends, or every answer is given.

        Raises:
            BadInput: a line is wrong; what came before it was answered and saved.
        """
        try:
            for piece in self.input.pieces(self._until_snapshot):
                with Interrupt():
                    self._play(self.lines.add(piece))
                if self._until_snapshot() == 0:
                    self._snapshot()
                if self._all_sure():
                    break
            else:
                self._end()
        except (BadInput, Terminated, KeyboardInterrupt):
            self._snapshot()
            raise
        self._snapshot()
        self._tell()

    # ---- rows

    def _play(self, lines: Sequence[bytes], ended: bool = True) -> None:
        """Answer whole lines, and write the answers."""
        answers: list[str] = []
        try:
            if lines and self.rows is None:
                lines = self._begin(lines, ended, answers)
            elif lines and self.may_repeat_header:
                lines = self._without_header(lines)
            if lines:
                self._play_rows(lines, ended, answers)
        finally:
            show(answers)

    def _play_rows(self, lines: Sequence[bytes], ended: bool, answers: list[str]) -> None:
        """All lines at once; if one is wrong, each half by itself."""
        assert self.rows is not None
        if self._all_sure():
            return
        try:
            texts = _decoded(lines)
            whole = [text for text in texts if text]  # a line may be blank
            keys, X = self.rows.parse(whole) if whole else (None, ())
        except (ValueError, csv.Error) as problem:
            if len(lines) == 1:
                self._refuse(lines, ended, str(problem))
                return
            half = len(lines) // 2
            self._play_rows(lines[:half], True, answers)
            self._play_rows(lines[half:], ended, answers)
            return
        played, refused = self._push(keys, X, answers)
        if refused is None:
            self.lines.done(lines, ended)
            return
        at = [i for i, text in enumerate(texts) if text][played]
        last = at == len(lines) - 1
        self.lines.done(lines[:at])
        self._refuse(lines[at : at + 1], ended or not last, refused)
        if not last:
            self._play_rows(lines[at + 1 :], ended, answers)

    def _push(self, keys: Keys, X: Any, answers: list[str]) -> tuple[int, str | None]:
        """One step a row; how many were played, and why the next one was refused, if it was."""
        assert self.form is not None
        sessions, line = self.sessions, self.form.line()
        on_change, until = self.rule.on_change, self.rule.until
        for i, x in enumerate(X):
            key = None if keys is None else keys[i]
            session = sessions.get(key)
            if session is None:
                session = self._new(key)
            if session.stream is None:  # it was sure before
                continue
            try:
                answer = session.stream.push(x)
            except ValueError as problem:
                return i, str(problem)
            label = answer.label
            if on_change and session.answered and label == session.label:
                continue
            probability = probability_of(answer)
            if until is not None:
                if probability < until:
                    continue
                session.stream = None
            session.label, session.answered = label, True
            answers.append(line(session.shown, answer.n, self._text(label), probability))
        return len(X), None

    def _new(self, key: str | None) -> Session:
        assert self.form is not None
        session = Session(key, self.model.stream(), self.form.key_text(key))
        self.sessions[key] = session
        return session

    def _text(self, label: Any) -> str:
        text = self.label_texts.get(label)
        if text is None:
            assert self.form is not None
            text = self.label_texts[label] = self.form.label_text(label)
        return text

    def _refuse(self, line: Sequence[bytes], ended: bool, problem: str) -> None:
        """A line that is wrong."""
        if not self.rule.skip:
            raise BadInput(
                f"{self.source.shown}, line {self.lines.number}: {problem}; "
                "--skip leaves such lines out, and counts them"
            )
        self.skipped += 1
        self.lines.done(line, ended)

    def _all_sure(self) -> bool:
        """Whether the only stream has given its only answer."""
        session = self.sessions.get(None)
        return session is not None and session.stream is None

    # ---- the first line, and the last

    def _begin(self, lines: Sequence[bytes], ended: bool, answers: list[str]) -> Sequence[bytes]:
        """Find out from the first line how rows are read; returns the lines that are rows."""
        blank = 0
        while blank < len(lines) and not lines[blank].strip(b"\r\xef\xbb\xbf"):
            blank += 1
        self.lines.done(lines[:blank], ended or blank < len(lines))
        lines = lines[blank:]
        if not lines:
            return lines
        try:
            (first,) = _decoded(lines[:1])
        except ValueError as problem:
            raise BadInput(f"{self.source.shown}, line {self.lines.number}: {problem}") from None
        is_json = first.lstrip()[:1] in ("{", "[")
        columns, has_header = self._columns(first, is_json)
        self._read_as(is_json, columns)
        assert self.form is not None
        header = self.form.header()
        if header is not None:
            answers.append(header)
        if has_header:
            self.lines.done(lines[:1], ended or len(lines) > 1)
            return lines[1:]
        return lines

    def _without_header(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """Of a pipe that goes on: whoever writes it may have begun with the header again."""
        self.may_repeat_header = False
        assert self.rows is not None
        header = self.source.separator.join(self.rows.columns.names).encode()
        if lines[0].removeprefix(BOM.encode()).rstrip(b"\r") != header:
            return lines
        self.lines.done(lines[:1])
        return lines[1:]

    def _columns(self, first: str, is_json: bool) -> tuple[Columns, bool]:
        """The columns, and whether the first line names them."""
        features, n = feature_names(self.model), self.model.n_features
        key, given = self.source.key, self.source.names
        if is_json:
            names = given or self._names_of_object(first, key)
            if not names:
                if key is not None:
                    raise BadInput("the rows are arrays, which have no column for --key")
                return Columns((), None, tuple(range(n))), False
            return Columns.named(names, key, features, n), False
        fields = next(csv.reader([first], delimiter=self.source.separator))
        fields = [field.strip() for field in fields]
        if given is not None:
            return Columns.named(given, key, features, n), fields == given
        if begins_with_header(fields):
            return Columns.named(fields, key, features, n), True
        if key is not None or features is not None:
            raise BadInput(
                f"{self.source.shown}: the first line names no columns ({first[:60]}); name them "
                "with --columns"
            )
        return Columns.named([str(i + 1) for i in range(len(fields))], key, None, n), False

    def _names_of_object(self, first: str, key: str | None) -> list[str]:
        """The columns of JSON objects: those that the model knows, or those of the first one."""
        features = feature_names(self.model)
        try:
            row = json.loads(first)
        except ValueError as problem:
            raise BadInput(f"{self.source.shown}, line {self.lines.number}: {problem}") from None
        if not isinstance(row, dict):
            return []
        return list(row) if features is None else [*([] if key is None else [key]), *features]

    def _read_as(self, is_json: bool, columns: Columns) -> None:
        preparation = self.model.preparation
        missing = preparation is not None and preparation.missing != "error"
        if is_json:
            self.rows = Json(columns, missing)
        else:
            self.rows = Csv(columns, missing, self.source.separator)
        self.form = Form(is_json or self.as_json, columns.key)

    def _end(self) -> None:
        """The last line may lack its end. With a state it is left for the next time: what writes
        the file may not be done with it."""
        rest = self.lines.rest()
        if not rest:
            return
        if self.state is not None and self.input.is_file:
            _log.warning("the last line has no end yet, and was left for the next time")
            return
        self._play([rest], ended=False)

    def _tell(self) -> None:
        if self.skipped:
            _log.warning("%d lines were wrong, and left out", self.skipped)
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
            rows=self._described(self.rows),
            keys=[
                KeyState(s.key, s.stream and s.stream.save(), plain(s.label), s.answered)
                for s in self.sessions.values()
            ],
        )
        snapshot.write(self.state)
        self.saved_at = (time.monotonic(), self.lines.number)

    def _described(self, rows: Rows) -> dict[str, Any]:
        return {
            "json": isinstance(rows, Json),
            "columns": list(rows.columns.names),
            "key": rows.columns.key,
            "separator": self.source.separator,
            "rule": [self.rule.on_change, self.rule.until],
        }

    def _resume(self, path: Path) -> None:
        """Go on from a snapshot, if there is one.

        Raises:
            BadInput: it is of another input, of other rows, or of another model.
        """
        snapshot = Snapshot.read(path)
        if snapshot is None:
            return
        anew = "; give what it was made with, or another --state to begin anew"
        kept = snapshot.rows
        asked = {
            "key": self.source.key,
            "separator": self.source.separator,
            "rule": [self.rule.on_change, self.rule.until],
        }
        for name, value in asked.items():
            if kept.get(name) != value:
                raise BadInput(f"{path} was made with {name} {kept.get(name)}, not {value}{anew}")
        names = list(kept["columns"])
        features, n = feature_names(self.model), self.model.n_features
        if names:
            columns = Columns.named(names, self.source.key, features, n)
        else:
            columns = Columns((), None, tuple(range(n)))
        self._read_as(bool(kept["json"]), columns)
        self._find_place(snapshot, path)
        assert self.form is not None
        for k in snapshot.keys:
            try:
                stream = None if k.state is None else self.model.stream(k.state)
            except ValueError as problem:
                raise BadInput(f"{path}: {problem}") from None
            label = tuple(k.label) if isinstance(k.label, list) else k.label
            shown = self.form.key_text(k.key)
            self.sessions[k.key] = Session(k.key, stream, shown, label, k.answered)
        self.saved_at = (time.monotonic(), self.lines.number)

    def _find_place(self, snapshot: Snapshot, path: Path) -> None:
        """Behind the last row that was answered."""
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


def feature_names(model: Any) -> list[str] | None:
    """What a model calls its features; None: it was trained on arrays, and knows their order."""
    preparation = model.preparation
    if preparation is None or preparation.roles is None:
        return None
    return [f.name for f in preparation.features]


def _decoded(lines: Sequence[bytes]) -> list[str]:
    """Lines without their ends and a byte order mark."""
    try:
        text = b"\n".join(lines).decode()
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").removesuffix("\r")
    if text.startswith(BOM):
        text = text[1:]
    return text.split("\n")
