"""Imports point one way, down the lists below; the engine, lowering, runtime, saved
models, exports and the server never import torch."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import ostinato
from sources import CORE, LEARN

# From the bottom up: each may import those before it. Names on one line import none of it.
# A file or folder at another place than its folder has its own name; * is any task.
IN_CORE = """
    _native
    engine
    _extras machine tree
    eager
    arguments
    compiler
    forms
    checkpointed
    _scan
    _explain
    loops
    nn
    internal
"""
IN_LEARN = """
    anatomy environment files interrupt
    hyperparameters
    tasks/base
    tasks/*/__init__
    tasks/__init__
    metrics
    data
    datasets
    runtime
    saved
    runtime/__init__
    models
    training
    baselines
    tasks/*/labelling tasks/reading
    tasks/*/model
    tasks
    report
    export
    estimators
    serve
    jobs/failures jobs/answer_columns
    jobs/output
    jobs/inputs
    jobs/runs
    jobs/timing jobs/series jobs/documents
    jobs/dry_run
    jobs/base
    jobs/parts
    jobs
    jobs/registry
    jobs/findings jobs/destination jobs/experiment
    cli
    __main__
"""
COMPILER = """
    errors lock
    torch_private
    torch_compat
    inputs steps
    capture
    shared
    graph
    lower backward
    plan
    play
    cache
    verify
    transforms
    recorded
    __init__
"""
WITHOUT_TORCH = [
    *(CORE / name for name in ("engine", "compiler/lower")),
    *(LEARN / name for name in ("runtime", "saved", "export", "serve")),
]
# Strings that name modules and are no imports: whose functions are read like a user's code.
NO_IMPORTS = {
    ("compiler/capture/guards/code.py", "ostinato.nn.steps"),
    ("compiler/capture/guards/code.py", "ostinato.loops.scanned"),
    ("loops/iteration/emitted.py", "ostinato.compiler"),
    ("_scan.py", "ostinato.loops.scanned"),  # one way back up: loops know scan
    # The registry of tasks: whoever asks for a task by its name gets what its folder has.
    ("tasks/base.py", "ostinato_learn.tasks.*.*"),
    ("tasks/__init__.py", "ostinato_learn.tasks.*"),
}


OURS = re.compile(r"ostinato(_learn|_datasets)?(\.\w+)+(\.\*)*")


@functools.cache
def imported(source: str) -> tuple[str, ...]:
    """Each module or name that a source imports, as a dotted name; not those for types alone.

    A string that is such a name counts: it may be imported by `importlib`. A value within a string
    is * here.
    """
    return tuple(_imported(ast.parse(source)))


def _imported(tree: ast.Module) -> Iterator[str]:
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "wanted absolute imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and OURS.fullmatch(str(node.value)):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            values = (v.value if isinstance(v, ast.Constant) else "*" for v in node.values)
            if OURS.fullmatch(name := "".join(values)):
                yield name


def part(path: Path, root: Path, known: Collection[str] = ()) -> str:
    """The name of a file in a list: its own, that of such a file in any folder, or its folder's."""
    *folders, name = path.relative_to(root).parts
    whole = "/".join([*folders, name.removesuffix(".pyi").removesuffix(".py")])
    of_any = "/".join([*folders[:-1], "*", whole.rpartition("/")[2]])
    names = [whole, *([of_any] if len(folders) > 1 else []), *map("/".join, _grown(folders))]
    return next((n for n in names if n in known), whole.partition("/")[0])


def _grown(folders: list[str]) -> Iterator[list[str]]:
    return (folders[:i] for i in range(len(folders), 0, -1))


def upwards(root: Path, order: str, package: str) -> list[str]:
    """Imports within a package that do not point down, and files that have no place in it."""
    height = {name: i for i, line in enumerate(order.split("\n")) for name in line.split()}
    files = [path for path in root.rglob("*.py*") if "__pycache__" not in path.parts]
    place = {_dotted(path, root): part(path, root, height) for path in files}
    unused = sorted(height.keys() - set(place.values()))
    wrong = [f"{name} is in the list and nowhere else" for name in unused]
    for path in sorted(path for path in files if path.suffix == ".py"):
        here = part(path, root, height)
        if here == "__init__" and "." not in package:
            continue  # the public names, resolved lazily
        if here not in height:
            wrong.append(f"{path.relative_to(root)}: give it a place in tests/test_imports.py")
            continue
        for name in _imports_of(path, root):
            within = name.removeprefix(f"{package}.")
            there = _place(within, place) if within != name else here
            if there not in (here, None) and height.get(there, len(height)) >= height[here]:
                wrong.append(f"{path.relative_to(root)} imports {name}")
    return wrong


def _imports_of(path: Path, root: Path) -> Iterator[str]:
    """What a file imports, but not strings that name its own package, as those of its data."""
    here = f"{root.name}.{_dotted(path, root)}"
    for name in imported(path.read_text("utf-8")):
        known = (path.relative_to(root).as_posix(), name) in NO_IMPORTS
        if not known and not here.startswith(f"{name}."):
            yield name


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _place(name: str, place: dict[str, str]) -> str | None:
    """The place of the module that a dotted name is, or is a name in."""
    while name and name not in place:
        name = name.rpartition(".")[0]
    return place.get(name)


def test_imports_of_the_core_point_down():
    assert upwards(CORE, IN_CORE, "ostinato") == []


def test_imports_of_learn_point_down():
    assert upwards(LEARN, IN_LEARN, "ostinato_learn") == []


def test_imports_of_the_compiler_point_down():
    assert upwards(CORE / "compiler", COMPILER, "ostinato.compiler") == []


def test_the_core_names_nothing_that_is_built_on_it():
    for path in CORE.rglob("*.py"):
        assert not re.search(r"\bostinato_(learn|datasets)", path.read_text("utf-8")), path


def test_learn_uses_public_names_of_the_core_and_internal():
    public = {"ostinato.internal", *(f"ostinato.{name}" for name in ostinato.__all__)}
    for path in LEARN.rglob("*.py"):
        for name in imported(path.read_text("utf-8")):
            if name.startswith("ostinato."):
                assert ".".join(name.split(".")[:2]) in public, (path, name)


def circle(root: Path, package: str) -> list[str]:
    """Modules that import each other in a circle, functions included; [] if none do."""
    files = {f"{package}.{_dotted(path, root)}": path for path in root.rglob("*.py")}
    itself = {name: name for name in files}
    graph = {
        here: {_place(name, itself) for name in _imports_of(path, root)} - {here, None}
        for here, path in files.items()
        if here != f"{package}.__init__"  # the public names, resolved lazily
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as found:
        return list(found.args[1])
    return []


@pytest.mark.parametrize("root", [CORE, LEARN], ids=lambda root: root.name)
def test_no_files_import_each_other_in_a_circle(root):
    assert circle(root, root.name) == []


@pytest.mark.parametrize("folder", WITHOUT_TORCH, ids=lambda folder: folder.name)
def test_no_torch(folder):
    files = list(folder.rglob("*.py"))
    assert files
    for path in files:
        found = [name for name in imported(path.read_text()) if name.partition(".")[0] == "torch"]
        assert not found, path


@pytest.mark.process
def test_the_engine_needs_no_torch():
    script = """
        import sys
        sys.modules["torch"] = None  # an import of it fails
        from ostinato.engine import native, ops, program, reference
        assert "base" in native.available_isas()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_what_records_a_step_is_imported_when_one_is_recorded():
    """Then, too, neither SymPy nor torch._dynamo, which take a good part of a second."""
    script = """
        import sys
        import torch
        import torch.nn.functional as F
        from ostinato import explain, nn, scan
        late = ("graph.from_aten", "capture.record", "capture.replaced.functions", "lower.lower")
        assert [m for m in late if "ostinato.compiler." + m in sys.modules] == []
        W = torch.ones(2, 2, requires_grad=True)
        scan(lambda h, x: torch.tanh(x @ W + h), torch.zeros(1, 2), torch.zeros(3, 1, 2))
        assert "ostinato.compiler.capture.record" in sys.modules
        for layer in (nn.GRU(2, 2), nn.LSTM(2, 2)):
            layer(torch.zeros(3, 1, 2))
        def attends(h, x):
            out = F.scaled_dot_product_attention(h, h, F.normalize(x, dim=-1))
            return F.elu(F.leaky_relu(F.silu(out))), torch.addmm(x[:, 0], x[:, 1], W).log_softmax(1)
        assert explain(attends, torch.zeros(3, 2, 2), torch.zeros(3, 3, 2, 2)).native
        assert not {"sympy", "torch._dynamo"} & set(sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_checker_can_fail(tmp_path):
    """On an import upwards, beside, in a function or by a string, and on a file without a place."""
    files = {
        "engine/a.py": "from ostinato import tree\nimport numpy",
        "tree.py": "def f():\n    from ostinato.engine import a\n    from ostinato.files import b",
        "files.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ostinato.cli",
        "cli/x.py": "import ostinato.tree",
        "engine/b.py": "LATE = 'ostinato.cli.x'\nANY = f'ostinato.tree.{LATE}'",
        "new.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert upwards(tmp_path, "engine gone\nfiles tree\ncli", "ostinato") == [
        "gone is in the list and nowhere else",
        "engine/a.py imports ostinato.tree",
        "engine/b.py imports ostinato.cli.x",
        "engine/b.py imports ostinato.tree.*",
        "new.py: give it a place in tests/test_imports.py",
        "tree.py imports ostinato.files.b",
    ]
    assert set(circle(tmp_path, "ostinato")) == {"ostinato.engine.a", "ostinato.tree"}
    assert imported("import torch.nn\nfrom torch import fx as t") == ("torch.nn", "torch.fx")
