"""From definitions to a plan: int64 tables that the kernel reads, one per key that features need.

Features share accumulators: two windows of one count are one running count and two window heads.
The tables are rows of few words, one run of rows for each thing the kernel does, so that its inner
loops have no branch on what a feature is. The constants here name the words.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import FeatureError
from recoup.events import CODE, COUNTS, FLAGS, MICROS, MONEY, REALS, hash64
from recoup.features.declared import (
    DERIVED,
    GAP,
    SCALED,
    STRINGS,
    Condition,
    Feature,
    is_bounded,
    micros,
)
from recoup.features.definitions import FeatureSet

FIXED_COLUMNS: Final = ("ts", "seq", "key", "event", "visitor", "session")
"""The first columns of every input row; :data:`TS` and the next two are also words of a record."""
CODE_COLUMN: Final = 3
VISITOR_COLUMN: Final = 4
SESSION_COLUMN: Final = 5

# Words of a record: the event itself, then values, links, and the state behind it.
TS, SEQ, KEY, BITS, SOURCE, VALUES_AT = range(6)
# Words of the state, from the group's STATE on.
START, SESSION, FIRST, LIFE, HOURLY, HEADS_AT = range(6)

# Words of the plan: how many groups and ratios, where the ratios begin, columns of inputs and of
# rows, where the groups begin.
PLAN_GROUPS, PLAN_RATIOS, PLAN_RATIOS_AT, PLAN_INPUTS, PLAN_WIDTH, PLAN_OFFSETS = range(6)
# Words of a group's head in the plan.
KEY_A, KEY_B, TILE, RECORD, STATE, SILENCE, SESSIONED, RETENTION, SAVED, SHIFT, RUNS_AT = range(11)
# Its runs of rows: each has two words from RUNS_AT on, the number of rows and where they begin.
(
    VALUES, FILTERS, WINDOWS, COUNTING, SUMMING, LASTING, PEAKING, DECAYING, CHAINING, DISTINCTING,
    SLIDING_PEAKS, OUT_VALUE, OUT_DIFFERENCE, OUT_MEAN, OUT_RECENT, OUT_SINCE, OUT_AGE, OUT_DECAYED,
    COLUMNS,
) = range(19)  # fmt: skip
RUNS: Final = 19

INTEGER, REAL, STRING, FLAG = range(4)
COMPARISONS: Final = {
    "lt": 1, "eq": 2, "le": 3, "gt": 4, "ne": 5, "ge": 6, "not_null": 7, "is_null": 8,
}  # fmt: skip
"""Which outcomes pass: 1 less, 2 equal, 4 more, 8 null."""

NULL: Final = -(1 << 63)
"""An unknown measure."""
LARGEST: Final = 10**15
"""Measures are clamped to this many millionths (counts: units), so that no sum can overflow."""
BITS_FOR_FILTERS: Final = 56
SAME: Final = 1 << 60
"""Set on an event that continues the session of the event before."""
BEGINS: Final = 1 << 61
"""Set on an event that begins a session."""
FOLLOWS: Final = 1 << 62
"""Set on an event that has a predecessor."""

Rows = list[tuple[int, ...]]


class Group(msgspec.Struct, frozen=True):
    """What one key's features share.

    Parameters
    ----------
    by, tile
        The key's columns, and the tile's length ("" where windows are exact).
    record, state, saved, tile_us
        Words of a record, where its state begins, how many leading words a snapshot keeps, and the
        tile's length in microseconds.
    columns
        Columns of the row that this group fills.
    blank
        Shape (record,): the record that stands before a key's first event.
    """

    by: tuple[str, ...]
    tile: str
    record: int
    state: int
    saved: int
    tile_us: int
    columns: NDArray[np.int64]
    blank: NDArray[np.int64]


class Plan(msgspec.Struct, frozen=True):
    """A feature set as the kernel reads it.

    Parameters
    ----------
    columns
        What to encode of an event, in the order of the kernel's input.
    groups
        One for each key; the visitor's is the first.
    width
        Columns of the row, those that only ratios need included.
    table
        Shape (m,): where each group begins, the ratios (numerator, denominator and result, as
        columns of the row), the groups' tables.
    reals
        Shape (k,): whether each column is float64.
    """

    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    width: int
    table: NDArray[np.int64]
    reals: tuple[bool, ...]


def compile_plan(features: FeatureSet, *, session_horizon_us: int) -> Plan:
    """Compile a feature set.

    Raises
    ------
    FeatureError
        If a key needs more filters than an event has bits for.
    """
    inputs = list(FIXED_COLUMNS)
    placed, ratios, width = _place(features)
    builders: dict[tuple[tuple[str, ...], str], _Builder] = {}
    builders[("visitor",), ""] = _Builder(("visitor",), "", inputs, session_horizon_us)
    for feature, column in sorted(placed, key=lambda one: one[0].column in DERIVED):
        at = feature.by, feature.tile
        if at not in builders:
            builders[at] = _Builder(feature.by, feature.tile, inputs, session_horizon_us)
        builders[at].add(feature, column)
    table = _join(list(builders.values()), ratios)
    table[PLAN_INPUTS], table[PLAN_WIDTH] = len(inputs), width
    return Plan(
        columns=tuple(_encoded(name) for name in inputs),
        groups=tuple(builder.group() for builder in builders.values()),
        width=width,
        table=table,
        reals=tuple(name in REALS for name in inputs),
    )


def _place(features: FeatureSet) -> tuple[list[tuple[Feature, int]], Rows, int]:
    """Give each feature its column, and each operand of a ratio one behind the declared ones."""
    columns: dict[bytes, int] = {}
    placed: list[tuple[Feature, int]] = []
    ratios: Rows = []
    width = len(features.features)

    def place(feature: Feature, column: int | None) -> int:
        nonlocal width
        known = columns.get(feature.meaning)
        if column is None and known is not None:
            return known
        if column is None:
            column, width = width, width + 1
        columns.setdefault(feature.meaning, column)
        if feature.operation == "ratio":
            numerator, denominator = (place(operand, None) for operand in feature.operands)
            ratios.append((numerator, denominator, column))
        else:
            placed.append((feature, column))
        return column

    plain = [f for f in enumerate(features.features) if f[1].operation != "ratio"]
    derived = [f for f in enumerate(features.features) if f[1].operation == "ratio"]
    for column, feature in (*plain, *derived):
        place(feature, column)
    return placed, ratios, width


def _join(builders: list["_Builder"], ratios: Rows) -> NDArray[np.int64]:
    start = PLAN_OFFSETS + len(builders)
    head = [len(builders), len(ratios), start, 0, 0]
    parts = [np.array(_flat(ratios), np.int64)]
    start += len(parts[0])
    for builder in builders:
        head.append(start)
        parts.append(builder.table(start))
        start += len(parts[-1])
    return np.concatenate([np.array(head, np.int64), *parts])


def _encoded(name: str) -> str:
    return f"{name}?" if name in MONEY or name in COUNTS else name


def _as_word(value: float) -> int:
    return int(np.array(value, np.float64).view(np.int64))


class _Builder:
    """Collects the tables of one key."""

    def __init__(
        self, by: tuple[str, ...], tile: str, inputs: list[str], session_horizon_us: int
    ) -> None:
        self.by, self.tile = by, tile
        self._tile_us = micros(tile) if tile else 0
        self._inputs = inputs
        self._horizon = session_horizon_us
        self._keys = [self._input(name) for name in by]
        self._values: dict[str, int] = {}
        self._filters: dict[tuple[int, tuple[Condition, ...]], int] = {}
        self._windows: dict[int, int] = {}
        self._states: dict[tuple[int, ...], int] = {}
        self._chains: dict[tuple[int, int], int] = {}
        self._horizons: dict[int, int] = {}
        self._outputs: list[tuple[int, tuple[int, ...]]] = []
        self._columns: list[int] = []

    # Numbers handed out here count from 0 within their kind; `table` turns them into words.

    def add(self, feature: Feature, column: int) -> None:
        """Add what a feature needs, and the output that fills its column."""
        self._columns.append(column)
        add = getattr(self, f"_add_{feature.operation}")
        add(feature, column)

    def _add_count(self, feature: Feature, column: int, unit: float = 1.0) -> None:
        self._emit_running(feature, self._count(feature), column, unit)

    def _add_rate(self, feature: Feature, column: int) -> None:
        self._add_count(feature, column, micros(feature.window) / micros(feature.per))

    def _add_sessions(self, feature: Feature, column: int) -> None:
        count = self._state(COUNTING, BEGINS, 0)
        self._emit_running(feature, count, column, 1.0)

    def _add_sum(self, feature: Feature, column: int) -> None:
        mask, value = self._measured(feature)
        total = self._state(SUMMING, mask, _in_session(feature), value)
        self._emit_running(feature, total, column, _unit(feature.column))

    def _add_mean(self, feature: Feature, column: int) -> None:
        mask, value = self._measured(feature)
        total = self._state(SUMMING, mask, _in_session(feature), value)
        count = self._state(COUNTING, mask, _in_session(feature))
        window = self._window(feature) if is_bounded(feature) else -1
        unit = _as_word(_unit(feature.column))
        self._outputs.append((OUT_MEAN, (total, count, window, column, unit)))

    def _add_max(self, feature: Feature, column: int, sign: int = 1) -> None:
        mask, value = self._measured(feature)
        if is_bounded(feature):
            window = self._window(feature)
            peak = self._state(SLIDING_PEAKS, mask, value, sign, window)
        else:
            peak = self._state(PEAKING, mask, _in_session(feature), value, sign)
        unit = _as_word(sign * _unit(feature.column))
        self._outputs.append((OUT_VALUE, (peak, column, unit)))

    def _add_min(self, feature: Feature, column: int) -> None:
        self._add_max(feature, column, sign=-1)

    def _add_last(self, feature: Feature, column: int) -> None:
        mask, value = self._measured(feature)
        latest = self._state(LASTING, mask, _in_session(feature), value)
        unit = _as_word(_unit(feature.column))
        if not is_bounded(feature):
            self._outputs.append((OUT_VALUE, (latest, column, unit)))
            return
        when = self._state(LASTING, mask, 0, TS - VALUES_AT)
        length = micros(feature.window)
        self._outputs.append((OUT_RECENT, (latest, when, length, column, unit)))

    def _add_time_since(self, feature: Feature, column: int) -> None:
        mask = self._filter(feature)
        when = self._state(LASTING, mask, _in_session(feature), TS - VALUES_AT)
        within = {"lifetime": 0, "session": -1}.get(feature.window)
        within = micros(feature.window) if within is None else within
        self._outputs.append((OUT_SINCE, (when, within, column)))

    def _add_age(self, feature: Feature, column: int) -> None:
        if feature.window == "session":
            self._outputs.append((OUT_AGE, (START - HEADS_AT, 1, column)))
            return
        first = self._state(PEAKING, 0, 0, TS - VALUES_AT, -1)
        self._outputs.append((OUT_AGE, (first, -1, column)))

    def _add_decayed(self, feature: Feature, column: int) -> None:
        mask, value = self._measured(feature) if feature.column else (self._filter(feature), NULL)
        pace = _as_word(float(np.log(2.0)) / micros(feature.half_life))
        unit = _as_word(_unit(feature.column))
        level = self._state(DECAYING, mask, value, pace)
        self._outputs.append((OUT_DECAYED, (level, column, unit)))

    def _add_distinct(self, feature: Feature, column: int) -> None:
        mask, value = self._measured(feature)
        chain = self._chains.setdefault((mask, value), len(self._chains))
        window = self._window(feature) if is_bounded(feature) else -1
        horizon = micros(feature.window) if is_bounded(feature) else self._horizon
        self._horizons[chain] = max(horizon, self._horizons.get(chain, 0))
        count = self._state(DISTINCTING, mask, value, chain, window)
        self._outputs.append((OUT_VALUE, (count, column, _as_word(1.0))))

    def _emit_running(self, feature: Feature, state: int, column: int, unit: float) -> None:
        if is_bounded(feature):
            output = (state, self._window(feature), column, _as_word(unit))
            self._outputs.append((OUT_DIFFERENCE, output))
        else:
            self._outputs.append((OUT_VALUE, (state, column, _as_word(unit))))

    def _count(self, feature: Feature) -> int:
        return self._state(COUNTING, self._filter(feature), _in_session(feature))

    def _measured(self, feature: Feature) -> tuple[int, int]:
        """Give the mask of the events at which a feature's column is known, and its value."""
        if feature.column in DERIVED:
            mask = self._filter(feature) | (SAME if feature.column == GAP else BEGINS | FOLLOWS)
            return mask, self._value("silence")
        known = Condition(feature.column, "not_null")
        where = feature.where if known in feature.where else (*feature.where, known)
        mask = self._filter(msgspec.structs.replace(feature, where=where))
        return mask, self._value(feature.column)

    def _filter(self, feature: Feature) -> int:
        """Give the bit that an event bears if it counts; 0 if all do."""
        codes = sum(1 << CODE[name] for name in set(feature.events))
        where = tuple(sorted(set(feature.where), key=msgspec.json.encode))
        if not codes and not where:
            return 0
        number = self._filters.setdefault((codes, where), len(self._filters))
        if number >= BITS_FOR_FILTERS:
            raise FeatureError(
                f"Expected at most {BITS_FOR_FILTERS} different filters by "
                f"{' and '.join(self.by)}, got more",
                hint="split the set, or let features share their filters",
            )
        return 1 << number

    def _window(self, feature: Feature) -> int:
        return self._windows.setdefault(micros(feature.window), len(self._windows))

    def _value(self, column: str) -> int:
        return self._values.setdefault(column, len(self._values))

    def _state(self, *meaning: int) -> int:
        return self._states.setdefault(meaning, len(self._states))

    def _input(self, name: str) -> int:
        if name not in self._inputs:
            self._inputs.append(name)
        return self._inputs.index(name)

    # From numbers to words.

    def _layout(self) -> tuple[int, int, int]:
        """Give where links, state and accumulators begin."""
        held = len(self._states) if self._tile_us else len(self._values)
        links = VALUES_AT + held
        state = links + len(self._chains)
        # Behind the heads, for each chain: the number of the event before with the same value, and
        # then the bits of the values seen.
        return links, state, state + HEADS_AT + len(self._windows) + 2 * len(self._chains)

    def group(self) -> Group:
        """Describe the layout of a record."""
        links, state, first = self._layout()
        blank = np.zeros(first + len(self._states), np.int64)
        blank[TS] = -(1 << 61)
        empty = {LASTING, PEAKING, SLIDING_PEAKS}
        for meaning, number in self._states.items():
            blank[first + number] = NULL if meaning[0] in empty else 0
        return Group(
            by=self.by,
            tile=self.tile,
            record=len(blank),
            state=state,
            saved=links,
            tile_us=self._tile_us,
            columns=np.array(self._columns, np.int64),
            blank=blank,
        )

    def table(self, start: int) -> NDArray[np.int64]:
        """Write the group's head, its directory of runs, and the runs."""
        links, state, first = self._layout()
        conditions: Rows = []
        runs: list[Rows] = [[] for _ in range(RUNS)]
        runs[COLUMNS] = [(column,) for column in self._columns]
        runs[WINDOWS] = [(length,) for length in self._windows]
        runs[VALUES] = [
            (self._input(name), _kind(name), VALUES_AT + number)
            for name, number in self._values.items()
            if name != "silence"
        ]
        # Conditions stand behind all runs; rows of FILTERS say where.
        for codes, where in self._filters:
            runs[FILTERS].append((codes, len(where), len(conditions)))
            conditions.extend(self._condition(condition) for condition in where)
        chain_words, chains = state + HEADS_AT + len(self._windows), len(self._chains)
        for (mask, value), chain in self._chains.items():
            word, link, seen = chain_words + chain, links + chain, chain_words + chains + chain
            row = word, mask, self._word(value), link, self._horizons[chain], seen
            runs[CHAINING].append(row)
        for meaning, number in self._states.items():
            runs[meaning[0]].append((first + number, *self._parameters(meaning, links)))
        for kind, output in self._outputs:
            runs[kind].append(self._output(kind, output, first))
        silence = self._word(self._values["silence"]) if "silence" in self._values else -1
        window = max((*self._windows, *self._horizons.values(), 0))
        head = [0] * RUNS_AT
        head[KEY_A], head[KEY_B] = self._keys[0], self._keys[-1] if len(self._keys) > 1 else -1
        head[TILE], head[RECORD], head[STATE] = self._tile_us, first + len(self._states), state
        head[SILENCE], head[SESSIONED] = silence, int(self.by == ("visitor",))
        head[RETENTION], head[SAVED] = window + self._tile_us, links
        head[SHIFT] = first - VALUES_AT
        return _write(start, head, runs, conditions)

    def _word(self, value: int) -> int:
        return VALUES_AT + value if value != NULL else -1

    def _parameters(self, meaning: tuple[int, ...], links: int) -> tuple[int, ...]:
        kind, rest = meaning[0], meaning[1:]
        if kind in {SUMMING, LASTING}:
            return rest[0], rest[1], self._word(rest[2])
        if kind == PEAKING:
            return rest[0], rest[1], self._word(rest[2]), rest[3]
        if kind == DECAYING:
            return rest[0], self._word(rest[1]), rest[2]
        if kind == SLIDING_PEAKS:
            return rest[0], self._word(rest[1]), rest[2], rest[3]
        if kind == DISTINCTING:
            mask, value, chain, window = rest
            _, state, _ = self._layout()
            word = state + HEADS_AT + len(self._windows) + chain
            return mask, self._word(value), word, links + chain, window
        return rest

    def _output(self, kind: int, output: tuple[int, ...], first: int) -> tuple[int, ...]:
        words = 2 if kind in {OUT_MEAN, OUT_RECENT} else 1
        if kind == OUT_AGE and output[0] == START - HEADS_AT:
            return self._layout()[1] + START, *output[1:]
        return *(first + number for number in output[:words]), *output[words:]

    def _condition(self, condition: Condition) -> tuple[int, ...]:
        kind = _kind(condition.column)
        value = condition.value
        if value is None:
            constant = 0
        elif isinstance(value, str):
            constant = hash64(value)
        else:
            constant = _fixed(value * _unit(condition.column))
        comparison = COMPARISONS[condition.comparison]
        return self._input(condition.column), kind, comparison, constant


