"""What scripts/site.py gathers for the documentation's site, which `make docs` builds."""

import runpy

from sources import REPOSITORY

SITE = runpy.run_path(str(REPOSITORY / "scripts" / "site.py"))


def test_every_page_is_there_and_what_it_links_to(tmp_path):
    SITE["main"](tmp_path)
    source = tmp_path / "source"
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert (source / "docs" / page.name).exists()
    assert (source / "benchmarks" / "notes" / "README.md").exists()
    assert "* [kserve.yaml](kserve.yaml)" in (source / "examples/serve/index.md").read_text("utf-8")
    assert "](../examples/serve/index.md)" in (source / "docs" / "serve.md").read_text("utf-8")


def test_every_public_name_has_its_docstring(tmp_path):
    SITE["main"](tmp_path)
    page = (tmp_path / "source" / "docs" / "api" / "ostinato.nn.md").read_text("utf-8")
    assert "::: ostinato.nn.LSTM\n" in page
    assert "[`ostinato.scan`][ostinato.scan]" in (tmp_path / "source/docs/api.md").read_text(
        "utf-8"
    )


def test_a_link_that_leads_nowhere_is_left_to_mkdocs():
    text, found = SITE["linked"](REPOSITORY / "README.md", "[a](docs/no.md) [b](http://x.y)")
    assert (text, found) == ("[a](docs/no.md) [b](http://x.y)", [])


def test_the_navigation_has_every_page():
    nav = str(SITE["navigation"]([]))
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    assert [name for name in pages if f"docs/{name}" not in nav] == []
