import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.sources.values import (
    read_count,
    read_flag,
    read_money,
    read_real,
    read_text,
    read_time,
)

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
MOMENT = dt.datetime(2016, 9, 1, 7, 0, tzinfo=dt.UTC)
EPOCH = 1_472_713_200


def times(values: list[object], *formats: str, zone: str = "UTC") -> list[dt.datetime | None]:
    return read_time(pl.Series(values), formats or ("auto",), zone=zone, now=NOW).values.to_list()


@pytest.mark.parametrize(
    "value",
    [
        EPOCH,
        EPOCH * 1000,
        EPOCH * 1_000_000,
        EPOCH * 1_000_000_000,
        float(EPOCH),
        str(EPOCH),
        f"{EPOCH}.0",
        f"{EPOCH}000",
        "2016-09-01T07:00:00Z",
        "2016-09-01 07:00:00",
        "2016-09-01T07:00",
        "2016-09-01T09:00:00+02:00",
        "2016-09-01T09:00:00.000+0200",
        "2016-08-31 21:00:00 -10",
        "2016-09-01 07:00:00 UTC",
        "20160901070000",
        "2016/09/01 07:00:00",
        "Thu, 01 Sep 2016 07:00:00 GMT",
        "01/Sep/2016:07:00:00 +0000",
        dt.datetime(2016, 9, 1, 7, 0),  # noqa: DTZ001
        MOMENT,
    ],
)
def test_a_moment_is_the_same_however_it_is_written(value: object) -> None:
    assert times([value]) == [MOMENT]


def test_units_of_epoch_numbers_are_told_value_by_value() -> None:
    assert times([EPOCH, EPOCH * 1000, EPOCH * 1_000_000]) == [MOMENT] * 3


def test_a_fraction_of_a_second_is_kept() -> None:
    assert times(["2016-09-01T07:00:00.123456789Z"]) == [MOMENT.replace(microsecond=123456)]
    assert times([EPOCH + 0.25]) == [MOMENT.replace(microsecond=250_000)]


def test_an_eight_digit_day_is_no_epoch_number() -> None:
    midnight = MOMENT.replace(hour=0)
    assert times([20160901]) == times(["20160901"]) == times(["2016-09-01"]) == [midnight]


def test_moments_without_a_zone_take_the_one_given() -> None:
    assert (
        times(["2016-09-01 09:00:00", "2016-09-01 07:00:00Z"], zone="Europe/Paris") == [MOMENT] * 2
    )


def test_day_and_month_change_places_with_the_format() -> None:
    assert times(["03/04/2016"], "%d/%m/%Y")[0] == dt.datetime(2016, 4, 3, tzinfo=dt.UTC)
    assert times(["03/04/2016"], "%m/%d/%Y")[0] == dt.datetime(2016, 3, 4, tzinfo=dt.UTC)
    assert times(["03/04/2016"]) == [None]


def test_several_formats_are_tried_in_turn() -> None:
    assert times(["2016-09-01 07:00", "01.09.2016 07:00"], "iso", "%d.%m.%Y %H:%M") == [MOMENT] * 2


def test_bad_moments_say_why() -> None:
    column = pl.Series(["x", "1970-01-01", "2026-11-03", "", None, "2026-11-01T23:00:00Z"])
    reading = read_time(column, ("auto",), zone="UTC", now=NOW)
    assert reading.reasons.to_list() == [
        "bad_timestamp", "bad_timestamp", "future_timestamp", "missing_timestamp",
        "missing_timestamp", None,
    ]  # fmt: skip


@given(st.floats() | st.integers(-(2**70), 2**70).map(float))
def test_no_number_breaks_the_reading_of_time(value: float) -> None:
    reading = read_time(pl.Series([value], dtype=pl.Float64), ("auto",), zone="UTC", now=NOW)
    assert reading.values.is_null().item() == reading.reasons.is_not_null().item()


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("12.50", 12_500_000),
        ("$1,234.50", 1_234_500_000),
        ("1.234,50 EUR", 1_234_500_000),
        ("12,5", 12_500_000),
        ("1,234", 1_234_000_000),
        ("-3", -3_000_000),
        ("1e2", 100_000_000),
        ("abc", None),
        ("NaN", None),
        ("inf", None),
        ("1e30", None),
        ("12 34 56 free", None),
    ],
)
def test_amounts(text: str, micros: int | None) -> None:
    reading = read_money(pl.Series([text]))
    assert reading.values.to_list() == [micros]
    assert reading.reasons.to_list() == [None if micros is not None else "bad_number"]


def test_units_of_amounts() -> None:
    assert read_money(pl.Series([1250]), "cents").values.to_list() == [12_500_000]
    assert read_money(pl.Series([2**60]), "micros").values.to_list() == [2**60]


@given(st.integers(-(10**12), 10**12))
def test_cents_are_exact_as_currency_text(cents: int) -> None:
    text = f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02d}"
    assert read_money(pl.Series([text])).values.to_list() == [cents * 10_000]


def test_ids_of_any_type_are_the_same_id() -> None:
    for column in ([17], [17.0], ["17"], [" 17 "]):
        assert read_text(pl.Series(column)).to_list() == ["17"]
    assert read_text(pl.Series([True])).to_list() == ["true"]
    assert read_text(pl.Series([float("nan"), 0.5])).to_list() == [None, "0.5"]
    assert read_text(pl.Series(["(not set)", "NULL", ""])).to_list() == [None] * 3


def test_counts_and_reals() -> None:
    assert read_count(pl.Series(["3.0", "3.5", "x", None])).reasons.to_list() == [
        None, "bad_number", "bad_number", None,
    ]  # fmt: skip
    assert read_real(pl.Series([1.5, float("inf"), float("nan")])).values.to_list() == [
        1.5, None, None,
    ]  # fmt: skip


def test_flags() -> None:
    reading = read_flag(pl.Series(["Yes", "0", "TRUE", "maybe", None]))
    assert reading.values.to_list() == [True, False, True, None, None]
    assert reading.reasons.to_list() == [None, None, None, "bad_flag", None]
