"""Where and when shoppers hesitate: counted exactly, told in words, and no false alarms."""

import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from benchmarks.surge_study import named, train, watched
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, EVENT_SCHEMA, ITEM_SCHEMA, MICROS, EventBatch, conform, encode, take
from recoup.friction.steps import is_step
from recoup.outcomes import Abandonment
from recoup.parts import read_frame
from recoup.report import (
    Behaving,
    Hesitation,
    HesitationTally,
    Journeys,
    Judged,
    Waits,
    hesitation_story,
    hesitation_tally,
    render_html,
    summarise,
    to_json,
)
from recoup.report.hesitation_measures import LEFT, tell_waits, wait_bin
from recoup.sources import open_source

START = 1_714_521_600_000_000
Line = tuple[float, int, str]


def batch_of(lines: list[Line], **more: str) -> EventBatch:
    """Make events of (second, visitor, kind), all at one device and page."""
    frame = pl.DataFrame(
        {
            "ts": [START + round(second * MICROS) for second, *_ in lines],
            "source": "web",
            "id": [str(k) for k in range(len(lines))],
            "seq": 0,
            "event": [event for *_, event in lines],
            "visitor": [str(visitor) for _, visitor, _ in lines],
            "device": "mobile",
            "page": "/shop",
        }
        | more
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    return EventBatch(conform(frame, EVENT_SCHEMA), pl.DataFrame(schema=ITEM_SCHEMA))


def seen(batch: EventBatch, shown: NDArray[np.bool_] | None = None) -> Behaving:
    session = encode(batch, ("visitor",))["visitor"].astype(np.int64)
    nothing = np.zeros((len(batch), 6), np.bool_)
    return Behaving(batch, session, nothing if shown is None else shown)


def told(lines: list[Line]) -> Hesitation:
    tally = HesitationTally(lateness_s=0.0)
    tally.step(seen(batch_of(lines)))
    return tally.result()


def test_waits_are_measured_from_step_to_step() -> None:
    lines = [
        (0.0, 1, "page_view"),
        (5.0, 1, "scroll"),
        (20.0, 1, "view_item"),
        (9_000.0, 2, "page_view"),
    ]
    found = told(lines)
    assert found.total is not None
    assert (found.total.rows, found.total.left) == (2, 0.5)
    assert found.total.median_wait_s == pytest.approx(20.0, rel=0.17)
    assert [each.value for each in found.by_state] == ["item/view_item", "landed/page_view"]
    assert [each.left for each in found.by_state] == [1.0, 0.0]
    assert (found.by_device[0].value, found.by_page[0].value) == ("mobile", "/shop")
    assert [each.value for each in found.by_hour] == ["0"]


def test_a_wait_that_is_still_on_and_one_after_the_purchase_are_left_out() -> None:
    assert told([(0.0, 1, "page_view"), (1_700.0, 2, "scroll")]).total is None
    found = told([(0.0, 1, "page_view"), (10.0, 1, "purchase"), (9_000.0, 2, "scroll")])
    assert found.total is not None
    assert (found.total.rows, found.total.left) == (1, 0.0)


def test_of_steps_at_one_moment_the_last_begins_the_wait() -> None:
    lines = [(0.0, 1, "page_view"), (0.0, 1, "view_item"), (10.0, 1, "sign_up")]
    found = told([*lines, (9_000.0, 2, "scroll")])
    assert found.total is not None
    assert (found.total.rows, found.total.left) == (2, 0.5)


def test_half_go_on_until_the_turning_point() -> None:
    quick = [(100.0 * k + s, k, "page_view") for k in range(200) for s in (0.0, 10.0)]
    found = told([*quick, (90_000.0, 900, "scroll")])
    assert found.total is not None
    assert found.total.turning_s == pytest.approx(10.0, rel=0.35)
    assert found.curves[0].goes_on[0] == pytest.approx(0.5)
    assert found.curves[0].goes_on[-1] < 0.1


CELLS = ["dimension", "value", "bin", "n", "judged", "long", "micros"]
KINDS = st.sampled_from(["page_view", "view_item", "add_to_cart", "purchase", "scroll"])


@settings(max_examples=15)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 5), KINDS), max_size=60),
    size=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_any_order_and_size_of_batches_and_a_restore_change_nothing(
    steps: list[Line], size: int, seed: int
) -> None:
    batch = batch_of(steps or [(0.0, 1, "scroll")])
    whole = HesitationTally(lateness_s=6_000.0)
    whole.step(seen(batch))
    parted, parts = HesitationTally(lateness_s=6_000.0), dict[str, bytes]()
    order = np.random.default_rng(seed).permutation(len(batch))
    for start in range(0, len(batch), size):
        parted.step(seen(take(batch, np.sort(order[start : start + size]))))
        changes = parted.changes()
        parts = {n: s for n, s in parts.items() if n not in changes.dropped} | changes.saved
        parted = HesitationTally(lateness_s=6_000.0)
        parted.restore_parts(parts)
    assert parted.result().total == whole.result().total
    assert parted.result().by_hour == whole.result().by_hour


