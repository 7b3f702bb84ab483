"""Time ours against a peer in the same run, and print the result as one JSON line."""

import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Final

RUNS: Final = 7


def cpu_seconds(work: Callable[[], object]) -> float:
    """Give the CPU time that one call of ``work`` takes in this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def both_seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Give the CPU time of one call of ``work``, and the user's part of it.

    The rest is the system's: above all giving out fresh memory, which on some virtual machines
    costs more than the work, and depends on who gave memory back just before.
    """
    start = resource.getrusage(resource.RUSAGE_SELF)
    work()
    end = resource.getrusage(resource.RUSAGE_SELF)
    user = end.ru_utime - start.ru_utime
    return max(user + end.ru_stime - start.ru_stime, 1e-9), max(user, 1e-9)


def report(
    name: str,
    *,
    ours: float,
    peer: float | None,
    peer_name: str,
    ratio: float | None,
    unit: str,
    runs: int = RUNS,
    **more: object,
) -> None:
    """Print one result; a ``ratio`` above 1 means ours is better."""
    line = {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio}
    print(json.dumps({**line, "unit": unit, "runs": runs, **more}), flush=True)


def compare_rates(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    count: int,
    peer_count: int | None = None,
    peer_name: str,
    unit: str = "events/cpu_s",
    runs: int = RUNS,
) -> None:
    """Time the two in turn, A B A B ..., and report the median rates and the median ratio.

    A first turn of each is not counted: it takes the memory from the system that the next ones
    take from the process's own allocator, ours and the peer's alike.

    Parameters
    ----------
    count, peer_count
        How many units one call processes, ours and the peer's (a slow peer gets a smaller share).
    """
    ours()
    peer()
    rates: list[tuple[float, float]] = []
    users: list[tuple[float, float]] = []
    for _ in range(runs):
        mine, theirs = both_seconds(ours), both_seconds(peer)
        counts = count, peer_count or count
        rates.append((counts[0] / mine[0], counts[1] / theirs[0]))
        users.append((counts[0] / mine[1], counts[1] / theirs[1]))
    report(
        name,
        ours=statistics.median(a for a, _ in rates),
        peer=statistics.median(b for _, b in rates),
        peer_name=peer_name,
        ratio=statistics.median(a / b for a, b in rates),
        unit=unit,
        runs=runs,
        ours_user_time=statistics.median(a for a, _ in users),
        peer_user_time=statistics.median(b for _, b in users),
        ratio_user_time=statistics.median(a / b for a, b in users),
    )
