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
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ostinato.loops.comprehensions import as_loops
from ostinato.loops.dataflow import FUNCTIONS, LiveNames, free_names, own_nodes, reads, writes
from ostinato.loops.source import RUNTIME

ROWS = "_ostinato_rows_"
_UNSEEN = {"locals", "eval", "exec", "vars", "globals", "breakpoint"}
_HEADERS = {"reversed", "enumerate", "zip"}
_PARTS = {"unbind", "split", "chunk", "tensor_split"}
_JOINED = {"stack", "cat", "concat", "concatenate", "vstack", "hstack"}
_OF_NUMBERS = {"math", "np", "numpy", "float", "int"}
_GROWING = {"append", "extend", "insert"}
_CHANGING = {
    *_GROWING, "add", "update", "setdefault", "pop", "clear", "remove", "appendleft", "popleft",
    "reverse", "sort",
}  # fmt: skip
_OF_OTHERS = {
    "items", "keys", "values", "children", "named_children", "modules", "named_modules",
    "parameters", "named_parameters", "buffers", "named_buffers",
}  # fmt: skip
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
# Calls that a user sees, each time.
_SEEN = {"print", "write", "writelines", "writerow", "input", "add_scalar", "sleep"}
_LOGGED = {"debug", "info", "warning", "error", "critical", "exception"}


@dataclass(frozen=True)
class LoopSource:
    """A loop of the text.

    Attributes:
        line: its line in the file.
        text: the text of its header.
        carried: the names that an iteration takes from the one before, in order.
        trailing: the names that are only read after the loop.
        grown: those of `carried` that an iteration may append to: 0 for `x.append`, 1 for
            `x[i].append`, and so on.
        joined: those of `grown` that the function only hands to torch.stack and torch.cat.
        summed: those that it only adds to; whether in place, by `+=`.
        problem: why its iterations cannot be steps of a scan, or "".
        stays: whether it is left unchanged, because its body cannot be a function of one iteration.
    """

    line: int
    text: str
    carried: tuple[str, ...]
    trailing: tuple[str, ...]
    grown: dict[str, int]
    joined: frozenset[str]
    summed: dict[str, bool]
    problem: str
    stays: bool = False


def rewritten(
    function: ast.FunctionDef, callees: frozenset[str] = frozenset()
) -> tuple[list[LoopSource], set[str]]:
    """Rewrite the loops of a function in place, and its calls of other functions with loops.

    Args:
        callees: names of functions that are rewritten, too.

    Returns:
        The loops, and the names of `callees` that it calls.
    """
    for loop in ast.walk(function):
        if isinstance(loop, ast.For):
            loop._text = _header(loop)  # type: ignore[attr-defined]
    calls = _Calls(callees)
    for statement in function.body:
        calls.visit(statement)
    return _Function(function).rewrite(), calls.found


class _Function:
    """A function and the functions within it."""

    def __init__(self, function: ast.FunctionDef):
        self.function = function
        self.loops: list[LoopSource] = []
        # Both copies of a body have the same numbers.
        self.numbers = {
            n: i for i, n in enumerate(ast.walk(function))
            if isinstance(n, ast.Subscript) or _selects(n)
        }
        for n, i in self.numbers.items():
            n._number = i  # type: ignore[attr-defined]

    def rewrite(self) -> list[LoopSource]:
        self.scope(self.function)
        if self.loops:
            rows = ast.parse(f"{ROWS} = {RUNTIME}.rows()").body[0]
            body = _Joined().visit(self.function).body
            at = 1 if body and _is_text(body[0]) else 0
            for n in ast.walk(rows):
                ast.copy_location(n, self.function.body[0])
            body.insert(at, rows)
        return self.loops

    def scope(self, function: ast.FunctionDef) -> None:
        loaded = reads(*function.body)
        if loaded & _UNSEEN and not {"super"} >= loaded & _UNSEEN:
            return
        function.body = as_loops(function.body)
        outer = [n for n in own_nodes(function.body) if isinstance(n, (ast.Global, ast.Nonlocal))]
        of_scope = _Scope(self, function, {name for n in outer for name in n.names})
        function.body = of_scope.block(function.body, None)


