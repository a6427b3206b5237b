"""Functions with loops, run natively where a model or a function that was given to us calls them.

    a function with a loop, f      keeps its identity; its code becomes one call of its `Redirect`
    a Redirect                      the user's own f, or f with its loops rewritten
    a Caller                       what the user gave: a model's modules, or a function

Whoever calls f, by whatever name, reaches the redirect. It runs the rewritten form only below a
caller that is in use, so that another model of the same class runs the user's own code. A function
is rewritten when it is first called there with something that may hold a tensor; where no loop of
it can be native, its own code comes back.
"""

from __future__ import annotations

import ast
import enum
import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ostinato.compiler import torch_private
from ostinato.compiler.capture.guards.code import Unread
from ostinato.loops.iteration.index import running
from ostinato.loops.reach import may_loop, reached
from ostinato.loops.rewriting import with_loops
from ostinato.loops.running.site import Site
from ostinato.loops.text.source import FUTURE, NoSource

MARK = "_loops_by_accelerate"  # in the `__dict__` of modules, so that copies have it, too
# Calls of a function, after which its own code comes back if none of its loops was native: if they
# were refused, or if a loop did not run or was short, as it may be in the first calls only.
_CALLS, _SHORT_CALLS = 4, 32
_WITHOUT_TENSORS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    enum.Enum,
    torch.dtype,
    torch.device,
)


class Caller(Unread):
    """The functions with loops that what the user gave can call.

    Attributes:
        redirects: one for each function.
        classes: the classes of the modules that are marked by it.
        known: the arguments of calls that were looked at.
    """

    def __init__(self, *roots: Any, classes: Iterable[type] = ()):
        self.redirects: dict[Redirect, None] = {}
        self.known = weakref.WeakSet[Any]()
        self.classes = [*classes]
        for cls in self.classes:
            _methods.update({id(code): code for code in _codes_of(cls)})
        self.look_at(*roots, classes=() if roots else self.classes)

    def __deepcopy__(self, memo: Any) -> Caller:
        return self

    def __reduce__(self) -> Any:
        return _of_classes, (self.classes,)

    def look_at(self, *values: Any, classes: Iterable[type] = ()) -> None:
        """Find the functions with loops that are called through these objects."""
        for function in reached(values, classes):
            name = function.__name__
            implicit = name.startswith("__") and name.endswith("__") and name != "__call__"
            is_ours = hasattr(function, "__ostinato_loops__")  # it was given to `loop`
            if may_loop(function) and "<" not in name and not (implicit or is_ours):
                redirect = _redirect_of(function)
                redirect.callers.add(self)
                self.redirects[redirect] = None

    def look_at_new(self, values: Iterable[Any]) -> None:
        """Look at the functions and modules among the arguments of a call that are new."""
        for value in values:
            if isinstance(value, (types.FunctionType, torch.nn.Module)) and value not in self.known:
                self.known.add(value)
                self.look_at(value)

    def __iter__(self) -> Iterator[Site]:
        """The loops of the functions that were called."""
        return (site for redirect in self.redirects for site in redirect.sites)


def _of_classes(classes: list[type]) -> Caller:
    """The caller of modules that pickle makes."""
    return Caller(classes=classes)


class Redirect:
    """A function with a loop, and its rewritten form.

    Attributes:
        function: the user's function, whose code calls this redirect.
        own: a function with the user's own code.
        form: the rewritten form, once it was called.
        settled: whether the user's own code has come back for good.
        callers: those below which the rewritten form runs.
    """

    def __init__(self, function: types.FunctionType):
        self.code = function.__code__
        self.function = weakref.ref(function)
        self.own = types.FunctionType(
            self.code, function.__globals__, function.__name__, None, function.__closure__
        )
        self.own.__qualname__, self.own.__module__ = function.__qualname__, function.__module__
        self.form: Any = None
        self.calls = 0
        self.settled = False
        self.callers = weakref.WeakSet[Caller]()
        function.__code__ = _calling(function, self)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.callers:
            self.give_back()
        elif not running.questions and not self.settled and _is_below_a_caller(arguments):
            return self.rewritten(*arguments, **named)
        return self.own(*arguments, **named)

    def rewritten(self, *arguments: Any, **named: Any) -> Any:
        """Run the rewritten form. The frame of this call shows callees that a caller is above."""
        if self.form is None and _may_hold_tensors((*arguments, *named.values())):
            try:
                self.form = with_loops(self.own, named=False)
            except NoSource:
                self.form = None
            if self.form is None:
                self.settled = True
                self.give_back()
        form = self.form or self.own
        result = form(*arguments, **named)
        self.calls += 1
        is_time = self.calls == 1 or (self.calls >= _CALLS and not self.calls & (self.calls - 1))
        if is_time and self.form is not None and not self.may_be_native():
            self.settled = True
            self.give_back()
        return result

    def may_be_native(self) -> bool:
        """Whether a loop was native, or may be so in later calls."""
        first, early = self.calls == 1, self.calls < _SHORT_CALLS
        return any(
            site.been_native
            or (
                not site.source.stays
                and ((site.native is None and early) or (first and site.over_tensors))
            )
            for site in self.sites
        )

    def give_back(self) -> None:
        """Give the function its own code."""
        function = self.function()
        if function is not None and _redirect_in(function) is self:
            function.__code__ = self.code

    @property
    def sites(self) -> list[Site]:
        return self.form.__ostinato_loops__ if self.form is not None else []


