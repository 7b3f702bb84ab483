"""Does a category's own cycle tell more than the shop's? Forward in time, on a log of orders.

Run it by hand: ``python -m benchmarks.cycles_study LOG DAY [DAYS]``, such as ``completejourney
2017-10-01 28``. Prints a line of JSON: of customers who have bought a category before that day, who
buys it again within so many days; the log loss of the category's law, and of the shop's law on the
same customers' orders of the category; and of the gaps that began in the two weeks before, and
could be seen to end, how many ended by ``latest``, which promises nine in ten of those who come
back, and how many the laws let expect.
"""

import datetime as dt
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl

from recoup.friction.cycles import days_of_categories, fit_cycles, orders_in, overdue_in
from recoup.friction.evaluation import log_loss
from recoup.friction.gaps import OVERDUE_QUANTILE, GapModel, fit_gaps
from recoup.friction.orders import collect_purchases, orders_of
from recoup.runners.backfill import admitted
from recoup.sources import open_source

RECENT_DAYS = 14


def main(log: Path, at: int, horizon: int) -> None:
    """Fit to what lies before a day, and look at what came."""
    purchases = collect_purchases(admitted(open_source(log)))
    cycles, shop = fit_cycles(purchases, at), fit_gaps(orders_of(purchases), at)
    every = days_of_categories(purchases, int(purchases["ts"].max()) // 86_400_000_000 + 1)  # type: ignore[arg-type]
    before = every.filter(pl.col("day") < at)
    bought, own, shops = [], [], []
    for category, law in cycles.items():
        orders = orders_in(before, category)
        known = orders.histories(at)
        came = orders_in(every, category).buyers(at, at + horizon)
        bought.append(np.isin(orders.customers, came))
        own.append(law.p_purchase(known, horizon))
        shops.append(shop.p_purchase(known, horizon))
    happened = np.concatenate(bought)
    told = {
        "categories": len(cycles),
        "customers_in_categories": len(happened),
        "bought": float(happened.mean()),
        "expected": float(np.concatenate(own).mean()),
        "log_loss": log_loss(happened, np.concatenate(own)),
        "log_loss_of_shop": log_loss(happened, np.concatenate(shops)),
        **_ended(every, overdue_in(purchases, cycles, at), cycles, at),
    }
    print(json.dumps(told))


def _ended(
    every: pl.DataFrame, waits: pl.DataFrame, cycles: dict[str, GapModel], at: int
) -> dict[str, float]:
    """Give the share of recent gaps that ended by ``latest``, of those seen for so long."""
    seen_days = int(every["day"].max()) - at  # type: ignore[arg-type]
    next_day = every.filter(pl.col("day") >= at).group_by("customer", "category").agg(
        next=pl.col("day").min() - at
    )  # fmt: skip
    recent = waits.filter(pl.col("elapsed") <= RECENT_DAYS, pl.col("latest") <= seen_days)
    joined = recent.join(next_day, on=["customer", "category"], how="left")
    gap = pl.col("elapsed") + pl.col("next").fill_null(10**6)
    lapse = pl.col("category").replace_strict({name: law.lapse for name, law in cycles.items()})
    told = joined.select(
        ended_by_latest=(gap <= pl.col("latest")).mean(),
        expected_by_latest=OVERDUE_QUANTILE * (1.0 - lapse.mean()),
    )
    return told.row(0, named=True)


if __name__ == "__main__":
    day = (dt.date.fromisoformat(sys.argv[2]) - dt.date(1970, 1, 1)).days
    main(Path(sys.argv[1]), day, int(sys.argv[3]) if len(sys.argv) > 3 else 28)