class _Scope:
    """The statements of one function."""

    def __init__(self, of: _Function, function: ast.FunctionDef, declared: set[str]):
        self.of, self.declared, self.body = of, declared, function.body
        self.live = LiveNames(function.body)
        self.joined = _only_joined(function.body)
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
        if _breaks(loop.body):
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
        source = LoopSource(loop.lineno, _header(loop), (), (), {}, frozenset(), {}, why, True)
        self.of.loops.append(source)
        name = f"_ostinato_loop{k}_"
        begin = ast.parse(f"{name} = {RUNTIME}.begin({k}, None, None, {outer}, {ROWS})").body[0]
        assert isinstance(begin, ast.Assign) and isinstance(begin.value, ast.Call)
        for n in ast.walk(begin):
            ast.copy_location(n, loop)
        begin.value.args[1] = loop.iter
        loop.iter = ast.copy_location(ast.Name(name, ast.Load()), loop.iter)
        loop.body = _visited(_Watched(name), self.block(loop.body, name))
        loop.orelse = self.block(loop.orelse, outer)
        return [begin, loop]

    def loop(self, loop: ast.For, outer: str | None) -> list[ast.stmt]:
        k = len(self.of.loops)
        after = self.live.after[loop] | self.live.captured
        index = _index_names(loop)
        changed = (_changed(loop.body, index) & self.names) - {self.first}
        first = self.live.before(loop, frozenset(after))
        own = writes(loop.body) | _names_of(loop.target)
        carried = sorted(own & first | (changed - _names_of(loop.target) - (own - first)))
        carried = [n for n in carried if n in self.names]
        trailing = sorted((own & after) - {*carried})
        shared = sorted(own & _named_in_functions(self.body, loop))
        problem = _seen(loop.body)
        if shared:
            problem = f"a function that is defined outside of the loop uses {shared[0]}"
        grown = {n: depth for n, depth in _grown(loop.body).items() if n in carried}
        source = LoopSource(
            loop.lineno, _header(loop), tuple(carried), tuple(trailing), grown,
            frozenset(self.joined & {*carried}),
            {n: how for n, how in _summed(loop.body).items() if n in carried},
            problem,
        )  # fmt: skip
        self.of.loops.append(source)
        name = f"_ostinato_loop{k}_"
        step = self.step(loop, name, carried, trailing)
        plain = self.block(loop.body, name)
        watched = _visited(_Watched(name), plain)
        again = ast.For(loop.target, ast.Name(name, ast.Load()), watched, [])
        state = [*carried, *trailing]
        text = (
            f"{name} = {RUNTIME}.begin({k}, None, _ostinato_body_, {outer}, {ROWS})\n"
            "while True:\n"
            "    pass\n"
            f"    if {name}.ended: break\n"
            f"    _ostinato_state_ = {name}.scan(locals())\n"
        )
        if state:
            text += (
                "    if _ostinato_state_ is not None:\n"
                f"        {', '.join(state)}, = _ostinato_state_\n"
            )
            for own_name in carried:  # a name may be bound under a flag only
                text += f"        if {own_name} is {RUNTIME}.unbound: del {own_name}\n"
        text = text.replace("_ostinato_body_", f"_ostinato_body{k}_")
        text = text.replace("_ostinato_state_", f"_ostinato_state{k}_")
        begin, turns = ast.parse(text).body
        for n in (*ast.walk(begin), *ast.walk(turns)):
            ast.copy_location(n, loop)
        assert isinstance(begin, ast.Assign) and isinstance(begin.value, ast.Call)
        assert isinstance(turns, ast.While)
        begin.value.args[1] = _lazy(loop.iter)
        turns.body[0] = ast.copy_location(again, loop)
        step.name = f"_ostinato_body{k}_"
        return [step, begin, turns]

    def step(
        self, loop: ast.For, name: str, carried: list[str], trailing: list[str]
    ) -> ast.FunctionDef:
        """The iteration as a function of its state."""
        text = (
            f"def body({', '.join([name, '_ostinato_item_', *carried])}):\n"
            "    target = _ostinato_item_\n"
            f"    return ({''.join(n + ', ' for n in (*carried, *trailing))})\n"
        )
        step = ast.parse(text).body[0]
        assert isinstance(step, ast.FunctionDef)
        for n in ast.walk(step):
            ast.copy_location(n, loop)
        assign, end = step.body
        assert isinstance(assign, ast.Assign) and isinstance(end, ast.Return)
        assign.targets = [copy.deepcopy(loop.target)]
        functions = [n for n in own_nodes(self.body) if isinstance(n, FUNCTIONS)]
        fixed = self.names - writes([loop]) - {*carried}
        fixed -= {n for f in functions for s in ast.walk(f) if isinstance(s, ast.Nonlocal)
                  for n in s.names}  # fmt: skip
        grown = [n for n, depth in _grown(loop.body).items() if n in carried and not depth]
        watched = _Watched(name, fixed, _index_names(loop, _elements(loop, self.body)), grown)
        body = _visited(watched, copy.deepcopy(loop.body))
        summed = {n for n in _summed(loop.body) if n in carried}
        body = _visited(_Step(end, self.first, name, summed), body)
        step.body = [assign, *body, end]
        return step


