"""Lift from the holdout and from propensities: against the truth, on journals, in words."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks import lift_agreement as study

from recoup.causal import lift, windows
from recoup.causal.lift import LiftReport
from recoup.causal.windows import decision_windows
from recoup.cli import main
from recoup.decisions import DECISION_SCHEMA, OUTCOME_SCHEMA
from recoup.errors import SchemaError
from recoup.interventions import INTERVENTIONS
from recoup.report.causal_plots import plot
from recoup.runners.decided import Decided, read_decided, write_decided
from recoup.stores import SqliteJournal

report = lift.lift_report
DAY_US = 86_400_000_000


def draw(seed: int, visitors: int = 4_000, gain: float = 3.0) -> study.Frames:
    """Two decisions a visitor; an act is worth ``gain`` to the one in five who can be helped."""
    rng = np.random.default_rng(seed)
    held = rng.random(visitors) < 0.2
    helped = rng.random(visitors) < 0.2
    chance = np.where(rng.random(visitors) < 0.2, 0.3, 0.7)
    first = ~held & (rng.random(visitors) < chance)
    second = ~held & (rng.random(visitors) < 0.5)
    value = rng.exponential(10, visitors) + gain * helped * (first + second)
    rows = []
    for visitor in range(visitors):
        for number, act in enumerate((first[visitor], second[visitor])):
            odds = chance[visitor] if number == 0 else 0.5
            labels = ["never", "wait:30", "act:payment_retry"]
            rows.append(
                {
                    "id": 2 * visitor + number,
                    "ts": visitor * 1_000_000 + number * 60_000_000,
                    "visitor": str(visitor),
                    "slice": "holdout" if held[visitor] else "policy",
                    "action": "act:payment_retry" if act else "never",
                    "options": labels[:1] if held[visitor] else labels,
                    "propensities": [1.0] if held[visitor] else [0.1, 0.9 - odds, odds],
                    "intent": float(chance[visitor]),
                    "reason": "K5" if visitor % 3 else "C2",
                    "executed": True,
                }
            )
    cost = 0.5 * second
    outcomes = pl.DataFrame(
        {
            "decision": np.arange(visitors) * 2,
            "horizon_s": 3600,
            "net_value_micros": np.round((value + cost) * 1e6).astype(np.int64),
            "revision": 0,
            "later_cost_micros": np.round(cost * 1e6).astype(np.int64),
        }
    )
    return pl.DataFrame(rows), outcomes


def test_both_ways_find_what_the_acts_were_worth_and_agree() -> None:
    truth = 3.0 * 0.2 * (0.2 * 0.3 + 0.8 * 0.7 + 0.5)
    held = {"from_holdout": 0, "from_propensities": 0, "agree": 0}
    for seed in range(12):
        found = report(*draw(seed)).all_visitors
        for name in ("from_holdout", "from_propensities"):
            each = getattr(found, name)
            held[name] += each.low <= truth <= each.high
        held["agree"] += bool(found.agree)
    assert min(held.values()) >= 9


def test_any_prediction_of_the_value_alone_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubly robust: the weights alone put a useless prediction right."""
    monkeypatch.setattr(lift, "_out_of_fold", lambda _, target, *_more: np.zeros(len(target)))
    found = report(*draw(0, visitors=12_000)).all_visitors
    assert found.from_propensities.low <= 3.0 * 0.2 * (0.2 * 0.3 + 0.8 * 0.7 + 0.5)
    assert found.from_propensities.high < 3
    assert found.agree


def test_nobody_is_predicted_from_their_own_value() -> None:
    """Whatever a fold's values are, its own predictions stand, and the other folds' move."""
    rng = np.random.default_rng(9)
    features, target = rng.random((600, 2)), rng.exponential(10, 600)
    fold, everybody = np.arange(600) % lift.FOLDS, np.ones(600, np.bool_)
    weight = np.ones(600)
    for own in range(lift.FOLDS):
        here = fold == own
        moved = np.where(here, target + 1_000 * features[:, 0], target)
        one, two = (
            lift._out_of_fold(features, each, weight, everybody, fold)  # noqa: SLF001
            for each in (target, moved)
        )
        assert (one[here] == two[here]).all()
        assert (two - one)[~here].mean() > 50


def test_visitors_of_a_slice_that_acts_less_count_for_more() -> None:
    decisions, outcomes = draw(0)
    random = decisions.with_columns(
        slice=pl.when((pl.col("slice") == "policy") & (pl.col("intent") < 0.5))
        .then(pl.lit("random"))
        .otherwise("slice")
    )
    one, two = (report(each, outcomes).all_visitors for each in (decisions, random))
    assert two.from_propensities.se < 0.97 * one.from_propensities.se
    assert two.effective_sample_size != one.effective_sample_size
    assert two.from_holdout == one.from_holdout


