"""Settings that people write by hand: TOML into typed values, with errors that name the place."""

import datetime as dt
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from recoup.errors import ConfigError

T = TypeVar("T")


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """Read TOML.

    Raises
    ------
    ConfigError
        If it is none.

    Examples
    --------
    >>> parse_toml("seed = 3", where="the spec")
    {'seed': 3}
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"Expected TOML in {where}, got: {error}") from error


def typed(raw: Mapping[str, Any], kind: type[T], *, what: str, where: str, docs: str) -> T:
    """Give settings their types.

    Parameters
    ----------
    raw
        What the file says.
    kind
        A msgspec structure.
    what, where
        What is expected, and the place: both stand in the error.
    docs
        The page that shows the format.

    Raises
    ------
    ConfigError
        If a field is missing, unknown, or of another type.
    """
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"Expected {what}, got {where} that breaks the format: {error}",
            hint=f"{docs} shows the format with examples",
        ) from error


def moment(text: str, *, where: str) -> dt.datetime:
    """Read a moment in ISO 8601; UTC where it names no zone.

    Raises
    ------
    ConfigError
        If it is none.

    Examples
    --------
    >>> moment("2016-09-19T07:00", where="--until").isoformat()
    '2016-09-19T07:00:00+00:00'
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"Expected an ISO 8601 moment for {where}, got {text!r}",
            hint="write 2016-09-19T07:00 or 2016-09-19T07:00:00Z",
        ) from error
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
