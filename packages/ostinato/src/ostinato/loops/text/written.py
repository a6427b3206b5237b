"""Questions about tensors whose elements iterations write."""

from __future__ import annotations

import ast
from collections.abc import Collection

from ostinato.loops.text.bodies import root_of
from ostinato.loops.text.dataflow import reads
from ostinato.loops.text.source import expression

_ABOUT = {
    "dtype",
    "device",
    "shape",
    "ndim",
    "size",
    "dim",
    "numel",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
}
_OF_TYPE = {"to", "type_as"}


class AboutWritten(ast.NodeTransformer):
    """Turns `out.dtype` into `loop.written(number).dtype`, where `out[:, t] = …` has the number.

    The step does not name such a tensor: what it names it reads, and a scan writes it at the end.
    """

    def __init__(self, name: str, body: list[ast.stmt], fixed: Collection[str], index: set[str]):
        """A change of the statements of a body.

        Args:
            name: the name of the loop.
            body: the statements.
            fixed: the names that the body does not bind.
            index: the names of numbers that follow the iteration.
        """
        self.name = name
        nodes = [n for statement in body for n in ast.walk(statement)]
        bound = {
            ast.unparse(n)
            for n in nodes
            if isinstance(n, ast.Attribute) and not isinstance(n.ctx, ast.Load)
        }
        copied = {id(n.func.value) for n in nodes if isinstance(n, ast.Call) and is_copy(n)}  # type: ignore[attr-defined]
        self.numbers: dict[str, int] = {
            ast.unparse(n.value): n._number  # type: ignore[attr-defined]
            for n in nodes
            if isinstance(n, ast.Subscript)
            and (isinstance(n.ctx, ast.Store) or id(n) in copied)
            and not index.isdisjoint(reads(n.slice))
            and isinstance(n.value, (ast.Name, ast.Attribute))
            and root_of(n.value) in fixed
            and ast.unparse(n.value) not in bound
        }

    def asked(self, of: ast.expr) -> ast.expr | None:
        """What stands for a tensor that iterations write; None for others."""
        number = self.numbers.get(ast.unparse(of)) if self.numbers else None
        return None if number is None else expression(f"{self.name}.written({number})", of)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`out.dtype` becomes `loop.written(number).dtype`."""
        if node.attr in _ABOUT:
            node.value = self.asked(node.value) or node.value
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`h.to(out)` and `h.type_as(out)` become `h.to(loop.written(number).dtype)`."""
        if getattr(node.func, "attr", "") in _OF_TYPE and len(node.args) == 1:
            of = self.asked(node.args[0])
            if of is not None and isinstance(node.func, ast.Attribute):
                node.func.attr = "to"
                node.args = [ast.copy_location(ast.Attribute(of, "dtype", ast.Load()), of)]
        return self.generic_visit(node)


def is_copy(n: ast.AST) -> bool:
    """Whether it is a call `out[:, t].copy_(h)`."""
    return (
        isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr == "copy_"
        and isinstance(n.func.value, ast.Subscript)
        and len(n.args) == 1
        and not n.keywords
        and not isinstance(n.args[0], ast.Starred)
    )