def test_closed_sessions_leave_only_sums_behind() -> None:
    tally = HesitationTally(lateness_s=0.0)
    sizes = []
    for hour in range(12):
        lines = [(3_600.0 * hour + k, 1_000 * hour + k, "page_view") for k in range(400)]
        tally.step(seen(batch_of(lines)))
        sizes.append(len(tally.snapshot()))
    assert max(sizes[4:]) < 1.1 * max(sizes[:3])
    assert tally.result().total is not None
    again = HesitationTally(lateness_s=0.0)
    again.restore(tally.snapshot())
    assert again.result() == tally.result()
    with pytest.raises(SnapshotError):
        HesitationTally(lateness_s=1.0).restore(tally.snapshot())
    with pytest.raises(SnapshotError):
        again.restore(b"something else")


def test_sessions_that_are_no_shoppers_are_taken_out() -> None:
    batch = batch_of([(0.0, 1, "page_view"), (5.0, 2, "page_view"), (9_000.0, 3, "scroll")])
    tally, given_ = HesitationTally(), seen(batch)
    tally.step(given_)
    tally.leave_out([int(given_.session[0])])
    total = tally.result().total
    assert total is not None
    assert total.rows == 1


def test_values_beyond_the_bound_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hesitation_tally, "MOST_VALUES", 3)
    tally = HesitationTally(lateness_s=0.0)
    for k in range(6):
        lines = [(10.0 * s, 10 * k + s, "page_view") for s in range(k + 1)]
        tally.step(seen(batch_of(lines, device=f"d{k}")))
    tally.step(seen(batch_of([(9_000.0, 999, "scroll")])))
    found = {each.value: each.rows for each in tally.result().by_device}
    assert found == {"(other)": 10, "d5": 6, "d4": 5}


def test_pages_summed_up_and_places_unknown_make_no_table() -> None:
    places = {"item/view_item": "state", "(other)": "page", "/a": "page", "(unknown)": "device"}
    cells = [(dimension, value, 5, 200, 0, 0, 0) for value, dimension in places.items()]
    found = tell_waits(pl.DataFrame(cells, CELLS, orient="row"), [], None)
    assert [each.value for each in found.by_page] == ["/a"]
    titles = [title for title, _ in hesitation_story.tables(found)]
    assert titles == ["Kind of page", "Page"]


def test_an_error_that_names_a_field_is_no_click_that_could_have_been_dead() -> None:
    batch = batch_of([(0.0, 1, "form_error"), (2.0, 2, "click_frustration")], element="postcode")
    shown = np.zeros((2, 6), np.bool_)
    shown[1, 4] = True
    tally = HesitationTally()
    tally.step(seen(batch, shown))
    dead = tally.result().behaviours[4]
    assert (dead.sessions, dead.others) == (1, 0)


def test_who_showed_a_behaviour_is_compared_with_who_could_have() -> None:
    lines = [
        (0.0, 1, "view_item"), (1.0, 1, "purchase"),
        (2.0, 2, "view_item"), (3.0, 3, "view_item"), (4.0, 4, "page_view"),
        (5.0, 5, "purchase"), (6.0, 5, "view_item"),
    ]  # fmt: skip
    shown = np.zeros((7, 6), np.bool_)
    shown[[0, 2, 6], 0] = True
    tally = HesitationTally()
    tally.step(seen(batch_of(lines), shown))
    revisits = tally.result().behaviours[0]
    assert (revisits.events, revisits.sessions, revisits.bought) == (3, 2, 1)
    assert (revisits.others, revisits.others_bought) == (1, 0)


