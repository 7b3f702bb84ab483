"""Repeat purchase: P(a customer buys again within a horizon), from the days on which they bought.

Boosted trees and a logistic regression over recency, frequency, gaps and spend, with what BG/NBD
and the gap model say among their inputs.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.friction.bg_nbd import BgNbd, Histories
from recoup.friction.gaps import GapModel, Overdue, overdue
from recoup.friction.intent import blend
from recoup.friction.orders import Orders
from recoup.models.linear import LinearModel, linear_rows
from recoup.models.packing import digest, pack, unpack
from recoup.models.trees import TreeEnsemble

Floats = NDArray[np.float64]

KIND: Final = "repeat/1"

WINDOWS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Windows in which a customer's orders are counted, in horizons."""

_CLIP: Final = 1e-6


class Laws(msgspec.Struct, frozen=True):
    """The two laws whose answers are inputs, the horizon in days, and the cycles of categories."""

    bg_nbd: BgNbd
    gaps: GapModel
    horizon_days: int
    cycles: dict[str, GapModel] = {}


class Learned(msgspec.Struct, frozen=True):
    """What was fitted to the inputs.

    Parameters
    ----------
    linear_share
        Weight of the linear log-odds.
    level
        Added to the log-odds: how much more customers buy of late than the inputs told.
    """

    trees: TreeEnsemble
    linear: LinearModel
    linear_share: float
    level: float = 0.0


class Predicted(msgspec.Struct, frozen=True):
    """P(at least one purchase within the horizon) of customers: shape (n,) each.

    Parameters
    ----------
    customer
        Keys of the customers who have bought before.
    ours, bg_nbd
        What our model says, and what BG/NBD says of the same customers.
    """

    customer: NDArray[np.int64]
    ours: Floats
    bg_nbd: Floats


class RepeatModel:
    """Repeat purchase within a horizon, and who is overdue.

    Parameters
    ----------
    laws
        BG/NBD, the gap model and the horizon.
    learned
        What was fitted to the inputs of :func:`inputs_at`.
    trained_until
        Days since 1970-01-01 UTC: nothing of that day or later was read.

    Examples
    --------
    >>> from recoup.friction.repeat_training import RepeatSettings, fit_repeat
    >>> rng = np.random.default_rng(1)
    >>> days = [np.unique(rng.gamma(1.5, 3 + c % 40, 90).cumsum().astype(int)) for c in range(300)]
    >>> customer = np.repeat(np.arange(300), [len(own) for own in days])
    >>> day = np.concatenate(days)
    >>> orders = Orders(customer, day, np.ones(len(day)), np.ones(len(day))).before(240)
    >>> model, _ = fit_repeat(orders, 240, RepeatSettings(rounds=(20,), seeds=(1,)))
    >>> said = model.predict(orders, 240)
    >>> model.laws.horizon_days, len(said.customer), bool(said.ours[1] > said.ours[39])
    (28, 299, True)
    """

    def __init__(self, laws: Laws, learned: Learned, trained_until: int) -> None:
        if learned.trees.n_features != len(NAMES):
            raise ModelError(
                f"Expected trees over {len(NAMES)} inputs, got {learned.trees.n_features}"
            )
        self.laws = laws
        self.learned = learned
        self.trained_until = trained_until

    def predict(self, orders: Orders, at: int, horizon_days: int | None = None) -> Predicted:
        """Say who buys within the horizon from the start of a day on.

        Parameters
        ----------
        at
            Days since 1970-01-01 UTC; orders of that day and later are not read.
        horizon_days
            Shorter than the model's: the expected number of orders is scaled as BG/NBD's own.
        """
        past = orders.before(at)
        inputs = inputs_at(past, at, self.laws)
        raw = blend(
            self.learned.trees.predict_raw(inputs),
            linear_rows(inputs, self.learned.linear),
            self.learned.linear_share,
        )
        ours = probability(raw + self.learned.level)
        known = past.histories(at)
        theirs = self.laws.bg_nbd.p_purchase(known, self.laws.horizon_days)
        if horizon_days is None or horizon_days >= self.laws.horizon_days:
            return Predicted(past.customers, ours, theirs)
        shorter = self.laws.bg_nbd.p_purchase(known, horizon_days)
        ratio = np.log1p(-_clip(shorter)) / np.log1p(-_clip(theirs))
        scaled = -np.expm1(ratio * np.log1p(-_clip(ours)))
        return Predicted(past.customers, scaled, shorter)

    def overdue(self, orders: Orders, at: int) -> Overdue:
        """Say who is overdue as of the start of a day, and by how much."""
        return overdue(orders, self.laws.gaps, at)

    def to_bytes(self) -> bytes:
        """Serialise; equal models give equal bytes."""
        meta: dict[str, object] = {
            "laws": msgspec.to_builtins(self.laws),
            "linear_share": self.learned.linear_share,
            "level": self.learned.level,
            "trained_until": self.trained_until,
            "names": list(NAMES),
            "trees": self.learned.trees.to_bytes(),
        }
        return pack(KIND, meta, self.learned.linear._asdict())

    @classmethod
    def from_bytes(cls, data: bytes) -> "RepeatModel":
        """Read what :meth:`to_bytes` gave.

        Raises
        ------
        ModelError
            If the bytes are no such artefact, or of another version.
        """
        meta, arrays = unpack(KIND, data)
        try:
            told = msgspec.convert(meta, _Meta)
            linear = LinearModel(*(arrays[name] for name in LinearModel._fields))  # type: ignore[arg-type]
        except (msgspec.ValidationError, KeyError) as error:
            raise ModelError(f"Expected a repeat model, got other content: {error}") from error
        if told.names != NAMES:
            raise ModelError(
                "Expected a model over the present inputs, got one over others",
                hint="train the model again",
            )
        trees = TreeEnsemble.from_bytes(told.trees)
        learned = Learned(trees, linear, told.linear_share, told.level)
        return cls(told.laws, learned, told.trained_until)

    @property
    def hash(self) -> str:
        """SHA-256 of :meth:`to_bytes`, in hexadecimal."""
        return digest(self.to_bytes())


