"""The report of a run: one self-contained HTML file."""

from ostinato.report.classify import ReportData, StepView, collect
from ostinato.report.forecast import ForecastData, collect_forecasts
from ostinato.report.language import LanguageData, collect_language
from ostinato.report.page import RunFacts, write_report
from ostinato.report.several import SetView, SeveralData, collect_several
from ostinato.report.tag import TaggingData, collect_tagging

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