def _visited(transformer: ast.NodeTransformer, body: list[ast.stmt]) -> list[ast.stmt]:
    return transformer.generic_visit(ast.Module(body, [])).body  # type: ignore[attr-defined]


class _Watched(ast.NodeTransformer):
    """Reads and writes of elements, seen by the loop.

    A step does not name the tensors that it indexes by the loop's variable: guards would compare
    their shapes, which contain the length of the sequence.
    """

    def __init__(
        self, name: str, fixed: Collection[str] = (), index: Collection[str] = (),
        grown: Collection[str] = (),
    ):  # fmt: skip
        self.name, self.fixed, self.index_names, self.grown = name, fixed, index, grown

    def call(self, method: str, at: ast.Subscript, *more: ast.expr) -> ast.Call:
        base = at.value
        moves = not self.direct(at.slice).isdisjoint(self.index_names)
        if moves and isinstance(base, ast.Name) and base.id in self.fixed:
            loop = ast.copy_location(ast.Name(self.name, ast.Load()), base)
            base = ast.copy_location(ast.Attribute(loop, "hidden", ast.Load()), base)
        function = ast.Attribute(ast.Name(self.name, ast.Load()), method, ast.Load())
        number = ast.Constant(at._number)  # type: ignore[attr-defined]
        call = ast.Call(function, [number, *more, base, self.index(at.slice)], [])
        for part in (call, function, function.value, number):
            ast.copy_location(part, at)
        return call

    def direct(self, index: ast.AST) -> set[str]:
        """The names of an index; of an element in it, that of its sequence: tags of w[tags[t]]."""
        if isinstance(index, ast.Call) and getattr(index.func, "attr", "") == "at":
            return reads(index.args[1])
        if isinstance(index, ast.Name):
            return {index.id}
        return {n for part in ast.iter_child_nodes(index) for n in self.direct(part)}

    def index(self, index: ast.expr) -> ast.expr:
        """An index as an expression of its own."""
        if isinstance(index, ast.Tuple):
            elements = [self.index(e) for e in index.elts]
            return ast.copy_location(ast.Tuple(elements, ast.Load()), index)
        if not isinstance(index, ast.Slice):
            return index
        function = ast.Attribute(ast.Name(self.name, ast.Load()), "slice", ast.Load())
        parts = [p or ast.Constant(None) for p in (index.lower, index.upper, index.step)]
        made = ast.Call(function, parts, [])
        for n in (made, function, function.value, *parts):
            if not hasattr(n, "lineno"):
                ast.copy_location(n, index)
        return made

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load) and _varies(node):
            return self.call("at", node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`len(outs)` of a list that grows; `math.sin(t)`, `float(t)` of the loop's variable."""
        self.generic_visit(node)
        if _selects(node):
            return self.selecting(node)
        name = getattr(node.func, "id", "")
        if name == "len" and len(node.args) == 1 and getattr(node.args[0], "id", "") in self.grown:
            node.func = self.of_loop("len", node.func)
        of_numbers = name in _OF_NUMBERS or _root(node.func) in _OF_NUMBERS
        moves = not reads(*node.args).isdisjoint(self.index_names)
        if of_numbers and moves and not node.keywords:
            node.args.insert(0, node.func)
            node.func = self.of_loop("number", node.func)
        return node

    def selecting(self, node: ast.Call) -> ast.AST:
        """`x.select(1, t)`, which becomes `loop.selecting(number, "select", x, 1, t)`."""
        assert isinstance(node.func, ast.Attribute)
        base, name = node.func.value, ast.copy_location(ast.Constant(node.func.attr), node)
        moves = not reads(*node.args, *node.keywords).isdisjoint(self.index_names)
        if moves and isinstance(base, ast.Name) and base.id in self.fixed:
            base = self.of_loop("hidden", base)
        number = ast.copy_location(ast.Constant(node._number), node)  # type: ignore[attr-defined]
        node.args = [number, name, base, *node.args]
        node.func = self.of_loop("selecting", node)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """`t in steps`, where a set or dict would ask for the hash of a number."""
        self.generic_visit(node)
        operator = node.ops[0]
        is_in = len(node.ops) == 1 and isinstance(operator, (ast.In, ast.NotIn))
        if not is_in or getattr(node.left, "id", "") not in self.index_names:
            return node
        within = ast.Call(self.of_loop("within", node), [node.left, node.comparators[0]], [])
        ast.copy_location(within, node)
        if isinstance(operator, ast.In):
            return within
        return ast.copy_location(ast.UnaryOp(ast.Not(), within), node)

    def of_loop(self, method: str, at: ast.AST) -> ast.Attribute:
        loop = ast.copy_location(ast.Name(self.name, ast.Load()), at)
        return ast.copy_location(ast.Attribute(loop, method, ast.Load()), at)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.target = self.visit(node.target)
        node.value = node.value and self.visit(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        if len(node.targets) > 1:
            return self.in_turn(node)
        self.generic_visit(node)
        target = node.targets[0]
        if isinstance(target, ast.Subscript) and _varies(target):
            return ast.copy_location(ast.Expr(self.call("put", target, node.value)), node)
        if isinstance(target, (ast.Tuple, ast.List)):
            return self.unpacked(node, target)
        return node

    def in_turn(self, node: ast.Assign) -> list[ast.stmt]:
        """`a = out[t] = …`: one assignment for each target."""
        name = f"_ostinato_value{node.lineno}_{node.col_offset}_"
        store = ast.copy_location(ast.Name(name, ast.Store()), node)
        first = ast.copy_location(ast.Assign([store], self.visit(node.value)), node)
        found: list[ast.stmt] = [first]
        for target in node.targets:
            load = ast.copy_location(ast.Name(name, ast.Load()), node)
            made = self.visit(ast.copy_location(ast.Assign([target], load), node))
            found += made if isinstance(made, list) else [made]
        return found

    def unpacked(self, node: ast.Assign, target: ast.Tuple | ast.List) -> Any:
        """`a, out[t] = …`: the elements are written after the names are bound."""
        puts: list[ast.stmt] = []
        for i, element in enumerate(target.elts):
            if isinstance(element, ast.Subscript) and _varies(element):
                name = f"_ostinato_put{element._number}_"  # type: ignore[attr-defined]
                target.elts[i] = ast.copy_location(ast.Name(name, ast.Store()), element)
                value = ast.copy_location(ast.Name(name, ast.Load()), element)
                put = ast.copy_location(ast.Expr(self.call("put", element, value)), element)
                puts.append(put)
        return [node, *puts] if puts else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        target = node.target
        if not isinstance(target, ast.Subscript) or not _varies(target):
            return self.generic_visit(node)
        read = copy.deepcopy(target)
        read.ctx = ast.Load()
        self.generic_visit(node)
        self.generic_visit(read)
        value = ast.BinOp(self.call("at", read), node.op, node.value)
        ast.copy_location(value, node)
        return ast.copy_location(ast.Expr(self.call("put", target, value)), node)


class _Step(ast.NodeTransformer):
    """`continue` ends the step; `super()` gets the arguments that it finds by itself in a
    method."""

    def __init__(self, end: ast.Return, first: str | None, loop: str, summed: set[str]):
        self.end, self.first, self.depth = end, first, 0
        self.loop, self.summed = loop, summed

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """`outs = outs + [h]`, which becomes `outs = loop.extended(outs, [h])`."""
        both = _extended(node)
        if both is None:
            return self.visit_AugAssign(node)
        made = ast.parse(f"{self.loop}.extended()", mode="eval").body
        assert isinstance(made, ast.Call)
        for n in ast.walk(made):
            ast.copy_location(n, node)
        starred = ast.copy_location(ast.Constant(isinstance(node.value, ast.List)), node)
        made.args = [both[0], self.visit(both[1]), starred]
        node.value = made
        return node

    def visit_AugAssign(self, node: ast.AugAssign | ast.Assign) -> ast.AST:
        """A sum over the iterations: `n += e` becomes `n = loop.sum(True, n, e)`."""
        found = _sum(node)
        if found is None or found[0] not in self.summed:
            return self.generic_visit(node)
        name, added = found
        in_place = isinstance(node, ast.AugAssign)
        made = ast.parse(f"{name} = {self.loop}.sum({in_place}, {name})").body[0]
        assert isinstance(made, ast.Assign) and isinstance(made.value, ast.Call)
        for n in ast.walk(made):
            ast.copy_location(n, node)
        made.value.args.append(self.visit(added))
        return made

    def visit_For(self, node: ast.AST) -> ast.AST:
        self.depth += 1  # a `continue` inside belongs to this loop
        self.generic_visit(node)
        self.depth -= 1
        return node

    visit_While = visit_For  # noqa: N815

    def visit_Continue(self, node: ast.Continue) -> ast.AST:
        if self.depth:
            return node
        end = copy.deepcopy(self.end)
        for n in ast.walk(end):
            ast.copy_location(n, node)
        return end

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if getattr(node.func, "id", "") == "super" and not node.args and self.first:
            node.args = [ast.Name("__class__", ast.Load()), ast.Name(self.first, ast.Load())]
            for n in node.args:
                ast.copy_location(n, node)
        return node

    def visit_FunctionDef(self, node: ast.AST) -> ast.AST:
        return node

    visit_Lambda = visit_FunctionDef  # noqa: N815


class _Calls(ast.NodeTransformer):
    """Calls of functions that may have loops: `f(x)` becomes `runtime.of(runtime.f_, f)(x)`.

    The candidates are an attribute of the runtime, which guards read.
    """

    def __init__(self, callees: frozenset[str]):
        self.callees, self.found = callees, set[str]()

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in self.callees:
            self.found.add(name)
            of = ast.parse(f"{RUNTIME}.of({RUNTIME}.{name}_)", mode="eval").body
            assert isinstance(of, ast.Call)
            for n in ast.walk(of):
                ast.copy_location(n, node)
            of.args.append(node.func)
            node.func = of
        return node


class _Joined(ast.NodeTransformer):
    """`torch.stack(rows)` outside of the steps, where the rows may be known as one tensor."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node if node.name.startswith("_ostinato_body") else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not _is_joining(node):
            return node
        function = ast.Attribute(ast.Name(ROWS, ast.Load()), "joined", ast.Load())
        call = ast.Call(function, [node.func, *node.args], node.keywords)
        for n in (call, function, function.value):
            ast.copy_location(n, node)
        return call


def _lazy(iterable: ast.expr) -> ast.expr:
    """The object that a loop iterates over, without the views that `unbind` and the like make."""
    if not isinstance(iterable, ast.Call):
        return iterable
    function = iterable.func
    named = isinstance(function, ast.Name) and function.id in _HEADERS
    part = isinstance(function, ast.Attribute) and function.attr in _PARTS
    if not (named or part):
        return iterable
    sequence = ast.Attribute(ast.Name(RUNTIME, ast.Load()), "sequence", ast.Load())
    arguments = [_lazy(a) for a in iterable.args] if named else iterable.args
    call = ast.Call(sequence, [function, *arguments], iterable.keywords)
    for n in (call, sequence, sequence.value):
        ast.copy_location(n, iterable)
    return call


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _varies(node: ast.Subscript) -> bool:
    """Whether an index may name the loop's variable."""
    return any(isinstance(n, ast.Name) for n in ast.walk(node.slice))


def _names_of(target: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}


def _breaks(body: list[ast.stmt]) -> bool:
    for s in body:
        if isinstance(s, ast.Break):
            return True
        if isinstance(s, (ast.For, ast.While)):
            if _breaks(s.orelse):
                return True
            continue
        inner = [getattr(s, field, None) for field in ("body", "orelse")]
        inner += [case.body for case in getattr(s, "cases", [])]
        if not isinstance(s, (*FUNCTIONS, ast.ClassDef)) and any(i and _breaks(i) for i in inner):
            return True
    return False


def _root(node: ast.expr) -> str | None:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _elements(loop: ast.For, body: list[ast.stmt]) -> set[str]:
    """The loop's variables that are elements of a sequence: `tag` in `for tag in tags`.

    The others may be numbers. body: that of the function.
    """
    assigned = [n for s in body for n in ast.walk(s) if isinstance(n, ast.Assign)]
    numbers = {"range"} | {
        name for s in assigned if "range" in reads(s.value) for name in _names_of(s.targets[0])
    }

    def found(target: ast.expr, of: ast.expr) -> set[str]:
        name = getattr(of.func, "id", "") if isinstance(of, ast.Call) else ""
        if isinstance(of, ast.Call) and isinstance(target, ast.Tuple) and of.args:
            if name == "enumerate":
                return found(target.elts[-1], of.args[0])
            if name == "zip" and len(target.elts) == len(of.args):
                return set().union(*map(found, target.elts, of.args))
        return set() if reads(of) & numbers else _names_of(target)

    return found(loop.target, loop.iter)


def _index_names(loop: ast.For, elements: Collection[str] = ()) -> set[str]:
    """The loop's variables, names computed of them by plain arithmetic (idx = T - 1 - t), and
    those that count (j += 1).

    elements: variables that are no numbers.
    """
    stored = [n.id for s in loop.body for n in ast.walk(s)
              if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]  # fmt: skip
    found = _names_of(loop.target).difference(elements) | {
        s.target.id
        for s in own_nodes(loop.body)
        if isinstance(s, ast.AugAssign)
        and isinstance(s.target, ast.Name)
        and isinstance(s.value, ast.Constant)
        and stored.count(s.target.id) == 1
    }
    plain = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop,
             ast.expr_context)  # fmt: skip
    for s in own_nodes(loop.body):
        if not isinstance(s, ast.Assign) or not reads(s.value) & found:
            continue
        if all(isinstance(n, plain) for n in ast.walk(s.value)):
            found |= {t.id for t in s.targets if isinstance(t, ast.Name)}
    return found


def _changed(body: list[ast.stmt], index: set[str]) -> set[str]:
    """Names of objects that a body changes in place: x.append(…), x[i] = …, x.add_(…).

    Objects that it writes at the loop's index, an element for each iteration, are left out.
    """
    found = set()
    for n in own_nodes(body):
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute):
            name = n.func.attr
            if name in _CHANGING or (name.endswith("_") and not name.startswith("_")):
                found.add(_root(n.func.value))
        elif isinstance(n, ast.Subscript) and not isinstance(n.ctx, ast.Load):
            found.add(None if reads(n.slice) & index else _root(n.value))
    return {n for n in found if n is not None}


