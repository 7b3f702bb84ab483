"""The report's language: what a shop's owner calls things, and numbers written for people."""

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from recoup.decisions import Action, Interval

STEP_NAMES: Final = (
    "Visited the shop",
    "Saw a product list or searched",
    "Looked at a product",
    "Opened or filled the cart",
    "Started checkout",
    "Bought",
)
"""Funnel steps by stage code."""

LAST_STEPS: Final = {
    "cart": "Left at the cart",
    "checkout": "Left on starting checkout",
    "shipping": "Left at the delivery step",
    "payment": "Left at payment",
}
"""Last step reached before a cart was abandoned."""

SEGMENT_NAMES: Final = {
    "device": "Device",
    "channel": "How they came",
    "country": "Country",
    "visitor_type": "New or returning",
    "browser": "Browser",
}

ATTRIBUTES: Final = {
    "build": "site version",
    "channel": "channel",
    "list_name": "product list",
    "os": "operating system",
    "page": "page",
    "payment_method": "payment method",
    "query": "search for",
    "shipping_method": "delivery method",
    "source": "traffic source",
    "visitor_type": "visitors",
}

DEAD_LETTERS: Final = {
    "too_late": "came later than the allowed lateness",
    "far_ahead": "dated far ahead of all others",
    "future_timestamp": "dated in the future",
    "id_reused": "had the id of another event",
}


class DefectWords(NamedTuple):
    """A defect type's name, and what it does to a shopper."""

    name: str
    meaning: str


_DEFECTS: Final = """
S1|Searches find nothing|Shoppers search and get an empty page.
S2|Search results miss the point|Shoppers search, click nothing, and search again.
S3|Searching in circles|Shoppers rephrase the same search again and again.
S4|Products clicked and left at once|Shoppers open a product and go straight back.
S5|Filters lead nowhere|Shoppers filter a list until nothing is left.
S6|Search is slow or fails|Shoppers wait for results, or get an error.
S7|Unavailable products on top|The first results cannot be bought.
L1|Seen but not clicked|Products are shown in a good place and nobody opens them.
L2|List and product page disagree on the price|The price changes when the product is opened.
L3|Broken picture|A product's picture does not load.
L4|Variants badly grouped|The same product appears twice, or variants are mixed up.
D1|Out of stock|Shoppers open products that cannot be bought.
D2|Slow delivery promise|Products promise delivery too late.
D3|Price jump|A product became dearer, or is dearer than elsewhere.
D4|Missing product information|Shoppers read for long and do not buy.
D5|Variant unavailable|The wanted size or colour cannot be chosen.
D6|Adding to the cart fails|Shoppers press the button and the cart stays as it was.
D7|Clicks without effect|Shoppers click again and again and nothing happens.
D8|Slow page|Shoppers leave before the page can be used.
D9|Hesitation|Shoppers come back to a product again and again without deciding.
C1|Price changed in the cart|A product became dearer while it lay in the cart.
C2|Fee shock|Delivery or fees appear, and shoppers leave at the total.
C3|Out of stock in the cart|What lies in the cart cannot be bought any more.
C4|Coupon hunt|Shoppers leave to look for a coupon, or theirs is refused.
C5|Just short of free delivery|Shoppers add and remove fillers to reach the threshold.
C6|Cart lost|The cart is empty after a login or on another device.
C7|Forgotten cart|Carts lie untouched for longer than usual.
K1|Forced to open an account|Shoppers leave where they must register.
K2|Login keeps failing|Shoppers fail to log in more than once.
K3|Form keeps failing|The same field is refused again and again.
K4|Cannot be delivered|There is no delivery, or no time slot, for the address.
K5|Payment declined|The payment is refused and the order is lost.
K6|Payment method missing|The way shoppers want to pay is not offered.
K7|Lost on the way back from the bank|Shoppers go to their bank's page and do not return.
K8|Checkout error|Checkout fails or hangs.
K9|Too little trust to pay|Shoppers read the policies at the payment step and leave.
K10|Long checkout|Shoppers lose time on many fields.
K11|Delivery promise gets worse at checkout|Checkout shows a later date than the product page.
P1|Order late, cancelled or not as described|Shoppers who were let down do not come back.
P2|Regular buyers stay away|Shoppers are past the time at which they usually buy again.
unexplained_drop|Sales dropped here|Shoppers buy less than they did; no event says why.
"""

DEFECTS: Final[Mapping[str, DefectWords]] = {
    key: DefectWords(name, meaning)
    for key, name, meaning in (line.split("|") for line in _DEFECTS.strip().splitlines())
}
"""Type -> words, for every id of the catalogue and ``unexplained_drop``."""

