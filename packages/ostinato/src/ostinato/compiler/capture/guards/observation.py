"""Guards: the values that a step read while it was recorded, checked before each replay.

If every value that a run of a step read is unchanged, the next run does the same. Three classes:

    Observation  watches a run: which code ran, and therefore which names may have been read. It
                 saves containers before code runs that could change them.
    Walk         (reads.py) follows those names from the step: closure cells, globals, attributes,
                 items. Each read becomes a line of Python that reads it again and compares.
    Guards       are those lines, compiled. They hold constants, code objects and weak references,
                 so that they keep nothing alive; they are paths from the step, so that they fit a
                 closure that is made anew from the same code.

Reads that Python does not show (an attribute whose name is computed, the contents of an object of
an extension module) are *opaque*: the step is then run once a call, see `cache.py`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.compiler.capture.guards import names_seen
from ostinato.compiler.capture.guards.code import (
    is_fixed_name,
    is_of_the_library,
    names_a_literal,
    names_of,
    root,
)
from ostinato.compiler.capture.guards.reads import Walk
from ostinato.compiler.capture.guards.snapshots import Snapshots
from ostinato.compiler.errors import Unsupported
from ostinato.engine import native

# C functions that may read anything.
_ANYWHERE = (globals, locals, vars, eval, exec, __import__, dir, id, hash)
_WATCHED = (*_ANYWHERE, getattr, hasattr)  # the last two are Python's own, see `computed_names`
_OF_NUMBERS = {"float", "int", "Number", "Real"}
# Packages that only report: their reads do not change a step's result.
_BESIDE = {"logging", "warnings", "importlib", "traceback", "linecache"}
_IMPORT = importlib._bootstrap._find_and_load.__code__  # type: ignore[attr-defined]
# The stable ABI has no name for it.
_SET_PROFILE = ctypes.cast(ctypes.pythonapi.PyEval_SetProfile, ctypes.c_void_p).value


_Check = Callable[[Any, int], "list[Any] | int"]


class Guards:
    """The reads of one run, compiled into a function of the step.

    Attributes:
        paths: the text of each check, such as `step.__self__.scale`, for messages.
        opaque: what could not be guarded, or None.
        codes: the observed code of the step, by id.
        lifted: path of a Python float that is recorded as a tensor → its number among the tensors.
    """

    def __init__(self, walk: Walk, codes: dict[int, types.CodeType]):
        self._check = _defined(walk.lines, f"[{', '.join(walk.tensor_variables)}]", walk)
        self.paths, self.opaque, self.codes = walk.paths, walk.opaque, codes
        at = {id(t): i for i, t in enumerate(walk.tensors)}
        self.lifted = {path: at[id(lift.tensor)] for path, lift in walk.lifts.items()}
        self.changed = ""  # the path whose check failed last
        # Checks the functions whose code the backward pass runs, and what they read. Without it the
        # backward pass may read everything that the step read.
        self._of_backward: tuple[_Check, _Check] | None = None

    def guard_backward(self, walk: Walk, of_functions: Walk) -> None:
        """Guard the values that the backward pass reads.

        Args:
            walk: the walk from the step, which has met the functions.
            of_functions: a walk from the list of them.
        """
        functions = ", ".join(v for _, v in walk.backward_functions)
        reads = [line for line in walk.lines if not line.startswith("if not ")]
        find = _defined(reads, f"[{functions}]", walk)
        self._of_backward = find, _defined(of_functions.lines, "[]", of_functions)

    def for_backward(self, step: Any, n_rows: int) -> Callable[[], bool]:
        """A function that says whether the values that the backward pass reads are unchanged."""
        if self._of_backward is None:
            return lambda: self.tensors(step, n_rows) is not None
        find, check = self._of_backward
        functions = find(step, n_rows)
        return lambda: type(check(functions, n_rows)) is list

    def tensors(self, step: Any, n_rows: int) -> list[Any] | None:
        """The tensors that the step reaches, if all guards hold; else None.

        Args:
            n_rows: B, which some numbers may have to be.
        """
        found = self._check(step, n_rows)
        if type(found) is list:
            return found
        self.changed = self.paths[found]  # type: ignore[index]
        return None


def _defined(lines: list[str], result: str, walk: Walk) -> _Check:
    """A function of the walk's start and of B, which returns the number of a changed path."""
    body = "\n".join(f"  {line}" for line in lines)
    source = f"def check(v0, n):\n try:\n{body}\n  return {result}\n except Exception: return 0"
    scope = dict(walk.constants)
    exec(_compiled(source), scope)
    check: _Check = scope["check"]
    return check


@functools.lru_cache(maxsize=256)
def _compiled(source: str) -> types.CodeType:
    """Steps that differ in a value alone have the same lines."""
    return compile(source, "<guards>", "exec")