def judged_tally(mix: list[tuple[str, float, int]], shift: float = 0.0) -> Hesitation:
    """Simulate pages whose shoppers leave as a model expects of them, by device and P(goes on).

    Of those who come ``from`` a channel of their own it expects too much.
    """
    rng = np.random.default_rng(4)
    tally = HesitationTally(lateness_s=0.0, level=0.9)
    first = 0
    for device, goes_on, count in mix:
        lines = [(4_000.0 * k, first + k, "page_view") for k in range(count)]
        came, _, channel = device.partition(" from ")
        surprise = shift * (device == "mobile") + 0.25 * bool(channel)
        back = rng.random(count) < goes_on - surprise
        more = [
            (second + float(rng.exponential(20.0)) + 0.1, visitor, "sign_up" if on else "scroll")
            for (second, visitor, _), on in zip(lines, back, strict=True)
        ]
        end = (5_000.0 * count, 10**9, "scroll")
        batch = batch_of([*lines, *more, end], device=came, channel=channel or "direct")
        first_page = np.where(np.arange(len(batch)) < count, 1.0, np.nan)
        expected = Judged(first_page * goes_on, first_page * 20.0 * np.log(10.0))
        one = seen(batch)
        tally.step(Behaving(batch, one.session, one.shown, expected))
        first += count
    return tally.result()


USUAL = [("desktop", 0.7, 900), ("mobile", 0.65, 300)]


def test_a_viral_spike_of_shoppers_who_leave_is_no_hesitation() -> None:
    calm = judged_tally(USUAL)
    spike = judged_tally([*USUAL, ("mobile", 0.2, 1_500)])
    assert spike.by_device[0].left > calm.by_device[0].left + 0.1
    for found in (calm, spike):
        assert [each.verdict for each in found.by_device] == ["", ""]


def test_a_spike_of_a_channel_of_which_a_model_knows_little_is_no_hesitation() -> None:
    mix = [*USUAL, ("mobile from social", 0.4, 1_500), ("desktop from social", 0.4, 200)]
    found = judged_tally(mix)
    assert found.total is not None
    assert found.total.long is not None
    assert found.total.long > (found.total.expected_long or 0.0) + 0.1
    assert verdicts(found.by_device) == {"mobile": "", "desktop": ""}
    assert verdicts(found.by_channel) == {"social": "longer", "direct": "shorter"}
    assert "Visits from social come to a halt" in " ".join(hesitation_story.sentences(found))
    alike = judged_tally([*mix, ("mobile", 0.65, 600)], 0.35)
    assert verdicts(alike.by_device)["mobile"] == "longer"


def verdicts(waits: list[Waits]) -> dict[str, str]:
    return {each.value: each.verdict for each in waits}


LEVEL = 0.9


def pages(counted: dict[tuple[str, str], tuple[int, float]]) -> Hesitation:
    """Tell of pages by channel: how many waits, and the share of long ones; 0.3 were expected."""
    cells = [
        (dimension, value, 0, n, n, round(n * long), round(n * 0.7 / LEVEL * MICROS))
        for (page, channel), (n, long) in counted.items()
        for dimension, value in (
            ("state", "landed/page_view"),
            ("page", page),
            ("channel", channel),
            ("page_by_channel", f"{page}\x1f{channel}"),
        )
    ]
    return tell_waits(pl.DataFrame(cells, CELLS, orient="row"), [], LEVEL)


def test_a_page_that_is_broken_for_one_channel_is_named() -> None:
    """The channel's shoppers wait as expected elsewhere: it is the page, not who they are."""
    fine = {("/", "direct"): (4_000, 0.3), ("/", "social"): (600, 0.3)}
    found = pages(fine | {("/offer", "social"): (600, 0.6), ("/offer", "direct"): (200, 0.3)})
    assert verdicts(found.by_page) == {"/": "", "/offer": "longer"}


def test_a_page_that_is_broken_for_all_is_named_beside_a_surge() -> None:
    surge = {("/", "direct"): (4_000, 0.3), ("/", "social"): (3_000, 0.45)}
    found = pages(surge | {("/a", "direct"): (200, 0.6), ("/a", "social"): (150, 0.75)})
    assert verdicts(found.by_page) == {"/": "", "/a": "longer"}
    assert verdicts(found.by_channel)["social"] == "longer"


