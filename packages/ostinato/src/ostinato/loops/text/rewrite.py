"""The rewriting of a function's loops.

    for TARGET in ITER: BODY

becomes, for a loop that may be one over time,

    def body(loop, item, *carried):                 # the iteration as a function of its state
        TARGET = item; BODY; return carried, and what is read after the loop
    loop = runtime.begin(number, ITER, body, ...)
    while True:
        for TARGET in loop: BODY                    # in Python, until the loop asks for a scan
        if loop.ended: break
        state = loop.scan(locals())                 # the iterations that one scan runs
        if state is not None: carried, ... = state

In both copies of BODY `base[index]` is `loop.at(number, base, index)` and `base[index] = value` is
`loop.put(number, value, base, index)`, so that the loop sees which elements an iteration reads and
writes. Everything else is the user's text, at its lines.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from typing import Any

from ostinato.loops.text.bodies import (
    breaks,
    changed_names,
    element_names,
    grown_names,
    index_names,
    longer_names,
    named_in_functions,
    names_of,
    only_joined,
    parted_names,
    plain_elements,
    seen_call,
    selects,
    summed_names,
)
from ostinato.loops.text.comprehensions import as_loops
from ostinato.loops.text.dataflow import FUNCTIONS, LiveNames, own_nodes, reads, writes
from ostinato.loops.text.source import RUNTIME, called, expression, statements
from ostinato.loops.text.watched import ROWS, JoinedLists, StepBody, Watched, visited
from ostinato.loops.text.written import AboutWritten

_UNSEEN = {"locals", "eval", "exec", "vars", "globals", "breakpoint"}
_HEADERS = {"reversed", "enumerate", "zip"}
_PARTS = {"unbind", "split", "chunk", "tensor_split"}
_OF_OTHERS = {
    "items",
    "keys",
    "values",
    "children",
    "named_children",
    "modules",
    "named_modules",
    "parameters",
    "named_parameters",
    "buffers",
    "named_buffers",
}
_DECLARATIONS = ast.Global, ast.Nonlocal
# Calls that mark a training loop, whose iterations are not steps of a scan.
_TRAINING = {"backward", "zero_grad"}
# Nodes of a body that cannot be a function of one iteration.
_RULED_OUT = {
    "Return": "an iteration may end the loop (return)",
    "Yield": "an iteration hands out a value (yield)",
    "YieldFrom": "an iteration hands out values (yield from)",
    "Try": "an iteration catches errors (try)",
    "TryStar": "an iteration catches errors (try)",
    "Delete": "an iteration deletes a name or an item (del)",
    "ClassDef": "an iteration defines a class",
    "Import": "an iteration imports a module",
    "ImportFrom": "an iteration imports a name",
    "Global": "an iteration binds a global name",
    "Nonlocal": "an iteration binds a name of the function around",
}


@dataclass(frozen=True)
class LoopSource:
    """A loop of the text.

    Attributes:
        line: its line in the file.
        text: the text of its header.
        carried: the names that an iteration takes from the one before, in order; of a loop that
            stays, all that it binds.
        trailing: the names that are only read after the loop.
        grown: those of `carried` that an iteration may append to: 0 for `x.append`, 1 for
            `x[i].append`, and so on.
        longer: the names of tensors that an iteration only makes longer → the axis.
        joined: those of `grown` that the function only hands to torch.stack and torch.cat.
        summed: those that it only adds to; whether in place, by `+=`.
        problem: why its iterations cannot be steps of a scan, or "".
        plain: the elements whose place before the loop is known; see `plain_elements`.
        stays: whether it is left unchanged, because its body cannot be a function of one iteration.
    """

    line: int
    text: str
    carried: tuple[str, ...]
    trailing: tuple[str, ...]
    grown: dict[str, int]
    longer: dict[str, int]
    joined: frozenset[str]
    summed: dict[str, bool]
    problem: str
    plain: dict[int, tuple[str, tuple[Any, ...]]]
    stays: bool = False

    def has_state(self) -> bool:
        """Whether iterations hand on more than what they append and add."""
        return bool({*self.carried} - {*self.grown, *self.longer, *self.summed})

    def has_lists(self) -> bool:
        """Whether there are lists or tensors that iterations may make longer."""
        return bool(self.grown or self.longer)


def rewritten(function: ast.FunctionDef) -> list[LoopSource]:
    """Rewrite the loops of a function in place, and return them."""
    for loop in ast.walk(function):
        if isinstance(loop, ast.For):
            loop._text = _header(loop)  # type: ignore[attr-defined]
    return _Function(function).rewrite()


class _Function:
    """A function and the functions within it."""

    def __init__(self, function: ast.FunctionDef):
        self.function = function
        self.loops: list[LoopSource] = []
        self.nested: list[tuple[ast.FunctionDef, list[ast.stmt]]] = []  # with their own bodies
        # Both copies of a body have the same numbers.
        self.numbers = {
            n: i
            for i, n in enumerate(ast.walk(function))
            if isinstance(n, ast.Subscript) or selects(n)
        }
        for n, i in self.numbers.items():
            n._number = i  # type: ignore[attr-defined]

    def rewrite(self) -> list[LoopSource]:
        self.scope(self.function)
        if self.loops:
            body = JoinedLists().visit(self.function).body
            at = 1 if ast.get_docstring(self.function, clean=False) is not None else 0
            body[at:at] = statements(f"{ROWS} = {RUNTIME}.rows()", body[0])
        for function, own in self.nested:
            function.body = _unless_compiling(function.body, own)
        return self.loops

    def scope(self, function: ast.FunctionDef) -> None:
        loaded = reads(*function.body)
        if loaded & _UNSEEN and not {"super"} >= loaded & _UNSEEN:
            return
        own, n_loops = copy.deepcopy(function.body), len(self.loops)
        function.body = as_loops(function.body)
        outer = [n for n in own_nodes(function.body) if isinstance(n, _DECLARATIONS)]
        of_scope = _Scope(self, function, {name for n in outer for name in n.names})
        function.body = of_scope.block(function.body, None)
        if function is not self.function and len(self.loops) > n_loops:
            self.nested.append((function, own))


def _unless_compiling(body: list[ast.stmt], own: list[ast.stmt]) -> list[ast.stmt]:
    """A function's rewritten statements, after its own ones for PyTorch's compiler.

    The compiler cannot trace rewritten statements. Only the function around, which `loop` was
    given, is a graph break.
    """
    declared = [n for n in own_nodes(body) if isinstance(n, _DECLARATIONS)]
    if any(n not in body for n in declared):  # in a block; two copies of it are no Python
        return body
    (branch,) = statements(f"if {RUNTIME}.is_compiling():\n    return", body[0])
    branch.body[:0] = [s for s in own if not isinstance(s, _DECLARATIONS)]
    doc = body[:1] if isinstance(body[0], ast.Expr) else []  # a docstring, perhaps
    return [*doc, *declared, branch, *[s for s in body if s not in (*doc, *declared)]]


class _Scope:
    """The statements of one function."""

    def __init__(self, of: _Function, function: ast.FunctionDef, declared: set[str]):
        self.of, self.declared, self.body = of, declared, function.body
        self.live = LiveNames(function.body)
        self.joined = only_joined(function.body)
        arguments = function.args
        self.arguments = [
            a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        ]
        more = [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
        self.names = (writes(function.body) | {*self.arguments, *more}) - declared
        self.first = self.arguments[0] if self.arguments else None

    def block(self, body: list[ast.stmt], outer: str | None) -> list[ast.stmt]:
        """Statements with their loops rewritten; outer: the name of the loop around them."""
        found: list[ast.stmt] = []
        for statement in body:
            why = self.ruled_out(statement) if isinstance(statement, ast.For) else None
            if why is None:
                found.append(self.within(statement, outer))
            else:
                assert isinstance(statement, ast.For)
                left = self.left(statement, outer, why) if why else None
                found += left or self.loop(statement, outer)
        return found

    def within(self, statement: ast.stmt, outer: str | None) -> ast.stmt:
        if isinstance(statement, ast.FunctionDef):
            self.of.scope(statement)
        elif not isinstance(statement, (ast.ClassDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(statement, field, None)
                if isinstance(inner, list):
                    setattr(statement, field, self.block(inner, outer))
            for handler in getattr(statement, "handlers", []):
                handler.body = self.block(handler.body, outer)
            for case in getattr(statement, "cases", []):
                case.body = self.block(case.body, outer)
        return statement

    def ruled_out(self, loop: ast.For) -> str | None:
        """Why an iteration is not a function of its state, or ""; None for a loop over other
        things.

        Such a function runs to its end, and binds only local names.
        """
        if isinstance(loop.iter, ast.Call) and getattr(loop.iter.func, "attr", "") in _OF_OTHERS:
            return None
        nodes = [*own_nodes(loop.body)]
        calls = [n.func for n in nodes if isinstance(n, ast.Call)]
        if any(getattr(function, "attr", "") in _TRAINING for function in calls):
            return None
        if breaks(loop.body):
            return "an iteration may end the loop (break)"
        kinds = {type(n).__name__ for n in nodes}
        for kind, why in _RULED_OUT.items():
            if kind in kinds:
                return why
        if loop.orelse:
            return "the loop has an else part"
        if not isinstance(loop.target, (ast.Name, ast.Tuple, ast.List)):
            return "the loop's variable is not a local name"
        return "an iteration binds a global name" if writes([loop]) & self.declared else ""

    def left(self, loop: ast.For, outer: str | None, why: str) -> list[ast.stmt]:
        """A loop that is not rewritten, except that its elements are seen."""
        k = len(self.of.loops)
        names = tuple(sorted(writes(loop.body)))
        source = LoopSource(
            loop.lineno, _header(loop), names, (), {}, {}, frozenset(), {}, why, {}, True
        )
        self.of.loops.append(source)
        name = f"_ostinato_loop{k}_"
        (begin,) = statements(f"{name} = {RUNTIME}.begin({k}, None, None, {outer}, {ROWS})", loop)
        begin.value.args[1] = loop.iter
        loop.iter = expression(name, loop.iter)
        loop.body = visited(Watched(name), self.block(loop.body, name))
        loop.orelse = self.block(loop.orelse, outer)
        return [begin, loop]

    def loop(self, loop: ast.For, outer: str | None) -> list[ast.stmt]:
        k = len(self.of.loops)
        after = self.live.after[loop] | self.live.captured
        index = index_names(loop)
        changed = (changed_names(loop.body, index) & self.names) - {self.first}
        first = self.live.before(loop, frozenset(after))
        own = writes(loop.body) | names_of(loop.target)
        carried = sorted(own & first | (changed - names_of(loop.target) - (own - first)))
        carried = [n for n in carried if n in self.names]
        trailing = sorted((own & after) - {*carried})
        shared = sorted(own & named_in_functions(self.body, loop))
        problem = seen_call(loop.body)
        if shared:
            problem = f"a function that is defined outside of the loop uses {shared[0]}"
        grown = {n: depth for n, depth in grown_names(loop.body).items() if n in carried}
        functions = [n for n in own_nodes(self.body) if isinstance(n, FUNCTIONS)]
        fixed = self.names - writes([loop]) - {*carried}
        fixed -= {
            n
            for f in functions
            for s in ast.walk(f)
            if isinstance(s, ast.Nonlocal)
            for n in s.names
        }
        source = LoopSource(
            loop.lineno,
            _header(loop),
            tuple(carried),
            tuple(trailing),
            grown,
            {n: axis for n, axis in longer_names(loop.body).items() if n in carried},
            frozenset(self.joined & {*carried}),
            {n: how for n, how in summed_names(loop.body).items() if n in carried},
            problem,
            plain_elements(loop, fixed),
        )
        self.of.loops.append(source)
        name = f"_ostinato_loop{k}_"
        step = self.step(loop, k, carried, trailing, fixed)
        plain = self.block(loop.body, name)
        watched = visited(Watched(name), plain)
        state, own_state = [*carried, *trailing], f"_ostinato_state{k}_"
        text = (
            f"{name} = {RUNTIME}.begin({k}, None, {step.name}, {outer}, {ROWS})\n"
            "while True:\n"
            f"    for _ in {name}: pass\n"
            f"    if {name}.ended: break\n"
            f"    {own_state} = {name}.scan(locals())\n"
        )
        if state:
            text += f"    if {own_state} is not None:\n        {', '.join(state)}, = {own_state}\n"
            for own_name in carried:  # a name may be bound under a flag only
                text += f"        if {own_name} is {RUNTIME}.unbound: del {own_name}\n"
        begin, turns = statements(text, loop)
        begin.value.args[1] = _lazy(loop.iter)
        turns.body[0].target, turns.body[0].body = loop.target, watched
        return [step, begin, turns]

    def step(
        self, loop: ast.For, k: int, carried: list[str], trailing: list[str], fixed: set[str]
    ) -> ast.FunctionDef:
        """The iteration as a function of its state; fixed: the names that it does not bind."""
        name = f"_ostinato_loop{k}_"
        text = (
            f"def _ostinato_body{k}_({', '.join([name, '_ostinato_item_', *carried])}):\n"
            "    target = _ostinato_item_\n"
            f"    return ({''.join(n + ', ' for n in (*carried, *trailing))})\n"
        )
        (step,) = statements(text, loop)
        assign, end = step.body
        assign.targets = [copy.deepcopy(loop.target)]
        grown = [n for n, depth in grown_names(loop.body).items() if n in carried and not depth]
        index = index_names(loop, element_names(loop, self.body))
        body = copy.deepcopy(loop.body)
        body = visited(AboutWritten(name, body, fixed, index), body)
        body = visited(Watched(name, fixed, index, grown, parted_names(body, index)), body)
        summed = {n for n in summed_names(loop.body) if n in carried}
        body = visited(StepBody(end, self.first, name, summed, {*longer_names(loop.body)}), body)
        step.body = [assign, *body, end]
        return step


def _lazy(iterable: ast.expr) -> ast.expr:
    """The object that a loop iterates over, without the views that `unbind` and the like make."""
    if not isinstance(iterable, ast.Call):
        return iterable
    function = iterable.func
    named = isinstance(function, ast.Name) and function.id in _HEADERS
    part = isinstance(function, ast.Attribute) and function.attr in _PARTS
    if not (named or part):
        return iterable
    arguments = [_lazy(a) for a in iterable.args] if named else iterable.args
    call = called(f"{RUNTIME}.sequence", iterable, function, *arguments)
    call.keywords = iterable.keywords
    return call


def _header(loop: ast.For) -> str:
    if hasattr(loop, "_text"):
        return loop._text
    return f"for {ast.unparse(loop.target)} in {ast.unparse(loop.iter)}"
