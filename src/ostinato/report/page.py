"""The page: its head, its sections in order, and how it reaches the disk."""

from __future__ import annotations

import os
from importlib import import_module, resources
from pathlib import Path

from ostinato._extras import needs
from ostinato.files import write_text
from ostinato.report.contents import ReportData, RunFacts
from ostinato.report.forecasting import ForecastData
from ostinato.report.language import LanguageData
from ostinato.report.markup import text
from ostinato.report.several import SeveralData
from ostinato.report.tagging import TaggingData

# Nothing is loaded from anywhere: the browser itself refuses all but inline styles and pictures.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


# The modules that have the sections of each report: `header`, and `IN_ORDER`, functions from the
# data to markup.
PAGES: dict[type, str] = {
    ReportData: "sections",
    SeveralData: "several_page",
    TaggingData: "tagging_page",
    ForecastData: "forecasting_page",
    LanguageData: "language_page",
}


def write_report(path: str | os.PathLike[str], data: RunFacts) -> None:
    """Write one HTML file that shows a run; it needs no network, no scripts and no other file.

    The file appears whole or not at all (see `ostinato.files`).

    Args:
        path: where to write; by convention `report.html` in the run directory. An old one
            is replaced.
        data: what to show: `ReportData`, `TaggingData`, … Its strings may hold anything, they
            are escaped.

    Raises:
        FileNotFoundError: the directory does not exist.
        ImportError: matplotlib is missing.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> data = ReportData(
        ...     title="coin", classes=["heads", "tails"], y_true=np.array([0, 1, 1]),
        ...     proba=np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory) / "report.html"
        ...     write_report(path, data)
        ...     path.read_text(encoding="utf-8")[:15]
        '<!doctype html>'
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"the report goes to {path}, but the directory {path.parent} does not exist; create it"
        )
    write_text(path, _page(data))


def _page(data: RunFacts) -> str:
    with needs("torch", "matplotlib"):
        page = import_module(f"ostinato.report.{PAGES[type(data)]}")
    style = resources.files("ostinato.report").joinpath("style.css").read_text(encoding="utf-8")
    shown = [make(data) for make in page.IN_ORDER]
    body = "\n\n".join([page.header(data), *filter(None, shown)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(data.title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