def test_a_channel_that_comes_to_one_page_alone_is_named_and_the_page_is_not() -> None:
    """Whether shoppers or page are to blame nobody can know: others do not come there."""
    found = pages({("/", "direct"): (4_000, 0.3), ("/offer", "social"): (900, 0.6)})
    assert verdicts(found.by_page) == {"/": "", "/offer": ""}
    assert verdicts(found.by_channel)["social"] == "longer"


def test_a_channel_of_few_waits_excuses_no_page() -> None:
    few = {("/", "direct"): (4_000, 0.3), ("/a", "direct"): (400, 0.6), ("/a", "rare"): (60, 1.0)}
    assert verdicts(pages(few).by_page) == {"/": "", "/a": "longer"}


def test_the_channel_of_a_visit_is_the_first_that_it_names() -> None:
    first = batch_of([(0.0, 1, "page_view")], channel="email")
    later = batch_of([(5.0, 1, "page_view"), (9_000.0, 2, "scroll")])
    tally = HesitationTally(lateness_s=0.0)
    for batch in (later, first):
        tally.step(seen(batch))
    assert [(each.value, each.rows) for each in tally.result().by_channel] == [("email", 2)]


def test_places_by_channel_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rarest no drift is known, and theirs is the shop's."""
    monkeypatch.setattr(hesitation_tally, "MOST_BY_CHANNEL", 4)
    tally = HesitationTally(lateness_s=0.0)
    for k in range(40):
        tally.step(seen(batch_of([(10.0 * k, k, "page_view")], page=f"/{k}", channel=f"c{k}")))
    tally.step(seen(batch_of([(20_000.0, 999, "scroll")])))
    _, cells = msgspec.msgpack.decode(tally.snapshot())
    assert read_frame(cells).filter(pl.col("dimension") == "page_by_channel").height == 4
    assert len(tally.result().by_page) == 12


@pytest.mark.slow
def test_a_campaign_surge_of_a_shop_is_no_hesitation() -> None:
    model = train(8_000, 1.0, 1_001)
    calm, surge = (watched(model, name, 8_000, 1.0, 2_001) for name in ("quiet", "surge"))
    assert calm.total is not None
    assert surge.total is not None
    assert surge.total.left > calm.total.left + 0.02
    for found in (calm, surge):
        assert not [each for each in named(found) if each.endswith("longer")]
        assert len(named(found)) <= 1


def test_a_device_whose_shoppers_leave_beyond_what_was_expected_is_named() -> None:
    found = judged_tally(USUAL, shift=0.35)
    assert {each.value: each.verdict for each in found.by_device}["mobile"] == "longer"
    assert "device mobile" in " ".join(hesitation_story.sentences(found))


def test_median_turning_point_and_curve_are_those_of_the_counts() -> None:
    """Forty went on after a second, sixty after a hundred, eighty never."""
    seconds = pl.select(wait_bin(pl.lit(pl.Series([1.0, 100.0])))).to_series().to_list()
    cells = [
        ("state", "item/view_item", at, n, 0, 0, 0)
        for at, n in zip((*seconds, LEFT), (40, 60, 80), strict=True)
    ]
    found = tell_waits(pl.DataFrame(cells, CELLS, orient="row"), [], None)
    assert found.total is not None
    assert found.total.left == pytest.approx(80 / 180)
    assert found.total.median_wait_s == pytest.approx(100.0, rel=0.17)
    assert found.total.turning_s == pytest.approx(1.0, rel=0.17)
    opening = "Once a shopper has done nothing for 1 s on a product page, fewer than half go on"
    assert opening in " ".join(hesitation_story.sentences(found))
    [curve] = found.curves
    assert (curve.goes_on[0], curve.goes_on[-1]) == pytest.approx((100 / 180, 60 / 140))
    assert curve.wait_s[-1] == pytest.approx(100.0, rel=0.17)  # behind it fewer than a hundred


@pytest.mark.parametrize(
    ("size", "long", "verdict"),
    [
        (100_000, (0.42, 0.40), ("", "")),  # by 2 points: sure, but no more than a model may drift
        (100_000, (0.60, 0.60), ("", "")),  # the whole shop: the model's drift, no device's
        (100_000, (0.60, 0.40), ("longer", "shorter")),
        (100, (0.50, 0.40), ("", "")),  # of few waits: chance
    ],
)
def test_a_place_is_held_against_the_drift_of_the_whole_shop(
    size: int, long: tuple[float, float], verdict: tuple[str, str]
) -> None:
    """Of the waits on each device four in ten were expected to be long."""
    level = 0.9
    cells = [
        (dimension, value, 0, size, size, round(size * share), round(size * 0.6 / level * MICROS))
        for device, hour, share in zip(("mobile", "tablet"), ("3", "15"), long, strict=True)
        for dimension, value in (("device", device), ("hour", hour), ("state", "item/view_item"))
    ]
    found = tell_waits(pl.DataFrame(cells, CELLS, orient="row"), [], level)
    assert [each.verdict for each in found.by_hour] == ["", ""]
    assert tuple(each.verdict for each in found.by_device) == verdict