def _grown(body: list[ast.stmt]) -> dict[str, int]:
    """Names of lists that a body may make longer, and how deep in the name's value they are."""
    found: dict[str, int] = {}
    for n in own_nodes(body):
        of = None
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute):
            of = n.func.value if n.func.attr in _GROWING else None
        elif isinstance(n, ast.AugAssign) and isinstance(n.op, ast.Add):
            of = n.target
        elif _extended(n) is not None:
            of = n.targets[0]  # type: ignore[attr-defined]
        depth = 0
        while isinstance(of, (ast.Subscript, ast.Attribute)):
            of, depth = of.value, depth + 1
        if isinstance(of, ast.Name):
            found[of.id] = min(depth, found.get(of.id, depth))
    return found


def _selects(n: ast.AST) -> bool:
    """Whether a call may select elements: x.select(1, t), x.narrow(1, t, 1)."""
    if not isinstance(n, ast.Call) or getattr(n.func, "attr", "") not in ("select", "narrow"):
        return False
    parts = [*n.args, *[k.value for k in n.keywords]]
    return bool(reads(*parts)) and not any(isinstance(a, ast.Starred) for a in n.args)


def _extended(n: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """The list and what is added in `outs = outs + [h]` or `outs = [*outs, h]`, a new list."""
    if not isinstance(n, ast.Assign) or len(n.targets) != 1:
        return None
    name, of, more = getattr(n.targets[0], "id", None), None, None
    if isinstance(n.value, ast.BinOp) and isinstance(n.value.op, ast.Add):
        of, more = n.value.left, n.value.right
    elif isinstance(n.value, ast.List) and n.value.elts:
        first, *rest = n.value.elts
        if isinstance(first, ast.Starred):
            of, more = first.value, ast.copy_location(ast.List(rest, ast.Load()), n.value)
    is_list = isinstance(more, ast.List) and name is not None
    return (of, more) if is_list and getattr(of, "id", None) == name else None  # type: ignore[return-value]


def _only_joined(body: list[ast.stmt]) -> set[str]:
    """Names of lists that are made empty, grow by one, and are handed to torch.stack and cat.

    Nothing else reads them, so that their items need not exist one by one.
    """
    fine: list[ast.Name] = []
    lists: set[str] = set()
    nodes = [n for s in body for n in ast.walk(s)]
    for n in nodes:
        if isinstance(n, ast.Assign) and len(n.targets) == 1:
            for target, value in _pairs(n.targets[0], n.value):
                if isinstance(target, ast.Name) and isinstance(value, ast.List) and not value.elts:
                    lists.add(target.id)
                    fine.append(target)
        elif isinstance(n, ast.Expr) and isinstance(n.value, ast.Call):
            function = n.value.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                fine += [function.value] if function.attr == "append" else []
        elif isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name):
            fine += [n.target] if isinstance(n.value, ast.List) else []
        elif isinstance(n, ast.Call) and _is_joining(n) and isinstance(n.args[0], ast.Name):
            fine.append(n.args[0])
    ids = {id(n) for n in fine}
    others = {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in ids}
    return lists - others


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Targets and their values, of `a, b = c, d`, too."""
    both = isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
    if both and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
        return list(zip(target.elts, value.elts, strict=True))  # type: ignore[attr-defined]
    return [(target, value)]


def _is_joining(node: ast.Call) -> bool:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return name in _JOINED and bool(node.args) and not isinstance(node.args[0], ast.Starred)


def _summed(body: list[ast.stmt]) -> dict[str, bool]:
    """Names that a body only adds to; whether by `n += e`, or by `n = n + e`."""
    found: dict[str, list[bool]] = {}
    for s in own_nodes(body):
        sum_ = _sum(s)
        if sum_ is not None:
            found.setdefault(sum_[0], []).append(isinstance(s, ast.AugAssign))
    named = [n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name)]
    return {
        name: by[0]
        for name, by in found.items()
        if len({*by}) == 1 and named.count(name) == len(by) * (1 if by[0] else 2)
    }


def _sum(s: ast.AST) -> tuple[str, ast.expr] | None:
    """The name that a statement adds to, and what it adds."""
    name, added = None, None
    if isinstance(s, ast.AugAssign) and isinstance(s.op, ast.Add):
        name, added = getattr(s.target, "id", None), s.value
    elif isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.value, ast.BinOp):
        name, left, right = getattr(s.targets[0], "id", None), s.value.left, s.value.right
        others = [e for e in (left, right) if getattr(e, "id", None) != name]
        if isinstance(s.value.op, ast.Add) and len(others) == 1:
            added = others[0]
    return (name, added) if name and added is not None and name not in reads(added) else None


def _named_in_functions(body: list[ast.stmt], loop: ast.For) -> set[str]:
    """The names used by functions that are defined outside of a loop's body."""
    inside = {id(n) for s in loop.body for n in ast.walk(s)}
    functions = [
        n for n in own_nodes(body)
        if isinstance(n, (*FUNCTIONS, ast.ClassDef)) and id(n) not in inside
    ]  # fmt: skip
    return set().union(*map(free_names, functions))


def _seen(body: list[ast.stmt]) -> str:
    """A call that a user sees, which a scan would not do each time."""
    for n in own_nodes(body):
        if isinstance(n, ast.Call):
            name = getattr(n.func, "attr", getattr(n.func, "id", ""))
            root = _root(n.func) or ""
            if name in _SEEN or (name in _LOGGED and "log" in root.lower()):
                return f"an iteration calls {name}, which a scan would not do each time"
    return ""


def _header(loop: ast.For) -> str:
    if hasattr(loop, "_text"):
        return loop._text
    return f"for {ast.unparse(loop.target)} in {ast.unparse(loop.iter)}"
