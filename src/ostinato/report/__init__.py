"""The report of a run: one self-contained HTML file."""

from ostinato.report.collect import collect
from ostinato.report.contents import ReportData, StepView
from ostinato.report.page import write_report

__all__ = ["ReportData", "StepView", "collect", "write_report"]
