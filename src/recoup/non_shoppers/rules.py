"""The rules by which non-shoppers are recognised, as a TOML file says them."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal

import msgspec

from recoup.errors import ConfigError
from recoup.events import EVENT_SCHEMA, EXTRA
from recoup.settings import parse_toml, typed

Kind = Literal["bot", "monitor", "staff", "test_order"]
Limit = Annotated[int, msgspec.Meta(ge=0)]
DECLARED: Final = ("bot", "monitor", "staff", "test_order")
BEHAVED: Final = ("too_fast", "regular_gaps", "pages_only", "round_the_clock")
KINDS: Final = (*DECLARED, *BEHAVED)
"""Why somebody is no shopper: what a rule declares, or what no shopper does."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose events a value gives away.

    Parameters
    ----------
    kind
        ``bot``, ``monitor``, ``staff`` or ``test_order``.
    column
        A column of the vocabulary that holds text, or ``extra.NAME``: a field kept in ``extra``.
    equals, matches
        Values, or a regular expression that is searched for.

    Examples
    --------
    >>> Rule("staff", "visitor", equals=("v17",)).column
    'visitor'
    """

    kind: Kind
    column: str
    equals: tuple[str, ...] = ()
    matches: str | None = None


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What no shopper does; 0 switches a limit off.

    Parameters
    ----------
    events_per_minute
        More events than this within a minute of the clock.
    regular_gaps
        So many gaps in a row of the same length, to 2 % and 50 ms, between 2 s and an hour.
    pages_only
        So many pages in a row in one session with nothing else between them.
    hours_on_end
        Active in so many hours in a row.

    Examples
    --------
    >>> Behaviour().events_per_minute
    200
    """

    events_per_minute: Limit = 200
    regular_gaps: Limit = 20
    pages_only: Limit = 300
    hours_on_end: Limit = 20


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All rules together.

    Parameters
    ----------
    rule
        The shop's own; the first that fits counts.
    standard
        Whether the built-in ones follow.
    behaviour
        Limits.

    Examples
    --------
    >>> len(Rules(standard=False).all)
    0
    """

    rule: tuple[Rule, ...] = ()
    standard: bool = True
    behaviour: Behaviour = Behaviour()

    @property
    def all(self) -> tuple[Rule, ...]:
        """The shop's own rules and, behind them, the built-in ones."""
        return (*self.rule, *(STANDARD if self.standard else ()))

    def renamed(self, column: str, name: Callable[[str], str]) -> "Rules":
        """Give the same rules over other names for a column's values."""
        changed = (
            msgspec.structs.replace(rule, equals=tuple(map(name, rule.equals)))
            if rule.column == column
            else rule
            for rule in self.rule
        )
        return msgspec.structs.replace(self, rule=tuple(changed))


MONITOR: Final = (
    r"(?i)pingdom|uptime|statuscake|site24x7|gtmetrix|lighthouse|pagespeed|newrelic|datadog|"
    r"synthetic|checkly|catchpoint|monitis"
)
BOT: Final = (
    r"(?i)(?<!cu)bot\b|crawl|spider|slurp|headless|phantomjs|selenium|puppeteer|playwright|"
    r"webdriver|python-requests|python-urllib|\bcurl/|\bwget/|go-http-client|scrapy|"
    r"facebookexternalhit|mediapartners"
)
TEST: Final = r"(?i)^test([-_ ]?\d*|[-_ ].*)$"
AGENTS: Final = ("browser", *(f"extra.{n}" for n in ("user_agent", "userAgent", "user-agent")))
STANDARD: Final = (
    *(Rule("monitor", column, matches=MONITOR) for column in AGENTS),
    *(Rule("bot", column, matches=BOT) for column in AGENTS),
    Rule("bot", "extra.is_bot", equals=("true", "1")),
    Rule("test_order", "order", matches=TEST),
    Rule("test_order", "coupon", matches=TEST),
)
"""Built-in rules: what agents call themselves, and orders and coupons that are called a test."""


def parse_rules(
    text: str,
    *,
    where: str = "the rules",
    read_list: Callable[[str], Sequence[str]] | None = None,
) -> Rules:
    """Read the text of a rules file.

    Parameters
    ----------
    read_list
        Gives the lines of a file that a rule names under ``file``; what they hold is added to
        ``equals``.

    Raises
    ------
    ConfigError
        If it does not keep the format.
    """
    raw = parse_toml(text, where=where)
    for rule in raw.get("rule", []) if isinstance(raw.get("rule"), list) else []:
        if isinstance(rule, dict) and read_list is not None and "file" in rule:
            rule["equals"] = [*rule.get("equals", []), *read_list(str(rule.pop("file")))]
    what, docs = "rules for non-shoppers", "docs/non_shoppers.md"
    rules = typed(raw, Rules, what=what, where=where, docs=docs)
    for rule in rules.rule:
        _check(rule, where)
    return rules


def _check(rule: Rule, where: str) -> None:
    texts = [name for name, dtype in EVENT_SCHEMA.items() if str(dtype) == "String"]
    if rule.column not in texts and not rule.column.startswith(EXTRA):
        raise ConfigError(
            f"Expected a column of text, or extra.NAME, in {where}, got `{rule.column}`",
            hint=f"one of {', '.join(texts)}",
        )
    if bool(rule.equals) == (rule.matches is not None):
        raise ConfigError(
            f"Expected either `equals` or `matches` for `{rule.column}` in {where}, got "
            f"{'both' if rule.equals else 'neither'}"
        )
    try:
        re.compile(rule.matches or "")
    except re.error as error:
        raise ConfigError(
            f"Expected a regular expression for `{rule.column}` in {where}, got "
            f"`{rule.matches}`: {error}"
        ) from error
