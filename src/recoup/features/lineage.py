"""What a feature is, in words, and what it reads: its lineage, told by its definition alone."""

import difflib
from collections.abc import Iterator
from typing import Final

import msgspec

from recoup.errors import FeatureError
from recoup.features.declared import BREAK, GAP, Condition, Feature
from recoup.features.definitions import FeatureSet


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A feature as people look it up.

    Parameters
    ----------
    name, set, version, owner
        What it is called, in which edition of which set, and who answers for it.
    meaning
        One sentence.
    by, window
        Whose events, and how far back: a length of time, ``session`` or ``lifetime``.
    events
        Names of the events that it reads; empty for all.
    columns
        Columns of an event that it reads, those of its key and conditions included.
    hash
        SHA-256 of the set's definition, hexadecimal.
    """

    name: str
    set: str
    version: int
    owner: str
    meaning: str
    by: tuple[str, ...]
    window: str
    events: tuple[str, ...]
    columns: tuple[str, ...]
    hash: str


def describe(feature_set: FeatureSet, name: str) -> Description:
    """Describe one feature of a set.

    Raises
    ------
    FeatureError
        If the set has no such feature.

    Examples
    --------
    >>> from recoup.features import FeatureSet, count
    >>> chosen = FeatureSet("mine", 1, (count("views_30m", events=("view_item",), window="30m"),))
    >>> describe(chosen, "views_30m").meaning
    'How many `view_item` events of the visitor, in the last 30m.'
    """
    found = next((each for each in feature_set.features if each.name == name), None)
    if found is None:
        raise FeatureError(
            f"Expected a feature of `{feature_set.name}`, got `{name}`",
            hint=_nearest(name, feature_set.names),
        )
    parts = list(parts_of(found))
    every_event = any(not part.events for part in parts)
    events = {} if every_event else dict.fromkeys(name for part in parts for name in part.events)
    return Description(
        name=name,
        set=feature_set.name,
        version=feature_set.version,
        owner=feature_set.owner,
        meaning=in_words(found),
        by=key_of(found),
        window=parts[0].window,
        events=tuple(events),
        columns=columns_of(found),
        hash=feature_set.hash,
    )


def parts_of(feature: Feature) -> Iterator[Feature]:
    """Give what a feature is computed from: itself, or the operands of its quotient."""
    if not feature.operands:
        yield feature
    for operand in feature.operands:
        yield from parts_of(operand)


def key_of(feature: Feature) -> tuple[str, ...]:
    """Give the columns of a feature's key; those of a quotient's operands together."""
    return tuple(dict.fromkeys(column for part in parts_of(feature) for column in part.by))


def columns_of(feature: Feature) -> tuple[str, ...]:
    """Give the event columns that a feature reads, in alphabetical order.

    Examples
    --------
    >>> from recoup.features import Field, count
    >>> columns_of(count("dear", where=(Field("price") > 100,)))
    ('event', 'price', 'ts', 'visitor')
    """
    read = {"ts"}
    for part in parts_of(feature):
        read.update(part.by, (test.column for test in part.where))
        read.update({"event"} if part.events or part.where else ())
        read.update({part.column} - {"", GAP, BREAK})
        read.update({"session"} if part.window == "session" else ())
    return tuple(sorted(read))


def in_words(feature: Feature) -> str:
    """Say in one sentence what a feature is."""
    if feature.operands:
        over, under = (_clause(operand) for operand in feature.operands)
        return f"{_capital(over)}, divided by {under}."
    return f"{_capital(_clause(feature))}."


_MEASURED: Final = {
    "sum": "the sum of `{}` over",
    "mean": "the mean of `{}` over",
    "min": "the smallest `{}` of",
    "max": "the largest `{}` of",
    "last": "the latest `{}` of",
    "distinct": "how many different values of `{}` there are in",
}
_COUNTED: Final = {
    "count": "how many",
    "rate": "how many, per {0.per},",
    "time_since": "seconds since the latest of the earlier",
    "decayed": "how many, each halved every {0.half_life}, of the",
}


def _clause(feature: Feature) -> str:
    whose = " and ".join(feature.by)
    if feature.operation == "age":
        since = "session began" if feature.window == "session" else f"first event of the {whose}"
        return f"seconds since the {since}"
    if feature.operation == "sessions":
        return f"how many sessions of the {whose} began{_span(feature)}"
    return f"{_opening(feature)} {_kinds(feature)} of the {whose}{_tests(feature)}{_span(feature)}"


def _opening(feature: Feature) -> str:
    if feature.operation == "decayed" and feature.column:
        return f"the sum of `{feature.column}`, each halved every {feature.half_life}, over the"
    if feature.operation in _COUNTED:
        return _COUNTED[feature.operation].format(feature)
    return _MEASURED[feature.operation].format(feature.column)


def _kinds(feature: Feature) -> str:
    if not feature.events:
        return "events"
    return f"{', '.join(f'`{name}`' for name in feature.events)} events"


def _tests(feature: Feature) -> str:
    return "".join(f" where {_test(each)}" for each in feature.where)


_SIGNS: Final = {"eq": "=", "ne": "is not", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _test(condition: Condition) -> str:
    if condition.comparison == "is_null":
        return f"`{condition.column}` is unknown"
    if condition.comparison == "not_null":
        return f"`{condition.column}` is known"
    return f"`{condition.column}` {_SIGNS[condition.comparison]} {condition.value!r}"


def _span(feature: Feature) -> str:
    if feature.window == "lifetime":
        return "" if feature.operation == "decayed" else ", ever"
    if feature.window == "session":
        return ", in this session"
    tile = f", by whole {feature.tile} of the clock" if feature.tile else ""
    return f", in the last {feature.window}{tile}"


def _capital(clause: str) -> str:
    return clause[0].upper() + clause[1:]


def _nearest(name: str, names: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, names, cutoff=0.4)
    asked = f"did you mean {', '.join(near)}? " if near else ""
    return f"{asked}All: `recoup features list`"
