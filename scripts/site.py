"""Gather the pages of the documentation's site, which `make docs` builds.

    python scripts/site.py build/pages

The folder gets the README as the front page, docs/, every file that these pages link to, at the
same relative paths as in the repository, and mkdocs.yml with the navigation. A page of docs/api/
for each module has the signatures and docstrings of the names that docs/api.md lists.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
NAME = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
SECTION = re.compile(r"^## (.+)\n", re.MULTILINE)


def listing(folder: Path) -> str:
    """A page for a folder to which a page links: its files as links."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    return "\n".join([f"# {folder.name}\n", *(f"* [{name}]({name})" for name in files)])


def linked(page: Path, text: str) -> tuple[str, list[Path]]:
    """A page whose links to folders lead to their listings, and what of the repository it links to.

    A link that leads nowhere stays as it is: MkDocs refuses it.
    """
    found = []

    def target(match: re.Match[str]) -> str:
        path = (page.parent / match[1]).resolve()
        if "://" in match[1] or not path.is_relative_to(ROOT) or not path.exists():
            return match[0]
        path = path / "index.md" if path.is_dir() else path
        found.append(path)
        return f"]({Path(os.path.relpath(path, page.parent)).as_posix()}{match[2] or ''})"

    return LINK.sub(target, text), found


def gather(output: Path) -> None:
    """Copy the README and docs/, then what they link to, and so on."""
    waiting, done = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], set()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        copy = output / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copyfile(path, copy)
            continue
        text = path.read_text("utf-8") if path.exists() else listing(path.parent)
        text, found = linked(path, text)
        copy.write_text(text, "utf-8")
        waiting += found


def references(output: Path) -> list[str]:
    """Write docs/api/, and let docs/api.md link to it; the modules' names."""
    page = output / "docs" / "api.md"
    text = page.read_text("utf-8")
    parts = SECTION.split(text)[1:]
    (output / "docs" / "api").mkdir()
    for module, table in zip(parts[::2], parts[1::2], strict=True):
        names = "\n".join(f"::: {name}\n" for name in NAME.findall(table))
        line = table.strip().split("\n")[0]
        (output / "docs" / "api" / f"{module}.md").write_text(f"# {module}\n\n{line}\n\n{names}")
    page.write_text(NAME.sub(r"| [`\1`][\1] |", text), "utf-8")
    return parts[::2]


def navigation(modules: list[str]) -> list[dict[str, object]]:
    """The sections of docs/index.md with the pages of their tables."""
    parts = SECTION.split((ROOT / "docs" / "index.md").read_text("utf-8"))[1:]
    sections: list[dict[str, object]] = [
        {"ostinato": ["README.md", {"All pages": "docs/index.md"}]}
    ]
    for title, table in zip(parts[::2], parts[1::2], strict=True):
        pages = re.findall(r"\[([^\]]+)\]\(([\w.]+\.md)\)", table)
        if pages:
            sections.append({title: [{name: f"docs/{page}"} for name, page in pages]})
    sections.append({"Public names": [{name: f"docs/api/{name}.md"} for name in modules]})
    return sections


def main(output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    gather(output / "source")
    nav = navigation(references(output / "source"))
    settings = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "source", "nav": nav}
    (output / "mkdocs.yml").write_text(json.dumps(settings, indent=1), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
