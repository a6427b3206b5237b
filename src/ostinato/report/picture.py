"""The network unrolled over time, as SVG.

Time runs to the right, layers lie one upon the other. A column holds one box for each layer; the
box of a bidirectional layer has two cells, one for each direction, which read the same input.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise

from ostinato.anatomy import Anatomy

LEFT_OUT = "…"  # drawn for the columns left out
BOX_W, CELL_H = 90, 44  # pixels
COLUMN, GAP = 150, 46  # from box to box: sideways from middle to middle, upwards between edges
LEFT, TOP = 150, 80  # the middle of the first column; the top of the first layer
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path class="tip" d="M0 0L8 4L0 8z"></path></marker></defs>'
)


@dataclass(frozen=True)
class OneWay:
    """One direction of one layer: a state, carried along its row."""

    mark: str  # its layer (if there are several) and direction (if there are two)
    backwards: bool


def columns(anatomy: Anatomy) -> list[str]:
    """The time steps that are drawn, by name."""
    T = anatomy.n_steps
    if T is None:
        return ["1", "2", LEFT_OUT, "T"]
    return [str(t) for t in range(1, T + 1)] if T <= 4 else ["1", "2", LEFT_OUT, str(T)]


def layers(anatomy: Anatomy) -> list[list[OneWay]]:
    """The cells of each layer, the top layer first."""
    numbers = [str(n) if anatomy.n_layers > 1 else "" for n in range(anatomy.n_layers, 0, -1)]
    if anatomy.bidirectional:
        return [[OneWay(f"{n}→", False), OneWay(f"{n}←", True)] for n in numbers]
    return [[OneWay(n, False)] for n in numbers]


def caption(a: Anatomy) -> str:
    """The sizes of a network in a line: cell, steps, features, hidden units, layers and classes."""
    steps = "T" if a.n_steps is None else a.n_steps
    read = f"{steps} steps of {a.n_features}"
    if a.n_words is not None:
        read = f"{steps} words, each as {a.n_features} numbers"
    number = f", {a.n_layers} layers" if a.n_layers > 1 else ""
    both = ", both directions" if a.bidirectional else ""
    return (
        f"{a.cell}: {read}, "
        f"{a.hidden_size} hidden{number}{both}, {a.n_classes} classes"
    )


def _answer(anatomy: Anatomy) -> str:
    """The label of the answer, which says if it is computed from all states, not the last one."""
    return "y" if anatomy.readout == "last" else "y, of all"


def inline_svg(anatomy: Anatomy) -> str:
    """The drawing within an HTML page, which has the style for its classes."""
    width, height, body = _drawing(anatomy)
    return (
        f'<svg class="unrolled" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(caption(anatomy))}, unrolled over time">\n{body}\n</svg>'
    )


def _drawing(anatomy: Anatomy) -> tuple[int, int, str]:
    """Width, height and elements."""
    names, stack = columns(anatomy), layers(anatomy)
    x = [LEFT + COLUMN * i for i in range(len(names))]
    parts, top = [TIP, _svg_readout(anatomy, x)], TOP
    for cells in stack:
        parts.append(_svg_layer(cells, names, x, top))
        top += CELL_H * len(cells) + GAP
    foot = top + 14
    weight = "U" + stack[-1][0].mark.rstrip("→")
    parts.append(_svg_inputs(weight, names, x, foot))
    return x[-1] + LEFT, foot + 26, "\n".join(parts)


def _svg_readout(anatomy: Anatomy, x: list[int]) -> str:
    """y above the last column. The backward state is led around from the first column, at the
    left."""
    parts = [
        _way(f"M{x[-1]} {TOP}V{TOP - 44}"),
        _text(x[-1], TOP - 52, _answer(anatomy)),
        _text(x[-1] + 16, TOP - 12, "V", "weight"),
    ]
    if anatomy.bidirectional:
        y, edge = TOP + CELL_H * 3 // 2, x[0] - BOX_W // 2
        parts.append(_way(f"M{edge} {y}H{edge - 70}V{TOP - 26}H{x[-1] - 2}"))
    return "\n".join(parts)


def _svg_layer(cells: list[OneWay], names: list[str], x: list[int], top: int) -> str:
    parts = []
    bottom = top + CELL_H * len(cells)
    for i, name in enumerate(names):
        if name != LEFT_OUT:
            parts.append(_way(f"M{x[i]} {bottom + GAP}V{bottom + 2}"))
    for row, cell in enumerate(cells):
        parts.append(_svg_cell(cell, names, x, top + CELL_H * row, "W" + cell.mark))
    return "\n".join(parts)


def _svg_cell(cell: OneWay, names: list[str], x: list[int], top: int, weight: str) -> str:
    half, y = BOX_W // 2, top + CELL_H // 2
    parts = []
    for i, name in enumerate(names):
        if name != LEFT_OUT:
            size = f'width="{BOX_W}" height="{CELL_H}"'
            parts.append(f'<rect class="box" x="{x[i] - half}" y="{top}" {size} rx="4"></rect>')
        parts.append(_text(x[i], y + 5, name if name == LEFT_OUT else f"s{cell.mark}_{name}"))
    for left, right in pairwise(x):
        start, end = left + half, right - half
        parts.append(
            _way(f"M{end} {y}H{start + 2}" if cell.backwards else f"M{start} {y}H{end - 2}")
        )
        parts.append(_text((left + right) // 2, y - 8, weight, "weight"))
    edge, out = (x[-1] + half, 1) if cell.backwards else (x[0] - half, -1)
    parts.append(_way(f"M{edge + 30 * out} {y}H{edge + 2 * out}"))
    parts.append(_text(edge + 38 * out, y + 5, "0"))
    return "\n".join(parts)


def _svg_inputs(weight: str, names: list[str], x: list[int], foot: int) -> str:
    parts = []
    for i, name in enumerate(names):
        parts.append(_text(x[i], foot + 5, name if name == LEFT_OUT else f"x_{name}"))
        if name != LEFT_OUT:
            parts.append(_text(x[i] + 18, foot - 30, weight, "weight"))
    return "\n".join(parts)


def _text(x: int, y: int, words: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    name, _, index = escape(words).partition("_")
    lowered = f'<tspan dy="4" font-size="11">{index}</tspan>' if index else ""
    return f'<text{attribute} x="{x}" y="{y}">{name}{lowered}</text>'


def _way(path: str) -> str:
    """A line that ends in an arrow head."""
    return f'<path class="way" d="{path}" marker-end="url(#tip)"></path>'