INTERVENTIONS: Final = {
    "payment_retry": "offer another way to pay, and retry the payment",
    "fee_waiver": "waive the delivery fee",
    "substitute_offer": "offer a substitute that is in stock",
    "search_assist": "help with the search: synonyms, spelling, near matches",
    "error_recovery": "repair the step for the shopper: retry it, or go around the error",
    "promise_hold": "keep the delivery date that was promised",
    "coupon": "offer a coupon",
}

FIX: Final = "no automatic help fits: look at it, and repair it at the root"


def defect_words(kind: str) -> DefectWords:
    """Name a defect type; an unknown one by its own id."""
    return DEFECTS.get(kind, DefectWords(kind, ""))


def entity_words(entity: Mapping[str, str]) -> str:
    """Say where: ``browser Safari, page /basket.html``; the whole shop where no entity is named.

    Examples
    --------
    >>> entity_words({"source": "google", "device": "mobile"})
    'traffic source google, device mobile'
    """
    parts = [f"{ATTRIBUTES.get(key, key.replace('_', ' '))} {entity[key]}" for key in entity]
    return ", ".join(parts) or "the whole shop"


def intervention_words(intervention: str) -> str:
    """Say what an intervention does."""
    return INTERVENTIONS.get(intervention, intervention.replace("_", " "))


def evidence_words(evidence: str) -> str:
    """Name the steps of a visit in a sentence of evidence as a shop's owner does.

    Examples
    --------
    >>> evidence_words("Of 9 that came to add_to_cart, 3 went on to begin_checkout.")
    'Of 9 that came to the cart, 3 went on to checkout.'
    >>> evidence_words("1084 of 1912 sessions with payment_method card since 2016-09-02 met it.")
    '1,084 of 1,912 sessions with payment method card since 2016-09-02 met it.'
    """
    named = _STEP.sub(lambda found: _STEPS[found[0]], evidence)
    return _LONG.sub(lambda found: count(int(found[0])), named)


_STEPS: Final = {
    "view_item_list": "a product list",
    "view_item": "a product",
    "add_to_cart": "the cart",
    "view_cart": "the cart",
    "begin_checkout": "checkout",
    "add_shipping_info": "the delivery step",
    "add_payment_info": "the payment step",
    "os": "operating system",
    "payment_method": "payment method",
    "query": "search for",
}
_LONG: Final = re.compile(r"(?<![-\w./:#])\d{4,}(?![-\w./:])(?= of | sessions| visits| visitors)")
_STEP: Final = re.compile(rf"(?<= )(?:{'|'.join(_STEPS)})(?=[ .,:;]|$)")


def action_words(label: str) -> str:
    """Say what a decision was.

    Examples
    --------
    >>> action_words("wait:120"), action_words("act:coupon"), action_words("never")
    ('wait 2 min', 'act: offer a coupon', 'leave alone')
    """
    action = Action.parse(label)
    if action.kind == "act":
        return f"act: {intervention_words(action.intervention)}"
    return f"wait {span(action.wait_s)}" if action.kind == "wait" else "leave alone"


def reason_words(reason: str) -> str:
    """Say what opened a decision point: a defect type, a signal, or nothing in particular."""
    kind, _, rest = reason.partition(":")
    name = defect_words(kind).name if kind else "no particular reason"
    return f"{name} ({rest})" if rest else name.replace("_", " ")


def step_words(step: str) -> str:
    """Name the last step reached before a cart was abandoned."""
    return LAST_STEPS.get(step, step.replace("_", " ").capitalize())


def count(number: float) -> str:
    """Write a whole number with thousands separated.

    Examples
    --------
    >>> count(333736)
    '333,736'
    """
    return f"{number:,.0f}"


def figure(number: float) -> str:
    """Write a measured number to two or three figures, as it is spoken.

    Examples
    --------
    >>> [figure(x) for x in (0, 0.01234, 0.5, 2.284, 31.0, 1234.5, 2.5e9)]
    ['0', '0.012', '0.50', '2.3', '31', '1,234', '2.5 billion']
    """
    return _write(number, _digits(number))


def _digits(size: float) -> int:
    """Tell how many decimals a number of this size is written with."""
    return next((d for limit, d in ((9.95, 0), (0.995, 1), (0.0995, 2)) if abs(size) >= limit), 3)


def _write(number: float, digits: int) -> str:
    if not math.isfinite(number):
        return "unknown"
    for limit, unit, name in _LARGE:
        if abs(number) >= limit:
            return f"{number / unit:,.1f}{name}"
    text = f"{number:,.{digits}f}"
    return text if text.strip("-0.") else "0"


_LARGE: Final = (
    (1e15, 1e15, " million billion"),
    (1e12, 1e12, " trillion"),
    (1e9, 1e9, " billion"),
    (1e7, 1e6, " million"),
)