def _write(start: int, head: list[int], runs: list[Rows], conditions: Rows) -> NDArray[np.int64]:
    words = head + [0] * (2 * RUNS)
    for run, rows in enumerate(runs):
        words[RUNS_AT + 2 * run] = len(rows)
        words[RUNS_AT + 2 * run + 1] = start + len(words)
        words += _flat(rows)
    behind = start + len(words)
    filters, at = words[RUNS_AT + 2 * FILTERS], words[RUNS_AT + 2 * FILTERS + 1] - start
    for row in range(filters):
        words[at + 3 * row + 2] = behind + 4 * words[at + 3 * row + 2]
    return np.array(words + _flat(conditions), np.int64)


def _flat(rows: Iterable[tuple[int, ...]]) -> list[int]:
    return [word for row in rows for word in row]


def _in_session(feature: Feature) -> int:
    return int(feature.window == "session")


def _kind(column: str) -> int:
    if column in STRINGS:
        return STRING
    if column in REALS:
        return REAL
    return FLAG if column in FLAGS else INTEGER


def _unit(column: str) -> float:
    return float(MICROS) if column in SCALED else 1.0


def _fixed(value: float) -> int:
    """Round to the int64 a measure is kept as; what is beyond it, infinity too, to the bound."""
    return round(min(max(value, -LARGEST), LARGEST))
