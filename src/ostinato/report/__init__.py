"""The report of a run: one self-contained HTML file."""

from ostinato.report.collect import collect
from ostinato.report.contents import ReportData, RunFacts, StepView
from ostinato.report.page import write_report
from ostinato.report.tagging import TaggingData, collect_tagging

__all__ = [
    "ReportData",
    "RunFacts",
    "StepView",
    "TaggingData",
    "collect",
    "collect_tagging",
    "write_report",
]
