"""Where and when shoppers hesitate, watched beside the engine: waits and signals of behaviour."""

from collections.abc import Mapping

from recoup.engine import Engine, Step
from recoup.parts import gather, under
from recoup.report import Behaving, Hesitation, HesitationTally, Judged
from recoup.state import Changes


class HesitationWatch:
    """The tally of waits and behaviours, which a host feeds with what the engine gave.

    Parameters
    ----------
    engine
        Whose steps it will see: its allowed lateness, and its model of hesitation if it has one.

    Examples
    --------
    >>> from recoup.engine import Engine
    >>> from recoup.testing import random_batch
    >>> engine = Engine()
    >>> watch = HesitationWatch(engine)
    >>> watch.step(engine.step(random_batch(200, seed=1)))
    >>> [(each.name, each.events) for each in watch.result().behaviours[:2]]
    [('revisits', 0), ('oscillation', 0)]
    """

    name = "hesitating"

    def __init__(self, engine: Engine) -> None:
        level = None if engine.waiting is None else engine.waiting.level
        self.tally = HesitationTally(lateness_s=engine.settings.lateness_s, level=level)

    def step(self, step: Step, /) -> None:
        """Watch what shoppers did; sessions found to be no shopper's are taken out."""
        seen = step.shoppers
        assert step.seen.behaved is not None  # noqa: S101
        shown = step.seen.behaved[~step.recognised.mask]
        waited = step.waited
        judged = None if waited is None else Judged(waited.goes_on, waited.patience_s)
        self.tally.step(Behaving(seen.batch, seen.rows.session, shown, judged))
        self.tally.leave_out(step.recognised.sessions)

    def result(self) -> Hesitation:
        """Give what the events so far say."""
        return self.tally.result()

    def snapshot(self) -> dict[str, bytes]:
        """Give the whole state, in parts."""
        return {"waits": self.tally.snapshot()}

    def changes(self) -> Changes:
        """Give what changed since the last call, in parts."""
        return gather({"waits": self.tally.changes()})

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up what :meth:`snapshot` gave, or all calls of :meth:`changes` together.

        Raises
        ------
        SnapshotError
            If a part is missing, or of another version.
        """
        if "waits" in parts:
            self.tally.restore(parts["waits"])
        else:
            self.tally.restore_parts(under("waits", parts))
