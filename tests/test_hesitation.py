"""Hesitation on waits of known law, and on small made-up logs."""

import functools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from recoup.errors import ModelError
from recoup.events import CODE, EVENT_SCHEMA, EventBatch, conform, empty_frames
from recoup.features import FeatureSet, FeatureStore, count, time_since
from recoup.friction.hesitation import (
    Expected,
    HesitationModel,
    Shapes,
    gone_on_by,
    hesitation,
    p_returns,
)
from recoup.friction.hesitation_baselines import (
    baselines_from_bytes,
    fit_baselines,
    table_survival,
    weibull_survival,
)
from recoup.friction.hesitation_evaluation import evaluate_hesitation, report_waits, survival_of
from recoup.friction.hesitation_scores import GRID_S, concordance, log_scores
from recoup.friction.hesitation_training import (
    HesitationSettings,
    fit_hesitation,
    settled,
    train_hesitation,
)
from recoup.friction.intent_rows import Period
from recoup.friction.waits import CONTEXT, LIMIT_S, WaitRows, collect_waits, state_name, state_of
from recoup.non_shoppers import Rule, Rules

FEATURES = FeatureSet(
    "small",
    1,
    (
        count("session_events", by="session"),
        count("session_adds", events=("add_to_cart",), by="session"),
        time_since("since_event_s", by="session"),
    ),
)
QUICK = HesitationSettings(rounds=60, spread_rounds=30, leaves=8, feature_share=1.0)
MINUTE = 60_000_000
START = 1_472_713_200_000_000
VIEW, LIST = CODE["view_item"], CODE["view_item_list"]

Floats = NDArray[np.float64]
Line = tuple[float, str, str, str | None]


class Law(msgspec.Struct, frozen=True):
    """The truth: on a list shoppers scan, on an item they read; some leave, more where it rains."""

    goes_on: Floats
    center: Floats
    spread: Floats

    def below(self, seconds: float) -> Floats:
        """Give P(has gone on by then), leaving included."""
        inside = norm.cdf((np.log(seconds) - self.center) / self.spread)
        most = norm.cdf((np.log(LIMIT_S) - self.center) / self.spread)
        return np.asarray(self.goes_on * inside / most)


def draw(seed: int, size: int) -> tuple[WaitRows, Law]:
    """Draw waits of known law: shape of the law's arrays (size,)."""
    rng = np.random.default_rng(seed)
    pace, rain = rng.normal(size=size), rng.random(size) < 0.3
    event = np.where(rng.random(size) < 0.5, VIEW, LIST)
    law = Law(
        goes_on=expit(1.0 + 0.8 * pace - 1.2 * rain),
        center=np.where(event == VIEW, 3.0, 2.0) + 0.5 * pace,
        spread=np.where(event == VIEW, 1.0, 0.6),
    )
    most = norm.cdf((np.log(LIMIT_S) - law.center) / law.spread)
    wait = np.exp(law.center + law.spread * norm.ppf(rng.random(size) * most))
    gone_on = rng.random(size) < law.goes_on
    context = np.zeros((size, len(CONTEXT)), np.int64)
    context[:, 0] = event
    rows = WaitRows(
        names=("pace", "rain"),
        values=np.column_stack([pace, rain]).astype(np.float64),
        context=context,
        wait_s=np.where(gone_on, wait, LIMIT_S),
        gone_on=gone_on,
        state=state_of(event, np.full(size, 2)),
        page=np.ones(size, bool),
        session=np.arange(size) // 4,
        visitor=np.arange(size) // 8,
        ts=START + np.arange(size) * 1_000_000,
        key=rng.integers(-(1 << 63), 1 << 63, size),
    )
    return rows, law


@functools.cache
def fitted() -> HesitationModel:
    return fit_hesitation(draw(1, 12_000)[0], "set", QUICK)


