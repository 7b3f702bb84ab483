"""The terminal: the demo as it runs, and a summary when a run is done."""

import datetime as dt
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recoup.causal import Lift
from recoup.decisions import Action, Defect
from recoup.report import story, words
from recoup.report.summary import Summary

SHOWN_DEFECTS: Final = 6
SHOWN_DECISIONS: Final = 5
WIDE: Final = 100
MIDDLE: Final = 76
"""Columns of the terminal from which intervals, and beginnings, are shown."""

PLAIN_STEPS: Final = 10
"""Lines that a run writes where there is no terminal to draw on."""


class Made(msgspec.Struct, frozen=True):
    """A decision as the live view shows it.

    Parameters
    ----------
    ts
        When, UTC.
    visitor
        Whose journey.
    reason, action
        As in DECISION_SCHEMA.
    intent, propensity
        As the policy saw and drew it.
    slice
        ``policy``, ``random`` or ``holdout``.
    """

    ts: dt.datetime
    visitor: str
    reason: str
    action: str
    intent: float
    propensity: float
    slice: str = "policy"


class DemoState(msgspec.Struct, frozen=True, kw_only=True):
    """What the live view shows: a moment of the simulated shop.

    Parameters
    ----------
    begin, end, now
        Simulated time, UTC.
    events, events_per_second
        Events so far, and how fast they are processed (real seconds).
    sessions, orders, revenue, currency
        The shop so far; revenue in currency units.
    decisions
        How many were made.
    last
        The newest decisions, newest last.
    defects
        Ranked.
    saved
        Net value against the permanent holdout, once it can be measured.
    carts, abandoned
        Carts filled, and those left for good.
    """

    begin: dt.datetime
    end: dt.datetime
    now: dt.datetime
    events: int = 0
    events_per_second: float = 0.0
    sessions: int = 0
    orders: int = 0
    revenue: float = 0.0
    currency: str | None = None
    decisions: int = 0
    last: tuple[Made, ...] = ()
    defects: tuple[Defect, ...] = ()
    saved: Lift | None = None
    carts: int = 0
    abandoned: int = 0

    @property
    def done(self) -> float:
        """Share of the simulated time that has passed, in [0, 1]."""
        whole = (self.end - self.begin).total_seconds()
        return min(max((self.now - self.begin).total_seconds() / whole, 0.0), 1.0) if whole else 1.0


class DemoView:
    """Show the demo as it runs: live on a terminal, a few plain lines elsewhere.

    Parameters
    ----------
    console
        Where to show it; None shows nothing (``--json``).
    title
        What runs.

    Examples
    --------
    >>> import io
    >>> noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone.utc)
    >>> out = io.StringIO()
    >>> with DemoView(Console(file=out, width=100), title="shop") as view:
    ...     view.update(DemoState(begin=noon, end=noon, now=noon, events=1200))
    >>> "1,200 events" in out.getvalue()
    True
    """

    def __init__(self, console: Console | None, *, title: str) -> None:
        self._console = console
        self._title = title
        self._live: Live | None = None
        self._told = -1

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console is not None and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, state: DemoState) -> None:
        """Show a moment."""
        if self._live is not None:
            self._live.update(demo_screen(state, title=self._title))
        elif self._console is not None:
            self._tell(self._console, state)

    def _tell(self, console: Console, state: DemoState) -> None:
        step = int(state.done * PLAIN_STEPS)
        if step > self._told:
            self._told = step
            console.print(plain_line(state), markup=False, highlight=False, soft_wrap=True)


def demo_screen(state: DemoState, *, title: str) -> RenderableType:
    """Lay out one moment of the demo."""
    money = _saved(state.saved, state.currency)
    spaced: list[RenderableType] = []
    for part in (_clock(state), _defects(state), _decisions(state), money):
        spaced += [part, Text()]
    return Panel(
        Group(*spaced[:-1]),
        title=Text(title, style="bold"),
        title_align="left",
        border_style="dim",
        padding=(1, 2),
    )


def plain_line(state: DemoState) -> str:
    """Say one moment of the demo in one line."""
    worst = state.defects[0] if state.defects else None
    trouble = f"; worst: {_defect_name(worst)}" if worst else ""
    when = f"{words.moment(state.now)}  {100 * state.done:3.0f} %"
    return (
        f"{when}  {words.count(state.events)} events  "
        f"{words.count(state.orders)} orders  {words.count(state.decisions)} decisions{trouble}"
    )


def summary_panel(summary: Summary) -> RenderableType:
    """Lay out what a run found: the sentences, then the ranked defects."""
    parts: list[RenderableType] = []
    for sentence in story.headline(summary):
        parts += [Text(sentence), Text()]
    if summary.defects:
        rate = story.loss_rate(summary)
        parts += [_Ranking(summary.defects, rate, summary.currency), Text()]
    parts.append(Text(_run_words(summary), style="dim"))
    return Panel(
        Group(*parts),
        title=Text(summary.source, style="bold"),
        title_align="left",
        border_style="dim",
        padding=(1, 2),
    )


