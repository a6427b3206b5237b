"""What a page is made of: a new kind of answer lists panels; names do not overlap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import report_reader
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas

from ostinato_learn.report import RunFacts, common, labels, measures, write_report
from ostinato_learn.report.figures import MAX_NAMED_CLASSES, Curve, Figure, Line, Matrix
from ostinato_learn.report.markup import distinct
from ostinato_learn.report.page import PageData
from ostinato_learn.report.panels import Card, Grid, PageSection, PageTable, PageText, Tile, Word
from ostinato_learn.tasks.base import MeasureSpec
from zoo.suites import draws


@dataclass(frozen=True, kw_only=True)
class Ages(PageData):
    """A kind of answer that the package does not have: a number for a sequence."""

    true: np.ndarray
    given: np.ndarray

    def sizes(self) -> str:
        return f"{len(self.true)} recordings"

    def tiles(self) -> list[Tile]:
        return [Tile(f"{np.abs(self.true - self.given).mean():.1f}", "years wrong, in the mean")]

    def sections(self) -> list[PageSection | None]:
        points = Line(self.true, self.given, style={"linestyle": "", "marker": "o"})
        drawn = Curve(id="ages", label="Given by true ages", lines=[points], x="true", y="given")
        rows = [[i, f"{a:.0f}"] for i, a in enumerate(self.true)]
        cards = [Card("<the oldest>", [PageText([Word("a & b", "word", [("plain", "c")])])])]
        return [
            PageSection("ages", "Ages", [Grid([drawn, PageTable("All", ["n", "true"], rows)])]),
            None,
            PageSection("none", "None", why="Nothing is there."),
            PageSection("cards", "Cards", [Grid(cards)], "Some <cards>", "Read them."),
        ]


def test_a_kind_of_answer_costs_a_list_of_panels(tmp_path: Path) -> None:
    data = Ages(title="ages", true=np.array([30.0, 50.0]), given=np.array([35.0, 48.0]))
    write_report(tmp_path / "report.html", data)
    page = report_reader.read((tmp_path / "report.html").read_text("utf-8"))
    assert page.unclosed == [] and len(page.ids()) == len(set(page.ids()))
    assert list(page.sections) == ["ages", "none", "cards"]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links == ["#ages", "#none", "#cards"]
    assert page.tables["All"] == [["n", "true"], ["0", "30"], ["1", "50"]]
    assert "Nothing is there." in page.sections["none"]
    for reported in ("Some <cards>", "Read them.", "<the oldest>", "a & b"):
        assert reported in page.sections["cards"]
    assert "3.5" in page.text and "2 recordings" in page.text


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Neighbours among the names along both axes that lie over each other."""
    canvas = Canvas(figsize=(figure.width, figure.height), layout="constrained")
    figure.draw(canvas)
    canvas.draw_without_rendering()
    found, ax = [], canvas.axes[0]
    for ticks in (ax.get_xticklabels(), ax.get_yticklabels()):
        texts = [tick.get_text() for tick in ticks]
        boxes = [tick.get_window_extent() for tick in ticks]
        pairs = zip(texts, texts[1:], boxes, boxes[1:], strict=False)
        found += [(a, b) for a, b, one, other in pairs if one.overlaps(other)]
    assert len(texts) >= 2
    return found


@pytest.mark.parametrize("n", [8, 24])
@pytest.mark.parametrize("width", [1, 5, 11])
def test_names_along_an_axis_do_not_overlap(n: int, width: int) -> None:
    names, places = ["8" * width] * n, np.arange(n)
    lines = [Line(places, places)]
    assert overlaps(Curve(id="a", label="a", lines=lines, x="x", names=names)) == []


def test_names_of_many_classes_do_not_overlap() -> None:
    for n in (21, 45, MAX_NAMED_CLASSES):
        names = [f"speaker {c} of the {n}" for c in range(n)]
        drawn = Matrix(id="a", label="a", counts=np.eye(n, dtype=int), names=names)
        assert overlaps(drawn) == []


@draws(60)
@given(st.lists(st.text("ab ", min_size=1, max_size=30), min_size=1), st.integers(5, 20))
def test_names_that_differ_at_their_ends_stay_different(names: list[str], limit: int) -> None:
    cut = distinct(names, limit)
    assert all(len(each) <= limit for each in cut)
    ends = {(name[: (limit - 1) // 2], name[(limit - 1) // 2 + 1 - limit :]) for name in names}
    if len(ends) == len(set(names)) and all(len(name) > limit for name in names):
        assert len(set(cut)) == len(set(names))


def test_groups_that_are_alike_are_not_compared() -> None:
    lengths = np.array([8, 12, 20, 40])
    for right, reported in ((np.ones(4, int), False), (np.array([1, 0, 1, 1]), True)):
        found = labels.by_length(lengths, np.ones(4, int), right)
        shown = labels.where([("by-length", "length", found, "")], "Accuracy by length").html()
        assert ("From " in shown) is reported
        # One figure alone would leave half of the page empty: its numbers lie beside it.
        assert "Right answers by length" in shown


@pytest.mark.parametrize(
    ("verdict", "reported", "css"),
    [
        ("better than a (90 % and 80 %)", "The network is better", "verdict"),
        ("no significant difference from a", "There is no significant", "verdict lost"),
        ("not tested against a: 5 are too few", "The network is not tested", "note"),
    ],
)
def test_a_verdict_is_a_sentence(verdict: str, reported: str, css: str) -> None:
    facts = RunFacts(title="t", evaluation={"verdict": verdict, "test": {"loss": 1.0}})
    shown = measures.section(facts, {"loss": MeasureSpec("loss", lower=True)}).html()
    assert f'<p class="{css}">{reported}' in shown


def test_of_a_long_text_the_beginning_is_shown() -> None:
    assert common.words_read(["late", "parcel"]).html() == '<p class="words">late parcel</p>'
    reported = common.words_read(["late"] * 5000).html()
    assert reported.count("late") == common.SHOWN_WORDS and reported.endswith("late …</p>")
