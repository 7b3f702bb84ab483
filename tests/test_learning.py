"""The learning report: an honest proposal, its gate, the page and the command."""

import datetime as dt
import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from recoup.causal import learning, lift, windows
from recoup.causal.estimate import Estimate
from recoup.causal.learning import gate, learning_report, timed_journeys
from recoup.causal.windows import decision_windows
from recoup.cli import main
from recoup.errors import ConfigError
from recoup.report import learning as page
from recoup.runners import learning as runner
from recoup.runners.decided import Decided, write_decided

Frames = tuple[pl.DataFrame, pl.DataFrame]


def draw(seed: int, visitors: int = 4_000, gains: tuple[float, float] = (4.0, -3.0)) -> Frames:
    """Up to two decisions a visitor, an act at half of them; the first act has its effect.

    Half of the visitors have K5 (payment retry), half C2 (fee waiver); ``gains`` are what an act
    is worth to each. So the policy "act for the first alone" gains 0.125 g1 - 0.375 g2 a visitor.
    """
    rng = np.random.default_rng(seed)
    held = rng.random(visitors) < 0.2
    acts = rng.random((visitors, 2)) < 0.5
    acts[held] = False
    kind = np.arange(visitors) % 2
    value = rng.exponential(5, visitors) + np.array(gains)[kind] * acts.any(axis=1)
    first = np.repeat(np.arange(visitors), 2)
    number = np.tile([0, 1], visitors)
    keep = (number == 0) | ~acts[first, 0]
    first, number = first[keep], number[keep]
    label = np.array(["act:payment_retry", "act:fee_waiver"])[kind[first]]
    acted, alone = acts[first, number], held[first]
    decisions = pl.DataFrame(
        {
            "id": first * 2 + number,
            "ts": pl.Series(first * 1_000_000 + number * 90_000_000).cast(pl.Datetime("us", "UTC")),
            "visitor": first.astype(str),
            "slice": np.where(alone, "holdout", "policy"),
            "action": np.where(acted, label, "wait:30"),
            "options": [
                ["never"] if h else ["never", "wait:30", a]
                for h, a in zip(alone, label, strict=True)
            ],
            "propensities": [[1.0] if h else [0.1, 0.4, 0.5] for h in alone],
            "intent": rng.random(visitors)[first],
            "reason": np.array(["K5", "C2"])[kind[first]],
            "policy": "p1",
            "executed": True,
        }
    )
    outcomes = pl.DataFrame(
        {
            "decision": np.arange(visitors) * 2,
            "horizon_s": 3600,
            "net_value_micros": np.round(value * 1e6).astype(np.int64),
            "revision": 0,
            "later_cost_micros": 0,
        }
    )
    return decisions, outcomes


def test_a_better_rule_is_found_its_gain_is_honest_and_the_gate_passes() -> None:
    truth = 0.125 * 4.0 + 0.375 * 3.0
    held = 0
    for seed in range(8):
        found = learning_report(*draw(seed)).proposal
        assert found is not None
        acting = {row.remedy for row in found.rule if row.act}
        assert acting == {"payment_retry"}
        assert found.gate.passes
        held += found.gain.low <= truth <= found.gain.high
    assert held >= 6


def test_where_acting_changes_nothing_the_gate_stays_shut() -> None:
    passed, chosen = 0, []
    for seed in range(12):
        found = learning_report(*draw(seed, visitors=1_500, gains=(0.0, 0.0))).proposal
        assert found is not None
        passed += found.gate.passes
        chosen.append(found.chosen_on.value)
    assert passed <= 2
    assert np.mean(chosen) > 0.1  # on the half where it won, it looks better than it is


def test_regret_and_its_parts_are_those_of_the_held_out_half() -> None:
    found = learning_report(*draw(1))
    assert found.delay is not None
    assert found.proposal is not None
    regret = found.delay.regret
    parts = (regret.early, regret.late, regret.missed, regret.unnecessary)
    assert sum(part.value for part in parts) == pytest.approx(regret.value)
    assert found.proposal.gain.value == regret.value
    assert found.proposal.lower_bound == regret.low
    assert regret.unnecessary.low > 0  # a fee waived without need costs 3
    assert found.proposal.visitors == pytest.approx(1_600, rel=0.1)


