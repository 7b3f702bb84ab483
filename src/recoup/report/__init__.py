"""What a run found, told: summary, HTML report, terminal view."""

from recoup.report.decided import DecisionTally
from recoup.report.html import render_html, write_report
from recoup.report.journey import SessionTally, Steps
from recoup.report.summary import (
    Day,
    DayDecisions,
    Decided,
    Funnel,
    IntentBin,
    Journeys,
    ModelHealth,
    Period,
    Segment,
    Summary,
    Totals,
    summarise,
    to_json,
)
from recoup.report.terminal import DemoState, DemoView, Made, ending, summary_panel

__all__ = [
    "Day",
    "DayDecisions",
    "Decided",
    "DecisionTally",
    "DemoState",
    "DemoView",
    "Funnel",
    "IntentBin",
    "Journeys",
    "Made",
    "ModelHealth",
    "Period",
    "Segment",
    "SessionTally",
    "Steps",
    "Summary",
    "Totals",
    "ending",
    "render_html",
    "summarise",
    "summary_panel",
    "to_json",
    "write_report",
]
