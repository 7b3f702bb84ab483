"""The flow: events to features to intent and signals, to evidence and decisions, to outcomes.

Pure: no clock, no I/O. A runner hands it batches, journals what it gives, and keeps its snapshots.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import Defect
from recoup.defects import Evidence
from recoup.defects.ranking import Ranking
from recoup.errors import SnapshotError
from recoup.events import MICROS, EventBatch, encode
from recoup.features import FeatureRows, FeatureStore, standard_features
from recoup.friction.explained import JourneyDetector
from recoup.friction.hesitation import HesitationModel
from recoup.friction.moment import Moment
from recoup.friction.signals import Detected
from recoup.friction.stage_rates import StageRates
from recoup.friction.waiting import HESITATION_SCHEMA, Waited, Waiting
from recoup.interventions import INTERVENTIONS
from recoup.non_shoppers import NonShoppers, Recognised, Rules
from recoup.outcomes import Abandonment, Carts, Cost, Followed, OutcomeJoin
from recoup.parts import gather, under
from recoup.policies import ExpectedNetValue, Learner
from recoup.policies.version import Settings as PolicySettings
from recoup.state import Changes, Incremental

VERSION: Final = 2
NO_TICKS: Final = np.zeros(0, np.int64)
LIVE_GROWTH: Final = 0.25
FOREIGN_GROWTH: Final = 1.0
"""Events needed for another ranking, as a share of those known: a log of the past can wait."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a shop's flow is set; one fold has one set of them from its first event on.

    Parameters
    ----------
    executes
        Whether decisions reach shoppers. On a log of the past they do not: nothing is then joined
        with outcomes, learned from, or counted as money saved.
    lateness_s, session_gap_s
        Allowed lateness of events, and the silence that ends a session, in seconds.
    horizon_s
        How long after a decision its outcome is counted, in seconds.
    abandonment_s
        Silence after which a cart counts as abandoned, in seconds.
    review_s
        Event time between two reviews of defects and beliefs, in seconds.
    policy
        Margin, exploration, slices, seed.
    rules
        By which bots, monitors, staff and test orders are recognised.
    """

    executes: bool = True
    lateness_s: float = 3600.0
    session_gap_s: float = 1800.0
    horizon_s: float = 86_400.0
    abandonment_s: float = 86_400.0
    review_s: float = 3600.0
    policy: PolicySettings = PolicySettings()
    rules: Rules = Rules()


class Intent(Protocol):
    """What says how likely a purchase is: a trained model, or the rates of the funnel's stages."""

    @property
    def hash(self) -> str:
        """Name of its artefact."""
        ...

    def score(self, batch: EventBatch, rows: FeatureRows, seen: Detected) -> NDArray[np.float64]:
        """Give P(purchase later in this session) as of each event, shape (n,)."""
        ...


class Step(msgspec.Struct, frozen=True):
    """What followed from a batch.

    Parameters
    ----------
    moment
        All that was known as of each event.
    shoppers
        The same without the events of bots, monitors, staff and test orders.
    decisions, outcomes
        Frames of ``DECISION_SCHEMA`` and ``OUTCOME_SCHEMA``.
    recognised
        Which events are no shopper's, and who has just been found out.
    seen
        Signals and steps of each event, with the signals of its session before it.
    waited
        What is expected of shoppers' waits, and those too long; None without a model of hesitation.
    """

    moment: Moment
    shoppers: Moment
    decisions: pl.DataFrame
    outcomes: pl.DataFrame
    recognised: Recognised
    seen: Detected
    waited: Waited | None = None

    @property
    def hesitations(self) -> pl.DataFrame:
        """Waits that have become too long: a frame of ``HESITATION_SCHEMA``."""
        if self.waited is None:
            return pl.DataFrame(schema=HESITATION_SCHEMA)
        return self.waited.due.frame()


