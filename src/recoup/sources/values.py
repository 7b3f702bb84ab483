"""From raw values of any type to the vocabulary's types; what cannot be read is null, and said.

Every reader takes a column as it stands in the file and gives the values with, beside them, the
reason code of each value that was there but could not be read (null where all is well).
"""

import datetime as dt
from typing import Final

import msgspec
import polars as pl

from recoup.events import MICROS, TIMESTAMP

EARLIEST: Final = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
"""Before this there were no web shops: an earlier time is a slip of the clock or of the unit."""
SKEW: Final = dt.timedelta(days=1)
"""How far a shop's clock and zone may run ahead of ours."""

NULLS: Final = (
    "", "null", "NULL", "Null", "None", "none", "undefined", "N/A", "n/a", "\\N", "(not set)",
    "(not provided)", "not available in demo dataset",
)  # fmt: skip

UNITS: Final = {"s": MICROS, "ms": 1000, "us": 1}
NAMED: Final = ("auto", "iso", "s", "ms", "us", "ns")
SLASHED: Final = ("%Y/%m/%d %H:%M:%S%.f", "%Y/%m/%d %H:%M", "%Y/%m/%d")
WORDED: Final = ("%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT")
MAX_S, MAX_MS, MAX_US = 1e11, 1e14, 1e17
"""A larger epoch number is of the next finer unit: the year 5138 in any of them."""
DAY_DIGITS, CLOCK_DIGITS = 8, 14
MAX_MICROS: Final = 9.2e18
MAX_COUNT: Final = 2**53
TRUE: Final = ("true", "1", "t", "yes", "y", "1.0")
FALSE: Final = ("false", "0", "f", "no", "n", "0.0")


class Reading(msgspec.Struct, frozen=True):
    """Values of a column as they were understood.

    Parameters
    ----------
    values
        One per row, null where there was none or it could not be read.
    reasons
        Reason code per row (String), null where all is well.

    Examples
    --------
    >>> reading = read_money(pl.Series(["12.50", "free"]))
    >>> reading.values.to_list(), reading.reasons.to_list()
    ([12500000, None], [None, 'bad_number'])
    """

    values: pl.Series
    reasons: pl.Series


def read_text(column: pl.Series, nulls: tuple[str, ...] = NULLS) -> pl.Series:
    """Read names and ids of any type: 17, 17.0 and "17" are the same id."""
    if column.dtype.is_float():
        whole = column.is_finite() & (column == column.round()) & (column.abs() < MAX_COUNT)
        as_whole = column.set(~whole.fill_null(value=False), None).cast(pl.Int64).cast(pl.String)
        column = as_whole.fill_null(column.fill_nan(None).cast(pl.String))
    text = as_text(column).str.strip_chars()
    return text.set(text.is_in(nulls), None)


def as_text(column: pl.Series) -> pl.Series:
    """Give any column as strings; nested values as JSON, bytes as hexadecimal digits."""
    if column.dtype == pl.String:
        return column
    if column.dtype == pl.Binary:
        return column.bin.encode("hex")
    if column.dtype.is_nested():
        wrapped = pl.DataFrame({"v": column}).to_struct().struct.json_encode()
        text = wrapped.str.strip_prefix('{"v":').str.strip_suffix("}")
        return text.set(column.is_null(), None)
    if column.dtype == pl.Boolean:
        return column.cast(pl.Int8).replace_strict({0: "false", 1: "true"}, return_dtype=pl.String)
    return column.cast(pl.String)


