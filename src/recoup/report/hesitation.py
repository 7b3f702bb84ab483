"""Where and when shoppers hesitated, as one value: a part of the summary."""

import msgspec

from recoup.models.card import ReliabilityBin


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """Waits from a page, or a step forward, to the next one, before a purchase.

    Parameters
    ----------
    value
        Where or when; ``(unknown)`` where the log does not say.
    rows
        How many waits.
    median_wait_s
        Of those that ended in another step; None where none did. From bins 17 % wide.
    left
        Share after which the visit did not go on within half an hour.
    turning_s
        Once a wait has lasted so long, fewer than half go on; None where half always do.
    long
        Share that lasted unusually long, those who left among them; None without a model.
    expected_long
        The share that the model expected of just these shoppers.
    verdict
        ``longer`` or ``shorter`` where neither chance nor the model's drift explains the gap.
    """

    value: str
    rows: int
    median_wait_s: float | None = None
    left: float = 0.0
    turning_s: float | None = None
    long: float | None = None
    expected_long: float | None = None
    verdict: str = ""


class Behaved(msgspec.Struct, frozen=True, kw_only=True):
    """A signal of behaviour, and how often those who showed it bought.

    Parameters
    ----------
    name
        One of :data:`recoup.friction.behaviour.BEHAVIOURS`.
    events, sessions
        Events that showed it; sessions that did before they bought.
    bought
        How many of those sessions bought afterwards.
    others, others_bought
        Sessions that could have shown it and did not, and how many of them bought.
    """

    name: str
    events: int
    sessions: int
    bought: int
    others: int
    others_bought: int


class Curve(msgspec.Struct, frozen=True):
    """P(the visit goes on | it has waited so long), at some waits in seconds."""

    value: str
    wait_s: list[float]
    goes_on: list[float]


class Hesitation(msgspec.Struct, frozen=True, kw_only=True):
    """What :class:`recoup.report.hesitation_tally.HesitationTally` gives.

    Parameters
    ----------
    level
        Hesitation from which a wait is unusually long; None without a model.
    total
        All waits together; None where there were none.
    by_state, by_page_type, by_device, by_page
        By state of the journey (``stage/event``), by the event that opened the page, by device and
        by page: the most first. Judged beside the drift of those who came there, by channel.
    by_channel
        By channel of the visit, else its traffic source. ``longer`` says that these shoppers halt
        more often than the model knew: others than it learned from, or all they come to is wrong.
    by_hour
        By hour of the day, UTC, in its order.
    curves
        By kind of page, where there were waits enough.
    forecast
        P(the visit goes on) as the model expected it when a wait began, and the share of visits
        that did, by 20 bins; empty without a model.
    behaviours
        Signals of behaviour, in their fixed order.
    """

    level: float | None = None
    total: Waits | None = None
    by_state: list[Waits] = []
    by_page_type: list[Waits] = []
    by_device: list[Waits] = []
    by_page: list[Waits] = []
    by_channel: list[Waits] = []
    by_hour: list[Waits] = []
    curves: list[Curve] = []
    forecast: list[ReliabilityBin] = []
    behaviours: list[Behaved] = []
