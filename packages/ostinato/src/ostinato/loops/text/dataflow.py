"""Which names a piece of Python reads before it writes them, and which are read after a loop.

A backward liveness analysis on the syntax tree of one function. Names that functions within it read
are live everywhere, since such a function may be called at any time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

Names = frozenset[str]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_NAMING = (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def reads(*nodes: ast.AST | None) -> set[str]:
    """The names that these nodes load, functions within them included.

    Names that a comprehension binds for itself are left out.
    """
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            found |= {node.id} if isinstance(node.ctx, ast.Load) else set()
        elif isinstance(node, COMPREHENSIONS):
            bound = {n for g in node.generators for n in bound_names(g.target)}
            found |= reads(*ast.iter_child_nodes(node)) - bound
            found |= reads(node.generators[0].iter)  # evaluated outside of it
        elif node is not None:
            found |= reads(*ast.iter_child_nodes(node))
    return found


def own_nodes(nodes: Iterable[ast.AST]) -> Iterable[ast.AST]:
    """All nodes of a scope; the bodies of functions within it are left out."""
    todo = list(nodes)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            todo += getattr(node, "decorator_list", [])
        else:
            todo += ast.iter_child_nodes(node)


def writes(nodes: Sequence[ast.AST]) -> set[str]:
    """The names that statements of one scope bind or delete."""
    found: set[str] = set()
    hidden: set[str] = set()
    for node in own_nodes(nodes):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, _NAMING):
            found |= {node.name} if node.name else set()
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
        elif isinstance(node, COMPREHENSIONS):
            hidden |= {n for g in node.generators for n in bound_names(g.target)}
    plain = {
        n
        for statement in own_nodes(nodes)
        if isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.withitem))
        for n in bound_names(_target_of(statement))
    }
    return found - (hidden - plain)


def free_names(function: ast.AST) -> set[str]:
    """The names that a function, lambda or class reads from the scope around it, or binds there."""
    if isinstance(function, ast.ClassDef):
        outside = [*function.bases, *function.decorator_list, *function.keywords]
        own = list(own_nodes(function.body))
        loaded = {n.id for n in own if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        within = [free_names(n) for n in own if isinstance(n, (*FUNCTIONS, ast.ClassDef))]
        return reads(*outside).union(loaded, *within)
    assert isinstance(function, FUNCTIONS)
    body = [function.body] if isinstance(function, ast.Lambda) else function.body
    a = function.args
    bound = {x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x}
    declared = [n for n in own_nodes(body) if isinstance(n, (ast.Nonlocal, ast.Global))]
    outer = {name for n in declared for name in n.names}
    own = list(own_nodes(body))
    loaded = {n.id for n in own if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for inner in own:
        if isinstance(inner, (*FUNCTIONS, ast.ClassDef)):
            loaded |= free_names(inner)
    defaults = reads(*a.defaults, *a.kw_defaults)
    return ((loaded - bound - writes(body)) | outer) | defaults


def _target_of(statement: ast.AST) -> Iterable[ast.AST] | ast.AST | None:
    if isinstance(statement, ast.Assign):
        return statement.targets
    if isinstance(statement, ast.withitem):
        return statement.optional_vars
    return statement.target  # type: ignore[attr-defined]


def bound_names(target: Iterable[ast.AST] | ast.AST | None) -> set[str]:
    """The names that an assignment to these targets binds in any case."""
    found: set[str] = set()
    for t in [] if target is None else [target] if isinstance(target, ast.AST) else target:
        if isinstance(t, ast.Name):
            found.add(t.id)
        elif isinstance(t, (ast.Tuple, ast.List)):
            found |= bound_names(t.elts)
        elif isinstance(t, ast.Starred):
            found |= bound_names(t.value)
    return found


class LiveNames:
    """The names that are live before each statement of a function.

    Attributes:
        after: a loop → the names that may be read after it.
        captured: the names that functions within this one read.
    """

    def __init__(self, body: list[ast.stmt]):
        self.after: dict[ast.AST, Names] = {}
        inner = [n for n in own_nodes(body) if isinstance(n, (*FUNCTIONS, ast.ClassDef))]
        self.captured = frozenset().union(*map(free_names, inner))
        self.block(body, frozenset(), None)

    def before(self, loop: ast.For, after: Names) -> Names:
        """The names whose value at the begin of an iteration may be read, in it or after it."""
        return self.block(loop.body, after, (after, after)) - bound_names(loop.target)

    def block(self, body: list[ast.stmt], after: Names, ends: tuple[Names, Names] | None) -> Names:
        """Live before a list of statements; ends: live after `break`, and after `continue`."""
        for statement in reversed(body):
            after = self.statement(statement, after, ends)
        return after

    def statement(self, s: ast.stmt, after: Names, ends: tuple[Names, Names] | None) -> Names:
        """Live before one statement."""
        if isinstance(s, (ast.Assign, ast.AnnAssign)):
            if isinstance(s, ast.AnnAssign) and s.value is None:
                return after
            targets = s.targets if isinstance(s, ast.Assign) else [s.target]
            return (after - bound_names(targets)) | reads(s.value, *targets)
        if isinstance(s, ast.AugAssign):
            own = {s.target.id} if isinstance(s.target, ast.Name) else set()
            return after | own | reads(s.value, s.target)
        if isinstance(s, ast.If):
            either = self.block(s.body, after, ends) | self.block(s.orelse, after, ends)
            return either | reads(s.test)
        if isinstance(s, (ast.For, ast.AsyncFor, ast.While)):
            return self.loop(s, after, ends)
        if isinstance(s, (ast.With, ast.AsyncWith)):
            bound = set().union(*(bound_names(i.optional_vars) for i in s.items))
            return (self.block(s.body, after, ends) - bound) | reads(*s.items)
        if isinstance(s, (ast.Return, ast.Raise)):
            return frozenset(reads(s))
        if isinstance(s, ast.Break):
            return ends[0] if ends else after
        if isinstance(s, ast.Continue):
            return ends[1] if ends else after
        if isinstance(s, ast.Delete):
            return (after - {t.id for t in s.targets if isinstance(t, ast.Name)}) | reads(s)
        if isinstance(s, ast.Try) or type(s).__name__ == "TryStar":
            # An error may leave the block anywhere, so that none of its writes is certain.
            for inner in own_nodes([s]):
                if isinstance(inner, (ast.For, ast.While)):
                    self.after[inner] = after | reads(s)
            return after | reads(s)
        return after | reads(s)

    def loop(
        self, s: ast.For | ast.AsyncFor | ast.While, after: Names, ends: tuple[Names, Names] | None
    ) -> Names:
        """Live before a loop; what is live after it is noted."""
        head_reads = reads(s.test) if isinstance(s, ast.While) else set()
        targets = set() if isinstance(s, ast.While) else bound_names(s.target)
        left = self.block(s.orelse, after, ends)
        head = left | head_reads
        while True:  # the names that an iteration hands to the next
            found = head | (self.block(s.body, head, (after, head)) - targets)
            if found == head:
                break
            head = found
        self.after[s] = after | left
        return head if isinstance(s, ast.While) else head | reads(s.iter)
