"""Every example in docs/*.md and in the public docstrings runs and prints what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if ">>>" in p.read_text(encoding="utf-8"))
MODULES = ["ostinato._scan", "ostinato._explain"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_of_page(page):
    # pages close a code block right after the last output: that line is no output
    text = page.read_text(encoding="utf-8").replace("\n```\n", "\n\n```\n")
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert runner.tries > 0
    assert runner.failures == 0


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_links_of_the_readme_lead_somewhere():
    import re

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", text) if "://" not in t]
    assert len(targets) > 5
    assert [t for t in targets if not (ROOT / t).exists()] == []