def read_time(
    column: pl.Series, formats: tuple[str, ...], *, zone: str, now: dt.datetime
) -> Reading:
    """Read moments: epoch numbers, ISO 8601, dates, or explicit formats.

    Parameters
    ----------
    column
        Any type.
    formats
        ``auto``, ``iso``, ``s``, ``ms``, ``us``, ``ns``, or formats as ``strptime`` takes them,
        tried in turn. ``auto`` tells the unit of an epoch number by its magnitude.
    zone
        Time zone of moments that name none.
    now
        What lies more than a day behind it is ``future_timestamp``.
    """
    moments = _moments(column, formats, zone)
    missing = column.is_null() | _blank(column)
    late = (moments > now + SKEW).fill_null(value=False)
    wrong = ~missing & (moments.is_null() | (moments < EARLIEST).fill_null(value=False))
    reasons = _reasons(
        {"missing_timestamp": missing, "bad_timestamp": wrong, "future_timestamp": late}
    )
    return Reading(moments.set(reasons.is_not_null(), None), reasons)


def _blank(column: pl.Series) -> pl.Series:
    if column.dtype != pl.String:
        return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)  # noqa: FBT003
    return column.str.strip_chars().is_in(NULLS).fill_null(value=False)


def _reasons(masks: dict[str, pl.Series]) -> pl.Series:
    height = len(next(iter(masks.values())))
    reasons = pl.Series([None], dtype=pl.String).new_from_index(0, height)
    for reason, mask in masks.items():
        if mask.any():
            reasons = reasons.set(mask & reasons.is_null(), reason)
    return reasons


def _moments(column: pl.Series, formats: tuple[str, ...], zone: str) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime):
        return _localised(column.cast(pl.Datetime("us", dtype.time_zone)), zone)
    if dtype == pl.Date:
        return _localised(column.cast(pl.Datetime("us")), zone)
    if dtype.is_numeric():
        return _from_epoch(column, formats)
    text = as_text(column).str.strip_chars()
    moments = pl.Series([None], dtype=TIMESTAMP).new_from_index(0, len(text))
    for form in formats:
        if moments.null_count() == text.null_count():
            break
        moments = moments.fill_null(_from_text(text, form, zone))
    return moments


def _localised(moments: pl.Series, zone: str) -> pl.Series:
    """Place moments without a zone in one, and give all in UTC."""
    if isinstance(moments.dtype, pl.Datetime) and moments.dtype.time_zone is not None:
        return moments.dt.convert_time_zone("UTC")
    if zone == "UTC":
        return moments.dt.replace_time_zone("UTC")
    placed = moments.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return placed.dt.convert_time_zone("UTC")


def _from_epoch(column: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    numbers = column.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite().fill_null(value=False), None)
    unit = next((form for form in formats if form in UNITS or form == "ns"), "auto")
    exact = column.cast(pl.Int64, strict=False) if column.dtype.is_integer() else None
    micros = _scaled(numbers, exact, unit)
    moments = micros.cast(TIMESTAMP)
    if unit == "auto":
        days = _compact_dates(numbers.cast(pl.Int64, strict=False).cast(pl.String))
        moments = days.fill_null(moments)
    return moments


