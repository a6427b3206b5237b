"""The network unrolled over time, as text and as SVG.

Time runs to the right, layers lie one upon the other. A column holds one box for each layer; the
box of a bidirectional layer has two cells, one for each direction, which read the same input.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise

from ostinato.anatomy import Anatomy

LEFT_OUT = "…"  # stands for the columns that are not drawn
ASCII = str.maketrans(
    {
        "─": "-", "│": "|", "┌": "+", "┐": "+", "└": "+", "┘": "+", "┤": "+", "├": "+",
        "→": ">", "←": "<", "▶": ">", "◀": "<", "▲": "^", "…": ".", "∈": "in", "×": "x",
        "·": "*", "Σ": "sum",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One direction of one layer: a state, carried along its row."""

    mark: str  # tells it apart: layer (if there are several) and direction (if there are two)
    backwards: bool


def plain(text: str) -> str:
    """The same in ASCII, for terminals that cannot show more."""
    return text.translate(ASCII)


def columns(anatomy: Anatomy) -> list[str]:
    """The time steps that are drawn, by name."""
    T = anatomy.n_steps
    if T is None:
        return ["1", "2", LEFT_OUT, "T"]
    return [str(t) for t in range(1, T + 1)] if T <= 4 else ["1", "2", LEFT_OUT, str(T)]


def layers(anatomy: Anatomy) -> list[list[Cell]]:
    """The cells of each layer, the top layer first."""
    numbers = [str(n) if anatomy.n_layers > 1 else "" for n in range(anatomy.n_layers, 0, -1)]
    if anatomy.bidirectional:
        return [[Cell(f"{n}→", False), Cell(f"{n}←", True)] for n in numbers]
    return [[Cell(n, False)] for n in numbers]


def caption(a: Anatomy) -> str:
    """The sizes of a network in a line: cell, steps, features, hidden units, layers and classes."""
    steps = "T" if a.n_steps is None else a.n_steps
    number = f", {a.n_layers} layers" if a.n_layers > 1 else ""
    both = ", both directions" if a.bidirectional else ""
    return (
        f"{a.cell}: {steps} steps of {a.n_features}, "
        f"{a.hidden_size} hidden{number}{both}, {a.n_classes} classes"
    )


# --- as text ---

BOX, ARROW, ROUTE = 9, 5, 2  # characters: a box, the way to the next, the way round to the readout


def text(anatomy: Anatomy) -> str:
    """The drawing for a terminal, without line break at its end."""
    names, stack = columns(anatomy), layers(anatomy)
    below = [n != LEFT_OUT for n in names]
    lines = []
    for i, cells in enumerate(stack):
        if i:
            lines.append(_under(["│" if drawn else "" for drawn in below]))
        lines += _layer(cells, names, anatomy.marks[1])
    number = stack[-1][0].mark.rstrip("→")
    weight = _weight(anatomy.marks[0], number)
    lines.append(_under([f"▲ {weight}" if drawn else "" for drawn in below]))
    lines.append(_under([f"x_{n}" if drawn else n for n, drawn in zip(names, below, strict=True)]))
    top = [""] * (len(names) - 1)
    head = [_under([*top, _answer(anatomy)]), _under([*top, f"▲ {anatomy.marks[2]}"])]
    if anatomy.bidirectional:
        lines, head[1:] = _routed(lines), [head[1], _route(len(names))]
        head = [" " * ROUTE + line if i < 2 else line for i, line in enumerate(head)]
    return "\n".join(line.rstrip() for line in head + lines)


def _answer(anatomy: Anatomy) -> str:
    """The name of the answer, above the last state, which it is read of if nothing else is said."""
    return "y" if anatomy.readout == "last" else "y, of all"


def _weight(name: str, mark: str) -> str:
    """A weight of a layer and direction; of a person's own cell none is named."""
    return name and name + mark


def _layer(cells: list[Cell], names: list[str], weight: str) -> list[str]:
    """A row of boxes: a border above each cell, and one below the last."""
    lines = []
    for i, cell in enumerate(cells):
        left, right = "┌┐" if i == 0 else "├┤"
        lines += [_border(left, right, names, _weight(weight, cell.mark)), _states(cell, names)]
    return [*lines, _border("└", "┘", names, "")]


def _border(left: str, right: str, names: list[str], weight: str) -> str:
    edge = left + "─" * (BOX - 2) + right
    boxes = [" " * BOX if n == LEFT_OUT else edge for n in names]
    return " " * ARROW + weight.center(ARROW).join(boxes)


