"""Text, numbers and names as a page shows them. Every string from outside passes through `text`."""

from __future__ import annotations

import html
import math
import re

# Characters that HTML or UTF-8 cannot carry: control characters, lone surrogates, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """A string that is markup; `text` returns it unchanged."""

    __slots__ = ()


def plain(value: object) -> str:
    """A value as one line of printable text, not yet escaped (for figures)."""
    return _UNPRINTABLE.sub("\ufffd", re.sub("[\t\n\v\f\r]+", " ", str(value)))


def text(value: object) -> str:
    """A value as escaped HTML, fit for content and for quoted attributes."""
    return value if isinstance(value, Html) else html.escape(plain(value))


def tag(name: str, content: object, css: str = "") -> Html:
    """An HTML element, with a class if `css` is not empty."""
    attribute = f' class="{css}"' if css else ""
    return Html(f"<{name}{attribute}>{text(content)}</{name}>")


def short(value: object, limit: int = 14) -> str:
    """A label cut to fit an axis."""
    label = plain(value)
    return label if len(label) <= limit else label[: limit - 1] + "…"


def distinct(names: list[str], limit: int) -> list[str]:
    """Names cut to fit an axis: at the end, or in the middle if their ends distinguish them."""
    cut = [short(name, limit) for name in names]
    if len(set(cut)) == len(set(map(plain, names))):
        return cut
    head = (limit - 1) // 2
    whole = [plain(name) for name in names]
    return [w if len(w) <= limit else f"{w[:head]}…{w[head + 1 - limit :]}" for w in whole]


def percent(fraction: float, digits: int = 2) -> str:
    """0.9724 → "97.24 %"; a fraction that does not exist (NaN) is a dash."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}\u202f%"


def count(number: int) -> str:
    """10000 → "10,000"."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 step`, `1,200 steps`."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def duration(seconds: float) -> str:
    """75.7 → "1 min 16 s"."""
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest}\u202fs"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh {minutes}\u202fmin"
