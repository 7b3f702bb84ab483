"""The door: a source whose events have lost what privacy does not let in."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import polars as pl

from recoup.errors import ConfigError, SourceError
from recoup.events import EVENT_SCHEMA, EXTRA, REQUIRED, EventBatch, extra_field, take
from recoup.sources.addresses import (
    QUICK,
    clean_extra,
    clean_text,
    is_address,
    names_address,
    names_person,
)
from recoup.sources.base import ROWS, Source, SourceBatch
from recoup.sources.privacy import ITEMS, Consent, Privacy, Pseudonyms

MARK: Final = "|"
"""Between a source's position and what was removed up to it."""
KEYS: Final = ("visitor", "session", "id", "order")
"""Columns whose values tie events together: an address there becomes a hash of it."""
HASHED: Final = ("visitor", "session", "id")
TEXTS: Final = tuple(
    name
    for name, dtype in EVENT_SCHEMA.items()
    if dtype == pl.String and name not in {*KEYS, "extra", "source"}
)
PERSONS: Final = (
    "order",
    "session",
    "coupon",
    "region",
    "city",
    "extra",
    "visit_number",
    "query",
    "is_new_visitor",
)
"""What an anonymous event goes without, beside its visitor."""


class Guarded:
    """A source at whose door addresses, and whatever the settings say, are taken off.

    Parameters
    ----------
    source
        The log.
    privacy
        What may come in.
    pseudonyms
        Needed where visitors are hashed.

    Attributes
    ----------
    removed
        What was taken off up to the newest batch, by kind: ``ip``, ``email``, ``not_allowed``,
        ``personal`` (values), ``consent_denied``, ``hashed`` (events).

    Raises
    ------
    ConfigError
        If visitors are to be hashed and there is no secret.
    """

    def __init__(
        self, source: Source, privacy: Privacy | None = None, pseudonyms: Pseudonyms | None = None
    ) -> None:
        self.source = source
        self.name = source.name
        self.removed: Counter[str] = Counter()
        self._privacy = privacy or Privacy()
        self._pseudonyms = pseudonyms
        if self._privacy.hash_visitors and pseudonyms is None:
            raise ConfigError(
                "Expected a secret, since visitors are to be hashed, got none",
                hint="put one into the environment as RECOUP_SECRET, or name a file with "
                "--secret-file",
            )

    @property
    def mark(self) -> str | None:
        """The mark of the secret, where visitors are hashed."""
        if self._pseudonyms is None or not self._privacy.hash_visitors:
            return None
        return self._pseudonyms.mark

    def size_hint(self) -> int | None:
        """Give about how many events the log has."""
        return self.source.size_hint()

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Read on behind a position, or from the start."""
        inner, self.removed = _parted(after)
        for found in self.source.batches(inner, rows=rows):
            batch = self._let_in(found.batch)
            dead = self._dead(found.dead_letters)
            place = found.position
            if self.removed:
                place += MARK + msgspec.json.encode(dict(self.removed), order="sorted").decode()
            yield SourceBatch(batch, dead, found.findings, place)

    def _let_in(self, batch: EventBatch) -> EventBatch:
        consent = self._privacy.consent
        if consent is not None and len(batch):
            batch = self._ask(batch, consent)
        events, items = batch.events, batch.items
        if not self._privacy.keep_addresses:
            events, items = self._without_addresses(events), self._texts_cleaned(items)
        if self._privacy.hash_visitors:
            events = self._hashed(events)
        if self._privacy.allow:
            events, items = self._allowed(events), self._allowed_lines(items)
        return (
            batch if events is batch.events and items is batch.items else EventBatch(events, items)
        )

    def _count(self, kind: str, number: int) -> None:
        self.removed[kind] += number

    def _ask(self, batch: EventBatch, consent: Consent) -> EventBatch:
        """Drop the events of those who said no, or take off who they are."""
        if consent.column.startswith(EXTRA):
            inside = extra_field(batch.events["extra"], consent.column.removeprefix(EXTRA))
            said = pl.Series(inside, dtype=pl.String)
        else:
            said = batch.events[consent.column]
        denied = said.str.to_lowercase().is_in([value.lower() for value in consent.denied])
        denied = denied.fill_null(value=False)
        if not denied.any():
            return batch
        self._count("consent_denied", int(denied.sum()))
        if consent.then == "drop":
            return take(batch, (~denied).arg_true().to_numpy())
        return EventBatch(_anonymous(batch.events, denied, self._pseudonyms), batch.items)

    def _without_addresses(self, events: pl.DataFrame) -> pl.DataFrame:
        cleaned = (clean_text(events[name], self._count) for name in TEXTS)
        columns = [column for column in cleaned if column is not None]
        for name in KEYS:
            hit = is_address(events[name])
            if hit.any():
                self._count("email_or_ip_as_key", int(hit.sum()))
                columns.append(_renamed(events[name], hit, self._pseudonyms))
        extra = events["extra"]
        if extra.null_count() < len(extra) and extra.str.contains(_SUSPICIOUS).any():
            columns.append(clean_extra(extra, names_address, self._count))
        return events.with_columns(columns) if columns else events

    def _texts_cleaned(self, items: pl.DataFrame) -> pl.DataFrame:
        if items.is_empty():
            return items
        texts = [name for name, dtype in items.schema.items() if dtype == pl.String]
        cleaned = (clean_text(items[name], self._count) for name in texts)
        columns = [column for column in cleaned if column is not None]
        return items.with_columns(columns) if columns else items

    def _hashed(self, events: pl.DataFrame) -> pl.DataFrame:
        assert self._pseudonyms is not None  # noqa: S101
        self._count("hashed", events.height)
        every = pl.repeat(True, events.height, dtype=pl.Boolean, eager=True)  # noqa: FBT003
        columns = [_renamed(events[name], every, self._pseudonyms) for name in HASHED]
        columns.append(clean_extra(events["extra"], names_person, self._count))
        return events.with_columns(columns)

    def _allowed(self, events: pl.DataFrame) -> pl.DataFrame:
        allow = self._privacy.allow
        inside = {name.removeprefix(EXTRA) for name in allow if name.startswith(EXTRA)}
        gone = [
            name
            for name in events.columns
            if name not in {*allow, *REQUIRED} and not (name == "extra" and inside)
        ]
        self._count_values(events, gone)
        kept = events.with_columns(pl.lit(None, events.schema[name]).alias(name) for name in gone)
        if inside and "extra" not in allow:

            def keep(name: str) -> str | None:
                return None if name in inside else "not_allowed"

            kept = kept.with_columns(clean_extra(kept["extra"], keep, self._count))
        return kept

    def _allowed_lines(self, items: pl.DataFrame) -> pl.DataFrame:
        allow = self._privacy.allow
        named = {name.split(".", 1)[1] for name in allow if name.startswith(f"{ITEMS}.")}
        if ITEMS in allow:
            return items
        if not named:
            self._count("not_allowed", items.height)
            return items.clear()
        gone = [name for name in items.columns if name not in {*named, "event", "role"}]
        self._count_values(items, gone)
        return items.with_columns(pl.lit(None, items.schema[name]).alias(name) for name in gone)

    def _count_values(self, frame: pl.DataFrame, names: list[str]) -> None:
        values = sum(frame.height - frame[name].null_count() for name in names)
        if values:
            self._count("not_allowed", values)

    def _dead(self, dead: pl.DataFrame) -> pl.DataFrame:
        """Keep of a bad row no more than of a good one: its raw text only where all may come in."""
        privacy = self._privacy
        if dead.is_empty():
            return dead
        if privacy.hash_visitors or privacy.allow or privacy.consent is not None:
            return dead.with_columns(raw=pl.lit(""))
        if privacy.keep_addresses:
            return dead
        raw = clean_extra(dead["raw"], names_address, self._count)
        return dead.with_columns(raw.fill_null(""))


_SUSPICIOUS: Final = rf'{QUICK}|"[^"]*(?i:ip|mail|addr|forwarded)[^"]*"\s*:'
"""Objects that have to be looked into: by a value, or by the name of a field."""


def _parted(position: str | None) -> tuple[str | None, Counter[str]]:
    """Part a position into the source's own and what was removed before it."""
    if position is None or MARK not in position:
        return position, Counter()
    inner, _, told = position.partition(MARK)
    try:
        return inner, Counter(msgspec.json.decode(told, type=dict[str, int]))
    except msgspec.MsgspecError as error:
        raise SourceError(
            f"Expected a position, got {position!r}",
            hint="the position belongs to another kind of log; start from the beginning",
        ) from error