class Observation:
    """A context that watches runs of a step: the code that ran, and the values before it."""

    def __init__(
        self,
        step: Any,
        known: Mapping[int, types.CodeType] | None = None,
        lifted: Mapping[str, Tensor] | None = None,
        places: Collection[tuple[Any, Any]] = (),
        batch: tuple[Collection[str], int] | None = None,
        same: Collection[types.CodeType] = (),
    ):
        """An observation.

        Args:
            known: code of the step that earlier runs found, by id.
            lifted: path of a Python float → the tensor that the step finds in its place while it
                is observed.
            places: containers and keys of state, whose changes are not side effects.
            batch: the paths of whole numbers that are the size of the batch, and this size.
            same: code of the step; equal code, compiled again, counts as well.
        """
        self.step, self.users = step, dict(known or {})  # code of the step, by id
        self.names = {name for code in self.users.values() for name in names_of(code)}
        self.codes = dict(self.users)  # all that ran, also PyTorch's
        self.opaque: str | None = None
        self.read: Collection[int] = ()  # ids of captured tensors whose values the step read
        self.in_context = False  # as of the search of it
        self._before: Any = None  # the profile function, or profiler, that was there
        self._watch: Any = None
        self.places = places
        self.snapshots = Snapshots(places)
        self._refusal: Unsupported | None = None
        self.batch, self.same = batch, same
        self.lifted = lifted or {}
        self.by_item = bool(lifted) or batch is not None  # dicts are read item by item
        self.walk = self._walked()
        self.lifts = list(self.walk.lifts.values())  # in whose places the step finds tensors
        self.lifted = {path: lift.tensor for path, lift in self.walk.lifts.items()}  # and no more

    def __enter__(self) -> None:
        for lift in self.lifts:
            lift.put(lift.tensor)
        self._before = sys.getprofile()
        self._watch = native.call_watch(
            self._began,
            self._called,
            self.users.values(),
            _WATCHED,
            _IMPORT,
            self._before if callable(self._before) else None,
            _SET_PROFILE,
        )
        names_seen.begin(self._asked)
        self._watch.enable()

    def __exit__(self, *error: object) -> None:
        watch, self._watch = self._watch, None  # a cycle would keep the tensors alive
        names_seen.end()
        if error[0] is None and sys.getprofile() is not watch:
            self.opaque = "it sets another profile function, so that its reads are not seen"
        # A profiler written in C switches itself on again, if it can.
        sys.setprofile(self._before if callable(self._before) else None)
        if hasattr(self._before, "enable"):
            self._before.enable()
        for lift in self.lifts:
            lift.put(lift.value)
        if self._refusal is not None:
            raise self._refusal.bare() from None  # the kept one never holds this frame

    def _began(self, frame: types.FrameType) -> bool:
        """Called when code runs for the first time; returns whether it belongs to the step."""
        code = frame.f_code
        self.codes[id(code)] = code
        of_the_step = self._is_of_the_step(frame)
        if of_the_step:
            self.users[id(code)] = code
            self.names |= names_of(code)
            self._save()
        return of_the_step

    def _called(self, frame: types.FrameType, function: Any) -> None:
        """Called when code of the step calls a function that may read anything."""
        if function in _ANYWHERE or not names_a_literal(frame):
            self.opaque = f"{function.__name__}() may read what the code does not name"

    def _asked(self, code: types.CodeType, name: str) -> None:
        """Called when code reads an attribute; its name may be computed."""
        if id(code) in self.users and name not in self.names:
            self.names.add(name)
            self._save()

    def _is_of_the_step(self, frame: types.FrameType) -> bool:
        """Whether code belongs to the step: not PyTorch's, nor what PyTorch calls of Python's."""
        caller = frame.f_back or frame
        name, of_caller = (f.f_globals.get("__name__") for f in (frame, caller))
        if not _BESIDE.isdisjoint((root(name), root(of_caller))):
            return False
        return (
            id(caller.f_code) in self.users if is_of_the_library(name) else not is_fixed_name(name)
        )

    def tells_numbers_apart(self) -> bool:
        """Whether the step may behave differently with tensors in place of numbers.

        It may look a number up in a set or dict, where a tensor is another key, or ask for its
        type. Reading its value is refused by the search.
        """
        asks_for_kinds = {"isinstance", "type"} & self.names and _OF_NUMBERS & self.names
        return bool(asks_for_kinds) or id(Tensor.__hash__.__code__) in self.codes

    def _save(self) -> None:
        """Save the containers that the code that has just begun could change."""
        try:
            with torch_private.DisableTorchFunction():  # the search does not see us
                self.walk = self._walked()
        except Unsupported as refusal:
            self._refusal = refusal.bare()  # raised again at the end: the step may catch it here
            raise

    def renew(self) -> None:
        """Release the intermediate objects of a run without side effects.

        A walk within the run, and what was saved then, hold objects that the step made.
        """
        self.snapshots = Snapshots(self.places)
        self.walk = self._walked()

    def _walked(self, by_value: Collection[int] = ()) -> Walk:
        walk = Walk(self, by_value)
        walk.visit(self.step, "v0", "step")
        if len(walk.objects) > 1:
            distinct = f"len({{*map(id, [{', '.join(walk.objects)}])}}) == {len(walk.objects)}"
            walk.check(distinct, "which objects are one and the same")
        return walk

    def guards(self, backward: Collection[types.CodeType] = ()) -> tuple[Guards, list[Tensor]]:
        """The guards of all runs so far, and the tensors that they lead to.

        Args:
            backward: the code that the backward pass runs, if it reads nothing else.
        """
        walk = self._walked(self.read)
        found = Guards(walk, self.users)
        functions = [f for f, _ in walk.backward_functions]
        if backward and {f.__code__ for f in functions}.issuperset(backward):
            of_functions = Walk(self)
            for i, f in enumerate(functions):
                of_functions.visit(f, f"v0[{i}]", f.__qualname__)
            if of_functions.opaque is None:
                found.guard_backward(walk, of_functions)
        if walk.opaque is None and found.tensors(self.step, walk.batch[1]) is None:
            found.opaque = f"{found.changed} differs at each read"
        return found, walk.tensors