NAMES: Final = (
    "bg_nbd_log_odds", "gap_log_odds", "p_alive", "repeats", "age", "elapsed", "gap_mean",
    "gap_deviation", "gap_last", "gap_longest", "elapsed_by_mean", "elapsed_by_longest",
    "value_mean", "quantity_mean", "value_last", "quantity_last", "order_rate",
    *(f"orders_{window}_horizons" for window in WINDOWS),
)  # fmt: skip
"""What the model reads of a customer, in the order of the columns of :func:`inputs_at`."""


def inputs_at(past: Orders, at: int, laws: Laws) -> Floats:
    """Give the inputs of every customer as of the start of a day: shape (customers, inputs).

    Parameters
    ----------
    past
        Orders before that day.
    """
    known, starts, h = past.histories(at), past.starts, laws.horizon_days
    orders, elapsed = known.repeats + 1.0, known.age - known.recency
    mean, deviation, last, longest = _gaps(past, known)
    ends = np.r_[starts[1:], len(past)] - 1
    usual = laws.gaps.quantile(known, 0.5)
    return np.column_stack(
        [
            log_odds(laws.bg_nbd.p_purchase(known, h)),
            log_odds(laws.gaps.p_purchase(known, h)),
            laws.bg_nbd.p_alive(known),
            known.repeats,
            known.age,
            elapsed,
            mean,
            deviation,
            last,
            longest,
            elapsed / (np.nan_to_num(mean) + usual),
            elapsed / (longest + 1.0),
            np.add.reduceat(past.value, starts) / orders,
            np.add.reduceat(past.quantity, starts) / orders,
            past.value[ends],
            past.quantity[ends],
            orders / (known.age + h),
            *(np.add.reduceat((past.day >= at - w * h) * 1.0, starts) for w in WINDOWS),
        ]
    )


def probability(raw: Floats) -> Floats:
    """Turn log-odds into probabilities."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * raw)))


def log_odds(probability: Floats) -> Floats:
    """Give ``ln(p / (1 - p))``, held within about 14 of 0."""
    p = _clip(probability)
    return np.asarray(np.log(p) - np.log1p(-p))


def _clip(probability: Floats) -> Floats:
    return np.clip(probability, _CLIP, 1.0 - _CLIP)


def _gaps(past: Orders, known: Histories) -> tuple[Floats, Floats, Floats, Floats]:
    """Give mean, deviation, last and longest gap; NaN where there are too few orders."""
    starts, x = past.starts, known.repeats
    gap = np.diff(past.day, prepend=past.day[0]).astype(np.float64)
    gap[starts] = 0.0
    mean = np.where(x > 0.0, known.recency / np.maximum(x, 1.0), np.nan)
    squares = np.add.reduceat(gap**2, starts) / np.maximum(x, 1.0)
    deviation = np.where(x > 1.0, np.sqrt(np.maximum(squares - mean**2, 0.0)), np.nan)
    last = np.where(x > 0.0, gap[np.r_[starts[1:], len(past)] - 1], np.nan)
    longest = np.where(x > 0.0, np.maximum.reduceat(gap, starts), np.nan)
    return mean, deviation, last, longest


class _Meta(msgspec.Struct):
    laws: Laws
    linear_share: float
    trained_until: int
    names: tuple[str, ...]
    trees: bytes
    level: float = 0.0
