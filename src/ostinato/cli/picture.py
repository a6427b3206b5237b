"""The network unrolled over time, as text and as SVG."""

from __future__ import annotations

from html import escape
from itertools import pairwise

from ostinato.cli.anatomy import Anatomy

ASCII = str.maketrans(
    {
        "─": "-", "│": "|", "┌": "+", "┐": "+", "└": "+", "┘": "+", "┬": "+", "┴": "+", "┤": "+",
        "├": "+", "→": ">", "←": "<", "▶": ">", "◀": "<", "▲": "^", "…": ".", "∈": "in", "×": "x",
        "·": "*", "Σ": "sum", "₀": "0",
    }
)  # fmt: skip

BOX = 9  # characters of a box; a column is a box and the arrow to the next one
ARROW = 5


def plain(text: str) -> str:
    """The same in ASCII, for terminals that cannot show more."""
    return text.translate(ASCII)


def columns(anatomy: Anatomy) -> list[str]:
    """The time steps that are drawn, by name; "…" stands for those left out."""
    T = anatomy.n_steps
    if T is None:
        return ["1", "2", "…", "T"]
    return [str(t) for t in range(1, T + 1)] if T <= 4 else ["1", "2", "…", str(T)]


def rows(anatomy: Anatomy) -> list[tuple[str, str, bool]]:
    """(name of the state, marks of its weights, runs backwards) of each body, the top one first."""
    drawn = []
    for layer in reversed(range(anatomy.n_layers)):
        number = str(layer + 1) if anatomy.n_layers > 1 else ""
        for mark in ("←", "→") if anatomy.bidirectional else ("",):
            drawn.append((f"s{number}{mark}", f"{number}{mark}", mark == "←"))
    return drawn


def text(anatomy: Anatomy) -> str:
    """A drawing of four columns: x at the bottom, states above, the readout on top.

        y
        ▲ V
    ┌───┴───┐
    │  s_T  │ …
    """
    names = columns(anatomy)
    last = len(names) - 1
    bodies = rows(anatomy)
    reading = [0, last] if anatomy.bidirectional else [last]
    lines = [
        _marks(["y" if i == last else "" for i in range(len(names))]),
        _marks(["▲ V" if i in reading else "" for i in range(len(names))]),
    ]
    if anatomy.bidirectional:  # both last states meet under y, at the right
        lines[1] = _meeting(len(names))
        lines.insert(1, _marks(["▲ V" if i == last else "" for i in range(len(names))]))
    for i, (state, mark, backwards) in enumerate(bodies):
        lines += _boxes(state, mark, backwards, names)
        if i < len(bodies) - 1:
            lines.append(_marks(["" if n == "…" else "│" for n in names]))
    lines.append(_marks(["" if n == "…" else f"▲ U{_below(bodies)}" for n in names]))
    lines.append(_marks(["…" if n == "…" else f"x_{n}" for n in names]))
    if len(bodies) > 1:
        lines += ["", _wiring(anatomy)]
    return "\n".join(line.rstrip() for line in lines)


def _below(bodies: list[tuple[str, str, bool]]) -> str:
    return bodies[-1][1].rstrip("→←")


def _wiring(anatomy: Anatomy) -> str:
    """In words, what arrows between boxes in one column cannot tell apart."""
    top = anatomy.n_layers if anatomy.n_layers > 1 else ""
    end = anatomy.n_steps or "T"
    notes = []
    if anatomy.n_layers > 1:
        below = "both directions of the layer below" if anatomy.bidirectional else "the layer below"
        notes.append(f"Layer 1 reads x, every further layer reads {below}.")
    elif anatomy.bidirectional:
        notes.append("Both directions read x.")
    if anatomy.bidirectional:
        notes.append(f"y reads s{top}→_{end} and s{top}←_1.")
    return " ".join(notes)


