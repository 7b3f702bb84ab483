"""The learning report of a journal, and the proposal that goes with it to the rollout gates."""

import datetime as dt
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from recoup.causal.learning import Learned, learning_report
from recoup.causal.rollout_gate import FORMAT, Checked, Demands, check_proposal, sealed
from recoup.errors import ConfigError, SourceError
from recoup.report.learning import write_learning
from recoup.runners.decided import Decided, read_decided

PAGE: Final = "learning.html"
PROPOSAL: Final = "proposal.json"

_LENGTH: Final = re.compile(r"(\d+)([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Period(msgspec.Struct, frozen=True):
    """A half-open period of first decisions: by its ends, or ``last`` so long.

    Examples
    --------
    >>> Period(last=dt.timedelta(days=7)).last.days
    7
    """

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    last: dt.timedelta | None = None

    def within(self, decisions: pl.DataFrame) -> "Period":
        """Turn ``last`` into a beginning: so long before the end, or the latest decision.

        Raises
        ------
        ConfigError
            If both a beginning and a length are given.
        """
        if self.last is None:
            return self
        if self.since is not None:
            raise ConfigError("Expected --from or --last, got both", hint="leave one out")
        latest = decisions["ts"].cast(pl.Datetime("us", "UTC")).max()
        end = self.until or latest
        return Period(end - self.last, self.until) if isinstance(end, dt.datetime) else Period()


def parse_length(text: str | None, option: str = "--last") -> dt.timedelta | None:
    """Read a length of time such as ``7d``, ``12h``, ``30m`` or ``2w``.

    Raises
    ------
    ConfigError
        If it is none.

    Examples
    --------
    >>> parse_length("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    if text is None:
        return None
    found = _LENGTH.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise ConfigError(
            f"Expected a length of time for {option}, got {text!r}", hint="write 7d, 12h, 30m or 2w"
        )
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


def learn_from(path: Path, period: Period, *, level: float = 0.95) -> Learned:
    """Read a journal (see :func:`recoup.runners.decided.read_decided`) and report on it.

    Raises
    ------
    SourceError, JournalError, SchemaError
        If the journal cannot be read, or nothing in it was executed.
    """
    return report_on(read_decided(path), period, level=level)


def report_on(decided: Decided, period: Period, *, level: float = 0.95) -> Learned:
    """Report on what was read already."""
    chosen = period.within(decided.decisions)
    return learning_report(
        decided.decisions, decided.outcomes, since=chosen.since, until=chosen.until, level=level
    )


def proposal_of(found: Learned, source: str) -> dict[str, Any]:
    """Give what goes to the rollout gates: the rule, its gain with the lower bound, the verdict.

    Where the log cannot answer, the rule is null and the gate does not pass.
    """
    made, proposal = found.made, found.proposal
    told: dict[str, Any] = {
        "format": FORMAT,
        "made_from": {
            "source": source,
            "from": made.since,
            "until": made.until,
            "visitors": made.visitors,
            "horizon_s": found.lift.horizon_s,
            "policies": made.versions,
        },
        "level": found.level,
        "rule": None,
        "lower_bound": None,
        "gate": {"passes": False, "reasons": [found.silent]},
    }
    if proposal is None:
        return told
    lift = found.lift.all_visitors
    return told | {
        "rule": proposal.rule,
        "intent_split": proposal.intent_split,
        "value": proposal.value,
        "present_value": proposal.present_value,
        "gain": proposal.gain,
        "lower_bound": proposal.lower_bound,
        "diagnostics": {
            "visitors": proposal.visitors,
            "effective_sample_size": proposal.effective_sample_size,
            "tried": proposal.tried,
            "refused": proposal.refused,
            "holdout_agrees": lift.agree,
        },
        "gate": proposal.gate,
    }


def write_proposal(found: Learned, path: Path, *, source: str) -> None:
    """Write a proposal, with its fingerprint, as a JSON file."""
    body = msgspec.json.encode(sealed(proposal_of(found, source)))
    path.write_bytes(msgspec.json.format(body, indent=1) + b"\n")


def check_file(path: Path, demands: Demands, *, now: dt.datetime | None = None) -> Checked:
    """Put a proposal's file before the gate, as of ``now``; by the clock where it is None.

    Raises
    ------
    SourceError, SchemaError
        If it cannot be read, or is no proposal.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SourceError(f"Expected a proposal's file, got: {error}") from error
    return check_proposal(raw, now=now or dt.datetime.now(dt.UTC), demands=demands)


def write_beside(path: Path, *, source: str) -> Learned:
    """Report on a directory's journal, and put page and proposal beside it."""
    found = learn_from(path, Period())
    write_learning(found, path / PAGE, source=source)
    write_proposal(found, path / PROPOSAL, source=source)
    return found
