"""What a feature is: declared here in Python, computed by the kernel.

A feature is a number about a key as of an event, from that key's events up to and including it.
A declaration says which events count (``events``, ``where``), whose (``by``), how far back
(``window``) and what is made of them (the function that declares it).
"""

import hashlib
from typing import Final

import msgspec

from recoup.errors import FeatureError
from recoup.features.declared import (
    Condition,
    Feature,
    Field,
    Operation,
    check_feature,
)

__all__ = [
    "Condition", "Feature", "FeatureSet", "Field", "age", "count", "decayed", "distinct", "last",
    "max_", "mean", "min_", "rate", "ratio", "sessions", "sum_", "time_since",
]  # fmt: skip

FORMAT: Final = 1
"""Version of the meaning of a definition; part of its hash."""

By = str | tuple[str, ...]


def _declare(  # noqa: PLR0913 - the fields of a feature
    operation: Operation,
    name: str,
    *,
    column: str = "",
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
    tile: str = "",
    half_life: str = "",
    per: str = "",
) -> Feature:
    keys = (by,) if isinstance(by, str) else tuple(by)
    if keys == ("session",):
        keys, window = ("visitor",), window or "session"
    feature = Feature(
        name=name,
        operation=operation,
        column=column,
        events=tuple(events),
        where=tuple(where),
        by=keys,
        window=window or "lifetime",
        tile=tile,
        half_life=half_life,
        per=per,
    )
    check_feature(feature)
    return feature


def count(
    name: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
    tile: str = "",
) -> Feature:
    """Declare how many events there were.

    Parameters
    ----------
    name
        The feature's name, unique within its set.
    events
        Canonical event names that count; empty for all.
    where
        Conditions on fields, all of which must hold.
    by
        Whose events: ``visitor``, ``session``, another entity column, or a pair of them.
    window
        A length such as ``5m``, ``24h`` or ``7d`` (exact: later than that before the event),
        ``session``, or ``lifetime``.
    tile
        For heavy keys: the resolution at which the window slides, e.g. ``1h``. The name must end
        on it (``..._tile_1h``).
    """
    return _declare("count", name, events=events, where=where, by=by, window=window, tile=tile)


def sum_(
    name: str,
    column: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
    tile: str = "",
) -> Feature:
    """Declare the sum of a measure, exact in millionths; parameters as in :func:`count`."""
    return _declare(
        "sum", name, column=column, events=events, where=where, by=by, window=window, tile=tile
    )


def mean(
    name: str,
    column: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
    tile: str = "",
) -> Feature:
    """Declare the mean of a measure where it is known; NaN where it never was."""
    return _declare(
        "mean", name, column=column, events=events, where=where, by=by, window=window, tile=tile
    )


def min_(
    name: str,
    column: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
) -> Feature:
    """Declare the smallest value of a measure; NaN where it never was known."""
    return _declare("min", name, column=column, events=events, where=where, by=by, window=window)


def max_(
    name: str,
    column: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
) -> Feature:
    """Declare the largest value of a measure; NaN where it never was known."""
    return _declare("max", name, column=column, events=events, where=where, by=by, window=window)


def last(
    name: str,
    column: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
) -> Feature:
    """Declare the latest known value of a measure, the event's own included."""
    return _declare("last", name, column=column, events=events, where=where, by=by, window=window)


def time_since(
    name: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
) -> Feature:
    """Declare the seconds since the latest such event BEFORE this one; NaN where there is none."""
    return _declare("time_since", name, events=events, where=where, by=by, window=window)


def distinct(
    name: str,
    column: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str | None = None,
) -> Feature:
    """Declare how many different values of a string column there were; needs a bounded window."""
    return _declare(
        "distinct", name, column=column, events=events, where=where, by=by, window=window
    )


def rate(
    name: str,
    *,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
    window: str,
    per: str = "1h",
    tile: str = "",
) -> Feature:
    """Declare how many events there were in a window per unit of time."""
    return _declare(
        "rate", name, events=events, where=where, by=by, window=window, per=per, tile=tile
    )


def decayed(
    name: str,
    column: str = "",
    *,
    half_life: str,
    events: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    by: By = "visitor",
) -> Feature:
    """Declare a count, or the sum of a measure, in which each event halves every ``half_life``."""
    return _declare(
        "decayed", name, column=column, events=events, where=where, by=by, half_life=half_life
    )


def age(name: str, *, by: By = "visitor", window: str | None = None) -> Feature:
    """Declare the seconds since the key's first event, or since the session's start."""
    return _declare("age", name, by=by, window=window)


def sessions(name: str, *, window: str = "lifetime") -> Feature:
    """Declare how many sessions of the visitor began, the present one included."""
    return _declare("sessions", name, window=window)


def ratio(name: str, numerator: Feature, denominator: Feature) -> Feature:
    """Declare the quotient of two features; NaN where the denominator is 0 or either is NaN.

    The operands need not be in the set; their names then do not matter.
    """
    return Feature(name=name, operation="ratio", operands=(numerator, denominator))


class FeatureSet(msgspec.Struct, frozen=True):
    """Named, versioned definitions that are computed together.

    Parameters
    ----------
    name, version
        What people call it, and which edition it is.
    features
        In the order of the columns they fill; names unique.
    owner
        Who answers for it; no part of the definition, and so not of its hash.

    Raises
    ------
    FeatureError
        If a name is taken twice, or a definition cannot be compiled.

    Examples
    --------
    >>> views = count("views_5m", events=("view_item",), window="5m")
    >>> chosen = FeatureSet("small", 1, (views,))
    >>> chosen.names, chosen.hash[:8]
    (('views_5m',), 'd3809716')
    """

    name: str
    version: int
    features: tuple[Feature, ...]
    owner: str = ""

    def __post_init__(self) -> None:
        """Check that the set can be compiled."""
        if not self.features:
            raise FeatureError("Expected at least one feature, got none")
        names = [feature.name for feature in self.features]
        if not all(names):
            raise FeatureError("Expected a name for every feature, got an empty one")
        taken = sorted({name for name in names if names.count(name) > 1})
        if taken:
            raise FeatureError(
                f"Expected unique names, got {', '.join(taken)} more than once",
                hint="rename one, for example by its window",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of the columns they fill."""
        return tuple(feature.name for feature in self.features)

    @property
    def hash(self) -> str:
        """SHA-256 of the definition, hexadecimal; the same on every machine."""
        defined = {"name": self.name, "version": self.version, "features": self.features}
        return hashlib.sha256(msgspec.json.encode((FORMAT, defined))).hexdigest()
