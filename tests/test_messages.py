"""An error message is two sentences at most: what came, and what to write instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sources import CORE, LEARN

END = re.compile(r"[.?!]\s+(?=[A-Z{`'\"])")


def messages(source: str) -> Iterator[tuple[int, str]]:
    """The texts of raised exceptions, by line, with {} for what is filled in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from ((node.lineno, _text(part)) for part in node.exc.args)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "{}"


def too_long(source: str) -> list[tuple[int, str]]:
    return [(line, text) for line, text in messages(source) if len(END.findall(text)) > 1]


def test_messages_are_two_sentences_at_most() -> None:
    files = [*CORE.rglob("*.py"), *LEARN.rglob("*.py")]
    found = {path.name: too_long(path.read_text("utf-8")) for path in files}
    assert {name: of for name, of in found.items() if of} == {}


def test_a_third_sentence_is_found() -> None:
    assert too_long('raise ValueError(f"got {x}. Wanted y. " "Write z")') == [
        (1, "got {}. Wanted y. Write z")
    ]
    assert too_long('raise ValueError("got x. Wanted y.")') == []
