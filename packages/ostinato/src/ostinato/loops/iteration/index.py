"""The loop's variable in a step that represents many iterations: symbolic numbers.

`Index` is `step · j + start` for iteration j, and `Number` an expression of it. Where a comparison
has one answer for all iterations of the window, that is the answer. If such a number is combined
with a tensor, its values become an input of the step. Other uses are refused.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.compiler.errors import error_in_short
from ostinato.loops.iteration.nostep import Narrowed, NoStep, Periodic

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")
}
_QUESTIONS = _COMPARISONS | {"kind": lambda number, kind: type(number) is kind}
_NO_NUMBERS = (str, bytes, tuple, list, dict, set, frozenset, type, type(None))
_OPERATIONS: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "abs")
}
BRANCH = "a branch on the loop's variable"
FEWEST = 8  # iterations; a shorter scan gains nothing,
SHORTEST = 3  # or of so many, if each is heavy
MOST_BRANCHES = 4  # branches taken by stretches of one loop, each of which is a scan
LONGEST = 16  # iterations after which a branch repeats: a step is recorded with all of them
# ("index", step, start), ("constant", number), ("state", its number), ("table", its number), or
# (operation, key, …)
Key = Any


class Sequences:
    """The numbers of the state and of lists, with their values from an iteration on.

    Attributes:
        tables: the numbers of lists, for all iterations.
    """

    def __init__(self, begin: int, values: Sequence[Any]):
        self.begin, self.values = begin, [[v] for v in values]
        self.tables: list[Sequence[Any]] = []

    def extend(self, updates: Sequence[Key | None], end: int) -> None:
        """Compute the values up to an iteration; updates: for each number its next value."""
        self.values = [values[:1] for values in self.values]
        for j in range(self.begin, end):
            new = [None if key is None else evaluated(key, j, self) for key in updates]
            for values, value in zip(self.values, new, strict=True):
                if value is not None and type(value) is not type(values[0]):
                    raise NoStep("a number of the state is an int, and then a float")
                values.append(value)

    def at(self, k: int, j: int) -> Any:
        """The number k in iteration j."""
        if j - self.begin >= len(self.values[k]):
            raise NoStep("a number that changes from iteration to iteration decides a branch")
        return self.values[k][j - self.begin]

    def in_table(self, k: int, j: int) -> Any:
        """The number of list k in iteration j."""
        return self.tables[k][j]


def evaluated(key: Key, j: int, sequences: Sequences | None = None) -> Any:
    """The value of an expression in iteration j.

    Raises:
        NoStep: it has none, as 1 / (t - 3) at t = 3: the error belongs to that iteration.
    """
    try:
        return _evaluated(key, j, sequences)
    except (ArithmeticError, ValueError, TypeError) as error:
        why = f"a number computed from the loop's variable fails ({error_in_short(error)})"
        raise NoStep(why) from None


def _evaluated(key: Key, j: int, sequences: Sequences | None) -> Any:
    kind = key[0]
    if kind == "index":
        return key[1] * j + key[2]
    if kind == "constant":
        return key[1]
    if kind in ("state", "table"):
        assert sequences is not None
        return (sequences.at if kind == "state" else sequences.in_table)(key[1], j)
    if kind == "call":
        function, *numbers = [_evaluated(k, j, sequences) for k in key[1:]]
        found = function(*numbers)
        return found.item() if isinstance(found, np.generic) else found
    return _OPERATIONS[kind](*[_evaluated(k, j, sequences) for k in key[1:]])


def _may_change_kind(key: Key) -> bool:
    """Whether an expression may be an int at one iteration and a float at another: 2 ** (3 - t)."""
    is_power = key[0] == "pow" and key[2][0] != "constant"
    return is_power or any(isinstance(k, tuple) and _may_change_kind(k) for k in key[1:])


class Questions:
    """Comparisons of the loop's variable in a step, and the window of iterations that it covers.

    Attributes:
        begin, end: the window.
        asked: comparisons → their answers.
        sequences: the numbers of the state.
        number: gives the input with the values of an expression, in a floating-point or integer
            type.
    """

    def __init__(self, begin: int, end: int, sequences: Sequences):
        self.begin, self.end, self.sequences = begin, end, sequences
        self.asked: dict[Any, bool] = {}
        self.number: Callable[[Key, torch.dtype], Tensor]

    def number_at(self, key: Key, j: int) -> Any:
        """An expression in iteration j."""
        return evaluated(key, j, self.sequences)

    def kind(self, key: Key) -> type:
        """Whether an expression is an int or a float, which must be the same in all iterations."""
        kind = type(self.number_at(key, self.begin))
        if _may_change_kind(key):
            self.answer("kind", key, kind)
        return kind

    def answer(self, name: str, key: Key, other: Any) -> bool:
        """The one answer of a comparison for all iterations of the window.

        Raises:
            Narrowed: there are several. It names a smaller window with one answer, at the begin of
                this one; or, if that would be too short, all iterations after it.
        """
        courses = self._courses(name, key, other)
        if len(courses) > 1:
            if len(courses) > MOST_BRANCHES:
                numbers = (self.number_at(key, j) for j in range(self.begin, self.end))
                period = period_of([_QUESTIONS[name](n, other) for n in numbers])
                why = "its iterations branch on the loop's variable"
                raise Periodic(why, period=period) if period else NoStep(why)
            (begin, end), last = courses[0], courses[-1]
            if end - begin < FEWEST:
                begin, end = end, last[1]
            raise Narrowed(BRANCH, begin=begin, end=end)
        answer = _QUESTIONS[name](self.number_at(key, self.begin), other)
        self.asked[name, key, other] = answer
        return answer

    def refuse_again(self, key: Key) -> None:
        """Refuse an expression that indexes the state.

        Raises:
            Periodic: its numbers repeat: in a group of iterations each of them is constant.
        """
        period = period_of([self.number_at(key, j) for j in range(self.begin, self.end)])
        why = "an iteration indexes its state by the loop's variable"
        raise Periodic(why, period=period) if period else NoStep(why)

    def _courses(self, name: str, key: Key, other: Any) -> list[tuple[int, int]]:
        """The stretches of iterations with one answer each, in order; at most a few more than
        needed."""
        compare, begin = _QUESTIONS[name], self.begin
        found: list[tuple[int, int]] = []
        is_monotone = key[0] == "index" and name not in ("eq", "ne", "kind")
        while begin < self.end and len(found) <= MOST_BRANCHES:
            here = compare(self.number_at(key, begin), other)
            end = self.end
            if not is_monotone:
                others = (
                    j
                    for j in range(begin, self.end)
                    if compare(self.number_at(key, j), other) is not here
                )
                end = next(others, self.end)
            elif compare(self.number_at(key, self.end - 1), other) is not here:
                low, end = begin, self.end - 1
                while end - low > 1:
                    middle = (low + end) // 2
                    same = compare(self.number_at(key, middle), other) is here
                    low, end = (middle, end) if same else (low, middle)
            found.append((begin, end))
            begin = end
        return found


def period_of(answers: Sequence[Any]) -> int | None:
    """After how many iterations answers or numbers repeat; None if they do not, or late."""
    for period in range(2, min(LONGEST, len(answers) // 2) + 1):
        if all(answers[j] == answers[j - period] for j in range(period, len(answers))):
            return period
    return None


class _Running(threading.local):
    """The comparisons of the steps that a thread runs now, the innermost last."""

    def __init__(self) -> None:
        self.questions: list[Questions] = []


running = _Running()


class Number:
    """An expression of the loop's variable.

    To code that asks, it is the number that it stands for, an int or a float: of that class, and
    without attributes of its own.
    """

    __slots__ = ("_key",)

    def __init__(self, key: Key):
        self._key = key

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return running.questions[-1].kind(self._key) if running.questions else Number

    def __getattr__(self, name: str) -> Any:
        if hasattr(self.__class__, name):
            self._refuse()
        raise AttributeError(f"'{self.__class__.__name__}' object has no attribute '{name}'")

    def _tensor(self, beside: list[Tensor]) -> Tensor:
        """The number as an input, with the type that it has in an operation with tensors."""
        questions = running.questions[-1]
        is_whole = isinstance(questions.number_at(self._key, questions.begin), int)
        dtypes = [t.dtype for t in beside]
        dtype = next((d for d in dtypes if d.is_floating_point or d.is_complex), None)
        if dtype is None:
            whole = dtypes[0] if dtypes and dtypes[0] != torch.bool else torch.int64
            dtype = whole if is_whole else torch.get_default_dtype()
        found = questions.number(self._key, dtype)
        n_axes = max((t.dim() for t in beside), default=0)
        if found.dim() == 1 and n_axes > 1:  # one for each row of the batch; see shared.py
            found = found.reshape(-1, *[1] * (n_axes - 1))
        return found

    def _compared(self, name: str, other: Any) -> Any:
        if isinstance(other, Number):
            difference = _number(("sub", self._key, other._key))
            if not isinstance(difference, Number):
                return _COMPARISONS[name](difference, 0)
            return difference._compared(name, 0)
        if isinstance(other, Tensor):
            return getattr(torch, name)(self._tensor([other]), other)
        if isinstance(other, np.generic):
            other = other.item()
        if not isinstance(other, (int, float)):
            is_other = name in ("eq", "ne") and isinstance(other, _NO_NUMBERS)
            return name == "ne" if is_other else self._refuse()
        return running.questions[-1].answer(name, self._key, other)

    def __bool__(self) -> bool:
        return self._compared("ne", 0)

    def _refuse(self, *others: Any) -> Any:
        raise NoStep("the loop's variable is used as a number that Python must know")

    __hash__ = __index__ = __int__ = __float__ = _refuse
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __invert__ = __divmod__ = _refuse
    __str__ = __repr__ = __format__ = _refuse
    __round__ = __trunc__ = __floor__ = __ceil__ = __reduce__ = __reduce_ex__ = _refuse


def _comparison(name: str) -> Any:
    return lambda self, other: self._compared(name, other)


def _binary(name: str, swapped: bool = False) -> Any:
    function = getattr(
        torch,
        {"truediv": "true_divide", "mod": "remainder"}.get(
            name, "floor_divide" if name == "floordiv" else name
        ),
    )

    def method(self: Number, other: Any) -> Any:
        if isinstance(other, Tensor):
            number = self._tensor([other])
            return function(other, number) if swapped else function(number, other)
        if isinstance(other, Number):
            keys = self._key, other._key
        elif isinstance(other, (int, float)) and not isinstance(other, bool):
            keys = self._key, ("constant", other)
        else:
            return NotImplemented
        return _number((name, *(keys[::-1] if swapped else keys)))

    return method


for _name in _COMPARISONS:
    setattr(Number, f"__{_name}__", _comparison(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Number, f"__{_name}__", _binary(_name))
    setattr(Number, f"__r{_name}__", _binary(_name, swapped=True))
setattr(Number, "__neg__", lambda self: _number(("neg", self._key)))  # noqa: B010
setattr(Number, "__abs__", lambda self: _number(("abs", self._key)))  # noqa: B010
setattr(Number, "__pos__", lambda self: self)  # noqa: B010


def number_of(function: Any, *arguments: Any) -> Any:
    """A function of numbers, such as math.sin; an expression where one is an expression."""
    if not any(isinstance(a, Number) for a in arguments):
        return function(*arguments)
    is_plain = function in (float, int) or isinstance(function, np.ufunc)
    if not is_plain and getattr(function, "__module__", "") != "math":
        return function(*arguments)
    if not all(isinstance(a, (Number, int, float)) for a in arguments):
        return function(*arguments)
    keys = [a._key if isinstance(a, Number) else ("constant", a) for a in arguments]
    return Number(("call", ("constant", function), *keys))


class Index(Number):
    """`step · j + start` for iteration j."""

    __slots__ = ()

    def __init__(self, step: int, start: int):
        self._key = "index", step, start

    @property
    def _step(self) -> int:
        return self._key[1]

    @property
    def _start(self) -> int:
        return self._key[2]

    def _at(self, j: int) -> int:
        return self._step * j + self._start


def _number(key: Key) -> Any:
    """An expression; as an `Index` or a plain number if it has that form."""
    name, *of = key
    kinds = [k[0] for k in of]
    whole = all(k[0] == "index" or (k[0] == "constant" and type(k[1]) is int) for k in of)
    if whole and name in ("add", "sub", "neg", "mul") and kinds.count("constant") < len(kinds):
        pairs = [(k[1], k[2]) if k[0] == "index" else (0, k[1]) for k in of]
        if name == "neg":
            return Index(-pairs[0][0], -pairs[0][1])
        (a, b), (c, d) = pairs
        if name != "mul":
            sign = 1 if name == "add" else -1
            step, start = a + sign * c, b + sign * d
            return Index(step, start) if step else start
        if not a or not c:
            step, start = a * d + c * b, b * d
            return Index(step, start) if step else start
    by = of[1][1] if whole and name == "mod" and kinds == ["index", "constant"] else 0
    if by and not of[0][1] % by:  # the same number in all iterations; asked, so that it is noted
        running.questions[-1].answer("eq", key, of[0][2] % by)
        return of[0][2] % by
    return Number(key)
