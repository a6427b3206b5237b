"""Breaks lines that make gradients, one at a time, and says which changes the quick tests miss.

    python scripts/mutants.py --number 50 --seed 1              # the compiler's Python
    python scripts/mutants.py --number 10 --seed 1 --native     # native/kernels: each is compiled

A mutant is one changed operator, condition or number, or a statement left out, drawn by the seed.
The tests run in a copy of the checkout, in build/mutants; before the first change all of them must
pass, and what they take then sets the time limits. For each mutant come the tests that saw the most
mutants before, those of the area, then the others, until one fails twice. Lines printed: seen,
late (a time limit ended the tests, which is not counted as seen) or SURVIVED; file, line, before
and after; the failed test. A survivor needs a test, or a sentence why it is equal.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "mutants"
PACKAGE = Path("packages/ostinato/src/ostinato")
TESTS = "packages/ostinato/tests/"
PYTHON = ("compiler/graph/aten_*.py", "compiler/backward/*.py", "compiler/lower/*.py")
KERNELS = Path("packages/ostinato/native/kernels")
# Part of a mutant's path → the tests that run first, from packages/ostinato/tests.
FIRST = {
    "graph/": ["compiler/test_operations.py", "compiler/test_many_operations.py"],
    "backward/": ["compiler/test_liveness.py", "compiler/test_sums_of_samples.py"],
    "lower/": ["compiler/test_lowering.py", "compiler/test_lowering_by_places.py"],
    "kernels/": ["engine"],
}
THEN = [
    ["compiler/test_zoo.py", "compiler/test_steps.py"],
    ["compiler", "nn", "test_scan.py", "forms"],
]
COMPARE = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
}
NATIVE = {
    "+": "-",
    "-": "+",
    "*": "+",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "&&": "||",
    "||": "&&",
    "+=": "-=",
}
TOKEN = re.compile(r"(?<= )(?:[+*<>-]|[<>=!+]=|&&|\|\|)(?= )|(?<![\w.<'])\d+(?![\w.'>])")


LATE = "late"


@dataclass(frozen=True)
class Mutant:
    path: Path
    begin: int  # of the file's bytes
    end: int
    text: str

    def told(self, source: bytes) -> str:
        line = source[: self.begin].count(b"\n") + 1
        before = " ".join(source[self.begin : self.end].decode().split())
        return f"{self.path}:{line}  {before}  ->  {self.text}"


def area(mutant: Mutant) -> str:
    return next(part for part in FIRST if part in str(mutant.path))


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    match node:
        case ast.Compare(left, [op], [right]) if type(op) in COMPARE:
            yield ast.Compare(left, [COMPARE[type(op)]()], [right])
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() as value):
            yield ast.Constant(value + 1)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Expr(ast.Call()) | ast.AugAssign():
            yield ast.Pass()
        case ast.Assign([ast.Subscript() | ast.Attribute()], _):
            yield ast.Pass()


def of_python(path: Path) -> Iterator[Mutant]:
    source = (ROOT / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    texts = (ast.JoinedStr, ast.FormattedValue)  # their parts have no places of their own
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        waiting += [each for each in ast.iter_child_nodes(node) if not isinstance(each, texts)]
        for other in variants(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(other))
            yield Mutant(path, begin, end, f"({text})" if isinstance(node, ast.expr) else text)


def of_native(path: Path) -> Iterator[Mutant]:
    at = 0
    for line in (ROOT / path).read_bytes().splitlines(keepends=True):
        code = line.decode().partition("//")[0]
        if not code.startswith("#") and "static_assert" not in code and code.isascii():
            for found in TOKEN.finditer(code):
                old = found.group()
                new = NATIVE[old] if old in NATIVE else str(int(old) + 1)
                yield Mutant(path, at + found.start(), at + found.end(), new)
        at += len(line)


def mutants(native: bool) -> list[Mutant]:
    """All of them, in a fixed order."""
    if native:
        files = [x for x in (ROOT / KERNELS).iterdir() if "neon" not in x.name]
        return [m for x in sorted(files) for m in of_native(x.relative_to(ROOT))]
    files = [x for pattern in PYTHON for x in sorted((ROOT / PACKAGE).glob(pattern))]
    return [m for x in files for m in of_python(x.relative_to(ROOT))]


def compile_engine() -> bool:
    """Whether it compiles. Its module then lies beside the Python files."""
    nanobind = subprocess.check_output([sys.executable, "-m", "nanobind", "--cmake_dir"], text=True)
    source, build = COPY / "packages" / "ostinato", COPY / "build"
    configure = [
        *("cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DSKBUILD=ON"),
        *("-DSKBUILD_SABI_COMPONENT=", f"-Dnanobind_DIR={nanobind.strip()}"),
        f"-DPython_EXECUTABLE={sys.executable}",
        *(["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []),
    ]
    for command in (configure, ["cmake", "--build", build, "--parallel", str(os.cpu_count())]):
        if subprocess.run(command, capture_output=True).returncode:
            return False
    (module,) = build.glob("native/_native*.so")
    shutil.copy(module, COPY / PACKAGE)
    return True


def prepare(native: bool) -> None:
    """Make the copy, and that its Python files are imported instead of the checkout's."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in ("packages", "tests", "docs", "README.md", "conftest.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, COPY / name)
    # The finder of an editable install comes before PYTHONPATH.
    (COPY / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__]\n"
    )
    if not native:
        shutil.copy(importlib.import_module("ostinato._native").__file__ or "", COPY / PACKAGE)
    elif not compile_engine():
        raise SystemExit("without a change the engine does not compile")
    ask = [sys.executable, "-c", "import ostinato; print(ostinato.__file__)"]
    if str(COPY) not in (found := subprocess.check_output(ask, env=environment(), text=True)):
        raise SystemExit(f"the tests would import {found.strip()}; wanted one in {COPY}")


