"""HTML in small pieces. Every string from outside passes through `text`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NARROW = 5  # columns that a phone has room for

# What neither HTML nor UTF-8 can carry: control characters, lone surrogates, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def plain(value: object) -> str:
    """A value as one line of printable text, not yet escaped (for figures)."""
    return _UNPRINTABLE.sub("\ufffd", re.sub("[\t\n\v\f\r]+", " ", str(value)))


def text(value: object) -> str:
    """A value as escaped HTML, fit for content and for quoted attributes."""
    return html.escape(plain(value))


def short(value: object, limit: int = 14) -> str:
    """A label cut to fit an axis."""
    label = plain(value)
    return label if len(label) <= limit else label[: limit - 1] + "…"


def percent(fraction: float, digits: int = 2) -> str:
    """0.9724 → "97.24 %"; a fraction that does not exist (NaN) is a dash."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}\u202f%"


def count(number: int) -> str:
    """10000 → "10,000"."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 step`, `1,200 steps`."""
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


def section(identity: str, heading: str, *parts: str) -> str:
    """A section of the page with its heading."""
    body = "\n".join(parts)
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-heading">\n'
        f'<h2 id="{identity}-heading">{text(heading)}</h2>\n{body}\n</section>'
    )


def note(sentence: str) -> str:
    """A sentence under a heading that says how to read what follows."""
    return f'<p class="note">{text(sentence)}</p>'


def omitted(sentence: str) -> str:
    """Why a section shows nothing."""
    return f'<p class="omitted">{text(sentence)}</p>'


SCROLLS = '<p class="scrolls">Wider than the screen: it scrolls sideways \u2192</p>'


def figure(svg: str, caption: str = "", *, below: str = "", wide: bool = False) -> str:
    """A figure of markup, with a caption of text. A wide one scrolls on small screens."""
    told = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    if not wide:
        return f'<figure><div class="scroll">{svg}</div>{below}{told}</figure>'
    frame = f'<div class="scroll wide" tabindex="0">{svg}</div>'
    return f"<figure>{SCROLLS}{frame}{below}{told}</figure>"


def table(caption: str, header: Sequence[str], rows: Iterable[str], css_class: str) -> str:
    """A table that scrolls by itself where the page is narrow; header cells and rows are markup.

    One that is wider than a phone says so there: what is cut off may not show.
    """
    told = SCROLLS if len(header) > NARROW else ""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join(rows)
    return (
        f'<div class="scroll" role="region" aria-label="{text(caption)}" tabindex="0">'
        f'{told}<table class="{css_class}"><caption>{text(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def row(heading: object, cells: Iterable[str], css_class: str = "") -> str:
    """A table row that opens with its own header cell."""
    attribute = f' class="{css_class}"' if css_class else ""
    data = "".join(f"<td>{text(cell)}</td>" for cell in cells)
    return f'<tr{attribute}><th scope="row">{text(heading)}</th>{data}</tr>'


def settings(values: Mapping[str, Any]) -> str:
    """A nested mapping as tables: one for what stands alone, one for each mapping inside."""
    alone = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    groups = {name: value for name, value in values.items() if isinstance(value, Mapping) and value}
    named = {"general": alone, **groups} if alone else groups
    tables = "\n".join(_settings_group(name, group) for name, group in named.items())
    return f'<div class="settings">{tables}</div>'


def _settings_group(name: str, values: Mapping[str, Any]) -> str:
    rows = "\n".join(row(key, [_setting(value)]) for key, value in _flat(values))
    return f"<table><caption>{text(name)}</caption>\n<tbody>\n{rows}\n</tbody></table>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value)) or "none"
    return str(value)
