"""The shared checks must catch what they are for: each of these breaks one promise."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pytest

from recoup.errors import SnapshotError
from recoup.stores import MemoryJournal, MemoryKeyValue
from recoup.testing import CountingHost, check_journal, check_keyvalue, check_stage, random_batch


class Summing:
    """A sound stage: the running sum of integers."""

    name = "summing"

    def __init__(self) -> None:
        self.total = 0

    def step(self, batch: list[int], /) -> list[int]:
        sums = []
        for number in batch:
            self.total += number
            sums.append(self.total)
        return sums

    def snapshot(self) -> bytes:
        return b"sum" + self.total.to_bytes(8, "little")

    def restore(self, state: bytes, /) -> None:
        if len(state) != 11 or not state.startswith(b"sum"):
            raise SnapshotError("Expected a sum")
        self.total = int.from_bytes(state[3:], "little")


class Forgetful(Summing):
    def restore(self, state: bytes, /) -> None:
        super().restore(state)
        self.total = 0


class Trusting(Summing):
    def restore(self, state: bytes, /) -> None:
        self.total = int.from_bytes(state[3:], "little")


class Drifting(Summing):
    drift = itertools.count()

    def step(self, batch: list[int], /) -> list[int]:
        return [*super().step(batch), next(self.drift)]


class Batchwise(Summing):
    def step(self, batch: list[int], /) -> list[int]:
        return [sum(super().step(batch))] * len(batch)


class Consuming(Summing):
    def snapshot(self) -> bytes:
        state = super().snapshot()
        self.total = 0
        return state


def split(batch: list[int], size: int) -> list[list[int]]:
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def check(make: Callable[[], Summing]) -> None:
    batches = [[1, 2, 3], [4, 5], [6]]
    check_stage(make, batches, split=split, join=lambda outputs: [*itertools.chain(*outputs)])


def test_a_sound_stage_passes() -> None:
    check(Summing)


@pytest.mark.parametrize("broken", [Forgetful, Trusting, Drifting, Batchwise, Consuming])
def test_a_broken_stage_does_not(broken: type[Summing]) -> None:
    with pytest.raises(AssertionError, match="expected"):
        check(broken)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pl.DataFrame({"a": [0.0]}), pl.DataFrame({"a": [-0.0]})),
        (pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [1.0]})),
        (np.array([1, 2]), np.array([[1, 2]])),
        (np.array([0.0]), np.array([-0.0])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([1], [1, 2]),
        (0.0, -0.0),
        (1, True),
        (random_batch(3, seed=1), random_batch(3, seed=2)),
    ],
)
def test_outputs_that_differ_in_a_bit_are_told_apart(one: object, two: object) -> None:
    outputs = iter([one, one, two, two])

    class Fickle(Summing):
        def step(self, batch: list[int], /) -> object:  # type: ignore[override]
            super().step(batch)
            return next(outputs)

    with pytest.raises(AssertionError, match="second run"):
        check_stage(Fickle, [[1], [2]])


def test_a_journal_that_loses_a_position_does_not_pass() -> None:
    class Losing(MemoryJournal):
        def position(self, source: str) -> str | None:
            return super().position(source) and "row 3"

    with pytest.raises(AssertionError, match="position"):
        check_journal(Losing)


def test_a_store_that_scans_out_of_order_does_not_pass() -> None:
    class Unordered(MemoryKeyValue):
        def scan(self, prefix: bytes = b"", /) -> Iterator[tuple[bytes, bytes]]:
            return reversed(list(super().scan(prefix)))

    with pytest.raises(AssertionError, match="all pairs"):
        check_keyvalue(Unordered)


def test_the_counting_host_restores() -> None:
    one, two = CountingHost(), CountingHost()
    one.step(random_batch(100, seed=1))
    two.restore(one.snapshot())
    assert two.snapshot() == one.snapshot()
    later = random_batch(100, seed=2)
    assert two.step(later)["counts"].equals(one.step(later)["counts"])
