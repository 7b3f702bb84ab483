"""A visitor's window: from the first decision that was due to the horizon, and what was done in it.

That first moment is defined alike for those who are acted on and for the permanent holdout, and
before anything was done; what the visitor was worth from then on is the outcome of that decision,
less what later acts in the window cost.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Final

import msgspec
import polars as pl

from recoup.causal.holdout import HOLDOUT
from recoup.causal.tables import require_columns
from recoup.decisions import DECISION_SCHEMA, OUTCOME_SCHEMA
from recoup.errors import SchemaError
from recoup.events import MICROS
from recoup.interventions import INTERVENTIONS
from recoup.interventions.catalogue import UNEXPLAINED

SEVERAL: Final = "several"
"""Remedy of a loss that no signal explains: whatever fits the stage."""

_ACT: Final = "act:"


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of a period, whose outcome is known.

    Parameters
    ----------
    visitors
        One row a visitor: ``visitor``, ``id``, ``ts``, ``slice``, ``reason``, ``intent`` and
        ``remedy`` of the first due decision; ``holdout``; ``value``, net of every act in the
        window, in currency units; ``acts``, how many reached them; ``first_none_chance`` = P(no act
        at the first decision); ``never_weight``, which is 1 / P(no act in the window) where there
        was none, else 0.
    decisions
        One row a decision in a window: ``visitor``, ``number`` (from 1, in order of time), ``ts``,
        ``elapsed_s`` since the first, ``reason``, ``remedy``, ``intent``, ``action``, ``act``,
        ``act_chance`` = P(some act); ``weight_before``, which is 1 / P(no act before it) where
        there was none, else 0.
    waiting
        Visitors whose window has not matured: not among the rows.
    horizon_s
        Length of a window, in seconds.
    """

    visitors: pl.DataFrame
    decisions: pl.DataFrame
    waiting: int
    horizon_s: int

    def of(self, chosen: pl.Expr) -> "Windows":
        """Give the windows of some visitors."""
        visitors = self.visitors.filter(chosen)
        own = self.decisions.join(visitors, on="visitor", how="semi", maintain_order="left")
        return msgspec.structs.replace(self, visitors=visitors, decisions=own)


