"""Decision logs and potential outcomes as frames."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import NEVER
from recoup.events import MICROS, TIMESTAMP
from recoup.friction.signals import SIGNALS
from recoup.simulator import layout as at
from recoup.simulator.decision_log import STATES
from recoup.simulator.frames import visitor_names
from recoup.simulator.names import NAMES
from recoup.simulator.potential import ACTIONS, ALONE, Potential, action_label
from recoup.simulator.sight import CARTED_DEPTH, CHECKOUT_DEPTH

Ints = NDArray[np.int64]

_SILENCES: Final = ("up to 30 s", "up to 2 min", "longer")
_STEPS: Final = ("browsing", "cart", "checkout")


def decision_frame(potential: Potential) -> pl.DataFrame:
    """Give the log: one row a journey and decision point, up to its act or its purchase.

    ``act`` is 1 where acted, ``propensity`` P(act) (0 where closed), ``action_propensity`` the
    probability of the logged choice, ``outcome`` the journey's net value. ``journey`` is the
    session, ``visitor`` what is independent. ``reason_at_entry`` is constant within a journey.
    """
    rows, points = np.nonzero(_told(potential))
    seen = potential.seen
    acted = potential.act_at[rows] == points
    action = np.where(acted, potential.action[rows], ALONE)
    chance = potential.propensity[rows, points]
    fitting = potential.eligible[rows, points].sum(axis=1)
    open_here = potential.is_open[rows, points]
    columns = {
        **_keys(potential, rows, points),
        "state": _words(STATES, seen.state[rows, points]),
        "reason": _words(_REASONS, seen.signal[rows, points]),
        "reason_at_entry": _words(_REASONS, seen.signal[rows, 0]),
        "step": _words(_STEPS, _step(seen.depth[rows, points])),
        "silence": _words(_SILENCES, np.digitize(seen.silent_s[rows, points], [30.0, 120.0])),
        "silent_s": seen.silent_s[rows, points],
        "cart_value": seen.cart_value[rows, points] / MICROS,
        **_circumstances(potential, rows),
        "available": open_here,
        "action": _labels(potential, points, action),
        "act": acted.astype(np.int64),
        "propensity": chance,
        "action_propensity": np.where(acted, chance / np.maximum(fitting, 1), 1 - chance),
        "outcome": potential.logged[rows],
        "executed": np.full(len(rows), potential.spec.executes),
    }
    return pl.DataFrame(columns)


def outcome_frame(potential: Potential) -> pl.DataFrame:
    """Give what could have come of each journey at each open point, one row an action.

    Open here is a point of the journey left alone; those after a logged act are among them.
    """
    rows, points = np.nonzero(potential.is_open)
    alone = np.full(len(rows), ALONE)
    fit_rows, fit_points, acts = np.nonzero(potential.eligible)
    return (
        pl.DataFrame(
            {
                name: np.concatenate([first, second])
                for name, first, second in (
                    ("row", rows, fit_rows),
                    ("point", points, fit_points),
                    ("code", alone, acts),
                    (
                        "outcome",
                        potential.never[rows],
                        potential.outcome[fit_rows, fit_points, acts],
                    ),
                    (
                        "expected_outcome",
                        potential.expected_never[rows, points],
                        potential.expected[fit_rows, fit_points, acts],
                    ),
                )
            }
        )
        .sort("row", "point", "code")
        .pipe(_named, potential)
    )


def _named(frame: pl.DataFrame, potential: Potential) -> pl.DataFrame:
    rows, points = frame["row"].to_numpy(), frame["point"].to_numpy()
    keys = _keys(potential, rows, points)
    return frame.select(
        keys["journey"],
        pl.lit(pl.Series("time", keys["time"])),
        _words((NEVER, *ACTIONS), frame["code"].to_numpy() + 1).alias("action"),
        "outcome",
        pl.col("expected_outcome").fill_nan(None),
    )


def logged_acts(potential: Potential) -> pl.DataFrame:
    """Give the acts of the log as rows that :meth:`recoup.simulator.Shop.step` carries out."""
    rows = np.flatnonzero(potential.action != ALONE)
    when = potential.entry_ts[rows] + 1
    when += np.array(potential.spec.times_s)[potential.act_at[rows]] * MICROS
    return pl.DataFrame(
        {
            "ts": pl.Series(when).cast(TIMESTAMP),
            "visitor": visitor_names(potential.visitor[rows]),
            "action": _words(ACTIONS, potential.action[rows]),
            "executed": np.full(len(rows), fill_value=True),
        }
    )


_REASONS: Final = ("none", *(signal.id for signal in SIGNALS))


def _told(potential: Potential) -> NDArray[np.bool_]:
    """Mark the points that a journey came to, up to its act. Shape (n, H)."""
    points = np.arange(potential.points)
    return np.asarray((potential.seen.state >= 0) & (points <= potential.act_at[:, None]))


def _keys(potential: Potential, rows: Ints, points: Ints) -> dict[str, pl.Series]:
    visitor = visitor_names(potential.visitor[rows])
    visit = pl.Series(potential.visit[rows]).cast(pl.String)
    time = np.array(potential.spec.times_s)[points]
    when = potential.entry_ts[rows] + 1 + time * MICROS
    return {
        "journey": (visitor + "." + visit).alias("journey"),
        "visitor": visitor.alias("visitor"),
        "ts": pl.Series("ts", when).cast(TIMESTAMP),
        "time": pl.Series("time", time),
    }


def _circumstances(potential: Potential, rows: Ints) -> dict[str, pl.Series]:
    columns = {"device": at.DEVICE, "channel": at.CHANNEL, "country": at.COUNTRY}
    return {
        name: _words(NAMES[name], potential.circumstances[rows, column] - 1)
        for name, column in columns.items()
    }


def _step(depth: Ints) -> Ints:
    return np.digitize(depth, [CARTED_DEPTH, CHECKOUT_DEPTH])


def _labels(potential: Potential, points: Ints, action: Ints) -> pl.Series:
    waits = [action_label(potential.spec, point, ALONE) for point in range(potential.points)]
    return _words((*waits, *ACTIONS), np.where(action == ALONE, points, potential.points + action))


def _words(words: tuple[str, ...], codes: Ints) -> pl.Series:
    return pl.Series(words).gather(codes)
