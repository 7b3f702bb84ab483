"""The report: what `summary.json` must hold, and a page that is safe, alone and honest."""

import datetime as dt
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from recoup.causal import Lift
from recoup.decisions import Defect, Finding, Interval, Recommendation
from recoup.defects import catalogue
from recoup.interventions import INTERVENTIONS
from recoup.report import (
    Day,
    DayDecisions,
    Decided,
    Funnel,
    Hesitation,
    IntentBin,
    Journeys,
    LostSignal,
    Period,
    Reasons,
    Segment,
    Summary,
    Waits,
    render_html,
    story,
    summarise,
    to_json,
    words,
    write_report,
)

BEGIN = dt.datetime(2016, 9, 1, 7, tzinfo=dt.UTC)
END = BEGIN + dt.timedelta(days=10)
HOSTILE = "$\\frac{1$<script>alert('x')</script>\"&amp; 商店 \u202e\x07.html"


def _defect(confidence: float = 0.97, *, over: bool = False, page: str = "/basket.html") -> Defect:
    return Defect(
        id=f"K8:page={page}",
        type="K8",
        entity={"page": page},
        since=BEGIN + dt.timedelta(days=2),
        until=BEGIN + dt.timedelta(days=4) if over else None,
        observed=31.0,
        expected=58.2,
        exposed=2210,
        lost_orders_per_hour=Interval(0.095, 0.04, 0.15),
        lost_value_per_hour=Interval(11.4, 5.1, 17.7),
        confidence=confidence,
        recommended=Recommendation("error_recovery", 0.87, Interval(3.4, 1.1, 5.7), 600.0),
        evidence=f"Compared with visits that saw no error on {page}.",
    )


def _journeys(name: str = "desktop") -> Journeys:
    funnel = Funnel(58_026, 25_175, 10_257, 3_642, 1_221, 697)
    days = [
        Day(BEGIN.date() + dt.timedelta(days=k), 5800 + k, 60 + k, 70, 10_000.0) for k in range(11)
    ]
    return Journeys(
        visitors=48_890,
        sessions=58_026,
        period=Period(BEGIN, END),
        orders=697,
        revenue=103_542.77,
        currency="USD",
        funnel=funnel,
        segments={"device": [Segment(name, funnel, 697, 103_542.77)]},
        daily=days,
        intent=[IntentBin(0.01, 0.012, 9000), IntentBin(0.2, 0.17, 300)],
    )


def _decided(executed: int = 0) -> Decided:
    return Decided(
        total=100,
        executed=executed,
        by_action={"never": 80, "act:coupon": 20},
        by_reason={"K8": 60, "": 40},
        by_slice={"policy": 90, "holdout": 10},
        daily=[DayDecisions(BEGIN.date(), 20, 0, 80), DayDecisions(END.date(), 0, 0, 0)],
    )


def _summary(*defects: Defect, executed: int = 0, name: str = "desktop") -> Summary:
    return summarise(
        source="shop",
        events=333_736,
        journeys=_journeys(name),
        decided=_decided(executed),
        defects=defects,
        data_quality=[Finding("column_missing", name, "2016-09-02", None, f"{name} is null.")],
        duplicates=12,
        late_events=3,
        dead_letters={"too_late": 4},
        warnings=[f"{name} is null.", "4 rows are dead letters: too_late", "The clock jumped."],
        carts=3400,
        abandoned_carts={"cart": 1900, "payment": 210},
        abandonment_horizon_s=86_400,
        saved=Lift(Interval(0.2, 0.05, 0.35), Interval(1820.0, 400.0, 3100.0), 9000, 1000),
        seconds=31.2,
        peak_rss_mb=1630.0,
    )


