"""What a run found, told: summary, HTML report, terminal view."""

from recoup.report.decided import DecisionTally
from recoup.report.hesitation import Behaved, Curve, Hesitation, Waits
from recoup.report.hesitation_tally import Behaving, HesitationTally, Judged
from recoup.report.html import render_html, write_report
from recoup.report.journey import SessionTally, Steps
from recoup.report.model_health import ModelHealth
from recoup.report.reasons import LostSignal, LostSlice, Reasons, tell_reasons
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
    Totals,
    summarise,
    to_json,
)
from recoup.report.terminal import DemoState, DemoView, Made, ending, summary_panel

__all__ = [
    "Behaved",
    "Behaving",
    "Curve",
    "Day",
    "DayDecisions",
    "Decided",
    "DecisionTally",
    "DemoState",
    "DemoView",
    "Funnel",
    "Hesitation",
    "HesitationTally",
    "IntentBin",
    "Journeys",
    "Judged",
    "LostSignal",
    "LostSlice",
    "Made",
    "ModelHealth",
    "Period",
    "Reasons",
    "Segment",
    "SessionTally",
    "Steps",
    "Summary",
    "Totals",
    "Waits",
    "ending",
    "render_html",
    "summarise",
    "summary_panel",
    "tell_reasons",
    "to_json",
    "write_report",
]