def _renamed(column: pl.Series, rows: pl.Series, pseudonyms: Pseudonyms | None) -> pl.Series:
    """Call some ids by hashes; without a secret, by plain ones, which a guess can find again."""
    picked = column.filter(rows).drop_nulls().unique(maintain_order=True)
    names = [
        hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        if pseudonyms is None
        else pseudonyms.of(name)
        for name in picked.to_list()
    ]
    hashed = column.replace(picked, pl.Series(names, dtype=pl.String))
    return column.zip_with(~rows, hashed)


def _anonymous(
    events: pl.DataFrame, rows: pl.Series, pseudonyms: Pseudonyms | None
) -> pl.DataFrame:
    """Give each event a visitor of its own, and take off what names a person."""
    keys = events.select(pl.concat_str("source", "id", separator="\x1f")).to_series()
    made = "anonymous-" + _renamed(keys, rows, pseudonyms)
    gone = [pl.when(~rows).then(pl.col(name)).alias(name) for name in PERSONS]
    return events.with_columns(
        *gone,
        made.zip_with(rows, events["visitor"]).alias("visitor"),
        made.zip_with(rows, events["id"]).alias("id"),
    )


def mark_of(source: Source) -> str | None:
    """Give the mark of the secret by which a source's visitors are hashed, if they are."""
    return source.mark if isinstance(source, Guarded) else None


def removed_of(source: Source) -> dict[str, int]:
    """Give what was taken off a source's events so far, by kind."""
    return dict(sorted(source.removed.items())) if isinstance(source, Guarded) else {}
