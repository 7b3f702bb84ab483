"""Raw columns of a block, as the mapping names them."""

from collections.abc import Sequence

import polars as pl

from recoup.sources.tables import Block
from recoup.sources.values import read_text


class Raw:
    """Raw columns of a block."""

    def __init__(self, block: Block) -> None:
        self.block = block

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.block.frame.height

    def get(self, name: str) -> pl.Series:
        """Give a column; one that the block lacks is all null."""
        if name in self.block.frame.columns:
            return self.block.frame[name]
        return pl.Series(name, [None], dtype=pl.String).new_from_index(0, self.height)

    def text(self, names: Sequence[str], nulls: Sequence[str], joint: str = "-") -> pl.Series:
        """Give columns as text, joined; null where any of them is."""
        parts = [read_text(self.get(name), tuple(nulls)) for name in names]
        if len(parts) == 1:
            return parts[0]
        frame = pl.DataFrame([part.alias(str(place)) for place, part in enumerate(parts)])
        return frame.select(pl.concat_str(pl.all(), separator=joint)).to_series()