def test_journeys_end_with_the_first_act_and_leave_the_holdout_out() -> None:
    made = decision_windows(*draw(2, visitors=1_000))
    timed = timed_journeys(made)
    treated = made.visitors.filter(~pl.col("holdout"))
    assert len(timed.journeys.outcome) == treated.height
    acted = timed.journeys.act_at < timed.journeys.points
    assert acted.sum() == (treated["acts"] > 0).sum()
    assert timed.elapsed_s == [0.0, 90.0]
    assert set(timed.journeys.states) == {
        f"{remedy} | {level}"
        for remedy in ("payment_retry", "fee_waiver")
        for level in learning.LEVELS
    }


def lift_that(*, agree: bool | None) -> lift.LiftReport:
    found = lift.lift_report(*draw(3, visitors=400))
    row = msgspec.structs.replace(found.all_visitors, agree=agree)
    return msgspec.structs.replace(found, all_visitors=row)


def test_the_gate_says_why() -> None:
    sure, unsure = Estimate(1.0, 0.4, 1.6, 0.3), Estimate(1.0, -0.4, 2.4, 0.7)
    assert gate(sure, None, lift_that(agree=True)).passes
    assert gate(sure, None, lift_that(agree=None)).passes
    for found, word in (
        (gate(unsure, None, lift_that(agree=True)), "lower bound"),
        (gate(sure, "the effective sample size is 3.0, under 30", lift_that(agree=True)), "cannot"),
        (gate(sure, None, lift_that(agree=False)), "disagree"),
        (gate(Estimate(*[float("nan")] * 4), None, lift_that(agree=True)), "lower bound"),
    ):
        assert not found.passes
        assert word in found.reasons[0]


def test_a_log_that_cannot_answer_is_told_and_proposes_nothing(tmp_path: Path) -> None:
    few = learning_report(*draw(4, visitors=300))
    assert few.proposal is None
    assert "400 are needed" in str(few.silent)
    decisions, outcomes = draw(5)
    never = decisions.with_columns(action=pl.lit("never"))
    alone = learning_report(never, outcomes)
    assert "all of them, or none" in str(alone.silent)
    runner.write_proposal(few, tmp_path / "proposal.json", source="shop")
    told = json.loads((tmp_path / "proposal.json").read_text())
    assert told["rule"] is None
    assert told["gate"] == {"passes": False, "reasons": [few.silent]}
    for write in (page.learning_html, page.learning_markdown):
        assert str(few.silent) in write(few, source="shop")


def test_a_miss_is_told_by_type_of_defect() -> None:
    decisions, outcomes = draw(8, visitors=20_000)
    place = pl.when(pl.col("id") % 4 < 2).then(pl.lit(":payment_method=card")).otherwise(pl.lit(""))
    rare = pl.when(pl.col("id") < 40).then(pl.lit("S1")).otherwise("reason")
    found = learning_report(decisions.with_columns(reason=rare + place), outcomes)
    assert found.delay is not None
    misses = found.delay.miss_cost_by_label["reason"]
    first = {each.label: each for each in misses if each.time == 1}
    assert first.keys() == {"K5", "C2", learning.OTHER}
    assert first["K5"].low < 4 < first["K5"].high
    assert first["C2"].low < -3 < first["C2"].high
    text = page.learning_markdown(found, source="shop")
    assert first[learning.OTHER].refused is not None
    assert "| any other reason |" not in text
    assert text.index("| Payment declined | ") < text.index("| Fee shock | ")
    assert "Missing costs" in page.learning_html(found, source="shop")


def test_the_page_is_one_file_and_escapes_what_strangers_wrote() -> None:
    decisions, outcomes = draw(6)
    swapped = decisions.with_columns(
        reason=pl.when(pl.col("id") == 0).then(pl.lit("<script>alert(1)</script>"))
        .otherwise("reason")
    )  # fmt: skip
    found = learning_report(swapped, outcomes)
    text = page.learning_html(found, source="<b>shop</b>")
    assert "<script" not in text
    assert "&lt;b&gt;shop" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text.count("<svg") == 2
    assert text == page.learning_html(found, source="<b>shop</b>")
    assert "Try this on a share of the visitors" in text
    assert "acted without need" in page.learning_markdown(found, source="shop")


