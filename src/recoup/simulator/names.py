"""The values of each attribute, and their codes, which count from 1."""

from typing import Final

from recoup.errors import ConfigError
from recoup.simulator import catalogue

NAMES: Final = {
    "device": catalogue.DEVICES,
    "browser": catalogue.BROWSERS,
    "os": catalogue.SYSTEMS,
    "channel": tuple(catalogue.CHANNELS),
    "country": tuple(catalogue.COUNTRIES),
    "region": tuple(region for names in catalogue.REGIONS.values() for region in names),
    "build": tuple(catalogue.BUILDS),
    "page": tuple(catalogue.page_names()),
    "item": tuple(catalogue.item_names()),
    "category": catalogue.CATEGORIES,
    "query": tuple(catalogue.query_names()),
    "payment_method": tuple(catalogue.METHODS),
}
"""Attribute -> its values, in the order of their codes."""


def code_of(place: str, name: str, value: str) -> int:
    """Give the code of an attribute's value.

    Raises
    ------
    ConfigError
        If the shop has no such value; ``place`` says where it was stated.
    """
    values = NAMES[name]
    if value not in values:
        raise ConfigError(
            f"Expected a {name} that the shop has, got `{value}` - at {place}",
            hint=f"such as {', '.join(values[:12])}",
        )
    return values.index(value) + 1
