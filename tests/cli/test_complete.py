"""Suggestions while one types, on a terminal."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest
from cli_examples import command

from ostinato import LanguageModel
from ostinato.runtime import load

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")

END = "D"  # the cursor goes back to the end of what is typed: the line is complete


class Terminal:
    """`ostinato complete` with a person before it."""

    def __init__(self, run: object):
        import pty

        self._master, slave = pty.openpty()
        with os.fdopen(slave, "r+b", buffering=0) as its:
            self.process = subprocess.Popen(
                command("complete", run), stdin=its, stdout=its, stderr=subprocess.PIPE
            )
        self.shown = self._line()

    def type(self, keys: str) -> str:
        """What the line shows after the last of these keys."""
        for key in keys:
            os.write(self._master, key.encode())
            self.shown = self._line()
        return self.shown

    def end(self, key: str) -> int:
        os.write(self._master, key.encode())
        self.process.communicate(timeout=60)
        os.close(self._master)
        return self.process.returncode

    def _line(self) -> str:
        read = b""
        while not read.endswith(END.encode()):
            with contextlib.suppress(OSError):  # the program has ended
                read += os.read(self._master, 4096)
            assert self.process.poll() is None, self.process.communicate()
        line = read.decode().rpartition("\x1b[2K")[2]
        return line[: line.rindex("\x1b")]


def line(typed: str, suggestions: list[str]) -> str:
    return f"{typed}   [{' | '.join(suggestions)}]"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[object]:
    texts = ["the cat sat on the mat. " * 9, "a dog and a cat. " * 9]
    model = LanguageModel(level="word", hidden_size=16, iterations=80, truncate=8, batch_size=4)
    folder = tmp_path_factory.mktemp("complete") / "model"
    model.fit(texts).save(folder)
    return folder


def test_suggestions_change_with_each_key(run):
    model = load(run)

    def wanted(typed: str) -> str:
        return line(typed, [s.text for s in model.suggest(typed, 3)])

    terminal = Terminal(run)
    assert terminal.shown == wanted("")
    for typed in ("t", "th", "the", "the ", "the c"):
        assert terminal.type(typed[-1]) == wanted(typed)
    assert model.suggest("the c", 1)[0].text == "cat"
    assert terminal.type("\t") == wanted("the cat ")
    assert terminal.type("\x7f\x7f\x7f") == wanted("the c")
    assert terminal.type("\r") == wanted("")
    assert terminal.end("\x1b") == 0


def test_a_line_end_that_was_taken_is_shown_within_the_line(tmp_path):
    model = LanguageModel(hidden_size=8, iterations=60, truncate=8, batch_size=4, random_state=0)
    model.fit(["ab\n" * 60]).save(tmp_path / "model")
    assert load(tmp_path / "model").suggest("ab", 1)[0].text == "\n"
    terminal = Terminal(tmp_path / "model")
    terminal.type("ab")
    assert terminal.type("\t").startswith("ab↵   [")
    assert terminal.end("\x04") == 0
