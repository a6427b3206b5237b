"""What a pass must compute, as nodes: the value that the passes of the lowering rewrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ostinato.compiler.graph.node import ONCE, Node
from ostinato.compiler.graph.order import reachable
from ostinato.compiler.lower.nodes import NodeMaker
from ostinato.compiler.lower.spec import Output, PassSpec


@dataclass(frozen=True)
class Roots:
    outputs: tuple[Output, ...]  # those of the carries first
    saved: tuple[Node, ...]
    sums: Mapping[str, Node]

    @property
    def nodes(self) -> list[Node]:
        return [*(o.node for o in self.outputs), *self.saved, *self.sums.values()]

    def mapped(self, new: Callable[[Node], Node]) -> Roots:
        """The same roots, with `new` of each node."""
        return Roots(
            tuple([replace(o, node=new(o.node)) for o in self.outputs]),
            tuple([new(n) for n in self.saved]),
            {name: new(n) for name, n in self.sums.items()},
        )


def maker(spec: PassSpec, roots: Roots) -> NodeMaker:
    """A maker of nodes that may stand beside those of the roots."""
    return NodeMaker(reachable(roots.nodes, spec.is_leaf))


def split_outputs(spec: PassSpec) -> Roots:
    """Every output piece by piece: a concatenation is written where each piece belongs.

    A piece that lies somewhere already, or that is wanted in two places, is copied.
    """
    carries = [Output(c.written, c.name, c.dt_out) for c in spec.carries]
    roots = Roots((*carries, *spec.outputs), spec.saved, spec.sums)
    make = maker(spec, roots)
    taken: set[Node] = set()
    pieces = []
    for o in roots.outputs:
        column = o.column
        for n in o.node.inputs if o.node.op == "concat" else (o.node,):
            piece = make.copy(n) if n in taken or _lies_somewhere(spec, n) else n
            taken.add(piece)
            pieces.append(replace(o, node=piece, column=column))
            column += piece.width
    saved = [make.copy(n) if n in taken else n for n in spec.saved]
    return Roots(tuple(pieces), tuple(saved), spec.sums)


def _lies_somewhere(spec: PassSpec, n: Node) -> bool:
    """Whether no instruction of the pass writes this value."""
    return spec.is_leaf(n) or n.kind == ONCE or n.op in ("const", "slice", "absent")
