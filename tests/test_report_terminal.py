"""The terminal view: live on a terminal, plain lines elsewhere, nothing under `--json`."""

import datetime as dt
import io

import msgspec
import pytest
from rich.console import Console

from recoup.causal import Lift
from recoup.decisions import Defect, Interval, Recommendation
from recoup.report import (
    Day,
    DemoState,
    DemoView,
    Funnel,
    Journeys,
    Made,
    Period,
    ending,
    summarise,
    summary_panel,
)
from recoup.report.terminal import demo_screen

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = BEGIN + dt.timedelta(days=5)
DEFECT = Defect(
    id="K5:payment_method=[bold]card[/]",
    type="K5",
    entity={"payment_method": "[bold]card[/]"},
    since=BEGIN + dt.timedelta(hours=30),
    until=None,
    observed=3.0,
    expected=9.0,
    exposed=400,
    lost_orders_per_hour=Interval(0.5, 0.2, 0.8),
    lost_value_per_hour=Interval(41.0, 12.0, 70.0),
    confidence=0.98,
    recommended=Recommendation("payment_retry", 0.9, Interval(14.0, 4.0, 24.0), 600.0),
    evidence="",
)


def _state(share: float, **changes: object) -> DemoState:
    state = DemoState(
        begin=BEGIN,
        end=END,
        now=BEGIN + share * (END - BEGIN),
        events=412_331,
        events_per_second=88_123.0,
        sessions=40_211,
        orders=1102,
        revenue=92_110.0,
        currency="USD",
        decisions=9121,
        last=(
            Made(BEGIN, "v1", "K5", "act:payment_retry", 0.31, 0.8),
            Made(BEGIN, "v2", "S1", "wait:60", 0.02, 0.1, "random"),
            Made(BEGIN, "v3", "", "never", 0.01, 1.0, "holdout"),
        ),
        defects=(DEFECT,),
        carts=4000,
        abandoned=2800,
    )
    return msgspec.structs.replace(state, **changes)


def _show(state: DemoState, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(demo_screen(state, title="recoup demo"))
    return out.getvalue()


def test_a_moment_shows_what_is_wrong_and_what_was_decided() -> None:
    text = _show(_state(0.5))
    for part in (
        "3 Jan 2026, 12:00", "88,123 events/s", "70 % left", "Payment declined: [bold]card[/]",
        "2 Jan 06:00", "$41", "$12 to $70", "98 %", "payment retry", "wait 60 s (by chance)",
        "leave alone (holdout)", "not measurable yet",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(("width", "since", "interval"), [(70, 0, 0), (90, 1, 0), (120, 1, 1)])
def test_a_narrow_terminal_keeps_what_matters(width: int, since: int, interval: int) -> None:
    text = _show(_state(0.5), width)
    assert max(map(len, text.splitlines())) <= width
    assert (text.count("2 Jan 06:00"), text.count("$12 to $70")) == (since, interval)
    assert "Payment declined" in text
    assert "$41" in text


@pytest.mark.parametrize(
    ("total", "words"),
    [
        (Interval(1820.0, 400.0, 3100.0), "$1,820  (between $400 and $3,100; 900 visitors"),
        (Interval(-50.0, -90.0, -10.0), "-$50  (between -$90 and -$10"),
    ],
)
def test_money_saved_is_told_with_its_interval(total: Interval, words: str) -> None:
    saved = Lift(total.scaled(1 / 900), total, 900, 100)
    assert words in _show(_state(0.5, saved=saved))


def test_without_a_terminal_each_tenth_is_one_line() -> None:
    out = io.StringIO()
    with DemoView(Console(file=out, width=60), title="recoup demo") as view:
        for k in range(101):
            view.update(_state(k / 100))
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[5].startswith("3 Jan 2026, 12:00   50 %  412,331 events")
    assert lines[5].endswith("worst: Payment declined: [bold]card[/]")


def test_a_terminal_is_drawn_on_and_given_back() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, height=40, force_terminal=True)
    with DemoView(console, title="recoup demo") as view:
        view.update(_state(0.2))
        view.update(_state(0.4))
    drawn = out.getvalue()
    assert "Payment declined" in drawn
    assert drawn.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in drawn


def test_no_console_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with DemoView(None, title="recoup demo") as view:
        view.update(_state(0.5))
    assert capsys.readouterr() == ("", "")


def test_the_share_done_stays_between_nothing_and_all() -> None:
    assert [_state(share).done for share in (-1.0, 0.25, 7.0)] == [0.0, 0.25, 1.0]
    assert _state(0.0, end=BEGIN).done == 1.0


def test_the_ending_tells_what_was_found_and_earned() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120)
    console.print(ending([DEFECT], Lift(Interval(2, 1, 3), Interval(20, 10, 30), 10, 5), "EUR"))
    console.print(ending([], None, None))
    for part in ("Payment declined", "€20", "between €10 and €30", "No defect stands out."):
        assert part in out.getvalue()


def test_the_summary_says_what_the_report_says() -> None:
    journeys = Journeys(
        visitors=900, sessions=1000, orders=50, revenue=4000.0, currency="EUR",
        period=Period(BEGIN, END), funnel=Funnel(1000, 700, 500, 200, 90, 50),
        daily=[Day(BEGIN.date(), 1000, 50, 50, 4000.0)],
    )  # fmt: skip
    summary = summarise(
        source="[red]shop[/]",
        events=5000,
        journeys=journeys,
        defects=[DEFECT],
        dead_letters={"too_late": 4, "no_visitor": 3},
        seconds=2.0,
    )
    out = io.StringIO()
    Console(file=out, width=200).print(summary_panel(summary))
    text = out.getvalue()
    for part in (
        "[red]shop[/]", "1,000 visits by 900 visitors brought 50 orders worth €4,000",
        "The costliest thing wrong is \u201cPayment declined\u201d", "Costs a week",
        "€6,888", "2,500/s", "7 dead letters",
    ):  # fmt: skip
        assert part in text
