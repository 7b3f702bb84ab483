"""Nuisances: what moves a shop's figures and is no defect of the shopping experience."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.events import CODE
from recoup.simulator import layout as at
from recoup.simulator.clock import activity_at, bounds
from recoup.simulator.names import NAMES, code_of
from recoup.simulator.people import People, moved, uniforms
from recoup.simulator.randomness import derive, uniform

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Kind = Literal["surge", "promotion", "mix_shift", "tracking_break", "flow_change", "trend"]
BRINGING: Final = ("surge", "promotion")
"""Kinds that bring visitors beside the usual ones."""
LOSING: Final = ("tracking_break", "flow_change")
"""Kinds by which events are not sent, while shoppers do what they would do."""
MOST_WARMTH: Final = 10.0
"""Of a standard normal and a little more: beyond, everybody does the same."""
_VISITOR: Final = at.ATTRIBUTES[: at.CIRCUMSTANCES]
_MIX, _LOSE = 64, 96
_COLUMNS: Final = {
    "build": at.E_BUILD, "page": at.E_PAGE, "item": at.E_ITEM, "category": at.E_CATEGORY,
    "query": at.E_QUERY, "payment_method": at.E_METHOD,
}  # fmt: skip


class NuisanceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A nuisance to switch on.

    Parameters
    ----------
    kind
        ``surge``: a campaign brings many of low intent. ``promotion``: more come, and everyone
        buys more readily. ``mix_shift``: first-time visitors are others than before.
        ``tracking_break``: events are lost while purchases go on. ``flow_change``: a page falls
        away without loss, its events with it. ``trend``: traffic grows over the run.
    since, until
        Share of the run; ``until`` None: to its end. A trend has neither.
    entity
        Attribute -> value: where a surge or a mix shift comes from, who is affected otherwise.
    size
        Visitors brought, as a share of those who come in that time anyway; share of first-time
        visitors moved; share of events lost; growth. In (0, 10].
    warmth
        Added to the intent: of those a surge brings (negative), of all during a promotion.
    events
        Names of the events lost; none: all but purchases, or the cart's page for a flow change.

    Examples
    --------
    >>> NuisanceSpec("surge", 0.5, 0.6, {"channel": "social"}, size=2.0, warmth=-1.5).kind
    'surge'
    """

    kind: Kind
    since: float = 0.0
    until: float | None = None
    entity: dict[str, str] = {}
    size: float = 1.0
    warmth: float = 0.0
    events: tuple[str, ...] = ()

    @property
    def lost_events(self) -> tuple[str, ...]:
        """Names of the events that are not sent."""
        if self.events:
            return self.events
        if self.kind == "flow_change":
            return ("view_cart",)
        return tuple(name for name in CODE if name != "purchase")


class Losses(msgspec.Struct, frozen=True):
    """Which events are not sent, one row a nuisance; see :func:`lost`."""

    since: Ints
    until: Ints
    share: Floats
    match: Ints
    events: NDArray[np.bool_]


def check_nuisance(spec: NuisanceSpec) -> None:
    """Check that a nuisance states nothing impossible.

    Raises
    ------
    ConfigError
        If it does.
    """
    place = f"nuisance `{spec.kind}`"
    known = at.ATTRIBUTES if spec.kind in LOSING else _VISITOR
    for name, value in spec.entity.items():
        if name not in known:
            raise ConfigError(
                f"Expected attributes it can have, got `{name}` - at {place}",
                hint=f"one or more of {', '.join(known)}",
            )
        code_of(place, name, value)
    until = 1.0 if spec.until is None else spec.until
    if not 0 <= spec.since < until <= 1:
        raise ConfigError(f"Expected 0 <= since < until <= 1 - at {place}")
    most = 10 if spec.kind in {*BRINGING, "trend"} else 1
    if not 0 < spec.size <= most:
        raise ConfigError(f"Expected a size in (0, {most}], got {spec.size} - at {place}")
    if not abs(spec.warmth) <= MOST_WARMTH:
        raise ConfigError(f"Expected warmth within {MOST_WARMTH:.0f} of 0 - at {place}")
    if spec.kind == "mix_shift" and not spec.entity:
        raise ConfigError(f"Expected an entity to shift to, got none - at {place}")
    unknown = [name for name in spec.events if name not in CODE]
    if unknown:
        raise ConfigError(f"Expected names of events, got {unknown} - at {place}")


def growth(specs: Sequence[NuisanceSpec]) -> float:
    """Give the growth of traffic over the run, as a share."""
    return sum(spec.size for spec in specs if spec.kind == "trend")


