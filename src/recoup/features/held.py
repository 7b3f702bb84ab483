"""What a store holds of its keys, and how room is made for more."""

from collections.abc import Mapping
from typing import Final

from recoup.features.arena import touch
from recoup.features.kernel import NOTE_RESUME, Matrix, observe_one
from recoup.features.memory import (
    BUMP,
    ENTRY_WORDS,
    EPOCH,
    FORGET,
    GROUP_WORDS,
    GROUPS_AT,
    LATENESS,
    MASK,
    NEVER,
    USED,
    WATERMARK,
    empty_memory,
    enlarge,
    rebuild,
)
from recoup.features.plan import Plan
from recoup.features.pointers import Array

SWEEPS_PER_FORGETTING: Final = 8


class Held:
    """The memory of a store, which begins without keys.

    Parameters
    ----------
    plan
        What its records are.
    settings
        Word of the memory -> value.
    """

    def __init__(self, plan: Plan, settings: Mapping[int, int]) -> None:
        self.plan = plan
        self._settings = {**settings, EPOCH: 1}
        self.memory: Array
        self._next_sweep: int
        self.clear()

    def clear(self) -> None:
        """Forget every key."""
        self.memory = empty_memory(self.plan.groups, self._settings)
        self._next_sweep = NEVER + 1

    def make_room(self, number: int, count: int) -> None:
        """See that a group's table can take ``count`` more keys and stay at most half full."""
        group = GROUPS_AT + GROUP_WORDS * number
        entries = int(self.memory[group + MASK]) + 1
        wanted = entries
        while wanted < 2 * (int(self.memory[group + USED]) + count) + 2:
            wanted *= 2
        if wanted > entries:
            self._rebuild(number, wanted - 1, NEVER)

    def grow(self, least: int = 0) -> None:
        """Enlarge the memory."""
        self.memory = enlarge(self.memory, max(len(self.memory) * 5 // 4, least))

    def reserve(self, size: int) -> None:
        """Have the system find memory for so many more bytes now."""
        start = int(self.memory[BUMP])
        stop = start + -(-size // self.memory.itemsize)
        if stop > len(self.memory):
            self.grow(stop)
        touch(self.memory[start:stop])

    def sweep_if_due(self) -> None:
        """Sweep now and then, in event time."""
        if self.memory[WATERMARK] >= self._next_sweep:
            self.sweep()

    def sweep(self) -> None:
        """Give back the memory of keys whose history is forgotten; no row depends on it."""
        oldest = int(self.memory[WATERMARK] - self.memory[LATENESS] - self.memory[FORGET])
        for number in range(len(self.plan.groups)):
            mask = int(self.memory[GROUPS_AT + GROUP_WORDS * number + MASK])
            self._rebuild(number, mask, oldest)
        step = int(self.memory[FORGET]) // SWEEPS_PER_FORGETTING
        self._next_sweep = int(self.memory[WATERMARK]) + step

    def observe_again(self, status: int, one: Array, row: Matrix, note: Array) -> int:
        """Enlarge what an event did not fit into, and go on where it stopped."""
        while status < 0:
            number = -1 - status
            note[0, NOTE_RESUME] = number
            group = GROUPS_AT + GROUP_WORDS * number
            if 2 * self.memory[group + USED] > self.memory[group + MASK]:
                self.sweep_if_due()
                self.make_room(number, 1)
            else:
                self.grow()
            status = observe_one(self.memory, self.plan.table, one, row, note)
        note[0, NOTE_RESUME] = 0
        return status

    def _rebuild(self, number: int, mask: int, oldest: int) -> None:
        group = GROUPS_AT + GROUP_WORDS * number
        while not rebuild(self.memory, group, mask, oldest):
            self.grow(int(self.memory[BUMP]) + (mask + 1) * ENTRY_WORDS)
