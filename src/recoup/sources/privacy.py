"""What of a log may come in: allowed fields, consent, and how visitors are called."""

import hashlib
from typing import Final, Literal

import msgspec

from recoup.errors import ConfigError
from recoup.events import EVENT_SCHEMA, EXTRA, ITEM_SCHEMA, REQUIRED
from recoup.settings import parse_toml, typed

LEAST_SECRET: Final = 16
"""Bytes of a secret, at least: a shorter one can be found by trying."""
ITEMS: Final = "items"


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the log says that somebody does not want to be known.

    Parameters
    ----------
    column
        A column of text, or ``extra.NAME``.
    denied
        Values that say no; a missing value says nothing.
    then
        ``drop`` the event, or keep it ``anonymous``: without visitor, session, order and whatever
        else names a person or a place smaller than a country.

    Examples
    --------
    >>> Consent("extra.consent").then
    'drop'
    """

    column: str
    denied: tuple[str, ...] = ("denied", "false", "0", "no")
    then: Literal["drop", "anonymous"] = "drop"


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings at the door.

    Parameters
    ----------
    allow
        Fields that may come in beside those that no event lacks: columns, ``items`` or
        ``items.NAME``, ``extra`` or ``extra.NAME``; all where it is empty.
    hash_visitors
        Whether visitors, sessions and events are called by keyed hashes of their ids. What else in
        ``extra`` names a person or a device goes.
    keep_addresses
        Whether internet and e-mail addresses stay; they go unless it is set.
    consent
        Where consent stands.

    Examples
    --------
    >>> Privacy().keep_addresses
    False
    """

    allow: tuple[str, ...] = ()
    hash_visitors: bool = False
    keep_addresses: bool = False
    consent: Consent | None = None


def parse_privacy(text: str, *, where: str = "the privacy settings") -> Privacy:
    """Read the text of a settings file.

    Raises
    ------
    ConfigError
        If it does not keep the format.
    """
    raw = parse_toml(text, where=where)
    privacy = typed(raw, Privacy, what="privacy settings", where=where, docs="docs/privacy.md")
    for name in privacy.allow:
        _check(name, where, items=True)
    if privacy.consent is not None:
        _check(privacy.consent.column, where, items=False)
    return privacy


def _check(name: str, where: str, *, items: bool) -> None:
    known = [column for column in EVENT_SCHEMA if column not in REQUIRED]
    inside = [f"{ITEMS}.{column}" for column in ITEM_SCHEMA if column not in {"event", "role"}]
    if name.startswith(EXTRA) or name in known:
        return
    if items and (name == ITEMS or name in inside or name in REQUIRED):
        return
    raise ConfigError(
        f"Expected a field of an event in {where}, got `{name}`",
        hint=f"one of {', '.join([*known, 'extra.NAME', *([ITEMS, *inside] if items else [])])}",
    )


class Pseudonyms:
    """Keyed hashes: the same name for the same id, which nobody finds again without the secret.

    Parameters
    ----------
    secret
        At least 16 bytes. It is kept in memory alone.

    Raises
    ------
    ConfigError
        If it is shorter.

    Examples
    --------
    >>> Pseudonyms(b"a secret of a shop").of("visitor-1")
    'fe70e7a07b293ebf1f51d7c41585722f'
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < LEAST_SECRET:
            raise ConfigError(
                f"Expected a secret of at least {LEAST_SECRET} bytes, got {len(secret)}",
                hint="put one into the environment as RECOUP_SECRET, or into a file",
            )
        longest = hashlib.blake2b.MAX_KEY_SIZE
        self._key = secret if len(secret) <= longest else hashlib.blake2b(secret).digest()

    def of(self, name: str) -> str:
        """Give the name under which an id is known: 32 hexadecimal digits."""
        return hashlib.blake2b(name.encode(), digest_size=16, key=self._key).hexdigest()

    @property
    def mark(self) -> str:
        """Six digits by which to tell that the secret is the same: far too few to find it by."""
        return self.of("recoup")[:6]
