"""List comprehensions as loops: `out = torch.stack([f(x[t]) for t in range(T)])`.

A comprehension that its statement evaluates first becomes a loop before the statement. Its
variables get names of their own in the function. A comprehension whose scope code could notice
stays as it is: a lambda, or a generator that is kept, refers to the variables of one evaluation.
"""

from __future__ import annotations

import ast

from ostinato.loops.text.dataflow import COMPREHENSIONS, FUNCTIONS, bound_names
from ostinato.loops.text.source import expression, statements

_HOLDING = (ast.Assign, ast.AnnAssign, ast.Return, ast.Expr)
# Functions that use up a generator at once.
_USING = {"all", "any", "dict", "list", "max", "min", "set", "sorted", "sum", "tuple"}


def as_loops(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements, with a loop before each that begins with a comprehension."""
    found: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            found.append(statement)
            continue
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list):
                setattr(statement, field, as_loops(inner))
        for handler in getattr(statement, "handlers", []):
            handler.body = as_loops(handler.body)
        made = list[ast.stmt]()
        if isinstance(statement, _HOLDING) and statement.value is not None:
            made = _before(statement)
        found += [*made, statement]
        if made and not isinstance(statement, ast.Return):
            found += _after(made)
    return found


def _before(statement: ast.Assign | ast.AnnAssign | ast.Return | ast.Expr) -> list[ast.stmt]:
    """The loop of the comprehension with which a statement begins; the statement then names its
    list."""
    holder: ast.AST = statement
    node: ast.AST | None = statement.value
    while not isinstance(node, ast.ListComp):
        if isinstance(node, ast.Call) and _is_dotted(node.func) and node.args:
            holder, node = node, node.args[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            holder, node = node.func, node.func.value
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            holder, node = node, node.value
        else:
            return []
    if not _is_plain(node):
        return []
    made, name = _loop(node)
    if isinstance(holder, ast.Call):
        holder.args[0] = name
    else:
        holder.value = name  # type: ignore[attr-defined]
    return made


def _is_dotted(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _is_plain(node: ast.ListComp) -> bool:
    of = node.generators[0]
    if len(node.generators) > 1 or of.ifs or of.is_async:
        return False
    inside = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, ast.Lambda)
    parts = [*ast.walk(of.target), *ast.walk(node.elt)]
    used = {
        id(n.args[0])
        for n in parts
        if isinstance(n, ast.Call) and getattr(n.func, "id", "") in _USING and len(n.args) == 1
    }
    names = bound_names(of.target)
    return not any(
        isinstance(n, inside)
        or (isinstance(n, ast.GeneratorExp) and id(n) not in used)
        or (isinstance(n, COMPREHENSIONS) and names & bound_names([g.target for g in n.generators]))
        for n in parts
    )


def _loop(node: ast.ListComp) -> tuple[list[ast.stmt], ast.Name]:
    """`name = []; for …: name.append(…)`, with names of its own for the targets."""
    of, list_name = node.generators[0], f"_ostinato_list{node.lineno}_{node.col_offset}_"
    text = ast.unparse(node)
    names = bound_names(of.target)
    for part in (of.target, node.elt):
        for n in ast.walk(part):
            if isinstance(n, ast.Name) and n.id in names:
                n.id = f"{list_name}{n.id}"
    made = statements(f"{list_name} = []\nfor i in (): {list_name}.append(i)", node)
    loop, append = made[1], made[1].body[0].value
    loop._text, loop.target, loop.iter, append.args = text, of.target, of.iter, [node.elt]
    return made, expression(list_name, node)


def _after(made: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that release the list of a loop, and its last item."""
    begin, loop = made
    assert isinstance(begin, ast.Assign) and isinstance(loop, ast.For)
    names = [*bound_names(begin.targets), *sorted(bound_names(loop.target))]
    return statements("\n".join(f"{name} = None" for name in names), begin)
