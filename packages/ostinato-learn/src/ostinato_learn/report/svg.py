"""Matplotlib figures as inline SVG that takes the page's fonts and its light or dark colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Placeholders: matplotlib draws in these colours, and the page replaces them by its variables.
INK, MUTED, LINE, ACCENT, WRONG = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
# The colours of labels; the page has a variable for each.
LABELS = tuple(f"#1{i}2{i}3{i}" for i in range(8))
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    WRONG: "var(--wrong)",
    **{stand_in: f"var(--label-{i})" for i, stand_in in enumerate(LABELS)},
}
# ACCENT and WRONG for pixels, which cannot adapt to the page: mid-tones for white and black.
ACCENT_RGB, WRONG_RGB = (0.24, 0.50, 0.86), (0.87, 0.44, 0.13)

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a label may contain a dollar sign
    "font.family": "DejaVu Sans",  # comes with matplotlib; wide, so that others fit its boxes
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_PIXELS_PER_POINT = 4 / 3
LETTER = 0.074  # the approximate width of a small letter in a figure, in inches


def inline_svg(
    name: str, label: str, size: tuple[float, float], draw: Callable[[Figure], None]
) -> str:
    """Draw a figure and return it as an `<svg>` element.

    Args:
        name: unique within the page; prefixes every id inside.
        label: a description of the figure for screen readers.
        size: width and height in inches of 96 pixels; narrower pages scale it down.
        draw: paints an empty figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The reader's browser chooses the font, so that a glyph missing in DejaVu does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()  # the user's matplotlibrc must not change the report
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        fig = Figure(figsize=size, layout="constrained")
        draw(fig)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        fig.savefig(file, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    _clean(root, name)
    width, height = (inches * 72 * _PIXELS_PER_POINT for inches in size)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "width": f"{width:.0f}",
        "height": f"{height:.0f}",
        "role": "img",
        "aria-label": label,
    }
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _clean(root: ElementTree.Element, name: str) -> None:
    """Make the elements part of the page: no namespaces, no style sheet, own ids, own colours."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata") or child.tag.endswith("}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _attribute(key.rpartition("}")[2], value, name)
            for key, value in element.attrib.items()
        }


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1) if value.startswith("#") else value
    if key == "d":
        return _path(value)
    value = value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = re.sub(r"font: (\S+) [^;]*", r"font-size: \1", value)
        value = re.sub("#[0-9a-f]{6}", lambda hit: _VARIABLES.get(hit[0], hit[0]), value)
    return value


def _path(d: str) -> str:
    """A path to a tenth of a point, with H and V along an axis: a third of matplotlib's."""
    drawn = []
    at: list[str] = []
    for command, rest in re.findall(r"([MLQCz])([^MLQCz]*)", d):
        if command in "QC":  # curves are small: markers
            drawn.append(f"{command}{' '.join(f'{float(n):.2f}' for n in rest.split())}")
            at = []
            continue
        to = [f"{float(number):.1f}" for number in rest.split()]
        if command == "L" and at and to[1] == at[1]:
            drawn.append(f"H{to[0]}")
        elif command == "L" and at and to[0] == at[0]:
            drawn.append(f"V{to[1]}")
        else:
            drawn.append(command + " ".join(to))
        at = to
    return "".join(drawn)


def tinted(values: np.ndarray, rgb: tuple[float, float, float]) -> np.ndarray:
    """`[...]` values in [0, 1] as `[..., 4]` pixels: one colour, opaque at 1 and clear at 0.

    The page shows through zeros, so that one picture fits light and dark.
    """
    pixels = np.empty((*values.shape, 4), dtype=np.float32)
    pixels[..., :3] = rgb
    pixels[..., 3] = values
    return pixels


def diverging(values: np.ndarray) -> np.ndarray:
    """`[...]` values in [−1, 1] as `[..., 4]` pixels: below zero ACCENT, above zero WRONG."""
    pixels = tinted(np.abs(values), WRONG_RGB)
    pixels[values < 0, :3] = ACCENT_RGB
    return pixels