def _scaled(numbers: pl.Series, exact: pl.Series | None, unit: str) -> pl.Series:
    """Give int64 microseconds; the unit of each number by its magnitude where it is ``auto``."""
    frame = pl.DataFrame({"n": numbers, "i": numbers if exact is None else exact})
    size, number, whole = pl.col("n").abs(), pl.col("n"), pl.col("i")
    nanos = (whole // 1000).cast(pl.Int64, strict=False)
    if unit == "ns":
        micros = nanos
    elif unit in UNITS:
        micros = _times(number, whole, UNITS[unit], exact is not None)
    else:
        micros = (
            pl.when(size < MAX_S)
            .then(_times(number, whole, MICROS, exact is not None))
            .when(size < MAX_MS)
            .then(_times(number, whole, 1000, exact is not None))
            .when(size < MAX_US)
            .then(_times(number, whole, 1, exact is not None))
            .otherwise(nanos)
        )
    return frame.select(pl.when(size < MAX_MICROS).then(micros)).to_series()


def _times(number: pl.Expr, whole: pl.Expr, factor: int, exact: bool) -> pl.Expr:  # noqa: FBT001
    product = number * factor
    inside = product.abs() < MAX_MICROS
    if exact:
        return pl.when(inside).then(pl.when(inside).then(whole) * factor)
    return pl.when(inside).then(product.round()).cast(pl.Int64, strict=False)


def _compact_dates(digits: pl.Series) -> pl.Series:
    """Read 20160901 and 20160901070121; null where the digits are no such date."""
    days = digits.set(digits.str.len_bytes() != DAY_DIGITS, None).str.to_datetime(
        "%Y%m%d", strict=False, time_unit="us"
    )
    clock = digits.set(digits.str.len_bytes() != CLOCK_DIGITS, None).str.to_datetime(
        "%Y%m%d%H%M%S", strict=False, time_unit="us"
    )
    moments = days.fill_null(clock).dt.replace_time_zone("UTC")
    return moments.set((moments < EARLIEST).fill_null(value=False), None)


def _from_text(text: pl.Series, form: str, zone: str) -> pl.Series:
    if form not in NAMED:
        return _formatted(text, form, zone)
    numeric = text.set(~text.str.contains(r"^[+-]?\d+(\.\d+)?$").fill_null(value=False), None)
    if form != "auto":
        return _iso(text, zone) if form == "iso" else _epoch_text(numeric, form)
    moments = _iso(text, zone).fill_null(_epoch_text(numeric, "auto"))
    for other in (*SLASHED, *WORDED):
        if moments.null_count() == text.null_count():
            break
        moments = moments.fill_null(_formatted(text, other, zone))
    return moments


def _epoch_text(numeric: pl.Series, unit: str) -> pl.Series:
    whole = numeric.cast(pl.Int64, strict=False)
    if whole.null_count() == numeric.null_count():
        return _from_epoch(whole, (unit,))
    return _from_epoch(numeric.cast(pl.Float64, strict=False), (unit,))


def _formatted(text: pl.Series, form: str, zone: str) -> pl.Series:
    moments = text.str.to_datetime(form, strict=False, time_unit="us", exact=True)
    return _localised(moments, zone)


def _iso(text: pl.Series, zone: str) -> pl.Series:
    """Read ISO 8601 with T or a space, with or without seconds, fraction and zone."""
    frame = pl.DataFrame({"t": text}).select(
        day=pl.col("t").str.extract(r"^(\d{4}-\d{2}-\d{2})(?:$|[T ])"),
        clock=pl.col("t").str.extract(r"^\d{4}-\d{2}-\d{2}[T ](\d{2}:\d{2}(?::\d{2})?)"),
        fraction=pl.col("t").str.extract(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}[.,](\d{1,9})"),
        offset=pl.col("t").str.extract(ISO + r"\s*(Z|z|UTC|[+-]\d{2}:?\d{2}|[+-]\d{2})$"),
        whole=pl.col("t").str.contains(ISO + r"\s*(Z|z|UTC|[+-]\d{2}:?\d{2}|[+-]\d{2})?$"),
    )
    clock = pl.col("clock").fill_null("00:00")
    padded = pl.when(clock.str.len_bytes() == len("00:00")).then(clock + ":00").otherwise(clock)
    naive = (pl.col("day") + "T" + padded).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us"
    )
    micros = pl.col("fraction").str.pad_end(6, "0").str.head(6).cast(pl.Int64).fill_null(0)
    moments = frame.select(
        naive=pl.when("whole").then(naive + pl.duration(microseconds=micros)),
        offset=pl.col("offset"),
    )
    return _apply_offsets(moments["naive"], moments["offset"], zone)


ISO: Final = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)?"


def _apply_offsets(naive: pl.Series, offset: pl.Series, zone: str) -> pl.Series:
    if offset.null_count() == len(offset):
        return _localised(naive, zone)
    text = pl.col("offset").str.replace(r"^(?:Z|z|UTC)$", "+00:00").str.replace(":", "")
    sign = pl.when(text.str.starts_with("-")).then(-1).otherwise(1)
    minutes = sign * (
        60 * text.str.slice(1, 2).cast(pl.Int64)
        + text.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    )
    frame = pl.DataFrame({"naive": naive, "local": _localised(naive, zone), "offset": offset})
    zoned = pl.col("naive").dt.replace_time_zone("UTC") - pl.duration(minutes=minutes)
    known = pl.col("offset").is_not_null()
    return frame.select(pl.when(known).then(zoned).otherwise("local")).to_series()


