"""Whatever the table, `recoup evaluate` answers it, or says what is wrong with it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recoup.cli.app import app
from recoup.errors import RecoupError, SchemaError

ROWS = 120
RNG = np.random.default_rng(5)
HALF = np.full(ROWS, 0.5)


def waiting() -> pl.DataFrame:
    """Two points a journey; every third acts at the second, every sixth at the first."""
    number = np.arange(ROWS) // 2
    act = np.where(np.arange(ROWS) % 2 == 1, number % 3 == 0, number % 6 == 1)
    table = pl.DataFrame({"j": number, "t": np.arange(ROWS) % 2, "act": act.astype(int), "p": HALF})
    acted = pl.col("act").cum_sum().over("j") - pl.col("act")
    return table.filter(acted == 0).with_columns(
        s=pl.col("j") % 2, y=pl.col("j") * 1.0, i=1, v=pl.col("j") // 2, g=pl.lit("all")
    )


def kinds() -> pl.DataFrame:
    """The same with two kinds of acts."""
    return waiting().with_columns(
        w=pl.when(pl.col("j") % 2 == 0).then(pl.lit("a")).otherwise(pl.lit("b")), k=0.25, m=0.25
    )


def blocks() -> pl.DataFrame:
    """Hours of two regions; blocks of an hour, of which every other one acts."""
    hour = np.arange(ROWS) // 2
    start = pl.datetime(2026, 3, 1)
    arm = np.where(hour % 2 == 0, "old", "new")
    return pl.DataFrame({"r": np.arange(ROWS) % 2, "h": hour, "arm": arm}).select(
        "r", "arm", t=start + pl.duration(hours="h"), y=RNG.random(ROWS), b=1.0 + RNG.random(ROWS)
    )


def arms() -> pl.DataFrame:
    """Clusters of two, each in one arm."""
    number = np.arange(ROWS)
    arm = np.where(number // 2 % 2 == 0, "old", "new")
    return pl.DataFrame({"arm": arm, "y": RNG.random(ROWS), "x": RNG.random(ROWS)}).with_columns(
        b=1.0 + RNG.random(ROWS), c=number // 2, t=number // 12, s=number % 3
    )


TABLES: dict[str, pl.DataFrame] = {
    "ope": pl.DataFrame({"r": RNG.random(ROWS), "p": HALF, "pi": RNG.random(ROWS)}).with_columns(
        a=np.arange(ROWS) % 2, q=HALF, v=HALF, u=np.arange(ROWS) // 2
    ),
    "delay": waiting(),
    "delay by action": kinds(),
    "switchback": blocks(),
    "policy": waiting().rename({"act": "a"}).drop("g"),
    "uplift": pl.DataFrame(
        {"t": RNG.integers(0, 2, ROWS), "y": RNG.integers(0, 2, ROWS)}
    ).with_columns(x=RNG.random(ROWS), p=HALF),
    "experiment": arms(),
}
WAITS = "--journey j --time t --state s --propensity p --outcome y --availability i --cluster v"
OPTIONS = {
    "ope": "--action a --reward r --propensity p --target pi --model q --model-value v --cluster u",
    "delay": f"{WAITS} --act act --segment g",
    "delay by action": f"{WAITS} --act act --segment g --by w --action w --chance a=k --chance b=m",
    "switchback": "--region r --time t --arm arm --control old --metric y --metric y/b"
    " --block-hours 1",
    "policy": f"{WAITS} --action a --default 0 --policy",
    "uplift": "--treatment t --outcome y --feature x --propensity p",
    "experiment": "--arm arm --control old --metric y --metric x/b --covariate b --cluster c"
    " --segment s --time t --share old=0.5 --share new=0.5",
}


def broken(values: pl.Series) -> dict[str, pl.Series]:
    """Spoil a column in each of several ways."""
    found = {
        "lists": pl.Series([[1]] * len(values)),
        "words": pl.Series(["word"] * len(values)),
        "zeros": pl.Series([0] * len(values)),
        "absent": pl.Series([None] * len(values)),
        "one absent": values.scatter(3, None),
    }
    if values.dtype.is_numeric():
        real = values.cast(pl.Float64)
        for bad in (float("nan"), float("inf"), -1.0, 1e300):
            found[str(bad)] = real.scatter(3, bad)
    return found


def run(command: str, table: pl.DataFrame, folder: Path) -> str:
    """Give what was said of a table; an exception that is none of ours comes through."""
    table.write_parquet(folder / "log.parquet")
    options = OPTIONS[command].split()
    if command == "policy":
        rules = pl.DataFrame({"t": [0, 1], "s": [1, 1], "a": [1, 1]})
        rules.write_csv(folder / "rules.csv")
        options.append(str(folder / "rules.csv"))
    found = CliRunner().invoke(
        app,
        ["evaluate", command.split(maxsplit=1)[0], str(folder / "log.parquet"), *options, "--json"],
    )
    if isinstance(found.exception, RecoupError):
        assert isinstance(found.exception.message, str)
        return found.exception.message
    if found.exception is not None:
        raise found.exception
    assert isinstance(json.loads(found.stdout), dict)
    return ""


@pytest.mark.parametrize("command", TABLES)
def test_a_spoilt_column_is_told_or_answered(command: str, tmp_path: Path) -> None:
    table = TABLES[command]
    assert run(command, table, tmp_path) == ""
    for name in table.columns:
        assert name in run(command, table.drop(name), tmp_path)
        for how, values in broken(table[name]).items():
            said = run(command, table.with_columns(values.alias(name)), tmp_path)
            assert said or how != "lists", (command, name)


@pytest.mark.parametrize("command", TABLES)
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tiny_tables_are_told_or_refused(command: str, rows: int, tmp_path: Path) -> None:
    said = run(command, TABLES[command].head(rows), tmp_path)
    assert said or rows > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"j": pl.Series([None, *range(1, ROWS)])}, r"j\[0\]"),
        ({"v": pl.Series([7] * ROWS)}, "several clusters"),
        ({"p": pl.Series(["0.5"] * ROWS)}, "Expected numbers in column 'p'"),
    ],
)
def test_keys_that_tell_nothing_apart_are_refused(
    change: dict[str, pl.Series], said: str, tmp_path: Path
) -> None:
    table = TABLES["delay"]
    spoilt = table.with_columns(**{name: new.head(table.height) for name, new in change.items()})
    with pytest.raises(SchemaError, match=said):
        raise SchemaError(run("delay", spoilt, tmp_path))