def test_the_fitted_survival_is_that_of_the_known_law() -> None:
    rows, law = draw(2, 6_000)
    model = fitted()
    expected = model.expect_rows(rows.values, rows.context, rows.state)
    surviving = survival_of(model, expected)
    for seconds in (3.5, 10.0, 33.0, 90.0, 1_800.0):
        told = 1.0 - surviving[:, 1 + np.searchsorted(GRID_S, seconds)]
        assert np.abs(told - law.below(seconds)).mean() < 0.035
        assert abs(told.mean() - law.below(seconds).mean()) < 0.015


def test_the_transform_is_uniform_and_the_score_near_the_best_there_is() -> None:
    rows, law = draw(3, 8_000)
    told = report_waits(fitted(), rows)
    assert told["rows"] == 8_000
    assert told["censored"] == int((~rows.gone_on).sum())
    measures = [told, *msgspec.convert(told["states"], dict[str, dict[str, object]]).values()]
    assert list(msgspec.convert(told["states"], dict[str, object])) == [
        "item/view_item_list",
        "item/view_item",
    ]
    for part in measures:
        assert 0.0 < msgspec.convert(part["pit_error"], float) < 0.03
    truth = np.column_stack([np.ones(len(rows)), *(1.0 - law.below(t) for t in GRID_S)])
    best = log_scores(truth, rows.wait_s, rows.gone_on).mean()
    assert best - 0.06 < msgspec.convert(told["log_score"], float) < best + 0.005
    best_order = concordance(
        0.5 * (truth[:, 1:] + truth[:, :-1]) @ np.diff(np.r_[0.0, GRID_S]),
        rows.wait_s,
        rows.gone_on,
    )
    assert best_order is not None
    assert best_order - 0.02 < msgspec.convert(told["concordance"], float) < best_order + 0.01


def test_a_model_of_another_shop_is_found_out() -> None:
    rows, _ = draw(4, 4_000)
    slower = WaitRows(
        **{n: getattr(rows, n) for n in rows.__struct_fields__}
        | {"wait_s": np.minimum(rows.wait_s * 1.5, LIMIT_S)}
    )
    told = msgspec.convert(report_waits(fitted(), slower), dict[str, Any])
    assert told["pit_error"] > 0.1 > told["pit_chance"]


def test_the_peers_are_scored_in_the_same_run() -> None:
    earlier, _ = draw(1, 12_000)
    later, law = draw(5, 4_000)
    model = fitted()
    peers = baselines_from_bytes(fit_baselines(earlier, model).to_bytes())
    told = report_waits(model, later, peers)
    found = msgspec.convert(told["baselines"], dict[str, dict[str, object]])
    assert list(found) == ["kaplan_meier_by_state", "weibull_with_cure"]
    for part in found.values():
        gain = msgspec.to_builtins(part["gain"])
        assert 0.0 < gain["low"] < gain["value"] < gain["high"]
        behind = msgspec.convert(told["log_score"], float) - gain["value"]
        assert abs(behind - msgspec.convert(part["log_score"], float)) < 1e-9
    by_state = table_survival(later, peers)
    for event in (VIEW, LIST):
        own = later.context[:, 0] == event
        assert abs(1.0 - by_state[own][0, -1] - law.goes_on[own].mean()) < 0.03
    weibull = weibull_survival(later, model, peers)
    assert np.all(np.diff(weibull, axis=1) <= 1e-12)
    assert abs(1.0 - weibull[:, -1].mean() - law.goes_on.mean()) < 0.03


