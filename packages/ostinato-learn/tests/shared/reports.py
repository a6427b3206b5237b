"""Reports without their figures, which take most of a page's time, or with them."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import pytest

from ostinato_learn.report import figures


def label_alone(name: str, label: str, size: object, draw: object) -> str:
    """In the place of `report.svg.inline_svg`: a figure that shows nothing."""
    return f'<svg aria-label="{escape(label)}"></svg>'


def draw_by(patch: pytest.MonkeyPatch, function: Callable[..., str]) -> None:
    """`function` makes the figures of all reports from now on."""
    patch.setattr(figures, "inline_svg", function)