def environment() -> dict[str, str]:
    folders = [str(COPY / "packages" / each.name / "src") for each in (ROOT / "packages").iterdir()]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(COPY), *folders])}


def failed_test(tests: list[str], limit: float | None = None) -> str | None:
    """The first of these tests that fails, LATE, or None."""
    command = [*(sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "--tb=no")]
    command += [*("-p", "no:cacheprovider", "-rfE"), *(TESTS + each for each in tests)]
    try:
        done = subprocess.run(
            command, cwd=COPY, env=environment(), capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return LATE
    if not done.returncode:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+?::.+?|\S+)(?: - .*)?$", done.stdout, re.MULTILINE)
    return found.group(1).removeprefix(TESTS) if found else tests[0]  # no test began


class Stages:
    """The tests in the order that they run in. The unmutated code passed them within the limits."""

    def __init__(self, areas: set[str]) -> None:
        self.saw = Counter[str]()
        self.limits: dict[str, float] = {}
        for stage in (*(FIRST[area] for area in sorted(areas)), *THEN):
            begin = time.perf_counter()
            if test := failed_test(stage):
                raise SystemExit(f"without a change fails {test}")
            self.limits[stage[0]] = 60 + 4 * (time.perf_counter() - begin)

    def failed_test(self, mutant: Mutant) -> str | None:
        often = [test for test, _ in self.saw.most_common(8)]
        for stage in ([often] if often else []) + [FIRST[area(mutant)], *THEN]:
            test = failed_test(stage, self.limits.get(stage[0], 120))
            if test and test != LATE:  # once more: it may have failed by chance
                test = failed_test([test], 120)
            if test:
                if "::" in test:
                    self.saw[test] += 1
                return test
        return None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--native", action="store_true")
    given = parser.parse_args()
    prepare(given.native)
    drawn = random.Random(given.seed).sample(mutants(given.native), given.number)
    stages = Stages({area(mutant) for mutant in drawn})
    verdicts = Counter[str]()
    for mutant in drawn:
        source = (COPY / mutant.path).read_bytes()  # the checkout may change meanwhile
        broken = source[: mutant.begin] + mutant.text.encode() + source[mutant.end :]
        (COPY / mutant.path).write_bytes(broken)
        test = None
        if given.native and not compile_engine():
            verdict = "no code"
        else:
            test = stages.failed_test(mutant)
            verdict = {None: "SURVIVED", LATE: LATE}.get(test, "seen")
        verdicts[verdict] += 1
        print(f"{verdict:10} {mutant.told(source)}  {test or ''}", flush=True)
        (COPY / mutant.path).write_bytes(source)
    print(", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common()))
    return 0 if set(verdicts) <= {"seen", "no code"} else 1


if __name__ == "__main__":
    sys.exit(main())