def test_the_words_say_what_was_found() -> None:
    found = learning_report(*draw(1))
    assert found.proposal is not None
    acts = {"likely": (True, True), "unlikely": (False, True)}
    rule = [
        learning.RuleRow(decision=at + 1, remedy=remedy, intent=level, act=act and level in levels)
        for remedy, levels in (("payment_retry", learning.LEVELS), ("fee_waiver", ()))
        for level in learning.LEVELS
        for at, act in enumerate(acts[level])
    ]
    told = page.rule_words(msgspec.structs.replace(found.proposal, rule=rule))
    assert [(row.likely, row.unlikely) for row in told] == [
        ("act at once", "act from decision 2 on"),
        ("leave alone", "leave alone"),
    ]
    assert "Most is lost where the policy acted without need" in " ".join(page.headline(found))
    row = found.lift.all_visitors
    for ends, words in (((-1, 3), "may be chance"), ((1, 3), "a gain"), ((-3, -1), "a loss")):
        estimate = Estimate(sum(ends) / 2, *ends, 1.0)
        lifted = msgspec.structs.replace(row, from_holdout=estimate)
        whole = msgspec.structs.replace(found.lift, all_visitors=lifted)
        assert words in " ".join(page.headline(msgspec.structs.replace(found, lift=whole)))