def read_money(column: pl.Series, unit: str = "currency") -> Reading:
    """Read amounts into int64 micro-units.

    Parameters
    ----------
    unit
        ``currency`` (12.50), ``cents`` or ``micros``.
    """
    factor = {"currency": MICROS, "cents": MICROS // 100, "micros": 1}[unit]
    numbers, present = _numbers(column, amounts=True)
    scaled = (numbers * factor).round()
    if factor == 1 and column.dtype.is_integer():
        return Reading(column.cast(pl.Int64, strict=False), _unread(column, numbers))
    inside = (scaled.abs() < MAX_MICROS).fill_null(value=False)
    values = scaled.set(~inside, None).cast(pl.Int64)
    return Reading(values, _reasons({"bad_number": present & values.is_null()}))


def _unread(column: pl.Series, numbers: pl.Series) -> pl.Series:
    return _reasons({"bad_number": column.is_not_null() & numbers.is_null()})


def read_count(column: pl.Series) -> Reading:
    """Read whole numbers; 3.0 and "3" are 3, 3.5 is a ``bad_number``."""
    numbers, present = _numbers(column)
    whole = ((numbers == numbers.round()) & (numbers.abs() < MAX_COUNT)).fill_null(value=False)
    values = numbers.set(~whole, None).cast(pl.Int64)
    return Reading(values, _reasons({"bad_number": present & values.is_null()}))


def read_real(column: pl.Series) -> Reading:
    """Read finite numbers; NaN and infinity are a ``bad_number``."""
    numbers, present = _numbers(column)
    return Reading(numbers, _reasons({"bad_number": present & numbers.is_null()}))


def read_flag(column: pl.Series) -> Reading:
    """Read true or false, as words or as 1 and 0."""
    if column.dtype == pl.Boolean:
        return Reading(column, _reasons({"bad_flag": column.is_null() & column.is_not_null()}))
    text = read_text(column).str.to_lowercase()
    values = text.is_in(TRUE)
    values = values.set(~(values | text.is_in(FALSE)).fill_null(value=False), None)
    return Reading(values, _reasons({"bad_flag": text.is_not_null() & values.is_null()}))


def _numbers(column: pl.Series, *, amounts: bool = False) -> tuple[pl.Series, pl.Series]:
    """Give finite float64 numbers, and where there was a value at all."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        numbers, present = column.cast(pl.Float64, strict=False), column.is_not_null()
    else:
        text = read_text(column)
        present = text.is_not_null()
        numbers = text.cast(pl.Float64, strict=False)
        if amounts and (present & numbers.is_null()).any():
            numbers = numbers.fill_null(_amount(text).cast(pl.Float64, strict=False))
    finite = numbers.is_finite().fill_null(value=False)
    return numbers.set(~finite, None), present


def _amount(text: pl.Series) -> pl.Series:
    """Take off a currency sign and the marks of thousands: "$1,234.50" and "1.234,50 EUR"."""
    bare = text.str.replace(r"^\s*[A-Z]{3}\s*|\s*[A-Z]{3}\s*$", "").str.replace_all(
        r"[\s$\u20ac\u00a3\u00a5\u20b9']", ""
    )
    comma_last = bare.str.contains(r"^-?[\d.]*,\d{1,2}$").fill_null(value=False)
    european = bare.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    american = bare.str.replace_all(",", "", literal=True)
    shaped = bare.str.contains(r"^-?\d[\d.,]*$").fill_null(value=False)
    chosen = pl.DataFrame({"e": european, "a": american, "c": comma_last, "s": shaped})
    return chosen.select(pl.when("s").then(pl.when("c").then("e").otherwise("a"))).to_series()