def ending(defects: Sequence[Defect], saved: Lift | None, currency: str | None) -> RenderableType:
    """Lay out how the demo ended: the ranked defects, and what acting earned."""
    found: RenderableType = Text("No defect stands out.")
    if defects:
        found = _Ranking(defects, story.HOUR, currency)
    return Panel(
        Group(found, Text(), _saved(saved, currency)),
        title=Text("What was found, and what it earned", style="bold"),
        title_align="left",
        border_style="dim",
        padding=(1, 2),
    )


def _run_words(summary: Summary) -> str:
    dead = sum(summary.dead_letters.values())
    return (
        f"{words.count(summary.events)} events in {words.figure(summary.seconds)} s "
        f"({words.count(summary.events_per_second)}/s, {words.count(summary.peak_rss_mb)} MB); "
        f"{words.count(summary.duplicates)} repeats, {words.count(summary.late_events)} late, "
        f"{words.count(dead)} dead letters, {len(summary.data_quality)} data findings"
    )


def _clock(state: DemoState) -> RenderableType:
    bar = Table.grid(expand=True, padding=(0, 2))
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    bar.add_row(
        Text(words.moment(state.now), style="bold"),
        ProgressBar(total=1.0, completed=state.done, complete_style="cyan"),
        Text(f"{words.count(state.events_per_second)} events/s"),
    )
    left = words.share(state.abandoned, state.carts)
    line = (
        f"{words.count(state.events)} events   {words.count(state.sessions)} visits   "
        f"{words.count(state.orders)} orders   {words.money(state.revenue, state.currency)}   "
        f"{words.count(state.carts)} carts, {left} left   "
        f"{words.count(state.decisions)} decisions"
    )
    return Group(bar, Text(line, style="dim"))


def _defects(state: DemoState) -> RenderableType:
    if not state.defects:
        return Text("No defect stands out yet.", style="dim")
    return _Ranking(state.defects, story.HOUR, state.currency)


class _Ranking:
    """The ranked defects, with as many columns as the terminal's width allows."""

    def __init__(self, defects: Sequence[Defect], rate: story.Rate, currency: str | None) -> None:
        self._defects = defects[:SHOWN_DEFECTS]
        self._rate = rate
        self._currency = currency

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide, middle = options.max_width >= WIDE, options.max_width >= MIDDLE
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("What is wrong", ratio=1, overflow="ellipsis", no_wrap=True)
        if middle:
            table.add_column("Since", no_wrap=True)
        table.add_column(f"Costs {self._rate.each}", justify="right", no_wrap=True)
        if wide:
            table.add_column("95 % interval", justify="right", no_wrap=True)
        table.add_column("Sure", justify="right", no_wrap=True)
        table.add_column("What to do", overflow="ellipsis", no_wrap=True)
        for defect in self._defects:
            likely = defect.confidence >= story.LIKELY
            loss = self._rate.of(defect.lost_value_per_hour)
            cells = [
                Text(_defect_name(defect), style="bold" if likely else ""),
                Text(words.short_moment(defect.since)) if middle else None,
                Text(words.money(loss.value, self._currency), style="red" if likely else ""),
                Text(words.between_money(loss, self._currency), style="dim") if wide else None,
                Text(words.sure(defect.confidence)),
                Text(_short(defect)),
            ]
            table.add_row(*(cell for cell in cells if cell is not None))
        yield table


def _short(defect: Defect) -> str:
    best = defect.recommended
    return best.intervention.replace("_", " ") if best else "repair it"


def _defect_name(defect: Defect) -> str:
    where = ", ".join(defect.entity.values()) or "the whole shop"
    return f"{words.defect_words(defect.type).name}: {where}"


def _decisions(state: DemoState) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("Last decisions", no_wrap=True)
    table.add_column("Because", ratio=2, overflow="ellipsis", no_wrap=True)
    table.add_column("Intent", justify="right", no_wrap=True)
    table.add_column("Decision", ratio=3, overflow="ellipsis", no_wrap=True)
    table.add_column("Odds", justify="right", no_wrap=True)
    for made in state.last[-SHOWN_DECISIONS:]:
        table.add_row(
            Text(f"{made.ts:%H:%M:%S}  {made.visitor}"),
            Text(words.reason_words(made.reason)),
            Text(words.share(made.intent)),
            Text(_action(made), style="green" if made.action.startswith("act") else ""),
            Text(words.share(made.propensity)),
        )
    return table


def _action(made: Made) -> str:
    if made.slice == "holdout":
        return "leave alone (holdout)"
    action = Action.parse(made.action)
    name = action.intervention.replace("_", " ") if action.kind == "act" else ""
    return (name or words.action_words(made.action)) + (" (by chance)" * (made.slice == "random"))


def _saved(saved: Lift | None, currency: str | None) -> RenderableType:
    if saved is None:
        return Text("Saved: not measurable yet; the holdout is too small.", style="dim")
    total = saved.total
    style = "green" if total.low > 0 else "red" if total.high < 0 else "yellow"
    return Text.assemble(
        ("Saved against the holdout: ", ""),
        (words.money(total.value, currency), f"bold {style}"),
        (f"  (between {words.between_money(total, currency, 'and')}; ", "dim"),
        (f"{words.count(saved.treated)} visitors against ", "dim"),
        (f"{words.count(saved.holdout)} never helped)", "dim"),
    )
