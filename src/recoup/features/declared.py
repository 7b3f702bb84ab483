"""One declared feature: what it is made of, and what about it cannot be compiled."""

import re
from typing import Final, Literal, get_args

import msgspec

from recoup.errors import FeatureError
from recoup.events import (
    CODE,
    CONTEXT,
    COUNTS,
    ENTITIES,
    EVENT_NAMES,
    FLAGS,
    MICROS,
    MONEY,
    REALS,
)

Operation = Literal[
    "count", "sum", "mean", "min", "max", "last", "time_since", "distinct", "ratio", "rate",
    "decayed", "age", "sessions",
]  # fmt: skip
Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge", "is_null", "not_null"]

GAP: Final = "gap_s"
"""Derived measure: seconds since the visitor's event before, null where a session starts."""

BREAK: Final = "break_s"
"""Derived measure: seconds between a session's start and the event before, null elsewhere."""

DERIVED: Final = (GAP, BREAK)
STRINGS: Final = frozenset((*ENTITIES, *CONTEXT))
MEASURES: Final = frozenset((*MONEY, *COUNTS, *REALS, *FLAGS))
SCALED: Final = frozenset((*MONEY, *REALS, *DERIVED))
"""Measures kept in millionths; the others are kept as they are."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TILED: Final = frozenset({"count", "sum", "mean", "rate", "ratio"})


class Condition(msgspec.Struct, frozen=True):
    """A test on one field of an event; made by comparing a :class:`Field`."""

    column: str
    comparison: Comparison
    value: float | str | None = None


class Field:
    """A column of an event, to compare with a constant; a null field passes no comparison.

    Parameters
    ----------
    column
        A column of ``EVENT_SCHEMA``. Money is compared in currency units.

    Examples
    --------
    >>> (Field("price") > 100).comparison, Field("coupon").is_null().column
    ('gt', 'coupon')
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, column: str) -> None:
        self.column = column

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        """Test for equality with a number or a string."""
        return self._compare("eq", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        """Test for difference from a number or a string."""
        return self._compare("ne", value)

    def __lt__(self, value: float) -> Condition:
        """Test for less."""
        return self._compare("lt", value)

    def __le__(self, value: float) -> Condition:
        """Test for at most."""
        return self._compare("le", value)

    def __gt__(self, value: float) -> Condition:
        """Test for more."""
        return self._compare("gt", value)

    def __ge__(self, value: float) -> Condition:
        """Test for at least."""
        return self._compare("ge", value)

    def is_null(self) -> Condition:
        """Test for absence."""
        return Condition(self.column, "is_null")

    def not_null(self) -> Condition:
        """Test for presence."""
        return Condition(self.column, "not_null")

    def _compare(self, comparison: Comparison, value: object) -> Condition:
        if not isinstance(value, int | float | str):
            raise FeatureError(
                f"Expected a number or a string beside `{self.column}`, got {value!r}",
                hint="use .is_null() or .not_null() for absence",
            )
        return Condition(self.column, comparison, value)


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One declared feature; made by :func:`count`, :func:`sum_`, :func:`mean` and their kin."""

    name: str
    operation: Operation
    column: str = ""
    events: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    by: tuple[str, ...] = ("visitor",)
    window: str = "lifetime"
    tile: str = ""
    half_life: str = ""
    per: str = ""
    operands: tuple["Feature", ...] = ()

    @property
    def meaning(self) -> bytes:
        """The definition without its name: equal for features that are always equal."""
        return msgspec.json.encode(msgspec.structs.replace(self, name=""))


def micros(length: str) -> int:
    """Give a length of time such as ``90s``, ``5m``, ``24h`` or ``7d`` in microseconds.

    Raises
    ------
    FeatureError
        If it is of another form, or not positive.

    Examples
    --------
    >>> micros("5m")
    300000000
    """
    found = re.fullmatch(r"([1-9]\d{0,5})([smhd])", length)
    if found is None:
        raise FeatureError(
            f"Expected a length of time, got {length!r}",
            hint="a number and one of s, m, h, d: `90s`, `5m`, `24h`, `7d`",
        )
    return int(found[1]) * _SECONDS[found[2]] * MICROS


def is_bounded(feature: Feature) -> bool:
    """Say whether a feature's window is a length of time."""
    return feature.window not in {"session", "lifetime"}


def check_feature(feature: Feature) -> None:
    """Raise for what cannot be compiled."""
    _check_names(feature)
    _check_column(feature)
    _check_window(feature)
    for condition in feature.where:
        _check_condition(feature, condition)


def _check_names(feature: Feature) -> None:
    assert feature.operation in get_args(Operation)  # noqa: S101
    unknown = [name for name in feature.events if name not in CODE]
    if unknown:
        raise FeatureError(
            f"Expected canonical event names in `{feature.name}`, got {', '.join(unknown)}",
            hint=f"one of {', '.join(EVENT_NAMES)}",
        )
    keys = [key for key in feature.by if key not in STRINGS or key == "session"]
    if keys or not 1 <= len(feature.by) <= 2:  # noqa: PLR2004
        raise FeatureError(
            f"Expected one or two entity columns in `{feature.name}`, got {feature.by}",
            hint="by='visitor', 'session', 'item', 'query', 'page', ('visitor', 'item'), ...",
        )


def _check_column(feature: Feature) -> None:
    wanted: frozenset[str] = frozenset()
    if feature.operation in {"sum", "mean", "min", "max", "last"}:
        wanted = MEASURES | frozenset(DERIVED)
    elif feature.operation == "distinct":
        wanted = STRINGS
    elif feature.operation == "decayed" and feature.column:
        wanted = MEASURES
    if wanted and feature.column not in wanted:
        raise FeatureError(
            f"Expected a column that `{feature.operation}` takes in `{feature.name}`, "
            f"got {feature.column!r}",
            hint=f"one of {', '.join(sorted(wanted))}",
        )
    if feature.column in DERIVED and feature.by != ("visitor",):
        raise FeatureError(f"Expected `{feature.column}` by visitor, got by {feature.by}")


def _check_window(feature: Feature) -> None:
    if is_bounded(feature):
        micros(feature.window)
    elif feature.window == "session" and feature.by != ("visitor",):
        raise FeatureError(
            f"Expected a session window by visitor in `{feature.name}`, got by {feature.by}",
            hint="sessions belong to visitors; give a length of time such as `30m`",
        )
    elif feature.window == "lifetime" and feature.operation in {"distinct", "rate"}:
        raise FeatureError(
            f"Expected a bounded window for `{feature.operation}` in `{feature.name}`",
            hint="every value ever seen would have to be kept; use `session` or `30d`",
        )
    if feature.operation == "rate":
        micros(feature.per)
        if not is_bounded(feature):
            raise FeatureError(f"Expected a length of time as the window of `{feature.name}`")
    if feature.operation == "age" and is_bounded(feature):
        raise FeatureError(f"Expected `session` or `lifetime` as the window of `{feature.name}`")
    if feature.operation == "decayed":
        micros(feature.half_life)
    if feature.tile:
        _check_tile(feature)


def _check_tile(feature: Feature) -> None:
    tile = micros(feature.tile)
    if feature.operation not in _TILED or feature.by == ("visitor",):
        raise FeatureError(
            f"Expected a count, sum, mean or rate of another key than the visitor with tiles, "
            f"got `{feature.operation}` by {feature.by} in `{feature.name}`",
            hint="leave the tile out: the window is exact then",
        )
    if is_bounded(feature) and micros(feature.window) % tile:
        raise FeatureError(f"Expected a window of whole tiles in `{feature.name}`")
    if feature.name and not feature.name.endswith(f"_tile_{feature.tile}"):
        raise FeatureError(
            f"Expected a name that tells the tile, got `{feature.name}`",
            hint=f"end it on `_tile_{feature.tile}`",
        )


def _check_condition(feature: Feature, condition: Condition) -> None:
    absent = condition.comparison in {"is_null", "not_null"}
    if condition.column in STRINGS:
        if absent or (isinstance(condition.value, str) and condition.comparison in {"eq", "ne"}):
            return
        raise FeatureError(
            f"Expected `{condition.column}` equal to, or different from, a string in "
            f"`{feature.name}`, got {condition.comparison} {condition.value!r}"
        )
    if condition.column not in MEASURES or (isinstance(condition.value, str) and not absent):
        raise FeatureError(
            f"Expected a field and a value that compare in `{feature.name}`, got "
            f"`{condition.column}` {condition.comparison} {condition.value!r}",
            hint=f"strings: {', '.join(sorted(STRINGS))}; numbers: {', '.join(sorted(MEASURES))}",
        )
