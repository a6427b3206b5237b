"""Every example in README, docs/*.md and public docstrings runs; every relative link resolves."""

import doctest
import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from sources import CORE, DATASETS, LEARN

ROOT = Path(__file__).parents[2]
EVERY_PAGE = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
)
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if ">>>" in p.read_text(encoding="utf-8"))
# Examples that read saved models run in test_runtime_examples.py, and those of other
# people's packages, which need not be there, in packages/ostinato/tests/packages.
ELSEWHERE = re.compile(r"/runtime/|/saved/replay\.py$|/tasks/\w+/model\.py$")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(page):
    return page.read_text(encoding="utf-8")


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_of_page(page):
    # pages close a code block right after the last output: that line is no output
    text = text_of(page).replace("\n```\n", "\n\n```\n")
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert runner.tries > 0
    assert runner.failures == 0


def modules_with_examples():
    for root in (CORE, LEARN, DATASETS):
        for path in sorted(root.rglob("*.py")):
            if not ELSEWHERE.search(path.as_posix()) and ">>>" in text_of(path):
                parts = path.relative_to(root.parent).with_suffix("").parts
                yield ".".join(parts).removesuffix(".__init__")


def test_examples_of_docstrings():
    failed, names = [], list(modules_with_examples())
    assert len(names) > 60
    for name in names:
        importlib.import_module(name)
        result = doctest.testmod(sys.modules[name])  # a function may hide its module's name
        if result.failed or not result.attempted:
            failed.append(name)
    assert failed == []


@pytest.mark.parametrize("number", [0, 1])
def test_blocks_of_the_readme_run_as_pasted(number, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the second one saves a model
    loop, classifier, stream = BLOCK.findall(text_of(ROOT / "README.md"))
    program = tmp_path / "program.py"  # a file, since ostinato.loop reads the source
    # The last block reads what the one before it saved.
    program.write_text([loop, classifier + stream][number], encoding="utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on busy cores two threads wait for each other at every small product
    try:
        runpy.run_path(str(program), run_name="__main__")
    finally:
        torch.set_num_threads(threads)


def test_the_api_page_is_what_its_program_writes():
    pages = runpy.run_path(str(ROOT / "scripts" / "api_page.py"))
    assert text_of(ROOT / "docs" / "api.md") == pages["page"]()


def test_the_index_has_every_page():
    index = text_of(ROOT / "docs" / "index.md")
    linked = {target.partition("#")[0] for target in LINK.findall(index)}
    assert {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


def anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(page, text):
    broken = []
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(text_of(path))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_relative_links_lead_somewhere(page):
    assert broken_links(page, text_of(page)) == []


def test_a_broken_link_is_found():
    page = ROOT / "README.md"
    links = "[a](docs/scan.md) [b](docs/nothing.md) [c](docs/scan.md#nothing) [d](http://x.y)"
    assert broken_links(page, links) == ["docs/nothing.md", "docs/scan.md#nothing"]
