"""Renamed columns: noticed while a log is read, and followed where the evidence is strong.

A column that the mapping reads ends, another that nothing reads begins where it ended. The second
is read on as the first if its values look the same, and either its name means the same, or its
values are the same ones, or no other column came or went. Blocks are judged with the next one in
view, so that what follows a change is seen before the rows around it are converted.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import polars as pl

from recoup.sources.drift import has_value
from recoup.sources.synonyms import field_of, snake
from recoup.sources.tables import Block
from recoup.sources.values import as_text

SAMPLE: Final = 256
MAX_KNOWN: Final = 5_000
EXPECTED: Final = 20.0
"""How many values a column must owe before its silence counts as its end."""
SAME_SHAPE: Final = 0.7
SAME_VALUES: Final = 0.3
LIKE_NAMES: Final = 0.6
FEW: Final = 3
BOTH: Final = 0.01
SAME_RATE: Final = 0.1
LIKE_LENGTH: Final = (0.6, 1.7)


class Renamed(msgspec.Struct, frozen=True):
    """A column read on under another name.

    Parameters
    ----------
    old, new
        The names.
    row
        Row of the block in which the new one begins.
    reason
        What the judgement rests on.

    Examples
    --------
    >>> Renamed("user_id", "uid", 12, "the same values").row
    12
    """

    old: str
    new: str
    row: int
    reason: str


class Followed(msgspec.Struct, frozen=True):
    """A block in which every column has its old name.

    Parameters
    ----------
    block
        The block.
    renamed
        The changes that begin in this block.

    Examples
    --------
    >>> from recoup.sources.base import no_dead_letters
    >>> block = Block("a", pl.DataFrame(), pl.Series([], dtype=pl.Int64), no_dead_letters())
    >>> Followed(block, ()).renamed
    ()
    """

    block: Block
    renamed: tuple[Renamed, ...]


class Profile:
    """What a column has held so far.

    Examples
    --------
    >>> profile = Profile()
    >>> profile.add(pl.Series(["SKU-17", "SKU-4"]), 2)
    >>> profile.shapes.most_common(1)
    [('a-9', 2)]
    """

    def __init__(self) -> None:
        self.rows = self.present = 0
        self.known: set[str] = set()
        self.shapes: Counter[str] = Counter()
        self.length = 0.0

    def add(self, column: pl.Series, present: int, *, sample: int = SAMPLE) -> None:
        """Take in values, of which ``present`` are not null; the first ``sample`` are kept."""
        self.rows += len(column)
        self.present += present
        if not present:
            return
        values = as_text(column.drop_nulls().head(sample)).str.head(SAMPLE)
        if len(self.known) < MAX_KNOWN:
            self.known.update(values.to_list())
        shapes = values.str.replace_all(r"\p{L}+", "a").str.replace_all(r"\d+", "9")
        self.shapes.update(shapes.to_list())
        self.length = float(values.str.len_chars().cast(pl.Float64).sum() / len(values))

    def merge(self, other: "Profile | None") -> None:
        """Take in what another column has held."""
        if other is None:
            return
        self.rows += other.rows
        self.present += other.present
        self.known |= other.known
        self.shapes.update(other.shapes)
        self.length = other.length or self.length


class Follower:
    """Watches which columns end and which begin.

    Parameters
    ----------
    wanted
        Columns that the mapping reads.
    by_name
        Of those, the ones that may be sought under a like name when the log never has them.
    """

    def __init__(self, wanted: Iterable[str], *, by_name: Iterable[str]) -> None:
        self._wanted = set(wanted)
        self._by_name = set(by_name)
        self._profiles: dict[str, Profile] = {}
        self._aliases: dict[str, list[str]] = {}
        self._first = True

    def follow(self, blocks: Iterable[Block]) -> Iterator[Followed]:
        """Give each block with its aliases, the next one being in view."""
        held: Block | None = None
        pending: list[Renamed] = []
        for block in blocks:
            if held is not None:
                now, pending = self._judge(held, block, pending)
                yield Followed(self._old_names(held), now)
            held = block
        if held is not None:
            now, _ = self._judge(held, None, pending)
            yield Followed(self._old_names(held), now)

    def _old_names(self, block: Block) -> Block:
        """Fill each column that ended from the columns that took its place."""
        frame = block.frame
        for old, others in self._aliases.items():
            for new in others:
                if new not in frame.columns:
                    continue
                column = frame[new]
                if old in frame.columns:
                    column = _filled(frame[old], column)
                frame = frame.drop(new).with_columns(column.alias(old))
        return msgspec.structs.replace(block, frame=frame)

    def _judge(
        self, block: Block, after: Block | None, pending: list[Renamed]
    ) -> tuple[tuple[Renamed, ...], list[Renamed]]:
        """Look for changes in two blocks: those that begin in the first, and in the next."""
        windows = [_present(block.frame)] + ([] if after is None else [_present(after.frame)])
        frames = [block.frame] + ([] if after is None else [after.frame])
        changes = self._changes(windows, frames) if block.frame.height else []
        here = tuple(pending) + tuple(one for place, one in changes if place == 0)
        for _, change in changes:
            self._aliases.setdefault(change.old, []).append(change.new)
        for name, mask in windows[0].items():
            self._profiles.setdefault(name, Profile()).add(
                block.frame[name].filter(mask), int(mask.sum())
            )
            self._profiles[name].rows += block.frame.height - int(mask.sum())
        self._first = self._first and not block.frame.height
        return here, [one for place, one in changes if place == 1]

    def _changes(
        self, windows: list[dict[str, pl.Series]], frames: list[pl.DataFrame]
    ) -> list[tuple[int, Renamed]]:
        heights = [frame.height for frame in frames]
        ended = {
            name: where
            for name in sorted(self._wanted)
            if (where := self._end(name, windows, heights)) is not None
        }
        if not ended:
            return []
        begun = {
            name: where
            for name in windows[-1] | windows[0]
            if (where := self._begin(name, windows, heights)) is not None
        }
        changes: list[tuple[int, Renamed]] = []
        for old, end in ended.items():
            old_names = (old, *self._aliases.get(old, ()))
            before = self._profile(old_names, windows, frames)
            alone = len(ended) == len(begun) == 1
            found: list[tuple[float, str, str]] = []
            for new, begin in begun.items():
                after = self._profile([new], windows, frames)
                judged = alike(old, new, before, after, alone=alone)
                if begin >= end - BOTH * sum(heights) and judged is not None:
                    found.append((judged[0], new, judged[1]))
            if not found:
                continue
            found.sort(reverse=True)
            if len(found) > 1 and found[0][0] == found[1][0]:
                continue
            _, new, reason = found[0]
            begin = begun.pop(new)
            place = 0 if begin < heights[0] else 1
            changes.append((place, Renamed(old, new, begin - (heights[0] if place else 0), reason)))
        return changes

    def _end(
        self, name: str, windows: list[dict[str, pl.Series]], heights: list[int]
    ) -> int | None:
        """Give the row behind the last value of a column, if the column owes values since."""
        names = (name, *self._aliases.get(name, ()))
        last, start, seen = 0, 0, 0
        for window, height in zip(windows, heights, strict=True):
            for each in names:
                if each in window and window[each].any():
                    last = max(last, start + int(window[each].arg_true()[-1]) + 1)
                    seen += int(window[each].sum())
            start += height
        before = [self._profiles[each] for each in names if each in self._profiles]
        present = seen + sum(profile.present for profile in before)
        if not present:
            return 0 if self._first and name in self._by_name else None
        rows = last + max((profile.rows for profile in before), default=0)
        silent = sum(heights) - last
        gone = all(each not in window for each in names for window in windows[-1:])
        owed = silent * present / max(rows, 1)
        return last if owed >= (1.0 if gone else EXPECTED) else None

    def _begin(
        self, name: str, windows: list[dict[str, pl.Series]], heights: list[int]
    ) -> int | None:
        """Give the row of the first value of a column that nothing reads, if it begins here."""
        if name in self._wanted or any(name in new for new in self._aliases.values()):
            return None
        if name in self._profiles and self._profiles[name].present:
            return None
        start = 0
        for window, height in zip(windows, heights, strict=True):
            if name in window and window[name].any():
                return start + int(window[name].arg_true()[0])
            start += height
        return None

    def _profile(
        self, names: Iterable[str], windows: list[dict[str, pl.Series]], frames: list[pl.DataFrame]
    ) -> Profile:
        """Give what columns have held so far, the blocks in view included."""
        whole = Profile()
        for name in names:
            whole.merge(self._profiles.get(name))
            for window, frame in zip(windows, frames, strict=True):
                if name in window:
                    whole.add(frame[name].filter(window[name]), int(window[name].sum()))
        return whole


def alike(
    old: str, new: str, before: Profile, after: Profile, *, alone: bool
) -> tuple[float, str] | None:
    """Say how strongly one column looks like the continuation of another, and why.

    Parameters
    ----------
    before, after
        What the two have held.
    alone
        Whether no other column came or went.
    """
    named = like_names(old, new)
    if not before.present:
        return (1.0, "its name means the same as the column's that never comes") if named else None
    shape = shape_overlap(before, after)
    if shape < SAME_SHAPE:
        return None
    known = len(before.known & after.known) / max(1, len(after.known))
    if known >= SAME_VALUES and len(after.known) >= FEW:
        return 2 + known, f"{known:.0%} of its values are known from `{old}`"
    if named:
        return 1 + shape, "its name and the shape of its values are alike"
    if alone and len(after.known) >= FEW:
        return shape, "no other column came or went, and the shape of its values is the same"
    return None


def _filled(first: pl.Series, second: pl.Series) -> pl.Series:
    """Fill the gaps of one column from another."""
    if first.dtype != second.dtype:
        first, second = as_text(first), as_text(second)
    return first.zip_with(has_value(first), second)


def shape_overlap(before: Profile, after: Profile) -> float:
    """Share of values whose shape both columns have; 0 where their lengths differ much."""
    first, second = before.shapes.total(), after.shapes.total()
    if not first or not second:
        return 0.0
    ratio = (after.length + 1) / (before.length + 1)
    if not LIKE_LENGTH[0] <= ratio <= LIKE_LENGTH[1]:
        return 0.0
    return sum(
        min(before.shapes[shape] / first, count / second) for shape, count in after.shapes.items()
    )


def like_names(old: str, new: str) -> bool:
    """Say whether two columns' names mean the same, or nearly.

    Examples
    --------
    >>> like_names("visitor_id", "visitorId"), like_names("price", "colour")
    (True, False)
    """
    first, second = field_of(old), field_of(new)
    if first is not None and second is not None:
        return first[0] == second[0]
    one, two = snake(old), snake(new)
    if set(one.split("_")) <= set(two.split("_")) or set(two.split("_")) <= set(one.split("_")):
        return True
    return difflib.SequenceMatcher(None, one, two).ratio() >= LIKE_NAMES


def _present(frame: pl.DataFrame) -> dict[str, pl.Series]:
    """Say in which rows each column has a value."""
    return {name: has_value(frame[name]) for name in frame.columns}
