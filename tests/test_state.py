"""What a process keeps: few things do, and each has its reason beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sources import sources

KNOWN = {
    # recorded steps, and what is made of their code and guards
    "compiler/cache.py": {"_buckets"},
    "compiler/capture/guards/code.py": {"globals_of", "names_of"},
    "compiler/capture/guards/observation.py": {"_compiled"},
    # what PyTorch's operations are made of
    "compiler/capture/recorder.py": {"_is_composite"},
    "compiler/capture/replaced/elementwise.py": {"decomposition"},
    "compiler/capture/recording.py": {"overload_of"},
    # forms of a step that PyTorch cannot tell: its outputs, its rows
    "forms/adapted.py": {"_output_kinds"},
    "forms/known.py": {"answers", "folds", "numbers", "one_row"},
    # files that were read for their loops, classes and steps that have them, and what code names
    "loops/iteration/attributes.py": {"_sorted_globals"},
    "loops/iteration/elements.py": {"_axis_of_part"},
    "loops/inplace.py": {"_methods"},
    "loops/rewriting.py": {"known"},
    "loops/scanned.py": {"_loops"},
    # warnings given, and forms of a step that PyTorch cannot tell
    "compiler/steps.py": {"_times"},
    # states that Python, and PyTorch, have once for all threads
    "compiler/capture/guards/names_seen.py": {"_lock", "_n_threads"},
    "compiler/lock.py": {"one_at_a_time"},
    "compiler/torch_compat.py": {"_Stance"},
    # private names that this PyTorch lacks
    "compiler/torch_private.py": {"missing", "unavailable"},
    "models/build.py": {"_Callers"},
    # properties of the machine and its environment
    "ostinato/_explain.py": {"multiply_rate"},
    "engine/native.py": {
        "best_isa",
        "own_threads",
        "threads_from_environment",
        "unavailable",
        "workspaces_of_the_process",
    },
    "engine/rows.py": {"_seats"},
    "engine/machine_code/__init__.py": {"_one_at_a_time"},
    "engine/machine_code/by_llvm.py": {"_llvm"},
    "runtime/programs.py": {"_cores"},
    # files of the package, and its tasks, once they were asked for
    "serve/page.py": {"_content"},
    "tasks/__init__.py": {"named"},
    # the classes of ours for users' subclasses of torch's layers
    "nn/swap.py": {"_ours_for"},
    # what classes declare, for each of their objects
    "ostinato_learn/hyperparameters.py": {"declarations"},
    # a process of --jobs, and a training's processes
    "cli/many/workers.py": {"_prepared"},
    "training/distributed.py": {"_given_up"},
    "training/optimizers.py": {"_stepping_plainly"},
}
CHANGES = {
    "dict", "list", "set", "defaultdict", "deque", "Counter", "OrderedDict", "Recent", "ContextVar",
    "local",
    "Lock", "RLock", "Event", "Condition", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet",
}  # fmt: skip
CACHED = re.compile(r"(functools\.)?(lru_)?cache\b")


def state(source: str) -> Iterator[str]:
    """Names of a module that its functions may change: globals, containers, locks, memos, classes.

    A container in capitals is a table, filled when it is imported.
    """
    tree = ast.parse(source)
    classes = {x.name for x in tree.body if isinstance(x, ast.ClassDef)}
    for x in tree.body:
        if isinstance(x, ast.Assign | ast.AnnAssign) and may_change(x.value):
            targets = x.targets if isinstance(x, ast.Assign) else [x.target]
            names = {n.id for n in targets if isinstance(n, ast.Name)} - {"__all__"}
            yield from (name for name in names if not name.isupper())
    for x in ast.walk(tree):
        if isinstance(x, ast.Global):
            yield from x.names
        if isinstance(x, ast.FunctionDef):
            yield from (x.name for d in x.decorator_list if CACHED.match(ast.unparse(d)))
        changed = x.targets if isinstance(x, ast.Assign) else [getattr(x, "target", None)]
        for target in changed:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) in classes:
                yield ast.unparse(target.value)


def may_change(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in CHANGES
    return isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp)


def test_what_a_process_keeps_is_known():
    found = {file: set(state(source)) for file, source in sources().items()}
    assert {file: names for file, names in found.items() if names} == KNOWN


def test_every_kind_of_state_is_found():
    source = """
TABLE, number = {}, 2
Alias = dict[str, int]
known: dict[str, int] = {}
seen = defaultdict(int)
lock = threading.RLock()
current = contextvars.ContextVar("current")
@functools.lru_cache(maxsize=3)
def memo(): ...
class Shared:
    n = 0
def change():
    global number
    Shared.n += 1
"""
    found = {"known", "seen", "lock", "current", "memo", "number", "Shared"}
    assert set(state(source)) == found
