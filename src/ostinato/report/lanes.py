"""Labelled sequences: true and predicted labels, as coloured lanes or beside words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from ostinato.report.markup import short, text
from ostinato.report.steps import features
from ostinato.report.svg import INK, LABELS, LINE, MUTED, WRONG, inline_svg
from ostinato.report.tagging import TagView

LETTER = 0.074  # inches, about, of a small letter in a lane
WIDTH = 10.0  # inches of a figure
Colours = Sequence[int | None]  # of each class: which of LABELS, −1 for the rest; None is no colour


def svg(name: str, label: str, view: TagView, classes: Sequence[str], colours: Colours) -> str:
    """The sequence as the network read it, and under it both lanes over time."""
    assert view.x is not None
    x = view.x

    def draw(fig: Figure) -> None:
        top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
        features(top, x, view.start)
        _lane(bottom, 1, view.true, view.start, classes, colours)
        _lane(bottom, 0, view.predicted, view.start, classes, colours)
        wrong = view.true != view.predicted
        _bars(bottom, -0.3, 0.14, view.start, [r for r in runs(wrong) if wrong[r[0]]], WRONG)
        bottom.set_ylim(-0.4, 1.85)
        bottom.set_yticks([1.4, 0.4, -0.23], ["true", "predicted", "wrong"])
        bottom.tick_params(axis="y", length=0)
        bottom.spines[:].set_visible(False)
        bottom.grid(False)
        bottom.set_xlim(view.start, view.start + len(view.true))
        bottom.set_xlabel("step")
        bottom.xaxis.set_major_locator(MaxNLocator(12, integer=True))

    return inline_svg(name, label, (WIDTH, 2.7), draw)


def _lane(
    ax: Axes, y: int, labels: np.ndarray, first: int, classes: Sequence[str], colours: Colours
) -> None:
    inches = (WIDTH - 1.1) / len(labels)
    of_label: dict[int, list[tuple[int, int]]] = {}
    for start, end in runs(labels):
        of_label.setdefault(int(labels[start]), []).append((start, end))
    for number, stretches in of_label.items():
        _bars(ax, y, 0.8, first, stretches, _colour(colours[number]), alpha=0.6)
        name = short(classes[number], 24)
        for start, end in stretches:
            if len(name) * LETTER < (end - start) * inches:
                middle = first + (start + end) / 2
                ax.text(middle, y + 0.4, name, ha="center", va="center", fontsize=7.5, color=INK)


def _bars(
    ax: Axes,
    y: float,
    height: float,
    first: int,
    stretches: Sequence[tuple[int, int]],
    colour: str,
    alpha: float = 1.0,
) -> None:
    """Bars over stretches of steps, all in one path: it takes the least room in the page."""
    rectangles = [
        Path([(a, y), (b, y), (b, y + height), (a, y + height), (a, y)], closed=True)
        for a, b in (np.array(stretches).reshape(-1, 2) + first).tolist()
    ]
    if rectangles:
        path = Path.make_compound_path(*rectangles)
        ax.add_patch(PathPatch(path, facecolor=colour, alpha=alpha, linewidth=0))


def runs(labels: np.ndarray) -> list[tuple[int, int]]:
    """The stretches of equal labels `[T]`: (first step, step after the last)."""
    borders = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
    return list(pairwise(borders))


def words(view: TagView, classes: Sequence[str], colours: Colours) -> str:
    """The words with their true labels, and the predicted ones where they are wrong."""
    assert view.words is not None
    shown = [
        _word(word, int(true), int(predicted), classes, colours)
        for word, true, predicted in zip(view.words, view.true, view.predicted, strict=True)
    ]
    return f'<p class="tagged">{" ".join(shown)}</p>'


def _word(word: str, true: int, predicted: int, classes: Sequence[str], colours: Colours) -> str:
    right = true == predicted
    below = ""
    if not right or colours[true] is not None:
        below += f'<small class="{css_class(colours[true])}">{text(classes[true])}</small>'
    if not right:
        kind = css_class(colours[predicted])
        below += f'<small class="taken {kind}">{text(classes[predicted])}</small>'
    return f'<span class="word{"" if right else " wrong"}">{text(word)}{below}</span>'


def css_class(colour: int | None) -> str:
    """The class of a label's colour in the style sheet; "plain" for none, and for shared ones."""
    return "plain" if colour is None or colour < 0 else f"label-{colour}"


def _colour(colour: int | None) -> str:
    return LINE if colour is None else MUTED if colour < 0 else LABELS[colour]


def key(classes: Sequence[str], colours: Colours, families: Sequence[str]) -> str:
    """Which colour is which label; labels of one family share a colour and a name."""
    shown: dict[int, str] = {}
    for family, colour in zip(families, colours, strict=True):
        if colour is not None:
            shown.setdefault(colour, "others" if colour < 0 else family)
    items = [
        f'<span class="swatch {css_class(colour)}">{text(short(name, 30))}</span>'
        for colour, name in sorted(shown.items(), key=lambda item: item[0] % 100)
    ]
    return f'<p class="key">{" ".join(items)}</p>'
