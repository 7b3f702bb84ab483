"""What `train` and `evaluate` have in common: a model, a log, a period, and measures to print."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from recoup.cli.arguments import accounted, open_log, parse_moment, read_rules
from recoup.cli.output import print_json, progress_bar

if TYPE_CHECKING:
    from recoup.sources import Source

Metrics = Mapping[str, object]


class OnLog(msgspec.Struct, frozen=True):
    """What the user asks for: which log, which part of it, and where the models are.

    Parameters
    ----------
    source, registry
        The log, and the registry's directory.
    until, history
        Rows are of events before this moment; an earlier log that is folded first.
    format, mapping
        How both logs are read.
    rules
        Who is no shopper.
    """

    source: Path
    registry: Path
    until: str | None
    history: Path | None
    format: str | None
    mapping: Path | None
    rules: Path | None

    def run(self, runner: Callable[..., Metrics], label: str, **more: object) -> Metrics:
        """Train or measure with its progress; ``more`` goes to the runner as it is."""
        with ExitStack() as logs:
            log = logs.enter_context(accounted(self.source, self._opened(self.source)))
            history = None
            if self.history is not None:
                history = logs.enter_context(accounted(self.history, self._opened(self.history)))
            tick = logs.enter_context(progress_bar(label, None))
            metrics = runner(
                log,
                self.registry,
                until=parse_moment(self.until, "--until"),
                history=history,
                rules=read_rules(self.rules),
                progress=tick,
                **more,
            )
        return {**metrics, **msgspec.structs.asdict(log.left_out)}

    def _opened(self, log: Path) -> "Source":
        return open_log(log, self.format, self.mapping)


def tell(metrics: Metrics, show: Callable[[Metrics], None], *, json: bool) -> None:
    """Print measures for a machine, or for people."""
    if json:
        print_json(metrics)
    else:
        show(metrics)
