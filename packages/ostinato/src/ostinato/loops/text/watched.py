"""Changes of the syntax tree: the loop sees reads and writes; an iteration becomes a function."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Any

from ostinato.loops.text.bodies import (
    extended_list,
    is_joining,
    is_longer,
    root_of,
    selects,
    sum_of,
)
from ostinato.loops.text.dataflow import reads
from ostinato.loops.text.source import called, expression, statements
from ostinato.loops.text.written import is_copy

_OF_NUMBERS = {"math", "np", "numpy", "float", "int"}
# The names of binary operators in the module `operator`.
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
    ast.LShift: "lshift",
    ast.RShift: "rshift",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
}
_FILLING = {"as_tensor", "fill_", "full", "full_like", "new_full", "new_tensor", "tensor"}


def visited(transformer: ast.NodeTransformer, body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body after a transformer has changed their parts."""
    return transformer.generic_visit(ast.Module(body, [])).body  # type: ignore[attr-defined]


class Watched(ast.NodeTransformer):
    """Turns reads and writes of elements into calls of the loop.

    A step does not name the tensors that it indexes by the loop's variable: guards would compare
    their shapes, which contain the length of the sequence.
    """

    def __init__(
        self,
        name: str,
        fixed: Collection[str] = (),
        index: Collection[str] = (),
        grown: Collection[str] = (),
        parted: Collection[str | None] = (),
    ):
        self.name, self.fixed, self.index_names, self.grown = name, fixed, index, grown
        self.parted = parted

    def call(self, method: str, at: ast.Subscript, *more: ast.expr) -> ast.Call:
        """The call `loop.method(number, …, base, index)` in place of a subscript."""
        base = at.value
        moves = not self.direct(at.slice).isdisjoint(self.index_names)
        if moves and root_of(base) in self.parted:
            base = called(f"{self.name}.parted", base, base)
        elif moves and isinstance(base, ast.Name) and base.id in self.fixed:
            base = expression(f"{self.name}.hidden", base)
        number = expression(f"{at._number}", at)  # type: ignore[attr-defined]
        return called(f"{self.name}.{method}", at, number, *more, base, self.index(at.slice))

    def direct(self, index: ast.AST) -> set[str]:
        """The names in an index; for an element in it that of its sequence: tags in w[tags[t]]."""
        if isinstance(index, ast.Call) and getattr(index.func, "attr", "") == "at":
            return reads(index.args[1])
        if isinstance(index, ast.Name):
            return {index.id}
        return {n for part in ast.iter_child_nodes(index) for n in self.direct(part)}

    def index(self, index: ast.expr) -> ast.expr:
        """An index as an expression, which may stand outside of a subscript."""
        if isinstance(index, ast.Tuple):
            elements = [self.index(e) for e in index.elts]
            return ast.copy_location(ast.Tuple(elements, ast.Load()), index)
        if not isinstance(index, ast.Slice):
            return index
        parts = [p or expression("None", index) for p in (index.lower, index.upper, index.step)]
        return called(f"{self.name}.slice", index, *parts)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """`x[t]`, read, becomes `loop.at(number, x, t)`."""
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load) and _varies(node):
            return self.call("at", node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Change `len(outs)` of a list that grows, `type(t)`, `math.sin(t)` or `float(t)`, and
        `torch.full_like(h, t)`."""
        self.generic_visit(node)
        if selects(node):
            return self.selecting(node)
        name = getattr(node.func, "id", "")
        if name == "len" and len(node.args) == 1 and getattr(node.args[0], "id", "") in self.grown:
            node.func = expression(f"{self.name}.len", node.func)
        if name == "type" and len(node.args) == 1 and not node.keywords:
            return called(f"{self.name}.kind", node, node.func, *node.args)
        of_numbers = name in _OF_NUMBERS or root_of(node.func) in _OF_NUMBERS
        moves = not reads(*node.args).isdisjoint(self.index_names)
        if moves and getattr(node.func, "attr", "") in _FILLING:
            node.args.insert(0, node.func)
            node.func = expression(f"{self.name}.filled", node.func)
        elif of_numbers and moves and not node.keywords:
            node.args.insert(0, node.func)
            node.func = expression(f"{self.name}.number", node.func)
        return node

    def selecting(self, node: ast.Call) -> ast.AST:
        """`x.select(1, t)` or `torch.select(x, 1, t)` becomes
        `loop.selecting(number, "select", x, 1, t)`."""
        assert isinstance(node.func, ast.Attribute)
        base, name = node.func.value, expression(repr(node.func.attr), node)
        if getattr(base, "id", "") == "torch" and node.args:
            base, *node.args = node.args
        moves = not reads(*node.args, *node.keywords).isdisjoint(self.index_names)
        if moves and isinstance(base, ast.Name) and base.id in self.fixed:
            base = expression(f"{self.name}.hidden", base)
        number = expression(f"{node._number}", node)  # type: ignore[attr-defined]
        node.args = [number, name, base, *node.args]
        node.func = expression(f"{self.name}.selecting", node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """`out[:, t].copy_(h)` becomes `loop.copy(number, h, out, t)`."""
        call = node.value
        if isinstance(call, ast.Call) and is_copy(call) and _varies(call.func.value):  # type: ignore[attr-defined]
            at: Any = call.func.value  # type: ignore[attr-defined]
            at.slice, at.value = self.visit(at.slice), self.visit(at.value)
            node.value = self.call("copy", at, self.visit(call.args[0]))
            return node
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Change `t in steps`, where a set or dict would need the hash of the number."""
        self.generic_visit(node)
        operator = node.ops[0]
        is_in = len(node.ops) == 1 and isinstance(operator, (ast.In, ast.NotIn))
        if not is_in or getattr(node.left, "id", "") not in self.index_names:
            return node
        within = called(f"{self.name}.within", node, node.left, node.comparators[0])
        if isinstance(operator, ast.In):
            return within
        return ast.copy_location(ast.UnaryOp(ast.Not(), within), node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Leave the annotation unchanged."""
        node.target = self.visit(node.target)
        node.value = node.value and self.visit(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        """`out[t] = value` becomes `loop.put(number, value, out, t)`."""
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
        """`a = out[t] = …` becomes one assignment for each target."""
        name = f"_ostinato_value{node.lineno}_{node.col_offset}_"
        found = statements(f"{name} = None", node)
        found[0].value = self.visit(node.value)
        for target in node.targets:
            assign = ast.Assign([target], expression(name, node))
            made = self.visit(ast.copy_location(assign, node))
            found += made if isinstance(made, list) else [made]
        return found

    def unpacked(self, node: ast.Assign, target: ast.Tuple | ast.List) -> Any:
        """`a, out[t] = …`: the elements are written after the names are bound."""
        puts: list[ast.stmt] = []
        for i, element in enumerate(target.elts):
            if isinstance(element, ast.Subscript) and _varies(element):
                name = f"_ostinato_put{element._number}_"  # type: ignore[attr-defined]
                target.elts[i] = ast.copy_location(ast.Name(name, ast.Store()), element)
                put = self.call("put", element, expression(name, element))
                puts.append(ast.copy_location(ast.Expr(put), element))
        return [node, *puts] if puts else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """`out[t] += value` becomes `loop.update(number, "add", *loop.reading(number, out, t),
        value)`: as in Python, the index is computed once, and the read comes before the value."""
        target = node.target
        self.generic_visit(node)
        if not isinstance(target, ast.Subscript) or not _varies(target):
            return node
        read = ast.copy_location(ast.Starred(self.call("reading", target), ast.Load()), node)
        name = expression(repr(_OPERATORS[type(node.op)]), node)
        number = expression(f"{target._number}", node)  # type: ignore[attr-defined]
        update = called(f"{self.name}.update", node, number, name, read, node.value)
        return ast.copy_location(ast.Expr(update), node)


class StepBody(ast.NodeTransformer):
    """Turns `continue` into a return of the step, and sums and lists into calls of the loop.

    `super()` gets its arguments, which it can find by itself only in a method.
    """

    def __init__(
        self, end: ast.Return, first: str | None, loop: str, summed: set[str], longer: set[str]
    ):
        self.end, self.first, self.depth = end, first, 0
        self.loop, self.summed, self.longer = loop, summed, longer

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """`outs = outs + [h]` becomes `outs = loop.extended(outs, [h])`."""
        both = extended_list(node)
        if both is None:
            return self.visit_AugAssign(node)
        starred = expression(f"{isinstance(node.value, ast.List)}", node)
        node.value = called(f"{self.loop}.extended", node, both[0], self.visit(both[1]), starred)
        return node

    def visit_AugAssign(self, node: ast.AugAssign | ast.Assign) -> ast.AST:
        """`n += e`, a sum over the iterations, becomes `n = loop.sum(True, n, e)`."""
        found = sum_of(node)
        if found is None or found[0] not in self.summed:
            return self.generic_visit(node)
        name, added = found
        in_place = isinstance(node, ast.AugAssign)
        (made,) = statements(f"{name} = {self.loop}.sum({in_place}, {name})", node)
        made.value.args.append(self.visit(added))
        return made

    def visit_For(self, node: ast.AST) -> ast.AST:
        """Leave the `continue` of an inner loop unchanged."""
        self.depth += 1  # a `continue` inside belongs to the inner loop
        self.generic_visit(node)
        self.depth -= 1
        return node

    visit_While = visit_For  # noqa: N815

    def visit_Continue(self, node: ast.Continue) -> ast.AST:
        """`continue` becomes the return of the step."""
        if self.depth:
            return node
        return statements(ast.unparse(self.end), node)[0]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`super()` becomes `super(__class__, self)`, and `torch.cat([outs, h])` of a tensor that
        becomes longer `loop.longer(torch.cat, [outs, h])`."""
        self.generic_visit(node)
        if is_longer(node) in self.longer:
            node.args.insert(0, node.func)
            node.func = expression(f"{self.loop}.longer", node)
        if getattr(node.func, "id", "") == "super" and not node.args and self.first:
            node.args = [expression("__class__", node), expression(self.first, node)]
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """`f(outs)` of a tensor that becomes longer becomes `f(loop.whole(outs))`."""
        needs_all = node.id in self.longer and not getattr(node, "_in_parts", True)
        return called(f"{self.loop}.whole", node, node) if needs_all else node

    def visit_FunctionDef(self, node: ast.AST) -> ast.AST:
        return node

    visit_Lambda = visit_FunctionDef  # noqa: N815


class JoinedLists(ast.NodeTransformer):
    """Changes `torch.stack(rows)` outside of the steps: the rows may be known as one tensor."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node if node.name.startswith("_ostinato_body") else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`torch.stack(rows)` becomes `rows.joined(torch.stack, rows)`, with the object `ROWS`."""
        self.generic_visit(node)
        if not is_joining(node):
            return node
        call = called(f"{ROWS}.joined", node, node.func, *node.args)
        call.keywords = node.keywords
        return call


def _varies(node: ast.Subscript) -> bool:
    """Whether an index may name the loop's variable."""
    return any(isinstance(n, ast.Name) for n in ast.walk(node.slice))


ROWS = "_ostinato_rows_"
