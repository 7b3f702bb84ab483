"""What a run found, told: summary, HTML report, terminal view."""

from recoup.report.decided import DecisionTally
from recoup.report.html import render_html
from recoup.report.journey import SessionTally, Steps
from recoup.report.summary import (
    Day,
    DayDecisions,
    Decided,
    Funnel,
    IntentBin,
    Journeys,
    Period,
    Segment,
    Summary,
    summarise,
    to_json,
)

__all__ = [
    "Day",
    "DayDecisions",
    "Decided",
    "DecisionTally",
    "Funnel",
    "IntentBin",
    "Journeys",
    "Period",
    "Segment",
    "SessionTally",
    "Steps",
    "Summary",
    "render_html",
    "summarise",
    "to_json",
]