class _Page(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_the_json_holds_what_is_promised() -> None:
    told = json.loads(to_json(_summary(_defect(), _defect(over=True))))
    assert {
        "events", "visitors", "sessions", "duplicates", "dead_letters", "late_events", "warnings",
        "decisions", "defects", "data_quality", "carts", "abandoned_carts", "seconds",
        "events_per_second", "peak_rss_mb",
    } <= set(told)  # fmt: skip
    defect = told["defects"][0]
    assert {
        "id", "type", "entity", "from", "to", "observed", "expected", "lost_orders_per_hour",
        "lost_value_per_hour", "confidence", "recommended",
    } <= set(defect)  # fmt: skip
    assert {"low", "high"} <= set(defect["lost_orders_per_hour"])
    assert {"low", "high"} <= set(defect["lost_value_per_hour"])
    assert set(defect["recommended"]) == {
        "intervention", "confidence", "recoverable_value_per_hour", "deadline",
    }  # fmt: skip
    assert {"low", "high"} <= set(defect["recommended"]["recoverable_value_per_hour"])
    assert (defect["from"], defect["to"]) == ("2016-09-03T07:00:00Z", None)
    assert told["defects"][1]["to"] == "2016-09-05T07:00:00Z"
    assert set(told["data_quality"][0]) >= {"kind", "column", "from", "to"}
    assert told["events_per_second"] == pytest.approx(333_736 / 31.2)
    assert (told["decisions"], told["abandoned_carts"]["payment"]) == (100, 210)


def test_the_json_reads_back() -> None:
    summary = _summary(_defect(), executed=50)
    assert msgspec.json.decode(to_json(summary), type=Summary) == summary


def test_money_is_counted_as_saved_only_where_decisions_were_executed() -> None:
    assert _summary().saved is None
    page = _Page(render_html(_summary())).text
    assert "Nothing was executed." in page
    assert "$1,820" not in page
    live = _summary(executed=50)
    assert live.saved is not None
    assert "They earned about $1,820 (between $400 and $3,100)" in _Page(render_html(live)).text


def test_a_strangers_strings_stay_text(tmp_path: Path) -> None:
    clean = _Page(render_html(_summary(_defect())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(_summary(_defect(page=HOSTILE), name=HOSTILE), tmp_path / "report.html")
    page = _Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert sorted(set(page.tags)) == sorted(set(clean.tags))
    assert "<script>alert('x')</script>" in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_page_needs_nothing_else() -> None:
    text = render_html(_summary(_defect(), executed=50))
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    page = _Page(text)
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(page.tags)
    addressed = [value for name, value in page.attributes if name in {"href", "src", "xlink:href"}]
    assert addressed
    assert all(value is not None and value.startswith("#") for value in addressed)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {str(value)[1:] for value in addressed} <= set(ids)


def test_the_same_summary_gives_the_same_bytes() -> None:
    summary = _summary(_defect(), _defect(0.4), executed=50)
    assert render_html(summary) == render_html(summary)


def test_an_owner_reads_first_what_matters() -> None:
    first = story.headline(_summary(_defect(0.4), _defect(0.95, over=True), _defect()))
    assert first[0] == (
        "Between 1 September 2016 and 11 September 2016, 58,026 visits by 48,890 visitors brought "
        "697 orders worth $103,543; 1.20 % of the visits bought."
    )
    assert first[1] == (
        "The costliest thing wrong is \u201cCheckout error\u201d (page /basket.html), since "
        "3 Sep 2016, 07:00: it costs about 2.3 orders a day (between 1.0 and 3.6), worth about "
        "$274 a day. What to do: "
        f"{words.intervention_words('error_recovery')}."
    )
    assert first[2].startswith("1 more defect is likely, but over by now; the list below")
    assert "none was executed" in first[3]


def test_a_defect_that_is_over_is_told_in_the_past() -> None:
    (sentence,) = [s for s in story.headline(_summary(_defect(over=True))) if "costliest" in s]
    assert "was \u201cCheckout error\u201d" in sentence
    assert "it cost about" in sentence
    assert "3 Sep 2016, 07:00 to 5 Sep 2016, 07:00" in sentence
    assert "It is over" in sentence
    page = _Page(render_html(_summary(_defect(over=True)))).text
    assert "Likely defects that are over by now cost up to $547 in all" in page
    assert "What to do if it comes back" in page
    assert "Nothing here is likely enough" not in page


def test_a_defect_that_goes_on_is_told_before_a_costlier_one_that_is_over() -> None:
    (sentence,) = [
        s
        for s in story.headline(_summary(_defect(over=True), _defect(page="/pay.html")))
        if "costliest" in s
    ]
    assert "is \u201cCheckout error\u201d (page /pay.html)" in sentence


def test_nothing_wrong_is_said_with_what_could_not_be_seen() -> None:
    summary = _summary()
    visible = story.smallest_visible_loss(summary)
    assert visible is not None
    assert visible == pytest.approx(2.8 * (697 * 0.1) ** 0.5 / 240)
    page = _Page(render_html(summary)).text
    assert "No defect stands out." in page
    assert f"cost about {words.figure(visible * 24)} orders a day" in page
    suspected = _Page(render_html(_summary(_defect(0.5)))).text
    assert "No defect stands out." in suspected
    assert "suspicion" in suspected


def test_carts_of_which_nothing_is_known_yet_are_not_called_kept() -> None:
    """In a log of a day most carts have not had their time: no share of those left is told."""
    young = msgspec.structs.replace(_summary(), carts=3400, waiting_carts=1000)
    page = render_html(young)
    assert "1,000 not known yet" in page
    assert "290 were bought, 2,110 left for good" in page
    assert "of 1,000 it cannot be known yet" in page
    old = render_html(_summary())
    assert "2,110 of 3,400" in old
    assert "known yet" not in old


def test_the_lead_says_why_shoppers_leave_and_when_before_what_was_decided() -> None:
    signal = LostSignal(signal="K5", showings=9, sessions=8, lost=20.0, unspoilt=40.0)
    kinds = [Waits(value="view_cart", rows=900, turning_s=53.0)]
    told = msgspec.structs.replace(
        _summary(_defect()),
        reasons=Reasons(model="m", lost=20.0, sessions=8, signals=[signal]),
        hesitation=Hesitation(by_page_type=kinds),
    )
    lead = render_html(told).split("<section", 1)[1].split("</section>", 1)[0]
    said = ["Checkout error", "20 purchases were lost", "53 s in the cart", "100 decisions"]
    assert sorted(said, key=lead.index) == said


def test_a_span_of_the_data_is_written_in_one_way() -> None:
    found = Finding("tracking_break", "x", "2016-09-02T00:00:00Z", "2016-09-25T23:00:00Z", "Gone.")
    page = render_html(msgspec.structs.replace(_summary(), data_quality=[found]))
    assert "2 Sep 2016, 00:00 to 25 Sep 2016, 23:00" in page


def test_likely_means_likely_in_all_places() -> None:
    page = _Page(render_html(_summary(_defect(0.79), _defect(0.81)))).text
    assert page.count("Likely defects 1 of 2 ranked") == 1
    cost = story.total_cost(_summary(_defect(0.79), _defect(0.81), _defect(0.9, over=True)))
    assert (cost.lost_per_hour, cost.recoverable_per_hour) == (11.4, 3.4)
    twice = story.total_cost(_summary(_defect(), _defect(page="/pay.html")))
    assert (twice.costliest_per_hour, twice.lost_per_hour) == (11.4, 22.8)
    assert cost.lost_before == pytest.approx(11.4 * 48)


def test_each_loss_is_told_since_it_began() -> None:
    lasting = story.lost_so_far(_defect(), _summary())
    assert lasting.value == pytest.approx(11.4 * 8 * 24)
    assert story.lost_so_far(_defect(over=True), _summary()).value == pytest.approx(11.4 * 48)


def test_warnings_that_tables_tell_are_not_told_twice() -> None:
    page = _Page(render_html(_summary())).text
    assert page.count("The clock jumped.") == 1
    assert page.count("desktop is null.") == 1
    assert "rows are dead letters" not in page


def test_an_empty_log_is_reported_as_such() -> None:
    summary = summarise(source="empty", events=0, journeys=Journeys())
    page = _Page(render_html(summary)).text
    assert "The log holds no event that could be read" in page
    assert "What is wrong" not in page
    assert json.loads(to_json(summary))["period"] == {"from": None, "to": None}


def test_one_event_makes_a_report() -> None:
    journeys = Journeys(
        visitors=1, sessions=1, period=Period(BEGIN, BEGIN), funnel=Funnel(sessions=1),
        daily=[Day(BEGIN.date(), 1, 0, 0, 0.0)],
    )  # fmt: skip
    page = _Page(render_html(summarise(source="s", events=1, journeys=journeys))).text
    assert "On 1 September 2016, 1 visit by 1 visitor brought no order." in page
    assert "Without orders in the log, what a defect costs cannot be seen." in page


def test_numbers_of_any_size_can_be_drawn() -> None:
    journeys = msgspec.structs.replace(
        _journeys(),
        orders=10**18,
        revenue=1e25,
        funnel=Funnel(*[10**18 - k for k in range(6)]),
        daily=[Day(BEGIN.date(), 10**17, 1, 1, 1e24), Day(END.date(), 10**17, 10**17, 1, -1e24)],
    )
    much, none = Interval(1e20, -1e20, 1e21), Interval(0, 0, 0)
    huge = msgspec.structs.replace(_defect(), lost_value_per_hour=much, lost_orders_per_hour=none)
    nothing = Interval(float("nan"), float("-inf"), float("inf"))
    unknown = msgspec.structs.replace(_defect(0.2), lost_value_per_hour=nothing)
    page = render_html(summarise(source="s", events=9, journeys=journeys, defects=[huge, unknown]))
    assert "million billion" in page
    assert "unknown" in page
    json.loads(to_json(summarise(source="s", events=9, journeys=journeys, defects=[unknown])))


def test_a_log_of_decades_is_drawn_in_few_bars() -> None:
    days = [Day(dt.date(1970, 1, 1) + dt.timedelta(days=k), 2, 1, 1, 1.0) for k in range(9000)]
    short = render_html(_summary())
    long = summarise(
        source="s", events=9, journeys=msgspec.structs.replace(_journeys(), daily=days)
    )
    assert len(render_html(long)) < 2 * len(short)
    assert "in 75 days" in render_html(long)


def test_every_type_of_the_catalogue_and_every_intervention_has_words() -> None:
    assert set(catalogue.DEFECT_TYPES) | {catalogue.UNEXPLAINED_DROP} <= set(words.DEFECTS)
    assert {each.id for each in INTERVENTIONS} <= set(words.INTERVENTIONS)
    assert words.defect_words("made_up").name == "made_up"


def test_decisions_are_told_by_what_was_done() -> None:
    said = story.decided_words(_decided(50))
    assert said == "50 of 100 decisions were carried out."
    every = story.decided_words(_decided(100))
    assert "to offer help (20), to wait (0), to leave the shopper alone (80)" in every
    assert every in render_html(_summary(executed=100))
