"""What to inject: a TOML file, checked by name. See docs/inject.md for examples."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from recoup.errors import ConfigError
from recoup.events import CODE, CONTEXT, COUNTS, ENTITIES, FLAGS, MONEY, REALS
from recoup.settings import moment, parse_toml, typed

Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Hour = Annotated[int, msgspec.Meta(ge=0, le=24)]
Kind = Literal["drop", "slow", "alter", "duplicate", "lose"]
SLICED: Final = (*CONTEXT, *(name for name in ENTITIES if name not in {"visitor", "session"}))
"""What a slice may name."""
SETTABLE: Final = (*CONTEXT, *SLICED[len(CONTEXT) :], *MONEY, *COUNTS, *REALS, *FLAGS)
Value = str | int | float | bool


class DefectSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One defect, or one nuisance.

    Parameters
    ----------
    id
        Its name in ``truth.json``.
    kind
        ``drop``: who meets the step cannot pass it, and leaves. ``slow``: the step takes
        ``by_ms`` longer. ``alter``: the step's fields are ``set`` or ``scale``-d. ``duplicate``:
        the step is sent ``times`` more. ``lose``: only the rows of the step vanish, as when a tag
        breaks; that is a nuisance and no defect.
    step
        An event's name. For ``drop``, a step of the funnel includes all that lie behind it.
    type
        The defect type in ``truth.json``, such as K8 of the catalogue; the kind where not given.
    where
        Field -> value, or list of values. Context (device, browser, country, ...) is that of the
        session, entities (page, item, query, ...) are those of the step itself.
    since, until
        ISO 8601, written ``from`` and ``to`` in the file; the whole log where not given.
    hours
        First hour of the day, and the hour before which it ends (UTC); [22, 6] goes past midnight.
    share
        Share of the sessions that meet the step in the slice.
    leave
        Of ``slow`` and ``alter``: the share of those who met it that leaves there.
    seen
        Of ``drop``: whether the step itself is still recorded.
    then
        Of ``drop``: ``leave`` ends the session; ``browse`` takes only the funnel's steps from here.
    by_ms, times
        Of ``slow`` and ``duplicate``.
    set, scale
        Of ``alter``: field -> new value, or factor.

    Examples
    --------
    >>> DefectSpec("payment-down", "drop", "add_payment_info", where={"device": "mobile"}).share
    1.0
    """

    id: str
    kind: Kind
    step: str
    type: str | None = None
    where: dict[str, Value | list[Value]] = {}
    since: str | None = msgspec.field(default=None, name="from")
    until: str | None = msgspec.field(default=None, name="to")
    hours: tuple[Hour, Hour] | None = None
    share: Share = 1.0
    leave: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    seen: bool = False
    then: Literal["leave", "browse"] = "leave"
    by_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0
    times: Annotated[int, msgspec.Meta(ge=1, le=20)] = 1
    set: dict[str, Value] = {}
    scale: dict[str, float] = {}

    @property
    def window(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """The moments from which and before which it works."""
        return _moment(self.since, self.id), _moment(self.until, self.id)


class InjectionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    r"""A file of defects, put in one after the other.

    Parameters
    ----------
    defects
        In the order in which they are put in.
    seed
        Of the sessions that are drawn; the same seed gives the same bytes.

    Examples
    --------
    >>> text = '[[defect]]\nid = "d"\nkind = "drop"\nstep = "purchase"'
    >>> parse_spec(text).defects[0].kind
    'drop'
    """

    defects: Annotated[list[DefectSpec], msgspec.Meta(min_length=1)] = msgspec.field(name="defect")
    seed: int = 0


def load_spec(path: Path) -> InjectionSpec:
    """Read a spec.

    Raises
    ------
    ConfigError
        If there is none, or it does not keep the format.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Expected a spec, got `{path}`: {error}", hint="docs/inject.md shows examples"
        ) from error
    return parse_spec(text, where=str(path))


def parse_spec(text: str, *, where: str = "the spec") -> InjectionSpec:
    """Read the text of a spec.

    Raises
    ------
    ConfigError
        If it does not keep the format.
    """
    raw = parse_toml(text, where=where)
    what, docs = "defects to inject", "docs/inject.md"
    spec = typed(raw, InjectionSpec, what=what, where=where, docs=docs)
    ids = [defect.id for defect in spec.defects]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"Expected each `id` once in {where}, got {', '.join(ids)}")
    for defect in spec.defects:
        _check(defect)
    return spec


def _check(defect: DefectSpec) -> None:
    at = f"defect `{defect.id}`"
    _member(defect.step, tuple(CODE), f"`step` of {at}")
    for field in defect.where:
        _member(field, SLICED, f"`where` of {at}")
    for field in (*defect.set, *defect.scale):
        _member(field, SETTABLE, f"`set` or `scale` of {at}")
    for field in defect.scale:
        _member(field, (*MONEY, *COUNTS, *REALS), f"`scale` of {at}")
    since, until = defect.window
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"Expected `from` before `to` in {at}, got {since} and {until}")
    if defect.hours is not None and defect.hours[0] == defect.hours[1]:
        raise ConfigError(f"Expected two different `hours` in {at}, got {list(defect.hours)}")
    _check_kind(defect, at)


ONLY: Final = {
    "by_ms": ("slow",), "times": ("duplicate",), "set": ("alter",), "scale": ("alter",),
    "leave": ("slow", "alter"), "seen": ("drop",), "then": ("drop",),
}  # fmt: skip
"""Which kinds an option belongs to."""


def _check_kind(defect: DefectSpec, at: str) -> None:
    plain = DefectSpec("", "drop", "purchase")
    for option, kinds in ONLY.items():
        if defect.kind not in kinds and getattr(defect, option) != getattr(plain, option):
            raise ConfigError(
                f"Expected `{option}` only where the kind is {' or '.join(kinds)}, got it in {at}, "
                f"which is `{defect.kind}`"
            )
    if defect.kind == "slow" and not defect.by_ms:
        raise ConfigError(f"Expected `by_ms` in {at}, got none", hint="milliseconds, such as 6000")
    if defect.kind == "alter" and not (defect.set or defect.scale):
        raise ConfigError(f"Expected `set` or `scale` in {at}, got neither")


def _member(name: str, known: tuple[str, ...], place: str) -> None:
    if name not in known:
        raise ConfigError(
            f"Expected a name of the vocabulary under {place}, got `{name}`",
            hint=f"one of {', '.join(known)}",
        )


def _moment(text: str | None, name: str) -> dt.datetime | None:
    return None if text is None else moment(text, where=f"defect `{name}`")
