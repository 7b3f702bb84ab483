"""Declared rules, applied to batches: each distinct value is judged once."""

import re
from typing import Final

import polars as pl

from recoup.events import EXTRA, extra_field
from recoup.non_shoppers.rules import Rules

MAX_JUDGED: Final = 50_000
"""Values whose judgement is remembered, per column; then all are judged anew."""


class Declared:
    """Says for each event which kind of non-shopper its values give away.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> Declared(Rules()).kinds(random_batch(10, seed=1).events)
    """

    def __init__(self, rules: Rules) -> None:
        self._columns = [
            _Column(name, rules) for name in dict.fromkeys(rule.column for rule in rules.all)
        ]
        self._plain = [column for column in self._columns if not column.name.startswith(EXTRA)]
        self._inside = [column for column in self._columns if column.name.startswith(EXTRA)]

    def kinds(self, events: pl.DataFrame) -> list[str | None] | None:
        """Give a kind or None per event; None as a whole where no event has one."""
        found: list[str | None] | None = None
        for column in self._plain:
            values = events[column.name]
            if values.null_count() < len(values):
                found = _first(found, column.judge(values.to_list()))
        extra = events["extra"]
        if self._inside and extra.null_count() < len(extra):
            texts = extra.to_list()
            for column in self._inside:
                found = _first(found, column.judge(extra_field(texts, column.field)))
        return found


class _Column:
    """The rules about one column, in their order."""

    def __init__(self, name: str, rules: Rules) -> None:
        self.name, self.field = name, name.removeprefix(EXTRA)
        self._rules = [rule for rule in rules.all if rule.column == name]
        self._sets = [frozenset(rule.equals) for rule in self._rules]
        self._judged: dict[str, str | None] = {}

    def judge(self, values: list[str | None]) -> list[str | None] | None:
        if len(self._judged) > MAX_JUDGED:
            self._judged.clear()
        judged = self._judged
        for value in {*values} - judged.keys() - {None}:
            judged[str(value)] = self._kind(str(value))
        kinds = [None if value is None else judged[value] for value in values]
        return kinds if any(kinds) else None

    def _kind(self, value: str) -> str | None:
        for rule, equals in zip(self._rules, self._sets, strict=True):
            if value in equals or (rule.matches is not None and re.search(rule.matches, value)):
                return rule.kind
        return None


def _first(known: list[str | None] | None, new: list[str | None] | None) -> list[str | None] | None:
    if known is None or new is None:
        return known or new
    return [one or other for one, other in zip(known, new, strict=True)]
