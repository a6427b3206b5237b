"""Everything public says what it does: functions, classes, and the longer methods of classes.

A method also has the docstring of the method that it overrides. What a user imports by name has
an example, too; tests/docs/test_pages.py runs it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping

from sources import sources

OBVIOUS = 3  # lines of a method that its name explains

PACKAGES = (
    "ostinato",
    "ostinato.nn",
    "ostinato_learn",
    "ostinato_learn.data",
    "ostinato_learn.datasets",
    "ostinato_learn.models",
)
GIVEN = {"Dataset", "Split"}  # by functions that have examples

Functions = (ast.FunctionDef, ast.AsyncFunctionDef)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def is_overload(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in method.decorator_list)


def lines_of(method: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (method.end_lineno or method.lineno) - method.lineno + 1


class Classes:
    """The classes of all sources by name, to look up what a method overrides."""

    def __init__(self, trees: Mapping[str, ast.Module]) -> None:
        nodes = [x for tree in trees.values() for x in ast.walk(tree)]
        self.by_name = {x.name: x for x in nodes if isinstance(x, ast.ClassDef)}

    def documents(self, of: ast.ClassDef, method: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether the class, or one that it inherits from, has the method with a docstring."""
        own = (m for m in of.body if isinstance(m, Functions) and m.name == method)
        if any(map(ast.get_docstring, own)):
            return True
        bases = [ast.unparse(b).partition("[")[0].rpartition(".")[2] for b in of.bases]
        return any(
            self.documents(self.by_name[base], method, seen | {of.name})
            for base in bases
            if base in self.by_name and base not in seen
        )


def undocumented(sources: Mapping[str, str]) -> Iterator[str]:
    """`file: name` of each public function, class and longer method that says nothing."""
    trees = {file: ast.parse(source) for file, source in sources.items()}
    classes = Classes(trees)
    for file, tree in trees.items():
        for x in tree.body:
            if not isinstance(x, (*Functions, ast.ClassDef)) or not is_public(x.name):
                continue
            if not ast.get_docstring(x):
                yield f"{file}: {x.name}"
            for m in x.body if isinstance(x, ast.ClassDef) else []:
                if not isinstance(m, Functions) or not is_public(m.name) or is_overload(m):
                    continue
                if lines_of(m) > OBVIOUS and not classes.documents(x, m.name):
                    yield f"{file}: {x.name}.{m.name}"


def test_everything_public_says_what_it_does():
    read = sources()
    assert len(read) > 100
    assert list(undocumented(read)) == []


def has_example(thing: object) -> bool:
    """True also of what is no function and no class, and of exceptions."""
    is_error = inspect.isclass(thing) and issubclass(thing, BaseException)
    shown = (inspect.isclass(thing) or inspect.isfunction(thing)) and not is_error
    return not shown or ">>>" in (inspect.getdoc(thing) or "")


def test_every_public_name_has_an_example():
    modules = [importlib.import_module(name) for name in PACKAGES]
    names = [(module, name) for module in modules for name in module.__all__]
    assert len(names) > 50
    lacking = {name for module, name in names if not has_example(getattr(module, name))}
    assert lacking == GIVEN


def test_what_says_nothing_is_found():
    base = 'class Base:\n "A base."\n def f(self):\n  "Gives 1."\n  x = 1\n  return x\n'
    ours = "class Ours(base.Base[int]):\n def f(self):\n  x = 1\n  y = 2\n  return x + y\n"
    more = " def g(self):\n  x = 1\n  y = 2\n  return x + y\n def h(self):\n  return 3\n"
    last = "def of(x):\n return x\ndef _own(x):\n return x\n"
    found = list(undocumented({"a.py": base, "b.py": ours + more + last}))
    assert found == ["b.py: Ours", "b.py: Ours.g", "b.py: of"]
