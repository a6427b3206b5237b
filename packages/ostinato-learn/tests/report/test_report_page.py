"""The file as a whole: it appears whole, needs nothing else, and takes any string."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import report_examples as examples
import report_reader
import task_examples
from hypothesis import given
from hypothesis import strategies as st
from report_reader import Page

from ostinato_learn.report import markup, write_report
from ostinato_learn.report.classify import StepView
from zoo.suites import draws

pytestmark = pytest.mark.slow

RUNS = {
    "pictures": examples.run,
    "ragged": examples.ragged,
    "fifty classes": lambda: examples.ragged(50),
    "bidirectional": examples.bidirectional,
    "bare": examples.bare,
    "hostile": examples.hostile,
    **task_examples.ALL,
}


def assert_every_element_is_closed_and_every_id_is_unique(page: Page) -> None:
    assert page.unclosed == []
    assert len(page.ids()) == len(set(page.ids()))


def assert_links_and_references_stay_inside_the_page(page: Page) -> None:
    ids = set(page.ids())
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("href", "xlink:href", "src"):
                inside = value.startswith("#") and value[1:] in ids
                picture = tag == "image" and value.startswith("data:image/png;base64,")
                assert inside or picture, (tag, name, value[:60])
            for reference in re.findall(r"url\((.*?)\)", value):
                assert reference.lstrip("#") in ids


def assert_nothing_can_be_loaded_or_run(page: Page, markup: str) -> None:
    policy = dict(page.tags[3][1])
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none';")
    assert "script" not in policy["content"]
    forbidden = {"script", "link", "iframe", "object", "embed", "base", "form", "img"}
    assert forbidden.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
    style = markup.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in style and "url(" not in style


def assert_figures_tables_and_sections_are_named(page: Page) -> None:
    ids = set(page.ids())
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 10
        if tag == "section":
            assert attributes["aria-labelledby"] in ids
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert "" not in page.tables


def assert_figures_take_the_colours_of_the_page(page: Page) -> None:
    styles = [a.get("style", "") for _, a in page.tags]
    # A colour of matplotlib's own would be unreadable on one of the two backgrounds.
    assert not [s for s in styles if re.search(r"#[0-9a-f]{6}", s) and "#ffffff" not in s]


@pytest.mark.parametrize("name", RUNS)
def test_every_page(name: str, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", RUNS[name]())
    markup = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = report_reader.read(markup)
    assert_every_element_is_closed_and_every_id_is_unique(page)
    assert_links_and_references_stay_inside_the_page(page)
    assert_nothing_can_be_loaded_or_run(page, markup)
    assert_figures_tables_and_sections_are_named(page)
    assert_figures_take_the_colours_of_the_page(page)


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("hostile")])
def test_no_string_becomes_an_element(name: str, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", RUNS[name]())
    page = report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert markup.plain(examples.HOSTILE) in page.text
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.tags)


@draws(300)
@given(st.text())
def test_any_text_comes_back_as_it_was_shown(text: str) -> None:
    page = report_reader.read(f'<p title="{markup.text(text)}">{markup.text(text)}</p>')
    shown = markup.plain(text)
    assert page.tags == [("p", {"title": shown})]
    assert page.text == shown
    shown.encode("utf-8")


def test_the_same_run_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, examples.run())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        write_report(tmp_path / "nowhere" / "report.html", examples.bare())


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"y_true": np.array([0, 1, 2, 0])}, "runs from 0 to 2; wanted 0 to 1"),
        ({"y_true": np.array([0, -1, 1, 0])}, "runs from -1 to 1"),
        ({"y_true": np.array([0.0, 1.0, 1.0, 0.0])}, "is float64 of shape .*; wanted integers"),
        ({"y_true": np.array([], dtype=int)}, r"\[0\]; wanted integers \[N\], N ≥ 1"),
        ({"proba": np.ones((4, 3))}, r"\[4, 3\]; wanted \[4, 2\]"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes: dict, reported: str) -> None:
    with pytest.raises(ValueError, match=reported):
        examples.without(examples.bare(), **changes)


def test_a_view_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"beliefs has shape \[4, 2\]; wanted one row for each of"):
        StepView(np.zeros((5, 1)), "a", "b", np.zeros((4, 2)), None)
    with pytest.raises(ValueError, match=r"x has shape \[0, 1\]"):
        StepView(np.zeros((0, 1)), "a", "b", None, None)


@pytest.mark.process
def test_importing_the_report_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, ostinato_learn.report; "
        "print([m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_users_matplotlib_and_the_report_leave_each_other_alone(tmp_path: Path) -> None:
    write_report(tmp_path / "plain.html", examples.run())
    with matplotlib.rc_context({"lines.linewidth": 7.25, "axes.titlesize": 30}):
        before = dict(matplotlib.rcParams)
        write_report(tmp_path / "set.html", examples.run())
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain.html").read_bytes() == (tmp_path / "set.html").read_bytes()
