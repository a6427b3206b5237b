"""The names of attributes that code computes: `getattr(self, name)`.

While a step is observed, `getattr` and `hasattr` are replaced by functions that record the name and
call Python's. (A copy of the step's function with other globals would not do: the functions and
methods that it calls have globals of their own.) These names are followed like those that the code
mentions; the values that they are computed from are read by the step, too, and guarded.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any

Note = Callable[[CodeType, str], None]

_getattr, _hasattr = builtins.getattr, builtins.hasattr
_lock = threading.Lock()
_n_threads = 0  # that observe a step


class _Observing(threading.local):
    """The receivers of the names that this thread computes, the innermost last."""

    def __init__(self) -> None:
        self.notes: list[Note] = []


_observing = _Observing()


def _noted(name: Any) -> None:
    if _observing.notes and type(name) is str:
        _observing.notes[-1](sys._getframe(2).f_code, name)


def _noting_getattr(of: Any, name: Any, *default: Any) -> Any:
    _noted(name)
    return _getattr(of, name, *default)


def _noting_hasattr(of: Any, name: Any) -> bool:
    _noted(name)
    return _hasattr(of, name)


def begin(note: Note) -> None:
    """Give `note` the code and the name of each call of this thread."""
    global _n_threads
    _observing.notes.append(note)
    with _lock:
        _n_threads += 1
        if _n_threads == 1 and builtins.getattr is _getattr and builtins.hasattr is _hasattr:
            _let_dynamo_look()
            builtins.getattr, builtins.hasattr = _noting_getattr, _noting_hasattr


def _let_dynamo_look() -> None:
    """Where torch.compile is in use, let it know Python's own two functions.

    It lists Python's functions when it first traces, and later refuses what is not in its list.
    That first time may be before two of them are replaced, or while they are: within a step that
    calls a compiled function. The module is private to PyTorch: a version without these functions
    is left alone.
    """
    rules = sys.modules.get("torch._dynamo.trace_rules")
    look = _getattr(rules, "is_builtin_callable", None)
    listed = _getattr(rules, "_builtin_function_ids", None)
    if look is not None and listed is not None and not (look(_getattr) and look(_hasattr)):
        for function in (_getattr, _hasattr):
            listed.add(id(function))


def end() -> None:
    """Undo the last `begin`."""
    global _n_threads
    _observing.notes.pop()
    with _lock:
        _n_threads -= 1
        if not _n_threads and builtins.getattr is _noting_getattr:
            builtins.getattr, builtins.hasattr = _getattr, _hasattr
            _let_dynamo_look()
