"""From a function to its syntax tree, and from a changed tree to a function that replaces it.

The new code keeps file name, lines and columns, so that tracebacks, `inspect.getsource` and
debuggers show what the user wrote. It shares the globals and the closure cells of the function.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import sys
import types
from typing import Any

RUNTIME = "_ostinato_"  # the cell through which rewritten code reaches us


class NoSource(Exception):  # noqa: N818 (a reason)
    """The text of a function is not available, or differs from its code."""


class Definition:
    """A function as its text.

    Attributes:
        node: the definition, which may be changed.
        inside: the name of the class around it, or None: private names are mangled by it.
    """

    def __init__(self, function: types.FunctionType):
        code = function.__code__
        linecache.checkcache(code.co_filename)
        # Not inspect.findsource: it asks every module in sys.modules for its file, lazy ones, too.
        lines = linecache.getlines(code.co_filename, function.__globals__)
        first = code.co_firstlineno - 1
        try:
            text = "".join(inspect.getblock(lines[first:]))
            node: Any = ast.parse("if True:\n" + text if text[:1].isspace() else text).body[0]
        except (SyntaxError, IndexError) as error:
            raise NoSource(f"its source is not available ({type(error).__name__})") from None
        if text[:1].isspace():
            node = node.body[0]
            first -= 1
        if not isinstance(node, ast.FunctionDef) or node.name != code.co_name:
            raise NoSource("its source has no function of this name at its line")
        ast.increment_lineno(node, first)
        if _arguments(node) != code.co_varnames[: len(_arguments(node))]:
            raise NoSource("its source was changed after it was imported")
        self.node = node
        self.inside = _class_around(getattr(code, "co_qualname", function.__qualname__).split("."))

    def compiled(self, old: types.CodeType) -> types.CodeType:
        """The code of the changed tree: it is compiled within functions that bind its free names,
        and a class for mangling."""
        free = [*old.co_freevars, RUNTIME]
        node = self.node
        node.decorator_list = []
        parts = [node.args, *ast.walk(node.args)]
        for part in parts:  # evaluated where the function is defined; here their names are unknown
            if isinstance(part, ast.arguments):
                part.defaults = [ast.Constant(None) for _ in part.defaults]
                part.kw_defaults = [d and ast.Constant(None) for d in part.kw_defaults]
            elif isinstance(part, ast.arg):
                part.annotation = None
        node.returns = None
        inner: ast.stmt = node
        if self.inside is not None:
            inner = ast.ClassDef(self.inside, [], [], [node], [])
            if hasattr(inner, "type_params") or "type_params" in ast.ClassDef._fields:
                inner.type_params = []  # type: ignore[attr-defined]
        around = ast.parse(f"def around({', '.join(free)}):\n    pass").body[0]
        assert isinstance(around, ast.FunctionDef)
        around.body = [inner]
        defined = self.inside or node.name
        if defined not in free:
            # The definition here would hide the global with its name, which its code may use.
            around.body.insert(0, ast.Global([defined]))
        module = ast.fix_missing_locations(ast.Module([around], []))
        flags = old.co_flags & FUTURE
        code = compile(module, old.co_filename, "exec", flags=flags, dont_inherit=True)
        names = ["around", *([self.inside] if self.inside is not None else []), node.name]
        for name in names:
            code = next(
                c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name
            )
        if sys.version_info >= (3, 11):
            code = code.replace(co_qualname=old.co_qualname)
        return code


def with_code(
    function: types.FunctionType, code: types.CodeType, runtime: Any
) -> types.FunctionType:
    """The function with code that `Definition.compiled` made; `runtime` is the content of its
    additional cell."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells[RUNTIME] = types.CellType(runtime)
    return like(function, code, [cells[name] for name in code.co_freevars])


def like(
    function: types.FunctionType, code: types.CodeType, cells: list[types.CellType]
) -> types.FunctionType:
    """A function that replaces another one, with this code and these cells."""
    made = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
    made.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(made, function)
    return made


def statements(text: str, at: ast.AST) -> list[Any]:
    """The statements of a text, at the place of a node of the user's."""
    made = ast.parse(text).body
    for n in (n for s in made for n in ast.walk(s)):
        ast.copy_location(n, at)
    return made


def expression(text: str, at: ast.AST) -> Any:
    """The expression of a text, at the place of a node of the user's."""
    return statements(text, at)[0].value


def called(function: str, at: ast.AST, *arguments: ast.expr) -> ast.Call:
    """A call of a function of ours, in place of a node of the user's."""
    return ast.copy_location(ast.Call(expression(function, at), [*arguments], []), at)


FUTURE = 0
for _name in ("annotations", "generator_stop"):
    FUTURE |= getattr(__import__("__future__"), _name).compiler_flag


def _class_around(names: list[str]) -> str | None:
    """The innermost class around a function, by the parts of its qualified name."""
    if len(names) < 2:
        return None
    return _class_around(names[:-2]) if names[-2] == "<locals>" else names[-2]


def _arguments(node: ast.FunctionDef) -> tuple[str, ...]:
    a = node.args
    return tuple([arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)])