def test_periods_are_read() -> None:
    decisions, _ = draw(7, visitors=100)
    latest = decisions["ts"].max()
    assert isinstance(latest, dt.datetime)
    period = runner.Period(last=runner.parse_length("2m")).within(decisions)
    assert period.since == latest - dt.timedelta(minutes=2)
    with pytest.raises(ConfigError, match="both"):
        runner.Period(since=latest, last=dt.timedelta(days=1)).within(decisions)
    for text in ("7", "d", "0d", "7 days", "-1d"):
        with pytest.raises(ConfigError, match="--last"):
            runner.parse_length(text)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_decided(Decided(*draw(8), tmp_path), tmp_path)
    files = [tmp_path / name for name in ("report.html", "proposal.json")]
    command = ["recoup", "learn", "report", str(tmp_path), "--last", "1d"]
    options = ["--out", str(files[0]), "--proposal", str(files[1])]
    monkeypatch.setattr("sys.argv", [*command, *options, "--json"])
    with pytest.raises(SystemExit):
        main()
    told = json.loads(capsys.readouterr().out)
    proposal = json.loads(files[1].read_text())
    assert proposal["lower_bound"] == told["proposal"]["lower_bound"]
    assert proposal["gate"]["passes"]
    ended = proposal["made_from"]["until"]
    monkeypatch.setattr("sys.argv", ["recoup", "learn", "check", str(files[1]), "--at", ended])
    with pytest.raises(SystemExit) as gate:
        main()
    assert (gate.value.code or 0, capsys.readouterr().out[:7]) == (0, "Passes.")
    assert files[0].read_text().startswith("<!DOCTYPE html>")
    monkeypatch.setattr("sys.argv", [*command[:-1], "2m", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert "400 are needed" in json.loads(capsys.readouterr().out)["silent"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        main()
    assert "best rule of" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*command, "--out", "report.pdf", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert ".html" in json.loads(capsys.readouterr().out)["error"]


def test_the_demo_does_not_write_into_another_journals_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop.db").touch()
    monkeypatch.setattr("sys.argv", ["recoup", "demo", "--out", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "without a journal" in json.loads(capsys.readouterr().out)["error"]


def test_states_stay_few() -> None:
    decisions, outcomes = draw(9, visitors=3_000)
    reasons = ["K5", "C2", "D1", "S1", "K8", "D2", "C1"]
    many = decisions.with_columns(
        reason=pl.Series(reasons).gather(decisions["id"].to_numpy() // 2 % len(reasons))
    )
    log = timed_journeys(decision_windows(many, outcomes)).journeys
    assert {str(state).split(" | ")[0] for state in log.states} >= {learning.OTHER}
    assert len(log.states) <= 2 * (learning.MOST_REMEDIES + 1)
    assert len(learning.candidate_rules(log)) == 1 + 2 * 15 * 3  # starts, sets of remedies, halves
    assert windows.SEVERAL not in log.states


def test_likely_are_those_of_intent_from_the_median_on() -> None:
    decisions, outcomes = draw(10, visitors=1_000)
    keen = pl.col("visitor").cast(pl.Int64) % 5 < 3
    told = decisions.with_columns(intent=pl.when(keen).then(0.9).otherwise(0.1))
    timed = timed_journeys(decision_windows(told, outcomes))
    assert timed.intent_split == 0.9
    likely = [str(state).endswith("| likely") for state in timed.journeys.states]
    assert np.array(likely)[timed.journeys.state[:, 0]].mean() == pytest.approx(0.6, abs=0.03)


def test_rare_remedies_share_a_state_and_sure_decisions_are_not_open() -> None:
    decisions, outcomes = draw(11, visitors=1_000)
    rare = pl.col("visitor").cast(pl.Int64) < 100
    told = decisions.with_columns(reason=pl.when(rare).then(pl.lit("S1")).otherwise("reason"))
    timed = timed_journeys(decision_windows(told, outcomes))
    assert {str(state).split(" | ")[0] for state in timed.journeys.states} == {
        "payment_retry", "fee_waiver", learning.OTHER,
    }  # fmt: skip
    waits = (pl.col("action") == "wait:30") & (pl.col("slice") == "policy")
    left = pl.col("id") == decisions.filter(waits)["id"][0]
    sure = decisions.with_columns(
        propensities=pl.when(left).then(pl.lit([0.5, 0.5, 0.0])).otherwise("propensities")
    )
    open_before = timed.journeys.is_open.sum()
    assert timed_journeys(decision_windows(sure, outcomes)).journeys.is_open.sum() < open_before


def test_later_decisions_are_the_policys_own() -> None:
    decisions, outcomes = draw(12, visitors=1_000)
    idle = decisions.filter((pl.col("id") % 2 == 1) & (pl.col("action") == "wait:30"))
    more = [
        idle.with_columns(pl.col("id") + 10_000 * k, pl.col("ts") + dt.timedelta(seconds=90 * k))
        for k in range(1, 6)
    ]
    windows_of = decision_windows(pl.concat([decisions, *more]), outcomes)
    assert windows_of.decisions["number"].max() == 7
    journeys = timed_journeys(windows_of).journeys
    assert journeys.points == learning.MOST_POINTS
    # No act from the third on, so that rules begin with the first or the second: 2 * 3 * 3.
    assert len(learning.candidate_rules(journeys)) == 1 + 18


def test_what_was_decided_is_that_of_the_period() -> None:
    decisions, outcomes = draw(13)
    since, until = (dt.datetime(1970, 1, 1, 0, m, tzinfo=dt.UTC) for m in (10, 40))
    idle = decisions.with_columns(executed=False, id=pl.col("id") + 1_000_000)
    made = learning_report(pl.concat([decisions, idle]), outcomes, since=since, until=until).made
    inside = decisions.filter(pl.col("ts").is_between(since, until, closed="left"))
    assert made.decisions == inside.height
    assert (made.since, made.until) == (inside["ts"].min(), inside["ts"].max())


def test_a_length_ends_where_the_period_does() -> None:
    decisions, _ = draw(14, visitors=100)
    until = dt.datetime(1970, 1, 1, 0, 1, tzinfo=dt.UTC)
    period = runner.Period(until=until, last=dt.timedelta(seconds=20)).within(decisions)
    assert period == runner.Period(until - dt.timedelta(seconds=20), until)


def test_a_log_in_which_everybody_was_acted_on_is_silent() -> None:
    decisions, outcomes = draw(15)
    policy = pl.col("slice") == "policy"
    always = decisions.with_columns(
        action=pl.when(policy).then(pl.lit("act:fee_waiver")).otherwise("action")
    )
    assert "all of them, or none" in str(learning_report(always, outcomes).silent)


def test_decisions_with_too_few_acts_are_said_and_not_drawn() -> None:
    found = learning_report(*draw(1))
    assert found.delay is not None
    *rest, last = found.delay.diagnostics
    thin = msgspec.structs.replace(
        found.delay, diagnostics=[*rest, msgspec.structs.replace(last, refused="too few")]
    )
    assert len(page.supported(thin).value_against_delay) == len(rest)
    assert page.supported(found.delay) == found.delay
    told = page.learning_html(msgspec.structs.replace(found, delay=thin), source="shop")
    assert "too few to say" in told
