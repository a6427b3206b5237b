"""Questions that a file leaves open: asked all at once, with answers to go on with."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ostinato_learn.data.tables.roles import Roles

T = TypeVar("T")


class OpenQuestion(ValueError):  # noqa: N818  what is asked need not be an error
    """A file cannot be read as it is; the message names the ways out, and `answer` is one of them.

    Attributes:
        answer: roles by name, or `missing`, with which the file can be read further.
    """

    def __init__(self, message: str, **answer: Any):
        super().__init__(message)
        self.answer = answer


def asked_together(
    read: Callable[[Roles], T],
    roles: Roles,
    source: str,
    then: Callable[[T], object] | None = None,
) -> T:
    """`read(roles)`; if that leaves questions open, one refusal with all of them.

    Args:
        read: reads the file with these roles; it is called again after each question, with the
            answer.
        roles: the roles that the user gave.
        source: the file's name in messages.
        then: what the examples are for, and may leave open, too; called if others are open.

    Raises:
        OpenQuestion: something is open; several are joined, with flags that answer all of them.
        ValueError: the file cannot be read, whatever the answers.
    """
    questions: list[OpenQuestion] = []
    problem = None
    try:
        found = _read_on(read, roles, questions)
        if not questions:
            return found
        if then is not None:
            then(found)
    except OpenQuestion as last:
        questions.append(last)
    except ValueError as error:
        if not questions:
            raise
        problem = error
    if len(questions) == 1:
        raise questions[0]
    raise _joined(questions, problem, source)


def _read_on(read: Callable[[Roles], T], roles: Roles, questions: list[OpenQuestion]) -> T:
    """`read` with the answers to the questions that it asks, which are added to the list.

    Raises:
        OpenQuestion: one asks for something else than an answer before.
    """
    while True:
        try:
            return read(roles)
        except OpenQuestion as question:
            answered = _with(roles, question.answer)
            before = {name for each in questions for name in each.answer} - {"na"}
            if answered == roles or before & question.answer.keys():
                raise
            questions.append(question)
            roles = answered


def _with(roles: Roles, answer: dict[str, Any]) -> Roles:
    """The roles with an answer; further missing-value markers are added to the others."""
    if "na" in answer:
        answer = answer | {"na": tuple(dict.fromkeys((*roles.na, *answer["na"])))}
    return replace(roles, **answer)


def _joined(questions: list[OpenQuestion], problem: ValueError | None, source: str) -> OpenQuestion:
    answer: dict[str, Any] = {}
    for question in questions:
        of_na = (*answer.get("na", ()), *question.answer.get("na", ()))
        answer |= question.answer | ({"na": of_na} if of_na else {})
    asked = [str(each).removeprefix(source).lstrip(",: ") for each in questions]
    listed = "; ".join(f"({i}) {text}" for i, text in enumerate(asked, start=1))
    flags = " ".join(_flag(name, value) for name, value in answer.items())
    words = ", ".join(f"{name}={value!r}" for name, value in answer.items())
    rest = "" if problem is None else f"; then: {problem}"
    return OpenQuestion(
        f"{source}: {len(questions)} questions are open: {listed}. One answer to all: {flags} "
        f"(in Python {words}){rest}",
        **answer,
    )


def _flag(name: str, value: Any) -> str:
    """A role as the command line has it."""
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    return f"{flag} {shlex.quote(listed(value) if isinstance(value, tuple) else str(value))}"


def listed(names: Iterable[str]) -> str:
    """Names as one text, "a,b,c"; a name with a comma is quoted, as in a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()