class Engine:
    """The stages, folded together over admitted events.

    Parameters
    ----------
    settings
        See :class:`Settings`.
    intent
        A trained model; without one, the rate at which sessions of each funnel stage go on to buy,
        learned as they close.
    hesitation
        A trained model, ready for the standard features; with one, a shopper who waits too long at
        a tick opens a decision point. Without one, ticks only say what time it is: outcomes mature,
        and carts are abandoned, though no event comes.

    Attributes
    ----------
    reviewed
        The defects, ranked, as of the last review.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> engine = Engine(Settings(executes=False))
    >>> engine.step(random_batch(100, seed=1)).moment.intent.shape
    (100,)
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        intent: Intent | None = None,
        hesitation: HesitationModel | None = None,
    ) -> None:
        self.settings = settings or Settings()
        chosen = self.settings
        self.features = FeatureStore(
            standard_features(),
            lateness_s=chosen.lateness_s,
            session_gap_s=chosen.session_gap_s,
        )
        self.signals = JourneyDetector()
        self.stage_rates = StageRates(session_gap_s=chosen.session_gap_s)
        self.intent = intent or self.stage_rates
        growth = LIVE_GROWTH if chosen.executes else FOREIGN_GROWTH
        self.non_shoppers = NonShoppers(chosen.rules)
        self.evidence = Evidence(review_growth=growth)
        self.policy = ExpectedNetValue(
            chosen.policy, executes=chosen.executes, model=self.intent.hash
        )
        self.outcomes = OutcomeJoin(COSTS, horizon_s=chosen.horizon_s, lateness_s=chosen.lateness_s)
        self.learner = Learner(chosen.policy)
        self.abandonment = Abandonment(horizon_s=chosen.abandonment_s, lateness_s=chosen.lateness_s)
        self.waiting = None if hesitation is None else Waiting(hesitation)
        self.reviewed: tuple[Defect, ...] = ()
        self._reviewed_us: int | None = None
        self._now_us = 0

    @property
    def ticking(self) -> bool:
        """Whether ticks among events tell it more than the events do."""
        return self.waiting is not None

    def step(self, batch: EventBatch, /, ticks: NDArray[np.int64] = NO_TICKS) -> Step:
        """Fold a batch of admitted events, and the ticks among them.

        Parameters
        ----------
        ticks
            Int64 microseconds UTC, ascending; each comes before the first event later than it.
        """
        moment, seen = self._know(batch)
        recognised = self.non_shoppers.step(batch, moment.rows.session)
        shoppers = self._shoppers(moment, recognised)
        self.evidence.step(shoppers)
        waited = self._wait(shoppers, recognised, ticks)
        decisions = self.policy.step(shoppers, None if waited is None else waited.due)
        now = int(ticks[-1]) if len(ticks) else None
        outcomes = self.outcomes.step(Followed(batch, decisions, now))
        self.learner.step(decisions, outcomes)
        self.abandonment.step(encode(shoppers.batch, self.abandonment.columns))
        if now is not None:
            self.abandonment.tick(now)
        self._review(batch)
        return Step(moment, shoppers, decisions, outcomes, recognised, seen, waited)

    def _know(self, batch: EventBatch) -> tuple[Moment, Detected]:
        rows = self.features.step(encode(batch, self.features.columns))
        seen: Detected = self.signals.step(batch, rows.session)
        intent = self.intent.score(batch, rows, seen)
        names = self.features.names
        return Moment(batch, rows, names, intent, seen.signals, seen.stage), seen

    def _shoppers(self, moment: Moment, recognised: Recognised) -> Moment:
        """Keep non-shoppers out of all that is learned, with their session's earlier events."""
        shoppers = moment.where(~recognised.mask)
        self.stage_rates.step(shoppers.batch, shoppers.rows, shoppers.stage)
        if recognised.visitors:
            self.evidence.leave_out(recognised.sessions)
            self.stage_rates.leave_out(recognised.sessions)
            self.learner.leave_out(recognised.visitors)
        return shoppers

    def _wait(
        self, shoppers: Moment, recognised: Recognised, ticks: NDArray[np.int64]
    ) -> Waited | None:
        """Follow who waits; those found out no longer do."""
        if self.waiting is None:
            return None
        self.waiting.leave_out(recognised.sessions)
        return self.waiting.step(shoppers, ticks)

    def _review(self, batch: EventBatch) -> None:
        """Let policy take up defects and beliefs, now and then and between batches only."""
        if not len(batch):
            return
        self._now_us = max(self._now_us, int(batch.column("ts").max()))
        if self._reviewed_us is None:
            self._reviewed_us = self._now_us
        if self._now_us - self._reviewed_us < self.settings.review_s * MICROS:
            return
        self._reviewed_us = self._now_us
        self.reviewed = tuple(self.evidence.review(self._now_us))
        self.policy.watch(self.reviewed)
        if self.settings.executes:
            self.policy.adopt(self.learner.beliefs())

    def ranking(self) -> Ranking:
        """Rank the defects as of the latest event, with what is wrong with the data instead."""
        return self.evidence.ranking(self._now_us)

    def carts(self) -> Carts:
        """Count carts, and those abandoned by the last step reached."""
        return self.abandonment.carts()

    def snapshot(self) -> dict[str, bytes]:
        """Give the whole state, a part for each stage."""
        return {"engine": self._clock()} | {
            stage.name: stage.snapshot() for stage in self._stages()
        }

    def changes(self) -> Changes:
        """Give what changed since the last call: of large states the rows that did."""
        parts = {
            stage.name: stage.changes() if isinstance(stage, Incremental) else stage.snapshot()
            for stage in self._stages()
        }
        return gather({"engine": self._clock(), **parts})

    def _clock(self) -> bytes:
        return msgspec.msgpack.encode((VERSION, self.settings, self._reviewed_us, self._now_us))

    def restore(self, parts: Mapping[str, bytes], /) -> None:
        """Take up the state that :meth:`snapshot` gave, or all calls of :meth:`changes` together.

        Raises
        ------
        SnapshotError
            If a part is missing, or of another version or other settings.
        """
        kind = tuple[int, Settings, int | None, int]
        try:
            version, settings, reviewed, now = msgspec.msgpack.decode(parts["engine"], type=kind)
            if version != VERSION or settings != self.settings:
                raise SnapshotError(
                    "Expected a snapshot of these settings, got one of others",
                    hint="run with the settings that the journal was begun with, or begin anew",
                )
            for stage in self._stages():
                _restore(stage, parts)
        except (KeyError, msgspec.MsgspecError) as error:
            raise SnapshotError(
                f"Expected a snapshot of an engine, got one without {error}"
            ) from error
        self._reviewed_us, self._now_us = reviewed, now

    def _stages(self) -> tuple["_Restorable", ...]:
        waiting = () if self.waiting is None else (self.waiting,)
        return (
            self.features,
            self.signals,
            self.stage_rates,
            self.non_shoppers,
            self.evidence,
            self.policy,
            self.outcomes,
            self.learner,
            self.abandonment,
            *waiting,
        )


class _Restorable(Protocol):
    @property
    def name(self) -> str: ...
    def snapshot(self) -> bytes: ...
    def restore(self, state: bytes, /) -> None: ...


def _restore(stage: _Restorable, parts: Mapping[str, bytes]) -> None:
    if isinstance(stage, Incremental) and stage.name not in parts:
        stage.restore_parts(under(stage.name, parts))
    else:
        stage.restore(parts[stage.name])


COSTS: Final = {
    each.id: Cost(each.cost_micros, order_share=each.cost_share) for each in INTERVENTIONS
}
"""What each intervention of the catalogue costs."""
