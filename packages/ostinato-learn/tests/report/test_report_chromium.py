"""The report opened from disk in a real browser, where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import report_examples as examples
import report_reader
import task_examples

from ostinato_learn.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is here"),
]


def render(path: Path, profile: Path) -> tuple[str, list[str]]:
    """The page after the browser is done with it, and what it wrote to its console."""
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


RUNS = {"pictures": examples.run, "hostile": examples.hostile, **task_examples.ALL}
SEEN = ["pictures", "hostile", *(name for name in RUNS if name.startswith("hostile "))]


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEN)
def test_the_browser_shows_it_without_complaint(name: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, RUNS[name]())
    dom, console = render(path, tmp_path / "profile")
    assert console == []
    # The browser's tree holds what the file holds: no element moved, dropped or added.
    seen, written = report_reader.read(dom), report_reader.read(path.read_text(encoding="utf-8"))
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in written.tags]
    assert seen.tables == written.tables and seen.svg_texts == written.svg_texts


def test_the_browser_would_complain(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, examples.bare())
    page = path.read_text(encoding="utf-8")
    bad = page.replace("<main>", '<main><img src="http://127.0.0.1:9/x.png"><p onclick="x()">')
    path.write_text(bad, encoding="utf-8")
    _, console = render(path, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in console)
