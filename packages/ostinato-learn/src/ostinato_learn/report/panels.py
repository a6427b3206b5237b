"""The panels of a page except for figures: small values, each with a method for its HTML.

A task lists sections of panels; `page` draws them in the same way for every task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ostinato_learn.report.markup import Html, tag, text

NARROW = 4  # columns that fit on a phone
SCROLLS = '<p class="scrolls">Wider than the screen: it scrolls sideways \u2192</p>'


class PagePanel:
    """A part of a section."""

    def html(self) -> str:
        """Its markup."""
        raise NotImplementedError


@dataclass(frozen=True)
class PageSection(PagePanel):
    """A part of the page with a heading, and a link to it at the top.

    Attributes:
        id: unique within the page.
        link: the short name by which the top of the page links to it.
        heading: the heading; by default the short name.
        note: how to read the panels.
        panels: the panels.
        why: the sentence that is shown if there are no panels.
    """

    id: str
    link: str
    panels: Sequence[PagePanel] = ()
    heading: str = ""
    note: str = ""
    why: str = ""

    def html(self) -> str:
        shown = [panel.html() for panel in self.panels] or [tag("p", self.why, "omitted")]
        note = tag("p", self.note, "note") + "\n" if self.note and self.panels else ""
        body = note + "\n".join(shown)
        return (
            f'<section id="{self.id}" aria-labelledby="{self.id}-heading">\n'
            f'<h2 id="{self.id}-heading">{text(self.heading or self.link)}</h2>\n{body}\n</section>'
        )


@dataclass(frozen=True)
class Tile(PagePanel):
    """One number of the head, its name, and perhaps a detail in small print."""

    number: str
    name: str
    detail: str = ""

    def html(self) -> str:
        more = tag("small", self.detail) if self.detail else ""
        return f"<div><dt>{text(self.name)}{more}</dt><dd>{text(self.number)}</dd></div>"


@dataclass(frozen=True)
class Sentence(PagePanel):
    """A sentence by itself: a verdict (or a verdict "lost"), or why something is "omitted"."""

    words: str
    css: str

    def html(self) -> str:
        return tag("p", self.words, self.css)


@dataclass(frozen=True)
class Key(PagePanel):
    """The meanings of colours: (class of the style sheet, words)."""

    entries: Sequence[tuple[str, str]]

    def html(self) -> str:
        entries = (tag("span", words, css) for css, words in self.entries)
        return tag("p", Html(" ".join(entries)), "key")


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a style of its own."""

    shown: object
    css: str = ""
    style: str = ""


@dataclass(frozen=True)
class PageTable(PagePanel):
    """A table, which scrolls separately on a narrow page.

    Attributes:
        caption: a text.
        header: a text for each column.
        rows: cells of each row, the first one its heading: `Cell`s or what `text` takes.
        css: classes of the style sheet.
    """

    caption: str
    header: Sequence[object]
    rows: Iterable[Sequence[object]]
    css: str = "numbers"

    def html(self) -> str:
        # On a phone a wide table says that it scrolls: its edge may not look cut.
        scrolls = SCROLLS if len(self.header) > NARROW else ""
        head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in self.header)
        caption = text(self.caption)
        return (
            f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">{scrolls}'
            f'<table class="{self.css}"><caption>{caption}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{_rows(self.rows)}\n</tbody></table></div>"
        )


def _rows(rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(
        f"<tr>{_cell('th', first)}{''.join(_cell('td', cell) for cell in rest)}</tr>"
        for first, *rest in rows
    )


def _cell(name: str, value: object) -> str:
    cell = value if isinstance(value, Cell) else Cell(value)
    attributes = ' scope="row"' if name == "th" else ""
    attributes += f' class="{cell.css}"' if cell.css else ""
    attributes += f' style="{cell.style}"' if cell.style else ""
    return f"<{name}{attributes}>{text(cell.shown)}</{name}>"


@dataclass(frozen=True)
class SettingsTables(PagePanel):
    """A nested mapping as tables: one for its plain values, one for each mapping inside."""

    values: Mapping[str, Any]

    def html(self) -> str:
        nested = {n: v for n, v in self.values.items() if isinstance(v, Mapping)}
        alone = {n: v for n, v in self.values.items() if n not in nested}
        groups = {"general": alone, **nested}
        shown = (_group(name, group) for name, group in groups.items() if group)
        return tag("div", Html("\n".join(shown)), "settings")


def _group(name: str, values: Mapping[str, Any]) -> str:
    rows = _rows([key, _setting(value)] for key, value in _flat(values))
    return f"<table><caption>{text(name)}</caption>\n<tbody>\n{rows}\n</tbody></table>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or "none"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Word(PagePanel):
    """A piece of a text, its class in the style sheet, and labels under it: (class, words)."""

    shown: str
    css: str = ""
    labels: Sequence[tuple[str, str]] = ()

    def html(self) -> str:
        below = "".join(tag("small", words, css) for css, words in self.labels)
        shown = "\n".join(map(text, self.shown.split("\n")))  # keeps the line breaks of a text
        return tag("span", Html(shown + below), self.css) if self.css or below else shown


@dataclass(frozen=True)
class PageText(PagePanel):
    """A text, word by word or token by token."""

    words: Sequence[Word]
    css: str = "written"
    between: str = ""

    def html(self) -> str:
        return tag("p", Html(self.between.join(word.html() for word in self.words)), self.css)


@dataclass(frozen=True)
class Markup(PagePanel):
    """Markup that only one section needs."""

    made: str

    def html(self) -> str:
        return self.made


@dataclass(frozen=True)
class Card(PagePanel):
    """Panels in a frame, under a heading (markup, or a text)."""

    heading: object
    panels: Sequence[PagePanel] = ()
    css: str = ""

    def html(self) -> str:
        heading = tag("h3", self.heading) if self.heading else ""
        inside = "".join(panel.html() for panel in self.panels)
        return tag("article", Html(heading + inside), self.css)


@dataclass(frozen=True)
class Grid(PagePanel):
    """Panels side by side if the page is wide enough; with `tall` one below the other."""

    panels: Sequence[PagePanel]
    tall: bool = False

    def html(self) -> str:
        inside = "\n".join(panel.html() for panel in self.panels)
        return tag("div", Html(inside), "cards" if self.tall or len(self.panels) == 1 else "grid")


@dataclass(frozen=True)
class Fold(PagePanel):
    """Panels that are shown when their summary is clicked."""

    summary: str
    panels: Sequence[PagePanel] = field(default_factory=list)

    def html(self) -> str:
        inside = "".join(panel.html() for panel in self.panels)
        return tag("details", Html(f"<summary>{text(self.summary)}</summary>{inside}"))