def test_errors_know_of_weights_that_did_not_come_up() -> None:
    """Where acts are nearly sure and nobody escaped, the scores' own spread says nothing of it."""
    decisions, outcomes = draw(0)
    acted = (pl.col("id") % 20 == 0) & pl.col("action").str.starts_with("act:")
    sure = decisions.with_columns(
        propensities=pl.when(acted).then(pl.lit([0.0005, 0.0005, 0.999])).otherwise("propensities")
    )
    one, two = (report(each, outcomes).all_visitors for each in (decisions, sure))
    assert two.from_propensities.se > 3 * one.from_propensities.se
    assert two.difference.se > 2 * one.difference.se


def test_propensities_do_not_look_at_the_holdout() -> None:
    decisions, outcomes = draw(0)
    held = decisions.filter(pl.col("slice") == "holdout")["id"]
    spoilt = outcomes.with_columns(
        net_value_micros=pl.when(pl.col("decision").is_in(held.implode()))
        .then(500_000_000)
        .otherwise("net_value_micros")
    )
    one, two = (report(decisions, each).all_visitors for each in (outcomes, spoilt))
    assert one.from_propensities == two.from_propensities
    assert two.from_holdout.high < -400


def test_interventions_add_up() -> None:
    found = report(*draw(1))
    assert [row.intervention for row in found.by_intervention] == ["payment_retry", "fee_waiver"]
    for name in ("visitors", "holdout", "acted_on"):
        parts = sum(getattr(row, name) for row in found.by_intervention)
        assert parts == getattr(found.all_visitors, name)
    total = found.all_visitors
    assert total.total.value == pytest.approx(total.from_holdout.value * total.visitors)