def test_training_twice_gives_the_same_bytes_and_bytes_hold_the_model() -> None:
    model, (rows, _) = fitted(), draw(6, 500)
    again = fit_hesitation(draw(1, 12_000)[0], "set", QUICK)
    assert again.to_bytes() == model.to_bytes()
    read = HesitationModel.from_bytes(model.to_bytes())
    assert read.hash == model.hash
    whole = model.expect_rows(rows.values, rows.context, rows.state)
    for one, other in zip(
        whole, read.expect_rows(rows.values, rows.context, rows.state), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    read.bind(("rain", "pace"))
    turned = read.expect_rows(rows.values[:, ::-1], rows.context, rows.state)
    np.testing.assert_array_equal(turned.center, whole.center)
    with pytest.raises(ModelError, match="none called"):
        read.bind(("rain",))
    with pytest.raises(ModelError, match="artefact"):
        HesitationModel.from_bytes(b"nonsense")


@given(
    goes_on=st.floats(0.01, 0.99),
    center=st.floats(-2.0, 6.0),
    spread=st.floats(0.1, 2.0),
    times=st.lists(st.floats(0.0, 2_000.0), min_size=2, max_size=20),
)
def test_hesitation_grows_while_nothing_happens_and_hope_of_return_falls(
    goes_on: float, center: float, spread: float, times: list[float]
) -> None:
    shapes = Shapes(
        np.array([-1]), np.linspace(-8.0, 8.0, 50), norm.cdf(np.linspace(-8.0, 8.0, 50))[None]
    )
    elapsed = np.sort(np.array(times))
    n = len(elapsed)
    wait = Expected(
        np.full(n, goes_on), np.full(n, center), np.full(n, spread), np.zeros(n, np.int64)
    )
    waited = hesitation(shapes, wait, elapsed)
    hope = p_returns(shapes, wait, elapsed)
    assert np.all(np.diff(waited) >= 0.0)
    assert np.all(np.diff(hope) <= 1e-12)
    assert np.all((waited >= 0.0) & (waited <= 1.0) & (hope >= 0.0) & (hope <= goes_on + 1e-12))
    assert hesitation(shapes, wait, np.full(n, LIMIT_S))[0] == 1.0
    np.testing.assert_allclose(gone_on_by(shapes, wait, np.full(n, LIMIT_S)), goes_on)


def make_batch(lines: Sequence[Line], first: int = 0) -> EventBatch:
    """Make events of (second, visitor, event, element)."""
    frame = pl.DataFrame(
        {
            "ts": [START + round(second * 1e6) for second, *_ in lines],
            "source": ["test"] * len(lines),
            "id": [str(first + k) for k in range(len(lines))],
            "seq": list(range(first, first + len(lines))),
            "event": [event for _, _, event, _ in lines],
            "visitor": [visitor for _, visitor, *_ in lines],
            "element": [element for *_, element in lines],
        },
        schema_overrides={"element": pl.String},
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    return EventBatch(conform(frame, EVENT_SCHEMA), empty_frames()[1])


def waits_of(lines: Sequence[Line], period: Period | None = None) -> WaitRows:
    return collect_waits([make_batch(lines)], FeatureStore(FEATURES), period or Period())


JOURNEY: list[Line] = [
    (0.0, "a", "page_view", None),
    (0.0, "a", "view_item_list", None),
    (5.0, "a", "select_item", "tile"),
    (7.0, "a", "view_item", None),
    (9.0, "a", "view_item", "zoom"),
    (12.0, "a", "add_to_cart", "button"),
    (20.0, "a", "view_cart", None),
    (2_000.0, "a", "page_view", None),
    (2_100.0, "b", "page_view", None),
]


def test_a_wait_lasts_from_a_step_to_the_next_page_or_step_forward() -> None:
    rows = waits_of(JOURNEY)
    by_time = np.argsort(rows.ts)
    assert [state_name(int(s)) for s in rows.state[by_time]] == [
        "listing/view_item_list",
        "item/view_item",
        "cart/add_to_cart",
        "cart/view_cart",
        "landed/page_view",
        "landed/page_view",
    ]
    assert rows.wait_s[by_time].tolist() == [7.0, 5.0, 8.0, 1_800.0, 100.0, 1e-6]
    assert rows.gone_on[by_time].tolist() == [True, True, True, False, False, False]
    assert rows.page[by_time].tolist() == [True, True, False, True, True, True]


def test_a_period_is_half_open_and_a_log_in_parts_is_the_same_log() -> None:
    part = waits_of(JOURNEY, Period(START + 7_000_000, START + 20_000_000))
    assert sorted(((part.ts - START) // 1_000_000).tolist()) == [7, 12]
    store = FeatureStore(FEATURES)
    split = collect_waits(
        [make_batch(JOURNEY[3:], first=3)], store, Period(), history=[make_batch(JOURNEY[:3])]
    )
    whole = waits_of(JOURNEY)
    later = whole.where(whole.ts >= START + 7_000_000)
    for name in ("values", "wait_s", "gone_on", "state"):
        np.testing.assert_array_equal(getattr(split, name), getattr(later, name))
    with pytest.raises(ModelError, match="pages or steps"):
        waits_of(JOURNEY, Period(START + 10**12))


def shop(seed: int, visitors: int = 300) -> list[Line]:
    """Make visits that read items slowly, scan lists fast, and leave now and then."""
    rng = np.random.default_rng(seed)
    lines: list[Line] = []
    for k in range(visitors):
        second = k * 60.0
        for _ in range(int(rng.geometric(0.2))):
            event = "view_item" if rng.random() < 0.5 else "view_item_list"
            lines.append((second, f"v{k}", event, None))
            second += float(rng.lognormal(3.0 if event == "view_item" else 1.5, 0.7))
    return sorted(lines)


def test_training_knows_nothing_of_what_comes_after_its_period() -> None:
    lines = shop(1)
    until = START + 200 * MINUTE
    other = [(s, v, e if s < 12_000.0 else "purchase", x) for s, v, e, x in lines]
    found = [
        train_hesitation(
            [make_batch(told)],
            FeatureStore(FEATURES),
            "x",
            period=Period(until=until),
            settings=QUICK,
        )
        for told in (lines, other)
    ]
    assert found[0].model.to_bytes() == found[1].model.to_bytes()
    assert found[0].metrics == found[1].metrics
    measures = {"rows", "censored", "pit_error", "pit_chance", "concordance", "log_score"}
    assert measures | {"states"} == set(found[0].metrics)


def test_waits_that_the_end_of_the_log_may_have_cut_teach_nothing() -> None:
    rows, _ = draw(7, 4_000)
    end = int(rows.ts.max())
    assert settled(rows, end).ts.max() == end - 1_800_000_000
    with pytest.raises(ModelError, match="waits that end"):
        fit_hesitation(rows.where(np.arange(4_000) < 200), "x", QUICK)
    with pytest.raises(ModelError, match="waits that end"):
        fit_hesitation(rows.where(rows.gone_on), "x", QUICK)


def test_a_log_without_pages_judges_no_model() -> None:
    added = make_batch([(50.0 * k, "v", "add_to_cart", None) for k in range(9)])
    with pytest.raises(ModelError, match="Expected pages"):
        evaluate_hesitation(fitted(), [added], FeatureStore(FEATURES))


def test_who_is_no_shopper_teaches_nothing() -> None:
    """Staff by a rule, a crawler by its behaviour: the waits are those of a log without them."""
    people = shop(3, visitors=20)
    begin = max(second for second, *_ in people)
    staff: list[Line] = [(second, "staff", event, None) for second, _, event, _ in people[:40]]
    crawler: list[Line] = [(begin + 0.1 * k, "crawler", "view_item", None) for k in range(400)]
    rules = Rules(rule=(Rule("staff", "visitor", equals=("staff",)),))
    mixed = sorted([*people, *staff, *crawler])
    found = collect_waits(
        [make_batch(mixed)], FeatureStore(FEATURES), Period(), rules=rules, end=10**16
    )
    alone = collect_waits([make_batch(people)], FeatureStore(FEATURES), Period(), end=10**16)
    assert len(found) == len(alone) > 50
    np.testing.assert_array_equal(np.sort(found.wait_s), np.sort(alone.wait_s))
