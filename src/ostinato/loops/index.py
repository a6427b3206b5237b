"""The loop's variable in a step that stands for many iterations: numbers that nobody has yet.

`Index` is `step · j + start` for iteration j. It may be shifted and compared; where a comparison
has one answer for all iterations of the window, that is the answer. Other uses are refused.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import Any

from ostinato.loops.nostep import Narrowed, NoStep

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")
}
_MOST_AT_AN_END = 4  # iterations of another course, which run in Python


class Questions:
    """Comparisons of the loop's variable, and the window of iterations that they are about."""

    def __init__(self) -> None:
        self.begin = self.end = 0
        self.asked: dict[Any, bool] = {}

    def answer(self, name: str, step: int, start: int, other: Any) -> bool:
        """The one answer of a comparison for all iterations of the window.

        Raises:
            Narrowed: there are two; the window of the one that most iterations give.
        """
        compare = _COMPARISONS[name]
        answers = [compare(step * j + start, other) for j in range(self.begin, self.end)]
        middle = answers[len(answers) // 2]
        if all(a is middle for a in answers):
            self.asked[name, step, start, other] = middle
            return middle
        first = len(answers) // 2
        last = first
        while first and answers[first - 1] is middle:
            first -= 1
        while last < len(answers) and answers[last] is middle:
            last += 1
        if first > _MOST_AT_AN_END or len(answers) - last > _MOST_AT_AN_END:
            raise NoStep("its iterations branch on the loop's variable")
        why = "a branch on the loop's variable"
        raise Narrowed(why, begin=self.begin + first, end=self.begin + last)


class _Running(threading.local):
    """The questions of the steps that a thread runs now, the innermost last."""

    def __init__(self) -> None:
        self.questions: list[Questions] = []


running = _Running()


class Index:
    """`step · j + start` for iteration j."""

    __slots__ = ("start", "step")

    def __init__(self, step: int, start: int):
        self.step, self.start = step, start

    def at(self, j: int) -> int:
        return self.step * j + self.start

    def __add__(self, other: Any) -> Any:
        if type(other) is int:
            return Index(self.step, self.start + other)
        if type(other) is Index:
            return _shrunk(Index(self.step + other.step, self.start + other.start))
        return self._refuse()

    __radd__ = __add__

    def __neg__(self) -> Index:
        return Index(-self.step, -self.start)

    def __pos__(self) -> Index:
        return self

    def __sub__(self, other: Any) -> Any:
        return self + -other if type(other) in (int, Index) else self._refuse()

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        if type(other) is int:
            return _shrunk(Index(self.step * other, self.start * other))
        return self._refuse()

    __rmul__ = __mul__

    def _compared(self, name: str, other: Any) -> bool:
        if type(other) is Index:
            difference = self - other
            if type(difference) is int:
                return _COMPARISONS[name](difference, 0)
            return difference._compared(name, 0)
        if not isinstance(other, (int, float)):
            if name in ("eq", "ne") and (other is None or isinstance(other, (str, bytes))):
                return name == "ne"
            return self._refuse()
        return running.questions[-1].answer(name, self.step, self.start, other)

    def __lt__(self, other: Any) -> bool:
        return self._compared("lt", other)

    def __le__(self, other: Any) -> bool:
        return self._compared("le", other)

    def __gt__(self, other: Any) -> bool:
        return self._compared("gt", other)

    def __ge__(self, other: Any) -> bool:
        return self._compared("ge", other)

    def __eq__(self, other: Any) -> bool:
        return self._compared("eq", other)

    def __ne__(self, other: Any) -> bool:
        return self._compared("ne", other)

    def __bool__(self) -> bool:
        return self._compared("ne", 0)

    def _refuse(self, *others: Any) -> Any:
        raise NoStep("the loop's variable is used as a number")

    __hash__ = __index__ = __int__ = __float__ = _refuse  # type: ignore[assignment]
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __truediv__ = __rtruediv__ = _refuse
    __pow__ = __rpow__ = __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __divmod__ = _refuse
    __str__ = __repr__ = __format__ = _refuse  # type: ignore[assignment]
    __abs__ = __round__ = __trunc__ = __floor__ = __ceil__ = __iter__ = __len__ = _refuse


def _shrunk(index: Index) -> Any:
    return index if index.step else index.start
