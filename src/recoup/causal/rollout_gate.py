"""The gate before a rollout: whether a proposed change of policy may go to a share of the visitors.

A proposal is a file that travels: from the report that made it, through hands and repositories, to
whatever changes the policy. The gate therefore believes nothing that it can reckon itself. It reads
the numbers, not the verdict beside them; checks that the file is as it was written (a fingerprint
of its content: against slips, not against forgers); and that it is neither stale nor about another
policy than the one that is live.
"""

import datetime as dt
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from recoup.causal.estimate import Estimate
from recoup.causal.learning import Gate, RuleRow
from recoup.causal.off_policy import LEAST_EFFECTIVE_SAMPLE
from recoup.errors import ConfigError, SchemaError

FORMAT: Final = "recoup.proposal/1"
MOST_AGE: Final = dt.timedelta(days=14)
_SLACK: Final = 1e-9


class MadeFrom(msgspec.Struct, frozen=True, kw_only=True):
    """The log that a proposal was made from: its decisions' first and last moment, and policies.

    Examples
    --------
    >>> MadeFrom(
    ...     source="shop", since=None, until=None, visitors=9, horizon_s=60.0, policies=[]
    ... ).visitors
    9
    """

    source: str
    since: dt.datetime | None = msgspec.field(name="from")
    until: dt.datetime | None
    visitors: int
    horizon_s: float
    policies: list[str]


class Diagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log could answer.

    Examples
    --------
    >>> Diagnostics(
    ...     visitors=900, effective_sample_size=120.0, tried=7, refused=None, holdout_agrees=True
    ... ).tried
    7
    """

    visitors: int
    effective_sample_size: float
    tried: int
    refused: str | None
    holdout_agrees: bool | None


class ProposalFile(msgspec.Struct, frozen=True, kw_only=True):
    """What `proposal.json` holds; without a rule the log could not answer, and ``gate`` says why.

    Examples
    --------
    See `check_proposal`.
    """

    format: str
    fingerprint: str
    made_from: MadeFrom
    level: float
    rule: list[RuleRow] | None
    lower_bound: float | None
    gate: Gate
    intent_split: float | None = None
    value: Estimate | None = None
    present_value: Estimate | None = None
    gain: Estimate | None = None
    diagnostics: Diagnostics | None = None


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout asks of a proposal.

    Parameters
    ----------
    least_gain
        What the lower bound must exceed, per visitor, in currency units.
    level
        Least confidence of its intervals, in (0, 1).
    most_age
        From the log's last decision to the check.
    policy
        The version that is live, which the gain must be over; any where None.

    Examples
    --------
    >>> Demands(least_gain=0.05).most_age.days
    14
    """

    least_gain: float = 0.0
    level: float = 0.95
    most_age: dt.timedelta = MOST_AGE
    policy: str | None = None

    def __post_init__(self) -> None:
        if not (0 < self.level < 1 and math.isfinite(self.least_gain)):
            raise ConfigError(
                "Expected a level in (0, 1) and a finite least gain, got "
                f"{self.level} and {self.least_gain}"
            )


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's answer.

    Parameters
    ----------
    passes, reasons
        Whether it may go to a share of the visitors; all that speaks against it, or what speaks for
        it.
    lower_bound
        Of the gain per visitor; None without a rule.
    age_s
        From the log's last decision to the check; None without one.

    Examples
    --------
    See `check_proposal`.
    """

    passes: bool
    reasons: list[str]
    lower_bound: float | None
    age_s: float | None
    fingerprint: str


def check_proposal(raw: bytes, *, now: dt.datetime, demands: Demands | None = None) -> Checked:
    """Check a proposal as it was read from its file.

    Parameters
    ----------
    raw
        The file's bytes.
    now
        The moment of the check, with a zone.

    Raises
    ------
    SchemaError
        If it is no proposal: not JSON, of another format, or a field is absent or of another type.

    Examples
    --------
    >>> told = {
    ...     "format": FORMAT,
    ...     "made_from": {
    ...         "source": "shop",
    ...         "from": None,
    ...         "until": None,
    ...         "visitors": 20,
    ...         "horizon_s": 60.0,
    ...         "policies": [],
    ...     },
    ...     "level": 0.95,
    ...     "rule": None,
    ...     "lower_bound": None,
    ...     "gate": {"passes": False, "reasons": ["20 visitors could be acted on"]},
    ... }
    >>> raw = msgspec.json.encode(sealed(told))
    >>> check_proposal(raw, now=dt.datetime(2026, 3, 1, tzinfo=dt.UTC)).reasons[0]
    'it proposes nothing: 20 visitors could be acted on'
    """
    if now.tzinfo is None:
        raise ConfigError(f"Expected a moment with a zone, got {now}", hint="pass it in UTC")
    body, told = _decode(raw)
    asked = demands or Demands()
    against = [each for check in CHECKS if (each := check(told, asked, now)) is not None]
    if fingerprint(body) != told.fingerprint:
        against.insert(0, "its content is not what was written: the fingerprint differs")
    until = told.made_from.until
    return Checked(
        passes=not against,
        reasons=against or [f"the lower bound of the gain is {told.lower_bound:.2f} a visitor"],
        lower_bound=told.lower_bound,
        age_s=(now - until).total_seconds() if until and until.tzinfo else None,
        fingerprint=told.fingerprint,
    )


def sealed(told: Mapping[str, Any]) -> dict[str, Any]:
    """Give a proposal with its fingerprint."""
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
    return body | {"fingerprint": fingerprint(body)}


def fingerprint(body: Mapping[str, Any]) -> str:
    """Give the SHA-256 of all else that a proposal says, whatever the order and the spaces.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": 2.5}) == fingerprint({"b": 2.5, "fingerprint": "", "a": 1})
    True
    """
    bare = {name: value for name, value in body.items() if name != "fingerprint"}
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


def _decode(raw: bytes) -> tuple[dict[str, Any], ProposalFile]:
    hint = "make it with: recoup learn report JOURNAL --proposal proposal.json"
    try:
        body: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        if body.get("format") != FORMAT:
            raise SchemaError(
                f"Expected a proposal of format {FORMAT}, got {body.get('format')!r}", hint=hint
            )
        return body, msgspec.convert(body, ProposalFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"Expected a proposal, got: {error}", hint=hint) from error


def _proposes(told: ProposalFile, asked: Demands, now: dt.datetime) -> str | None:
    del asked, now
    if told.rule:
        return None
    return f"it proposes nothing: {'; '.join(told.gate.reasons)}"


def _answered(told: ProposalFile, asked: Demands, now: dt.datetime) -> str | None:
    del asked, now
    found = told.diagnostics
    if told.rule and found is None:
        return "it does not say how far the log could answer"
    if found is None:
        return None
    if found.refused is not None:
        return f"the log cannot answer: {found.refused}"
    if not found.effective_sample_size >= LEAST_EFFECTIVE_SAMPLE:
        return f"the effective sample size is {found.effective_sample_size:.0f}, under 30"
    if found.holdout_agrees is False:
        return "the holdout and the propensities disagree: the log itself is in doubt"
    return None


def _gains(told: ProposalFile, asked: Demands, now: dt.datetime) -> str | None:
    del now
    gain, bound = told.gain, told.lower_bound
    if not told.rule:
        return None
    if gain is None or bound is None:
        return "it does not say what it gains"
    ends = (gain.low, gain.value, gain.high)
    if not (all(map(math.isfinite, ends)) and sorted(ends) == list(ends)):
        return f"its gain is no estimate: {gain.value} between {gain.low} and {gain.high}"
    if abs(bound - gain.low) > _SLACK * max(1.0, abs(bound)):
        return f"its lower bound, {bound}, is not that of its gain, {gain.low}"
    if not bound > asked.least_gain:
        return f"the lower bound of the gain is {bound:.2f} a visitor, not above {asked.least_gain}"
    return None


def _sure(told: ProposalFile, asked: Demands, now: dt.datetime) -> str | None:
    del now
    if told.level >= asked.level:
        return None
    return f"its intervals are of confidence {told.level}, under {asked.level}"


def _recent(told: ProposalFile, asked: Demands, now: dt.datetime) -> str | None:
    until = told.made_from.until
    if until is None:
        return "it does not say when its log ends"
    if until.tzinfo is None:
        return f"its log ends at a moment without a zone, {until}"
    if until > now:
        return f"its log ends after the moment of the check, at {until.isoformat()}"
    if now - until > asked.most_age:
        return f"its log ended {(now - until).days} days ago, over {asked.most_age.days}"
    return None


def _of_this_policy(told: ProposalFile, asked: Demands, now: dt.datetime) -> str | None:
    del now
    made_by = told.made_from.policies
    if asked.policy is None or made_by == [asked.policy]:
        return None
    return f"its gain is over {', '.join(made_by) or 'no policy'}, and {asked.policy} is live"


def _stated(told: ProposalFile, asked: Demands, now: dt.datetime) -> str | None:
    del asked, now
    if told.gate.passes or not told.rule:
        return None
    return f"the report did not let it pass: {'; '.join(told.gate.reasons)}"


CHECKS: Final[tuple[Callable[[ProposalFile, Demands, dt.datetime], str | None], ...]] = (
    _proposes,
    _answered,
    _gains,
    _sure,
    _recent,
    _of_this_policy,
    _stated,
)
"""Each gives what speaks against a proposal, or None."""
