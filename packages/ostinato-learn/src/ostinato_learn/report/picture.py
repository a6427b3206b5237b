"""The network unrolled over time, as SVG.

Time runs to the right, and layers go upwards. A column holds one box for each layer; the
box of a bidirectional layer has two cells, one for each direction, which read the same input.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise

from ostinato_learn.anatomy import Anatomy

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
    return f"{a.cell}: {read}, {a.hidden_size} hidden{number}{both}, {a.n_classes} classes"


def inline_svg(anatomy: Anatomy) -> str:
    """The drawing as an element of an HTML page, whose style sheet has its classes."""
    names, parts, top = columns(anatomy), [TIP], TOP
    x = [LEFT + COLUMN * i for i in range(len(names))]
    shown = [(at, name) for at, name in zip(x, names, strict=True) if name != LEFT_OUT]
    parts += _readout(anatomy, x)
    for cells in layers(anatomy):
        lowest = top + CELL_H * len(cells)
        parts += [_way(f"M{at} {lowest + GAP}V{lowest + 2}") for at, _ in shown]
        for cell in cells:
            parts += _carried(cell, names, x, top)
            top += CELL_H
        top += GAP
    weight, foot = "U" + layers(anatomy)[-1][0].mark.rstrip("→"), top + 14
    for at, name in zip(x, names, strict=True):
        parts.append(_text(at, foot + 5, name if name == LEFT_OUT else f"x_{name}"))
        parts += [_text(at + 18, foot - 30, weight, "weight")] if name != LEFT_OUT else []
    width, height, body = x[-1] + LEFT, foot + 26, "\n".join(parts)
    return (
        f'<svg class="unrolled" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(caption(anatomy))}, unrolled over time">\n{body}\n</svg>'
    )


def _readout(anatomy: Anatomy, x: list[int]) -> list[str]:
    """y above the last column; the backward state is led around from the first, at the left."""
    answer = "y" if anatomy.readout == "last" else "y, of all"
    parts = [
        _way(f"M{x[-1]} {TOP}V{TOP - 44}"),
        _text(x[-1], TOP - 52, answer),
        _text(x[-1] + 16, TOP - 12, "V", "weight"),
    ]
    if anatomy.bidirectional:
        y, edge = TOP + CELL_H * 3 // 2, x[0] - BOX_W // 2
        parts.append(_way(f"M{edge} {y}H{edge - 70}V{TOP - 26}H{x[-1] - 2}"))
    return parts


def _carried(cell: OneWay, names: list[str], x: list[int], top: int) -> list[str]:
    """A state along its row: a box in each column, and the weight on the way to the next."""
    parts: list[str] = []
    half, y = BOX_W // 2, top + CELL_H // 2
    for at, name in zip(x, names, strict=True):
        if name != LEFT_OUT:
            size = f'width="{BOX_W}" height="{CELL_H}"'
            parts.append(f'<rect class="box" x="{at - half}" y="{top}" {size} rx="4"></rect>')
        parts.append(_text(at, y + 5, name if name == LEFT_OUT else f"s{cell.mark}_{name}"))
    for left, right in pairwise(x):
        start, end = left + half, right - half
        way = f"M{end} {y}H{start + 2}" if cell.backwards else f"M{start} {y}H{end - 2}"
        parts += [_way(way), _text((left + right) // 2, y - 8, f"W{cell.mark}", "weight")]
    edge, out = (x[-1] + half, 1) if cell.backwards else (x[0] - half, -1)
    zero = _way(f"M{edge + 30 * out} {y}H{edge + 2 * out}")
    return [*parts, zero, _text(edge + 38 * out, y + 5, "0")]


def _text(x: int, y: int, words: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    name, _, index = escape(words).partition("_")
    lowered = f'<tspan dy="4" font-size="11">{index}</tspan>' if index else ""
    return f'<text{attribute} x="{x}" y="{y}">{name}{lowered}</text>'


def _way(path: str) -> str:
    """A line that ends in an arrow head."""
    return f'<path class="way" d="{path}" marker-end="url(#tip)"></path>'
