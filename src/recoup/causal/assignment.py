"""Who is in which experiment and arm: a pure function of names, the same for ever and everywhere.

A unit's place in a *layer* says which of its experiments it is in; within a layer, experiments
share no unit. Layers are independent of each other, since a layer's name is hashed along, and so
are the arms of experiments that follow each other on the same units. Units of the *holdout* are in
no experiment of any layer: what all of them did together is measured against it.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import Final

import msgspec
import polars as pl
import xxhash

from recoup.errors import ConfigError

_HOLDOUT: Final = "holdout"
_SPARE_BITS: Final = 11  # of 64: a float64 holds 53
_SCALE: Final = 2.0**-53
_SLACK: Final = 1e-9


def position(unit: str, salt: str) -> float:
    """Give a unit's place in [0, 1): uniform over units, and independent for different salts.

    Examples
    --------
    >>> round(position("visitor-1", "checkout"), 6)
    0.019609
    """
    return (xxhash.xxh3_64_intdigest(f"{salt}\x1f{unit}".encode()) >> _SPARE_BITS) * _SCALE


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment as it is assigned.

    Parameters
    ----------
    traffic
        Share of the layer's units that are in it, in (0, 1].
    arms
        Share of each arm among those; they add up to 1.

    Examples
    --------
    >>> Trial(traffic=0.5, arms={"control": 0.5, "new form": 0.5}).traffic
    0.5
    """

    traffic: float
    arms: Mapping[str, float]

    def __post_init__(self) -> None:
        shares = list(self.arms.values())
        if min(shares, default=0.0) <= 0 or abs(sum(shares) - 1) > _SLACK:
            raise ConfigError(f"Expected shares of arms above 0 that add up to 1, got {shares}")
        if not 0 < self.traffic <= 1:
            raise ConfigError(f"Expected a share of traffic in (0, 1], got {self.traffic}")


class Assigned(msgspec.Struct, frozen=True):
    """The experiment and arm of a unit.

    Examples
    --------
    >>> Assigned("form", "control").arm
    'control'
    """

    experiment: str
    arm: str


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Experiments of which a unit is in one at most.

    Parameters
    ----------
    name
        Of the layer; another name deals the units anew.
    trials
        By name of the experiment. An experiment keeps its units while those before it, in this
        order, keep their traffic: append new ones.
    holdout
        Share of all units that are in no experiment, in [0, 1); the same units in every layer.

    Examples
    --------
    >>> form = Trial(traffic=0.5, arms={"control": 0.5, "new": 0.5})
    >>> layer = Layer(name="checkout", trials={"form": form}, holdout=0.05)
    >>> layer.assign("visitor-3"), layer.assign("visitor-4")
    (None, Assigned(experiment='form', arm='new'))

    References
    ----------
    Tang, Agarwal, O'Brien & Meyer (2010), Overlapping experiment infrastructure, KDD.
    """

    name: str
    trials: Mapping[str, Trial]
    holdout: float = 0.0

    def __post_init__(self) -> None:
        used = sum(trial.traffic for trial in self.trials.values())
        if used > 1 + _SLACK:
            raise ConfigError(
                f"Expected experiments of a layer to share its traffic, got {used:g} of 1",
                hint="give one of them less, or a layer of its own",
            )
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"Expected a holdout in [0, 1), got {self.holdout}")

    def assign(self, unit: str) -> Assigned | None:
        """Give a unit's experiment and arm; None where it is in none."""
        if position(unit, _HOLDOUT) < self.holdout:
            return None
        trials = {name: trial.traffic for name, trial in self.trials.items()}
        experiment = _pick(position(unit, self.name), trials)
        if experiment is None:
            return None
        arms = self.trials[experiment].arms
        arm = _pick(position(unit, f"{self.name}\x1f{experiment}"), arms) or list(arms)[-1]
        return Assigned(experiment, arm)

    def assign_all(self, units: pl.Series) -> pl.DataFrame:
        """Give columns ``experiment`` and ``arm``, null where a unit is in none."""
        found = [self.assign(str(unit)) for unit in units.to_list()]
        return pl.DataFrame(
            {
                "experiment": [None if each is None else each.experiment for each in found],
                "arm": [None if each is None else each.arm for each in found],
            },
            schema={"experiment": pl.String, "arm": pl.String},
        )


def switchback(region: str, block: int, experiment: str) -> bool:
    """Say whether an experiment acts in a region during a block of time.

    Blocks come in pairs of which one, drawn by the hash, acts: every region has either state
    equally often, and no trend longer than two blocks can pass for an effect. Use it where shoppers
    share what is acted on (stock, delivery slots): they then interfere with each other, and a split
    by visitor would count what one arm takes from the other. Leave out the start of each block for
    as long as what came before still tells, and analyse with the block as the cluster.

    Examples
    --------
    >>> [switchback("Lisbon", block, "slots") for block in range(6)]
    [False, True, True, False, True, False]
    """
    first_acts = position(f"{region}\x1f{block // 2}", experiment) < 0.5  # noqa: PLR2004 - a coin
    return first_acts == (block % 2 == 0)


def _pick(place: float, shares: Mapping[str, float]) -> str | None:
    ends = accumulate(shares.values())
    return next((name for name, end in zip(shares, ends, strict=True) if place < end), None)