def test_the_two_disagree_where_the_journal_is_wrong() -> None:
    """Propensities that are not those of the draw: the check must not pass them by."""
    decisions, outcomes = draw(2, visitors=12_000, gain=10.0)
    helped = outcomes.with_columns(
        net_value_micros=pl.col("net_value_micros")
        + pl.when(pl.col("decision") % 14 == 0).then(60_000_000).otherwise(0)
    )
    swayed = decisions.with_columns(
        propensities=pl.when((pl.col("id") // 2 % 7 == 0) & (pl.col("slice") == "policy"))
        .then(pl.lit([0.1, 0.1, 0.8]))
        .otherwise("propensities")
    )
    assert report(decisions, helped).all_visitors.agree
    assert report(swayed, helped).all_visitors.agree is False


def test_a_period_and_what_has_not_matured_are_left_out() -> None:
    decisions, outcomes = draw(3, visitors=500)
    moment = dt.datetime(1970, 1, 1, 0, 2, tzinfo=dt.UTC)
    found = decision_windows(decisions, outcomes, since=moment)
    assert found.visitors["visitor"].cast(pl.Int64).min() == 120
    assert decision_windows(decisions, outcomes, until=moment).visitors.height == 120
    known = decision_windows(decisions, outcomes.head(400))
    assert (known.visitors.height, known.waiting) == (400, 100)
    assert report(decisions, outcomes.head(400)).waiting == 100


def test_what_is_not_executed_or_of_two_horizons_is_refused_in_words() -> None:
    decisions, outcomes = draw(4, visitors=100)
    with pytest.raises(SchemaError, match="executed"):
        report(decisions.with_columns(executed=False), outcomes)
    mixed = outcomes.with_columns(horizon_s=3600 + pl.col("decision") % 4)
    with pytest.raises(SchemaError, match="one horizon"):
        report(decisions, mixed)
    with pytest.raises(SchemaError, match="revision"):
        report(decisions, outcomes.drop("revision"))
    with pytest.raises(SchemaError, match="propensity for each option"):
        report(decisions.with_columns(propensities=pl.lit([0.5, 0.5])), outcomes)
    few = report(*(frame.head(40) for frame in (decisions, outcomes)))
    assert few.all_visitors.agree is None
    assert "30 on each side are needed" in str(few.all_visitors.refused)


def test_an_act_outside_the_window_does_not_count_and_the_newest_revision_does() -> None:
    decisions, outcomes = draw(5, visitors=50)
    late = decisions.with_columns(
        ts=pl.when(pl.col("id") % 2 == 1).then(pl.col("ts") + 2 * DAY_US).otherwise("ts")
    )
    assert decision_windows(late, outcomes).decisions["number"].max() == 1
    revised = outcomes.with_columns(revision=1, net_value_micros=0, later_cost_micros=0)
    found = decision_windows(decisions, pl.concat([outcomes, revised.cast(outcomes.schema)]))
    assert found.visitors["value"].abs().max() == 0


def test_chances_of_all_acts_count_and_a_decision_told_twice_counts_once() -> None:
    decisions, outcomes = draw(8, visitors=50)
    several = decisions.with_columns(
        options=pl.lit(["never", "act:fee_waiver", "act:payment_retry"]),
        propensities=pl.lit([0.5, 0.2, 0.3]),
    )
    found = decision_windows(pl.concat([several, several]), outcomes)
    assert found.decisions["act_chance"].to_list() == pytest.approx([0.5] * 100)
    assert found.decisions["number"].max() == 2
    never = found.visitors.filter(pl.col("acts") == 0)
    assert never["never_weight"].to_list() == pytest.approx([4.0] * never.height)
    second = found.decisions.filter(pl.col("number") == 2).join(
        found.decisions.filter(pl.col("number") == 1), on="visitor"
    )
    assert second["weight_before"].to_list() == [0.0 if act else 2.0 for act in second["act_right"]]


def journalled(folder: Path) -> Decided:
    decisions, outcomes = draw(6, visitors=600)
    whole = pl.DataFrame(schema=DECISION_SCHEMA), pl.DataFrame(schema=OUTCOME_SCHEMA)
    made = pl.concat([whole[0], decisions.cast({"ts": DECISION_SCHEMA["ts"]})], how="diagonal")
    came = pl.concat([whole[1], outcomes.cast({"horizon_s": pl.Int64(), "revision": pl.Int64()})],
        how="diagonal")  # fmt: skip
    with SqliteJournal(folder / "shop.db") as journal, journal.transaction() as transaction:
        transaction.append("decisions", made)
        transaction.append("outcomes", came)
    return Decided(made, came, folder)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decided = journalled(tmp_path)
    figure = tmp_path / "lift.svg"
    command = ["recoup", "evaluate", "lift", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*command, "--json", "--plot", str(figure)])
    with pytest.raises(SystemExit):
        main()
    told = json.loads(capsys.readouterr().out)
    found = report(decided.decisions, decided.outcomes)
    assert told["all_visitors"]["from_holdout"]["value"] == found.all_visitors.from_holdout.value
    assert figure.stat().st_size > 5_000
    period = ["--from", "1970-01-01T00:02:00", "--until", "1970-01-01T00:07:00"]
    monkeypatch.setattr("sys.argv", [*command, *period, "--json"])
    with pytest.raises(SystemExit):
        main()
    some = json.loads(capsys.readouterr().out)["all_visitors"]
    assert some["visitors"] + some["holdout"] == 300
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        main()
    assert "payment" in capsys.readouterr().out
    (tmp_path / "second.db").touch()
    monkeypatch.setattr("sys.argv", [*command, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "2 journals" in json.loads(capsys.readouterr().out)["error"]


def test_tables_are_read_as_a_journal_is(tmp_path: Path) -> None:
    decided = journalled(tmp_path)
    (tmp_path / "tables").mkdir()
    write_decided(decided, tmp_path / "tables")
    again = read_decided(tmp_path / "tables")
    assert again.decisions.equals(decided.decisions)
    assert again.outcomes.equals(read_decided(tmp_path / "shop.db").outcomes)


def test_a_figure_with_refusals_is_drawn(tmp_path: Path) -> None:
    found: LiftReport = report(*(frame.head(40) for frame in draw(7, visitors=100)))
    plot(found, tmp_path / "lift.png")
    assert (tmp_path / "lift.png").stat().st_size > 1_000


def test_remedies_are_the_catalogues() -> None:
    for each in INTERVENTIONS:
        for reason in each.reasons:
            assert windows.remedy_of(reason) in {one.id for one in INTERVENTIONS}


@pytest.mark.slow
def test_in_the_simulated_shop_both_agree_with_each_other_and_with_the_truth() -> None:
    truth = study.true_lift([study.lifts(study.logged(150_000, study.LAW_SEED))])
    reports = [report(*study.journal_of(study.logged(12_000, s), s)) for s in range(40)]
    lines = {line["remedy"]: line for line in study.judge(reports, truth)}
    for remedy in ("all", "coupon", "error_recovery"):
        line = lines[remedy]
        for name in ("from_holdout", "from_propensities"):
            assert line[name]["passes"], line
            assert abs(line[name]["bias_in_errors"]) < 3, line
        assert study.passes(round(line["agree"] * line["answered"]), line["answered"])
