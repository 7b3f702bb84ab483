"""Bots, monitors, staff and test orders: recognised, counted, and kept out of what is learned."""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recoup.engine import Engine, Settings
from recoup.errors import ConfigError, SnapshotError
from recoup.events import EVENT_SCHEMA, ITEM_SCHEMA, EventBatch, concat_batches, conform, take
from recoup.non_shoppers import Counted, NonShoppers, Rules, parse_rules
from recoup.policies import Learner
from recoup.simulator import load_scenario, simulate
from recoup.sources import open_source

START = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


def visits(
    visitor: str, seconds: Iterable[float], event: str = "page_view", **more: str
) -> pl.DataFrame:
    moments = [START + dt.timedelta(seconds=at) for at in seconds]
    frame = pl.DataFrame({"ts": moments, "visitor": visitor, "event": event, **more})
    return frame.with_columns(
        source=pl.lit("shop"),
        seq=pl.lit(0),
        id=pl.format("{}-{}-{}", "visitor", "event", pl.int_range(pl.len())),
    )


def batch_of(*parts: pl.DataFrame) -> EventBatch:
    whole = pl.concat(parts, how="diagonal").sort("ts", maintain_order=True)
    return EventBatch(conform(whole, EVENT_SCHEMA), pl.DataFrame(schema=ITEM_SCHEMA))


def session_of(batch: EventBatch) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = batch.column("visitor").astype(np.int64)
    return keys


def kinds(*parts: pl.DataFrame, rules: Rules | None = None) -> dict[str, Counted]:
    stage, batch = NonShoppers(rules), batch_of(*parts)
    stage.step(batch, session_of(batch))
    return stage.counts


def test_what_agents_call_themselves() -> None:
    found = kinds(
        visits("a", [1, 2], browser="Googlebot/2.1"),
        visits("b", [1], extra='{"user_agent":"Mozilla/5.0 HeadlessChrome/120"}'),
        visits("c", [1], extra='{"userAgent":"Pingdom.com_bot_version_1.4"}'),
        visits("d", [1, 5], browser="Chrome", extra='{"user_agent":"Mozilla/5.0 (CUBOT NOTE S)"}'),
        visits("e", [3], "purchase", order="TEST-001"),
        visits("f", [3], "purchase", order="contest-7"),
        visits("g", [3], extra='{"is_bot":true}'),
    )
    assert found == {
        "bot": Counted(4, 3, 3), "monitor": Counted(1, 1, 1), "test_order": Counted(1, 1, 1),
    }  # fmt: skip


def test_rules_of_the_shop(tmp_path: Path) -> None:
    del tmp_path
    rules = parse_rules(
        'standard = false\n[[rule]]\nkind = "staff"\ncolumn = "visitor"\nfile = "staff.txt"\n'
        '[[rule]]\nkind = "staff"\ncolumn = "extra.referer"\nmatches = "^https://intranet"\n',
        read_list=lambda name: ["s1", "s2"] if name == "staff.txt" else [],
    )
    found = kinds(
        visits("s1", [1, 2]),
        visits("x", [1], extra='{"referer":"https://intranet.shop/admin"}'),
        visits("y", [1], browser="Googlebot"),
        rules=rules,
    )
    assert found == {"staff": Counted(3, 2, 2)}


@pytest.mark.parametrize(
    ("seconds", "event", "kind"),
    [
        ([i * 0.2 for i in range(260)], "page_view", "too_fast"),
        ([i * 60.0 for i in range(25)], "page_view", "regular_gaps"),
        ([i * 30 + (i * 7919 % 13) for i in range(400)], "view_item", "pages_only"),
        ([i * 1700 + (i * 7919 % 613) for i in range(60)], "add_to_cart", "round_the_clock"),
    ],
)
def test_what_no_shopper_does(seconds: list[float], event: str, kind: str) -> None:
    assert list(kinds(visits("v", seconds, event))) == [kind]


def test_what_shoppers_do() -> None:
    careful = [i * 25 + (i * 7919 % 19) for i in range(250)]
    assert kinds(visits("reader", careful, "view_item")) == {}
    stepper = [i * 0.5 for i in range(90)]
    assert kinds(visits("stepper", stepper, "add_to_cart")) == {}
    mixed = [i * 20 + (i * 7919 % 13) for i in range(600)]
    comparing = visits("c", mixed, "view_item"), visits("c", mixed[150::150], "add_to_cart")
    assert kinds(*comparing) == {}
    all_day = [i * 1700 + (i * 7919 % 613) for i in range(30)]
    assert kinds(visits("patient", all_day, "add_to_cart")) == {}