def _states(cell: Cell, names: list[str]) -> str:
    boxes = [
        n.center(BOX) if n == LEFT_OUT else "│" + f"s{cell.mark}_{n}".center(BOX - 2) + "│"
        for n in names
    ]
    if cell.backwards:
        return " " * ARROW + "◀─── ".join(boxes) + "◀───0"
    return "0───▶" + " ───▶".join(boxes)


def _under(words: list[str]) -> str:
    """Words under the middles of the boxes."""
    indent = " " * (ARROW + BOX // 2)
    return indent + "".join(word.ljust(BOX + ARROW) for word in words)


def _route(n_columns: int) -> str:
    """From the way round at the left to the readout above the last box."""
    width = ROUTE + ARROW + BOX // 2 + (n_columns - 1) * (BOX + ARROW)
    return "┌" + "─" * (width - 1) + "┤"


def _routed(lines: list[str]) -> list[str]:
    """The lines of the boxes, with a way from the top layer's first backward state to the top."""
    first_backwards = 3  # border, forward states, border, backward states
    return [
        "│" + " " * (ROUTE - 1) + line
        if i < first_backwards
        else "└" + "─" * (ROUTE + ARROW - 1) + line[ARROW:]
        if i == first_backwards
        else " " * ROUTE + line
        for i, line in enumerate(lines)
    ]


# --- as SVG, in pixels ---

BOX_W, CELL_H = 90, 44
COLUMN, GAP = 150, 46  # from box to box: sideways from middle to middle, upwards between edges
LEFT, TOP = 150, 80  # the middle of the first column; the top of the first layer

STYLE = """
  text { font: 15px system-ui, sans-serif; text-anchor: middle; fill: #222 }
  .weight { font-style: italic; fill: #555 }
  .box { fill: #eef3fa; stroke: #345; stroke-width: 1.5 }
  .way { stroke: #345; stroke-width: 1.5; fill: none }
  .tip { fill: #345 }
"""
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path class="tip" d="M0 0L8 4L0 8z"></path></marker></defs>'
)


def svg(anatomy: Anatomy) -> str:
    """The same drawing as a picture that any browser shows."""
    width, height, body = _drawing(anatomy)
    foot = _text(width // 2, height + 16, caption(anatomy))
    size = f'viewBox="0 0 {width} {height + 30}" width="{width}" height="{height + 30}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">
<title>{escape(caption(anatomy))}, unrolled over time</title>
<style>{STYLE}</style>
<rect width="100%" height="100%" fill="white"/>
{body}
{foot}
</svg>
"""


def inline_svg(anatomy: Anatomy) -> str:
    """The same within an HTML page, which has the style for its classes."""
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
        parts.append(_svg_layer(cells, names, x, top, anatomy.marks[1]))
        top += CELL_H * len(cells) + GAP
    foot = top + 14
    weight = _weight(anatomy.marks[0], stack[-1][0].mark.rstrip("→"))
    parts.append(_svg_inputs(weight, names, x, foot))
    return x[-1] + LEFT, foot + 26, "\n".join(parts)


def _svg_readout(anatomy: Anatomy, x: list[int]) -> str:
    """y above the last column. A backward state comes round from the first one, at the left."""
    parts = [
        _way(f"M{x[-1]} {TOP}V{TOP - 44}"),
        _text(x[-1], TOP - 52, _answer(anatomy)),
        _text(x[-1] + 16, TOP - 12, anatomy.marks[2], "weight"),
    ]
    if anatomy.bidirectional:
        y, edge = TOP + CELL_H * 3 // 2, x[0] - BOX_W // 2
        parts.append(_way(f"M{edge} {y}H{edge - 70}V{TOP - 26}H{x[-1] - 2}"))
    return "\n".join(parts)


def _svg_layer(cells: list[Cell], names: list[str], x: list[int], top: int, weight: str) -> str:
    parts = []
    bottom = top + CELL_H * len(cells)
    for i, name in enumerate(names):
        if name != LEFT_OUT:
            parts.append(_way(f"M{x[i]} {bottom + GAP}V{bottom + 2}"))
    for row, cell in enumerate(cells):
        named = _weight(weight, cell.mark)
        parts.append(_svg_cell(cell, names, x, top + CELL_H * row, named))
    return "\n".join(parts)


def _svg_cell(cell: Cell, names: list[str], x: list[int], top: int, weight: str) -> str:
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