def share(part: float, whole: float | None = None) -> str:
    """Write a share as a percentage; a dash where there is nothing to share.

    Examples
    --------
    >>> share(697, 58026), share(0.5), share(0, 0)
    ('1.20 %', '50 %', '-')
    """
    if whole is not None and whole == 0:
        return "-"
    percent = 100 * (part if whole is None else part / whole)
    digits = 0 if abs(percent) >= 10 or percent == 0 else 1 if abs(percent) >= 2 else 2  # noqa: PLR2004
    return f"{percent:.{digits}f} %"


def money(amount: float, currency: str | None) -> str:
    """Write an amount; the currency by its sign where everybody knows it.

    Examples
    --------
    >>> money(12345.6, "USD"), money(-3, "EUR"), money(5, None), money(0.5, "SEK")
    ('$12,346', '-€3.00', '5.00', '0.50 SEK')
    """
    return _money(amount, currency, _cents(amount))


def _cents(size: float) -> int:
    """Tell whether cents matter: below ten."""
    return 2 if abs(size) < 9.995 else 0  # noqa: PLR2004


def _money(amount: float, currency: str | None, digits: int) -> str:
    sign = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}.get(currency or "", "")
    text = _write(abs(amount), digits)
    unit = f" {currency}" if currency and not sign else ""
    return f"{'-' if amount < 0 and text != '0' else ''}{sign}{text}{unit}"


def between(interval: Interval, join: str = "to") -> str:
    """Write an interval's ends, both to the decimals of the larger.

    Examples
    --------
    >>> between(Interval(0.7, -0.034, 1.62)), between(Interval(0.7, -0.3, 12), "and")
    ('0 to 1.6', '0 and 12')
    """
    digits = _digits(max(abs(interval.low), abs(interval.high)))
    return f"{_write(interval.low, digits)} {join} {_write(interval.high, digits)}"


def between_money(interval: Interval, currency: str | None, join: str = "to") -> str:
    """Write an interval's ends as amounts, both with or without cents.

    Examples
    --------
    >>> between_money(Interval(20, 9.77, 49.3), "USD")
    '$10 to $49'
    """
    digits = _cents(max(abs(interval.low), abs(interval.high)))
    low, high = (_money(end, currency, digits) for end in (interval.low, interval.high))
    return f"{low} {join} {high}"


def tally(number: float) -> str:
    """Write what was counted, or estimated: whole where it is whole.

    Examples
    --------
    >>> tally(3.0), tally(9.4)
    ('3', '9.4')
    """
    return count(number) if float(number).is_integer() else figure(number)


def sure(probability: float) -> str:
    """Say how sure, as a percentage that never claims certainty.

    Examples
    --------
    >>> sure(0.9999), sure(0.973), sure(0.0001)
    ('over 99 %', '97 %', 'under 1 %')
    """
    if probability > 0.99:  # noqa: PLR2004 - as written
        return "over 99 %"
    return "under 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"  # noqa: PLR2004


def short_moment(when: dt.datetime) -> str:
    """Write a moment to the minute, without its year, UTC."""
    when = when.astimezone(dt.UTC)
    return f"{when.day} {when:%b %H:%M}"


def day(moment: dt.date) -> str:
    """Write a date.

    Examples
    --------
    >>> day(dt.date(2016, 9, 1))
    '1 September 2016'
    """
    return f"{moment.day} {moment:%B} {moment.year}"


def moment(when: dt.datetime) -> str:
    """Write a moment to the minute, UTC.

    Examples
    --------
    >>> moment(dt.datetime(2016, 9, 1, 7, 5, tzinfo=dt.timezone.utc))
    '1 Sep 2016, 07:05'
    """
    when = when.astimezone(dt.UTC)
    return f"{when.day} {when:%b} {when.year}, {when:%H:%M}"


def span(seconds: float) -> str:
    """Write a length of time in its largest fitting unit.

    Examples
    --------
    >>> span(90), span(600), span(5400), span(900_000)
    ('90 s', '10 min', '1.5 h', '10 days')
    """
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    if seconds < 5400:  # noqa: PLR2004 - an hour and a half
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 86400:.0f} days"


NON_SHOPPERS: Final = {
    "bot": "calls itself a bot, or is declared one",
    "monitor": "calls itself a monitor, or is declared one",
    "staff": "declared staff",
    "test_order": "a test order or coupon",
    "too_fast": "more events in a minute than anyone makes",
    "regular_gaps": "the same pause again and again, to the moment",
    "pages_only": "hundreds of pages and nothing else",
    "round_the_clock": "active around the clock",
}
"""Why somebody counts as no shopper."""

REMOVED: Final = {
    "ip": "values with internet addresses",
    "email": "values with e-mail addresses",
    "email_or_ip_as_key": "visitors, visits, orders or events named by an address, renamed",
    "not_allowed": "values of fields that are not allowed",
    "personal": "values that name a person or a device",
    "hashed": "events whose visitor is known by a hash alone",
    "consent_denied": "events of people who said no",
}
"""What privacy takes off."""
