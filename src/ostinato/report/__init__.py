"""The report of a run: one self-contained HTML file."""

from ostinato.report.collect import collect
from ostinato.report.contents import ReportData, RunFacts, StepView
from ostinato.report.forecasting import ForecastData, collect_forecasts
from ostinato.report.language import LanguageData, collect_language
from ostinato.report.page import write_report
from ostinato.report.several import SetView, SeveralData, collect_several
from ostinato.report.tagging import TaggingData, collect_tagging

__all__ = [
    "ForecastData",
    "LanguageData",
    "ReportData",
    "RunFacts",
    "SetView",
    "SeveralData",
    "StepView",
    "TaggingData",
    "collect",
    "collect_forecasts",
    "collect_language",
    "collect_several",
    "collect_tagging",
    "write_report",
]
