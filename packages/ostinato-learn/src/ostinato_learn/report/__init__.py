"""The report of a run: one self-contained HTML file.

For each task a module of its name computes the contents of the report and lists its panels; the
others are what a page is made of.
"""

from __future__ import annotations

from ostinato_learn.report.classify import collect
from ostinato_learn.report.page import RunFacts, write_report

__all__ = ["RunFacts", "collect", "write_report"]
