"""Reads a report back, as a browser without a screen would."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link", "col"}


@dataclass
class Page:
    """The content of a page."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)  # caption → rows of cells
    sections: dict[str, str] = field(default_factory=dict)  # id → its text
    svg_texts: dict[str, list[str]] = field(default_factory=dict)  # aria-label → texts inside
    text: str = ""
    unclosed: list[str] = field(default_factory=list)

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def read(markup: str) -> Page:
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    reader.page.unclosed += reader.open
    return reader.page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[str] = []
        self.section = self.svg = ""
        self.rows: list[list[str]] = []
        self.caption = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.page.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
            self.page.sections[self.section] = ""
        elif tag == "svg":
            self.svg = attributes["aria-label"]
            self.page.svg_texts[self.svg] = []
        elif tag == "table":
            self.rows, self.caption = [], ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "text":
            self.page.svg_texts[self.svg].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.page.unclosed.append(tag)
        if tag == "table":
            self.page.tables[self.caption] = self.rows
        elif tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.page.text += data
        if self.section:
            self.page.sections[self.section] += data
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        elif "text" in self.open:
            self.page.svg_texts[self.svg][-1] += data