def marked(module: Any) -> bool:
    """Whether an object is a module of an accelerated model."""
    return issubclass(type(module), torch.nn.Module) and MARK in vars(module)


# The code of methods of marked modules, by id.
_methods: dict[int, types.CodeType] = {}


def _codes_of(cls: type) -> Iterator[types.CodeType]:
    """The code of a class's methods, as the user wrote it; not of those without an argument."""
    for base in cls.__mro__:
        for value in [*vars(base).values()]:
            value = value.fget if isinstance(value, property) else value
            while isinstance(value, types.FunctionType):
                redirect = _redirect_in(value)
                code = redirect.code if redirect else value.__code__
                if code.co_argcount:
                    yield code
                value = vars(value).get("__wrapped__")


def _is_below_a_caller(arguments: tuple[Any, ...]) -> bool:
    """Whether a caller in use calls the function: the module in its arguments or further up."""
    if arguments and marked(arguments[0]):
        return True
    if torch_private.graph_task() >= 0:
        return True  # a checkpoint computes it again, in the same way as in the forward pass
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code in _OF_CALLERS:
            return True
        if id(code) in _methods and marked(frame.f_locals.get(code.co_varnames[0])):
            return True
        frame = frame.f_back
    return False


def below(caller: Caller, function: Any, *arguments: Any, **named: Any) -> Any:
    """Call a function; its frame shows to callees that a caller is above."""
    caller.look_at_new([*arguments, *named.values()])
    return function(*arguments, **named)


_OF_CALLERS = Redirect.rewritten.__code__, below.__code__


def _may_hold_tensors(arguments: tuple[Any, ...]) -> bool:
    return not arguments or not all(isinstance(a, _WITHOUT_TENSORS) for a in arguments)


def _redirect_of(function: types.FunctionType) -> Redirect:
    return _redirect_in(function) or Redirect(function)


def _redirect_in(function: types.FunctionType) -> Redirect | None:
    """The redirect that a function's code calls."""
    return next((c for c in function.__code__.co_consts if type(c) is Redirect), None)


def _calling(function: types.FunctionType, redirect: Redirect) -> types.CodeType:
    """Code with a function's parameters and free names that calls a redirect with its arguments.

    The function's own code is that of a function within it: guards look for names in such code,
    too, and PyTorch's compiler calls it, which cannot trace a redirect.
    """
    code = function.__code__
    names = code.co_varnames
    n, k, extra = code.co_argcount, code.co_kwonlyargcount, list[str]()
    for flag in (4, 8):  # *arguments, **named
        extra.append(names[n + k + len([e for e in extra if e])] if code.co_flags & flag else "")
    positional = [*names[:n]]
    keywords = names[n : n + k]
    star = [f"*{extra[0]}"] if extra[0] else []
    double = [f"**{extra[1]}"] if extra[1] else []
    parameters = [*positional, *(star or ["*"] * bool(k)), *keywords, *double]
    if code.co_posonlyargcount:
        parameters.insert(code.co_posonlyargcount, "/")
    given = [*positional, *star, *[f"{name}={name}" for name in keywords], *double]
    text = (
        f"def around({', '.join(code.co_freevars)}):\n"
        f" def {code.co_name}({', '.join(parameters)}):\n"
        f"  from torch.compiler import is_compiling as {_OWN}\n"
        f"  if {_OWN}():\n"
        f"   def {_OWN}({', '.join(parameters)}): ({''.join(f'{n}, ' for n in code.co_freevars)})\n"
        f"   return {_OWN}({', '.join(given)})\n"
        f"  {_OWN} = {_PLACE!r}\n"
        f"  return {_OWN}({', '.join(given)})\n"
    )
    flags = code.co_flags & FUTURE
    made = compile(ast.parse(text), code.co_filename, "exec", flags=flags, dont_inherit=True)
    for name in ("around", code.co_name):
        made = next(
            c for c in made.co_consts if isinstance(c, types.CodeType) and c.co_name == name
        )
    more: dict[str, Any] = {}
    if sys.version_info >= (3, 11):
        more["co_qualname"] = code.co_qualname
    constants = tuple(
        [
            redirect if c == _PLACE else code if isinstance(c, types.CodeType) else c
            for c in made.co_consts
        ]
    )
    return made.replace(co_consts=constants, co_firstlineno=code.co_firstlineno, **more)


_PLACE, _OWN = "the place of the redirect", "_ostinato_own_"