def decision_windows(
    decisions: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> Windows:
    """Find the windows that begin in a half-open period, from a journal's decisions and outcomes.

    Parameters
    ----------
    decisions, outcomes
        Frames of ``DECISION_SCHEMA`` and ``OUTCOME_SCHEMA`` (their other columns are not read);
        decisions that were not executed are left out.

    Raises
    ------
    SchemaError
        If a column is missing, no decision was executed, options and propensities do not pair, or
        outcomes have several horizons.

    Examples
    --------
    >>> made = pl.DataFrame(
    ...     {
    ...         "id": [1, 2],
    ...         "ts": [0, 60_000_000],
    ...         "visitor": "v",
    ...         "slice": "policy",
    ...         "action": ["wait:30", "act:payment_retry"],
    ...         "options": [["never", "wait:30", "act:payment_retry"]] * 2,
    ...         "propensities": [[0.1, 0.5, 0.4]] * 2,
    ...         "intent": 0.3,
    ...         "reason": "K5",
    ...         "executed": True,
    ...     }
    ... )
    >>> came = pl.DataFrame(
    ...     {
    ...         "decision": [1],
    ...         "horizon_s": 3600,
    ...         "net_value_micros": 40_000_000,
    ...         "revision": 0,
    ...         "later_cost_micros": 500_000,
    ...     }
    ... )
    >>> found = decision_windows(made, came)
    >>> found.visitors["value"].item(), found.decisions["act_chance"].to_list()
    (39.5, [0.4, 0.4])
    """
    require_columns(decisions, DECISIONS_READ, nested=True)
    _require_columns(outcomes, OUTCOMES_READ)
    executed = decisions.filter("executed").select(DECISIONS_READ)
    if executed.is_empty():
        raise SchemaError(
            "Expected decisions that were executed, got none",
            hint="a log of the past is decided on without executing: it has no lift to report",
        )
    if (executed["options"].list.len() != executed["propensities"].list.len()).any():
        raise SchemaError("Expected a propensity for each option, got lists of unequal length")
    executed = executed.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    executed = executed.unique("id", keep="first").sort("ts", "id")
    firsts = _within(executed.unique("visitor", keep="first", maintain_order=True), since, until)
    newest = outcomes.sort("revision").unique("decision", keep="last")
    horizon = _horizon(newest)
    known = firsts.join(newest, left_on="id", right_on="decision").sort("ts", "id")
    own = _own_decisions(executed, known, horizon)
    return Windows(
        visitors=_visitors(known, own),
        decisions=own,
        waiting=firsts.height - known.height,
        horizon_s=horizon,
    )


DECISIONS_READ: Final = (
    "id", "ts", "visitor", "slice", "action", "options", "propensities", "intent", "reason",
    "executed",
)  # fmt: skip
OUTCOMES_READ: Final = (
    "decision", "horizon_s", "net_value_micros", "revision", "later_cost_micros",
)  # fmt: skip
assert set(DECISIONS_READ) <= set(DECISION_SCHEMA)  # noqa: S101
assert set(OUTCOMES_READ) <= set(OUTCOME_SCHEMA)  # noqa: S101


def remedy_of(reason: str) -> str:
    """Give the intervention that a reason calls for first, by the catalogue.

    Examples
    --------
    >>> remedy_of("K5"), remedy_of("unexplained_drop")
    ('payment_retry', 'several')
    """
    return REMEDIES.get(reason, GENERAL)


def _remedies() -> Mapping[str, str]:
    found = {UNEXPLAINED: SEVERAL}
    for each in INTERVENTIONS:
        for reason in each.reasons:
            found.setdefault(reason, each.id)
    return found


REMEDIES: Final = _remedies()
GENERAL: Final = next(each.id for each in INTERVENTIONS if each.general)
"""What fits where nothing more specific does."""


def _require_columns(outcomes: pl.DataFrame, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in outcomes.columns]
    if missing:
        raise SchemaError(f"Expected columns {missing} of outcomes, got {outcomes.columns}")


def _within(
    firsts: pl.DataFrame, since: dt.datetime | None, until: dt.datetime | None
) -> pl.DataFrame:
    if since is not None:
        firsts = firsts.filter(pl.col("ts") >= since)
    return firsts if until is None else firsts.filter(pl.col("ts") < until)


def _horizon(outcomes: pl.DataFrame) -> int:
    lengths = outcomes["horizon_s"].unique().to_list()
    if len(lengths) > 1:
        raise SchemaError(
            f"Expected outcomes of one horizon, got {sorted(lengths)} seconds",
            hint="report each period with its own horizon: --from, --until",
        )
    return int(lengths[0]) if lengths else 0


def _own_decisions(executed: pl.DataFrame, known: pl.DataFrame, horizon_s: int) -> pl.DataFrame:
    """Give the decisions of each window, numbered, with the chance that some act was taken."""
    begins = known.select("visitor", begin="ts")
    elapsed = (pl.col("ts") - pl.col("begin")).dt.total_microseconds()
    own = executed.join(begins, on="visitor").with_columns(elapsed=elapsed)
    own = own.filter(pl.col("elapsed") <= horizon_s * MICROS).sort("visitor", "ts", "id")
    chances = (
        own.select("id", "options", "propensities")
        .explode("options", "propensities")
        .group_by("id")
        .agg(
            act_chance=pl.col("propensities").filter(pl.col("options").str.starts_with(_ACT)).sum()
        )
    )
    joined = own.join(chances, on="id", how="left", maintain_order="left")
    return joined.select(
        "visitor",
        pl.int_range(1, pl.len() + 1).over("visitor").alias("number"),
        "ts",
        (pl.col("elapsed") / MICROS).alias("elapsed_s"),
        "reason",
        _remedy(),
        "intent",
        "action",
        pl.col("action").str.starts_with(_ACT).alias("act"),
        pl.col("act_chance").clip(0.0, 1.0),
    ).with_columns(_weight_before())


def _weight_before() -> pl.Expr:
    stays = (1.0 - pl.col("act").cast(pl.Float64)) / (1.0 - pl.col("act_chance")).clip(1e-12)
    weight = stays.cum_prod().over("visitor")
    return weight.shift(1, fill_value=1.0).over("visitor").alias("weight_before")


def _remedy() -> pl.Expr:
    return pl.col("reason").replace_strict(REMEDIES, default=GENERAL).alias("remedy")


def _visitors(known: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    by_visitor = own.group_by("visitor").agg(
        pl.col("act").sum().cast(pl.Int64).alias("acts"),
        (1.0 - pl.col("act_chance")).product().alias("none_chance"),
        (1.0 - pl.col("act_chance").first()).alias("first_none_chance"),
    )
    never = pl.when(pl.col("acts") == 0).then(1.0 / pl.col("none_chance")).otherwise(0.0)
    net = (pl.col("net_value_micros") - pl.col("later_cost_micros")) / MICROS
    return known.join(by_visitor, on="visitor", how="left", maintain_order="left").select(
        "visitor",
        "id",
        "ts",
        "slice",
        "reason",
        _remedy(),
        "intent",
        (pl.col("slice") == HOLDOUT).alias("holdout"),
        net.alias("value"),
        "acts",
        "first_none_chance",
        never.alias("never_weight"),
    )