def _marks(words: list[str]) -> str:
    """Words under the middles of the boxes."""
    line = " " * ARROW
    for word in words:
        line += " " * (BOX // 2) + word.ljust(BOX - BOX // 2 + ARROW)
    return line


def _meeting(n: int) -> str:
    """A line from above the first box to above the last."""
    width = (n - 1) * (BOX + ARROW)
    return " " * (ARROW + BOX // 2) + "┌" + "─" * (width - 1) + "┤"


def _boxes(state: str, mark: str, backwards: bool, names: list[str]) -> list[str]:
    top, middle, bottom = " " * ARROW, "", " " * ARROW
    arrow = "◀───" if backwards else "───▶"
    start = "  " + " " * (ARROW - 2) if backwards else f"{'0':>{ARROW - 4}}{arrow}"
    for i, name in enumerate(names):
        middle += start if i == 0 else f"{arrow}".center(ARROW)
        if name == "…":
            top += " " * (BOX + ARROW)
            middle += "…".center(BOX)
            bottom += " " * (BOX + ARROW)
            continue
        top += "┌" + "─" * (BOX - 2) + "┐" + f"W{mark}".center(ARROW) * (i < len(names) - 1)
        middle += "│" + f"{state}_{name}".center(BOX - 2) + "│"
        bottom += "└" + "─" * (BOX - 2) + "┘" + " " * ARROW
    if backwards:
        middle += f"{arrow}0"
    return [top, middle, bottom]


# --- SVG: one box is 90 × 44, columns 150 apart, rows 90 apart ---

BOX_W, BOX_H, COLUMN, ROW, MARGIN = 90, 44, 150, 90, 70

STYLE = """
  text { font: 15px system-ui, sans-serif; text-anchor: middle; fill: #222 }
  .weight { font-style: italic; fill: #555 }
  .box { fill: #eef3fa; stroke: #345; stroke-width: 1.5 }
  .way { stroke: #345; stroke-width: 1.5; fill: none; marker-end: url(#tip) }
"""


def svg(anatomy: Anatomy) -> str:
    """The same drawing as a picture that any browser shows."""
    names, bodies = columns(anatomy), rows(anatomy)
    x = [MARGIN + 60 + COLUMN * i for i in range(len(names))]
    y = [MARGIN + 50 + ROW * i for i in range(len(bodies))]
    foot = y[-1] + ROW
    drawing = [_readout(anatomy, x, y)]
    for (state, mark, backwards), middle in zip(bodies, y, strict=True):
        drawing.append(_svg_row(state, mark, backwards, names, x, middle))
    for i, name in enumerate(names):
        drawing.append(_text(x[i], foot + 5, name if name == "…" else f"x_{name}"))
        if name != "…":
            drawing.append(_line(x[i], foot - 14, x[i], y[-1] + BOX_H // 2 + 3))
            drawing.append(_text(x[i] + 16, foot - 26, f"U{_below(bodies)}", "weight"))
            for upper, lower in pairwise(y):
                drawing.append(_line(x[i], lower - BOX_H // 2, x[i], upper + BOX_H // 2 + 3))
    width, height = x[-1] + MARGIN + 60, foot + 60
    drawing.append(_text(width // 2, foot + 42, _caption(anatomy)))
    body = "\n".join(drawing)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img">
<title>{escape(_caption(anatomy))}, unrolled over time</title>
<style>{STYLE}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" \
orient="auto"><path d="M0 0L8 4L0 8z" fill="#345"/></marker></defs>
<rect width="100%" height="100%" fill="white"/>
{body}
</svg>
"""


def _caption(a: Anatomy) -> str:
    steps = "T" if a.n_steps is None else a.n_steps
    layers = f", {a.n_layers} layers" if a.n_layers > 1 else ""
    both = ", both directions" if a.bidirectional else ""
    return (
        f"{a.cell}: {steps} steps of {a.n_features}, "
        f"{a.hidden_size} hidden{layers}{both}, {a.n_classes} classes"
    )


def _svg_row(state: str, mark: str, backwards: bool, names: list[str], x: list[int], y: int) -> str:
    parts = []
    for i, name in enumerate(names):
        if name == "…":
            parts.append(_text(x[i], y + 5, "…"))
        else:
            left, top = x[i] - BOX_W // 2, y - BOX_H // 2
            parts.append(
                f'<rect class="box" x="{left}" y="{top}" width="{BOX_W}" height="{BOX_H}" rx="6"/>'
            )
            parts.append(_text(x[i], y + 5, f"{state}_{name}"))
    half = BOX_W // 2
    for left_x, right_x in pairwise(x):
        start, end = left_x + half, right_x - half
        parts.append(_line(end, y, start + 2, y) if backwards else _line(start, y, end - 2, y))
        parts.append(_text((left_x + right_x) // 2, y - 8, f"W{mark}", "weight"))
    zero = x[-1] + half + 38 if backwards else x[0] - half - 38
    parts.append(_text(zero, y + 5, "0"))
    tip = x[-1] + half + 2 if backwards else x[0] - half - 2
    parts.append(_line(zero + (-8 if backwards else 8), y, tip, y))
    return "\n".join(parts)


def _readout(anatomy: Anatomy, x: list[int], y: list[int]) -> str:
    """y above the last column; a bidirectional network's backward state joins from the first."""
    top = y[0] - BOX_H // 2
    parts = [
        _text(x[-1], top - 50, "y"),
        _text(x[-1] + 16, top - 20, "V", "weight"),
        _line(x[-1], top, x[-1], top - 42),
    ]
    if anatomy.bidirectional:
        bend = f"M{x[0]} {top}V{top - 30}H{x[-1] - 3}"
        parts.append(f'<path class="way" d="{bend}"/>')
    return "\n".join(parts)


def _text(x: int, y: int, words: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    name, underscore, index = escape(words).partition("_")
    if underscore and " " not in words:
        name += f'<tspan dy="4" font-size="11">{index}</tspan>'
    else:
        name = escape(words)
    return f'<text{attribute} x="{x}" y="{y}">{name}</text>'


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<path class="way" d="M{x1} {y1}L{x2} {y2}"/>'
