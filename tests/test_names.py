"""One name for one thing: no class name occurs twice in the packages, or in package and engine."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict

from sources import NATIVE, sources

KNOWN = {"LanguageModel"}  # the same model, trained with torch or answering without

# The same things on both sides: programs, as Python makes them and the engine reads them; and the
# segments of a run.
ON_BOTH_SIDES = {
    "Buffer", "Carry", "Code", "ElementRun", "Gradient", "How", "IndexTable", "Instruction", "Kind",
    "Op", "Operand", "Program", "Segment", "SmallProduct", "Weight", "WeightBlock",
}  # fmt: skip
CPP_CLASS = re.compile(
    r"^(?:template <[^>]*> ?)?(?:struct|class|enum class|enum) (\w+)[^;()]*?\{", re.MULTILINE
)


@functools.cache
def classes(source: str) -> tuple[str, ...]:
    return tuple(x.name for x in ast.walk(ast.parse(source)) if isinstance(x, ast.ClassDef))


def twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """Class names → the files that have them, of those in several files."""
    found = defaultdict(list)
    for file, source in sources.items():
        for name in set(classes(source)):
            found[name].append(file)
    return {name: files for name, files in found.items() if len(files) > 1}


def test_no_class_name_occurs_twice():
    assert {name: where for name, where in twice(sources()).items() if name not in KNOWN} == {}


def test_no_class_name_is_in_package_and_engine():
    ours = {name for source in sources().values() for name in classes(source)}
    files = [p for p in NATIVE.rglob("*.*") if p.suffix in (".h", ".cc") and "tests" not in p.parts]
    theirs = {n for p in files for n in CPP_CLASS.findall(p.read_text(encoding="utf-8"))}
    assert {"Executor", "Operand", "Worker"} <= theirs
    assert ours & theirs == ON_BOTH_SIDES


def test_a_second_class_of_a_name_is_found():
    assert twice({"a.py": "class A: pass", "b.py": "if 1:\n class A: pass\nclass B: pass"}) == {
        "A": ["a.py", "b.py"]
    }
