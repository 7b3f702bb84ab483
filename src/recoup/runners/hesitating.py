"""Where and when shoppers hesitate, watched beside the engine: waits and signals of behaviour."""

from collections.abc import Mapping

from recoup.engine import Step
from recoup.friction.behaviour import BehaviourDetector
from recoup.parts import gather, under
from recoup.report import Behaving, Hesitation, HesitationTally
from recoup.state import Changes


class HesitationWatch:
    """Two stages that a host feeds with what the engine gave: behaviours, and the tally of waits.

    Parameters
    ----------
    lateness_s
        Allowed lateness of events, in seconds.

    Examples
    --------
    >>> from recoup.engine import Engine
    >>> from recoup.testing import random_batch
    >>> watch = HesitationWatch(lateness_s=3600.0)
    >>> watch.step(Engine().step(random_batch(200, seed=1)))
    >>> [(each.name, each.events) for each in watch.result().behaviours[:2]]
    [('revisits', 0), ('oscillation', 0)]
    """

    name = "hesitating"

    def __init__(self, *, lateness_s: float) -> None:
        self.behaviour = BehaviourDetector()
        self.tally = HesitationTally(lateness_s=lateness_s)

    def step(self, step: Step, /) -> None:
        """Watch what shoppers did; sessions found to be no shopper's are taken out."""
        seen = step.shoppers
        shown = self.behaviour.step(seen.batch, seen.rows.session)
        self.tally.step(Behaving(seen.batch, seen.rows.session, shown))
        self.tally.leave_out(step.recognised.sessions)

    def result(self) -> Hesitation:
        """Give what the events so far say."""
        return self.tally.result()

    def snapshot(self) -> dict[str, bytes]:
        """Give the whole state, in parts."""
        return {"behaviour": self.behaviour.snapshot(), "waits": self.tally.snapshot()}

    def changes(self) -> Changes:
        """Give what changed since the last call, in parts."""
        return gather({"behaviour": self.behaviour.snapshot(), "waits": self.tally.changes()})

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up what :meth:`snapshot` gave, or all calls of :meth:`changes` together.

        Raises
        ------
        SnapshotError
            If a part is missing, or of another version.
        """
        self.behaviour.restore(parts.get("behaviour", b""))
        if "waits" in parts:
            self.tally.restore(parts["waits"])
        else:
            self.tally.restore_parts(under("waits", parts))