class Arrivals(msgspec.Struct, frozen=True):
    """When visitors first come, and why.

    Parameters
    ----------
    span
        The activities between which each first comes, shape (n, 2).
    brought_by
        Number of the nuisance that brings each, shape (n,), -1 for none.
    """

    span: Floats
    brought_by: Ints


def arrivals(visitors: int, clock: Floats, specs: Sequence[NuisanceSpec], length: int) -> Arrivals:
    """Say when visitors first come; those whom a nuisance brings stand behind the others.

    Parameters
    ----------
    length
        Of the run, microseconds.
    """
    whole = activity_at(clock, length)
    spans, owners = [np.tile([0.0, whole], (visitors, 1))], [np.full(visitors, -1)]
    for number, spec in enumerate(specs):
        if spec.kind in BRINGING:
            window = [
                activity_at(clock, when) for when in bounds(0, length, spec.since, spec.until)
            ]
            many = round(spec.size * visitors * (window[1] - window[0]) / whole)
            spans.append(np.tile(window, (many, 1)))
            owners.append(np.full(many, number))
    return Arrivals(np.concatenate(spans), np.concatenate(owners))


def with_nuisances(
    people: People,
    first: Ints,
    brought_by: Ints,
    specs: Sequence[NuisanceSpec],
    run: tuple[int, int],
) -> People:
    """Give the people as campaigns and shifts of the mix change them.

    Parameters
    ----------
    first
        When each first comes, microseconds UTC, shape (n,).
    run
        Its beginning and end.
    """
    for number, spec in enumerate(specs):
        since, until = bounds(*run, spec.since, spec.until)
        if spec.kind in BRINGING:
            rows = np.flatnonzero(brought_by == number)
        elif spec.kind == "mix_shift":
            chosen = uniforms(people.keys, _MIX + number) < spec.size
            rows = np.flatnonzero(chosen & (since <= first) & (first < until))
        else:
            continue
        people = moved(people, rows, spec.entity, f"nuisance `{spec.kind}`")
        if spec.kind == "surge":
            people.warmth[rows] += spec.warmth
    return people


def losses(specs: Sequence[NuisanceSpec], run: tuple[int, int]) -> Losses:
    """Lay out which events are not sent."""
    chosen = [spec for spec in specs if spec.kind in LOSING]
    window = np.array([bounds(*run, spec.since, spec.until) for spec in chosen], np.int64)
    window = window.reshape(len(chosen), 2)
    match = np.zeros((len(chosen), len(at.ATTRIBUTES)), np.int64)
    events = np.zeros((len(chosen), len(CODE)), np.bool_)
    for row, spec in enumerate(chosen):
        for name, value in spec.entity.items():
            match[row, at.ATTRIBUTES.index(name)] = NAMES[name].index(value) + 1
        events[row, [CODE[name] for name in spec.lost_events]] = True
    return Losses(
        window[:, 0].copy(),
        window[:, 1].copy(),
        np.array([spec.size for spec in chosen], np.float64),
        match,
        events,
    )


def lost(events: Ints, people: Ints, keys: Ints, found: Losses) -> Ints:
    """Say for each event which loss takes it, -1 for none. Shape (n,).

    Parameters
    ----------
    events
        Rows of shoppers, shape (n, EVENT_WIDTH).
    people, keys
        Circumstances and randomness of all visitors.
    """
    taken = np.full(len(events), -1)
    for row in range(len(found.since)):
        when = events[:, at.E_TS]
        here = (found.since[row] <= when) & (when < found.until[row])
        here &= found.events[row][events[:, at.E_EVENT]]
        for column, name in enumerate(at.ATTRIBUTES):
            wanted = found.match[row, column]
            if wanted:
                shown = events[:, _COLUMNS[name]] if name in _COLUMNS else None
                own = people[events[:, at.E_VISITOR], column] if shown is None else shown
                here &= own == wanted
        rows = np.flatnonzero(here & (taken < 0))
        counted = events[rows]
        draws = _event_draws(keys[counted[:, at.E_VISITOR]], counted[:, at.E_NUMBER], _LOSE + row)
        taken[rows[draws < found.share[row]]] = row
    return taken


@njit(cache=True, nogil=True)
def _event_draws(keys: Ints, numbers: Ints, purpose: int) -> Floats:
    found = np.empty(keys.shape[0], np.float64)
    for row in range(keys.shape[0]):
        found[row] = uniform(derive(keys[row], 512 + numbers[row]), purpose)
    return found