def test_a_coupon_hunter_who_returns_is_no_abandoner() -> None:
    """The visit ends again and again, and is told as ended; the cart was not left for good."""
    hunt = [(10.0, "view_cart"), (15.0, "coupon_attempt")]
    visits = [(40_000.0 * k + second, 1, event) for k in range(3) for second, event in hunt]
    hunter = [(0.0, 1, "add_to_cart"), *visits, (80_100.0, 1, "purchase")]
    left = [(50.0, 2, "add_to_cart"), (300_000.0, 3, "scroll")]
    batch = batch_of(sorted([*hunter, *left]))
    carts = Abandonment(horizon_s=86_400.0, lateness_s=0.0)
    carts.step(encode(batch, carts.columns))
    assert (carts.carts().opened, sum(carts.carts().abandoned.values())) == (2, 1)
    assert told(sorted([*hunter, *left])).total is not None


def test_it_is_told_in_the_summary_and_the_report() -> None:
    found = judged_tally(USUAL)
    summary = summarise(source="shop", events=9, journeys=Journeys(), hesitation=found)
    read = json.loads(to_json(summary))["hesitation"]
    assert set(read) == {
        "level", "total", "by_state", "by_page_type", "by_device", "by_page", "by_channel",
        "by_hour", "curves", "forecast", "behaviours",
    }  # fmt: skip
    assert {"rows", "median_wait_s", "left", "long", "expected_long"} <= set(read["by_device"][0])
    page = render_html(summary)
    assert "Where and when shoppers hesitate" in page
    assert "Half of the shoppers who go on from a page do so within" in page
    nothing = render_html(summarise(source="shop", events=9, journeys=Journeys()))
    assert "no page after which a shopper could have waited" in nothing


def test_a_log_of_pages_that_strangers_named_is_escaped() -> None:
    tally = HesitationTally(lateness_s=0.0)
    lines = [(0.0, 1, "page_view"), (9_000.0, 2, "scroll")]
    tally.step(seen(batch_of(lines, page="<script>alert(1)</script>")))
    summary = summarise(source="s", events=2, journeys=Journeys(), hesitation=tally.result())
    assert "<script>alert" not in render_html(summary)


@pytest.mark.slow
def test_the_real_log_is_told_by_page(data_dir: Path) -> None:
    """The first hits of the log: the waits are those that a plain loop over them finds."""
    first = next(iter(open_source(data_dir / "google_merch_store").batches(None, rows=8_192)))
    batch = first.batch
    session = encode(batch, ("visitor",))["visitor"].astype(np.int64)
    tally = HesitationTally(lateness_s=0.0)
    tally.step(Behaving(batch, session, np.zeros((len(batch), 6), np.bool_)))
    total = tally.result().total
    assert total is not None
    assert (total.rows, round(total.left, 3)) == by_hand(batch, session)


def by_hand(batch: EventBatch, session: NDArray[np.int64]) -> tuple[int, float]:
    told_ = encode(batch, ("ts", "seq", "key", "event", "element"))
    steps = is_step(told_["event"], told_["element"])
    rows = zip(session, *(told_[n] for n in ("ts", "seq", "key", "event")), steps, strict=True)
    open_, counted, left = dict[int, int](), 0, 0
    bought: set[int] = set()
    now = int(told_["ts"].max())
    for who, ts, _, _, code, step in sorted(rows):
        if code == CODE["purchase"]:
            bought.add(who)
        if not step:
            continue
        if who in open_ and ts > open_[who] and open_[who] + 1_800 * MICROS <= now:
            gap = ts - open_[who]
            counted += 1
            left += gap >= 1_800 * MICROS
        open_.pop(who, None)
        if who not in bought:
            open_[who] = ts
    ended = sum(ts + 1_800 * MICROS <= now for ts in open_.values())
    return counted + ended, round((left + ended) / (counted + ended), 3)
