"""Events a second of the simulator, frames included, against the same law run as plain Python.

The peer is the law itself with the compiler switched off: one visitor after another, as a script
would do it. Its events are asserted to be the same before anything is timed.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.harness import RUNS, cpu_seconds, report
from recoup.simulator import Shop, load_scenario

VISITORS: Final = 40_000
PEER_VISITORS: Final = 300
DAYS: Final = 1.0
PLAIN: Final = "--plain"


def simulate(visitors: int) -> tuple[int, str]:
    """Give the number of events and a digest of all of them."""
    shop = Shop(visitors, DAYS, 1, load_scenario("default"))
    frames = [shop.step(shop.now + 6 * 3_600_000_000).events for _ in range(4)]
    assert shop.done
    digest = sum(int(frame.hash_rows(seed=1).sum()) for frame in frames)
    return sum(frame.height for frame in frames), f"{digest % 2**64:016x}"


def rate(visitors: int) -> float:
    """Give events per second of CPU time."""
    count = 0

    def work() -> None:
        nonlocal count
        shop = Shop(visitors, DAYS, 1, load_scenario("default"))
        count = 0
        while not shop.done:
            count += len(shop.step(shop.now + 6 * 3_600_000_000))

    seconds = cpu_seconds(work)
    return count / seconds


def plain() -> None:
    """Print what the peer reached, from a process without the compiler."""
    _, digest = simulate(PEER_VISITORS)
    rates = [rate(PEER_VISITORS) for _ in range(RUNS)]
    print(json.dumps({"digest": digest, "rates": rates}))


def main() -> None:
    """Check that both give the same events, then time both."""
    command = [sys.executable, __file__, PLAIN]
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": root}
    out = subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: S603
    peer = json.loads(out.stdout)
    _, digest = simulate(PEER_VISITORS)
    assert digest == peer["digest"], "the compiled law and the plain one differ"
    rate(VISITORS)
    ours = [rate(VISITORS) for _ in range(RUNS)]
    pairs = zip(ours, peer["rates"], strict=True)
    report(
        "simulate",
        ours=statistics.median(ours),
        peer=statistics.median(peer["rates"]),
        peer_name="the same law in plain Python and NumPy, one visitor at a time",
        ratio=statistics.median(a / b for a, b in pairs),
        unit="events/cpu_s",
    )


if __name__ == "__main__":
    plain() if PLAIN in sys.argv else main()