def test_the_same_in_batches_of_any_size_and_after_a_restart() -> None:
    batch = batch_of(
        visits("a", [i * 60.0 for i in range(200)]), visits("b", [i * 0.2 for i in range(260)]),
        visits("c", [i * 31 + i * i % 7 for i in range(200)], "view_item"),
    )  # fmt: skip
    whole, stage = NonShoppers(), NonShoppers()
    mask = whole.step(batch, session_of(batch)).mask
    masks = []
    for start in range(0, len(batch), 37):
        again = NonShoppers()
        again.restore(stage.snapshot())
        stage = again
        part = take(batch, np.arange(start, min(start + 37, len(batch))))
        masks.append(stage.step(part, session_of(part)).mask)
    assert np.concatenate(masks).tolist() == mask.tolist()
    assert stage.counts == whole.counts
    assert stage.snapshot() == whole.snapshot()


def test_other_rules_do_not_go_on() -> None:
    with pytest.raises(SnapshotError, match="same rules"):
        NonShoppers(Rules(standard=False)).restore(NonShoppers().snapshot())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "colour"),
        ('[[rule]]\nkind = "alien"\ncolumn = "browser"\nequals = ["x"]', "alien"),
        ('[[rule]]\nkind = "bot"\ncolumn = "price"\nequals = ["x"]', "price"),
        ('[[rule]]\nkind = "bot"\ncolumn = "browser"', "neither"),
        ('[[rule]]\nkind = "bot"\ncolumn = "browser"\nmatches = "("', "regular expression"),
        ("[behaviour]\npages_only = -1", "pages_only"),
        ("=", "TOML"),
    ],
)
def test_rules_that_cannot_be_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rules(text)


def crawler(hours: float) -> pl.DataFrame:
    """Make a crawler that looks at products and buys nothing, once a second."""
    seconds = [i * 20 + (i * 7919 % 11) for i in range(int(hours * 180))]
    return visits("crawler", seconds, "view_item", browser="Chrome", device="desktop", item="x")


def test_the_engine_learns_nothing_from_them() -> None:
    shop = concat_batches(simulate(300, 1.0, 5, load_scenario("quiet")).batches)
    alone, beside = Engine(Settings(executes=False)), Engine(Settings(executes=False))
    mixed = concat_batches([shop, batch_of(crawler(6.0))])
    mixed = take(mixed, mixed.events["ts"].arg_sort().to_numpy())
    alone.step(shop)
    served = []
    for start in range(0, len(mixed), 500):
        step = beside.step(take(mixed, np.arange(start, min(start + 500, len(mixed)))))
        served.append(step.moment.rows.values)
    assert beside.non_shoppers.counts["pages_only"].events == crawler(6.0).height
    for name, table in alone.evidence.tables().items():
        drop = ["intent"] if "intent" in table.columns else []
        assert beside.evidence.tables()[name].drop(drop).equals(table.drop(drop)), name
    assert beside.carts() == alone.carts()
    assert sum(len(part) for part in served) == len(mixed)


def test_decisions_of_one_found_out_later_are_not_learned_from() -> None:
    decisions = pl.DataFrame(
        {"id": [1, 2], "visitor": ["v", "bot"], "action": "never", "reason": "K5", "intent": 0.3,
         "slice": "policy", "propensity": 0.5, "options": [["never"]] * 2,
         "propensities": [[0.5]] * 2, "executed": True}
    )  # fmt: skip
    outcomes = pl.DataFrame(
        {"decision": [1, 2], "net_value_micros": 1, "orders": 1, "revision": 0}
    ).with_columns(later_cost_micros=0)
    learner = Learner()
    learner.step(decisions, outcomes.clear())
    learner.leave_out(["bot"])
    assert learner.step(decisions.clear(), outcomes) == 1


@pytest.mark.slow
def test_nobody_in_the_real_log(data_dir: Path) -> None:
    stage = NonShoppers()
    for part in open_source(data_dir / "google_merch_store").batches():
        stage.step(part.batch, session_of(part.batch))
    assert stage.counts == {}
