"""Files that appear when they are whole: a kill, or a full disk, leaves no half of one."""

import tempfile
from pathlib import Path

import polars as pl


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file; what stood there stays until the new one is whole.

    What is no file (a device, a pipe) is written to as it is: it must not be replaced by one.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(pl.DataFrame({"a": [1, 2]}), Path(folder) / "new" / "a.parquet")
    ...     pl.read_parquet(Path(folder) / "new" / "a.parquet").height
    2
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        table.write_parquet(path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        whole = Path(folder) / path.name
        table.write_parquet(whole)
        whole.replace(path)
