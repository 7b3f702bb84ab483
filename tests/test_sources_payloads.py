"""Payload formats: every leaf of every fixture comes out, by name or in `extra`, or is declared."""

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from recoup.errors import ConfigError, SourceError
from recoup.events import MONEY, check_batch, micros_of
from recoup.runners.replay import replay_source
from recoup.sources import FORMATS, inspect_log, open_source
from recoup.sources.payloads import PAYLOAD_FORMATS, Decoded, decode, recognise
from recoup.sources.payloads.draft import CONTACT, Draft
from recoup.sources.payloads.snowplow import TRACKER
from recoup.stores import SqliteJournal

FIXTURES = Path(__file__).parent / "fixtures" / "payloads"
NOON_US = 1_767_268_800_000_000
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def payloads(name: str) -> list[Any]:
    """Give the fixtures of a format, from all its files."""
    return [payload for file in sorted(FIXTURES.glob(f"{name}*")) for payload in lines(file)]


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def rows(found: Decoded) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in found.batch.events.to_dicts()
    ]


STRUCTURE = {
    "ga4_mp": set(),
    "ga4_bigquery": {"user_properties[].value.set_timestamp_micros"},
    "segment": {"type", "batch[].type"},
    "snowplow": {"schema", "data.schema", "loadEventEnd", "navigationStart"},
    "cloudevents": {
        "specversion",
        "schema",
        "type",
        "loadEventEnd",
        "navigationStart",
        "set_timestamp_micros",
    },
}
"""Leaves that only say how a payload is built, or of which a column is computed."""


def leaves(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, (*path, name))]
    if isinstance(value, list):
        return [leaf for n, inner in enumerate(value) for leaf in leaves(inner, (*path, n))]
    return [] if value is None else [path]


def mark(payload: Any, path: tuple[str | int, ...], number: int) -> tuple[Any, str]:  # noqa: ANN401
    """Give the payload with one leaf put another way, and what to look for."""
    marked = json.loads(json.dumps(payload))
    node = marked
    for step in path[:-1]:
        node = node[step]
    old = node[path[-1]]
    numeric = isinstance(old, int | float) and not isinstance(old, bool)
    sign = f"{7_000_000 + number}" if numeric else f"Leaf{number}x"
    node[path[-1]] = int(sign) if numeric else sign
    return marked, sign.lower()


def held(name: str, payload: object) -> str:
    """Give all that comes out of a payload: columns, item lines, `extra`, dead letters."""
    rules = PAYLOAD_FORMATS[name]
    draft = Draft(micros_of(NOW), rules.ignored)
    draft.received = draft.now
    rules.decode(draft, payload)
    return repr((draft.events, draft.lines, draft.dead, draft.identities)).lower()


def declared(name: str, path: tuple[str | int, ...]) -> bool:
    """Say whether the format says of a leaf that it is left out, or what it is for."""
    names = [TRACKER.get(step, step) for step in path if isinstance(step, str)]
    spelt = ".".join(f"{step}" for step in names)
    indexed = "".join("[]" if isinstance(s, int) else f".{s}" for s in path).removeprefix(".")
    ignored = {one for rules in PAYLOAD_FORMATS.values() for one in rules.ignored}
    tails = {".".join(names[a:b]) for a in range(len(names)) for b in range(a + 1, len(names) + 1)}
    inside = (
        tails if name == "cloudevents" else {".".join(names[:b]) for b in range(len(names) + 1)}
    )
    last = indexed.rpartition(".")[2]
    return bool(
        inside & ignored
        or {step.lower() for step in names} & CONTACT
        or {indexed, last, last.removesuffix("[]")} & STRUCTURE[name]
        or spelt.endswith("_in_usd")
        or (name in {"segment", "snowplow", "cloudevents"} and names[-1] in ignored)
        or "contexts_org_w3_performance_timing_1" in names
    )


@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
def test_every_leaf_of_every_fixture_is_mapped_or_kept_or_declared(name: str) -> None:
    """Put every leaf another way, one at a time: it must come out, or be declared."""
    lost = []
    for payload in payloads(name):
        for number, path in enumerate(leaves(payload)):
            marked, sign = mark(payload, path, number)
            if sign not in held(name, marked) and not declared(name, path):
                lost.append(path)
    assert lost == []


@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
def test_fixtures_have_no_dead_letters_and_keep_the_contract(name: str) -> None:
    for payload in payloads(name):
        found = decode(payload, NOW, format=name)
        assert found.dead_letters.to_dicts() == []
        assert len(check_batch(found.batch)) > 0
        for row in rows(found):
            assert all(isinstance(row[column], int) for column in MONEY if column in row)


@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
def test_fixtures_are_recognised_and_decoding_is_pure(name: str) -> None:
    for payload in payloads(name):
        known = recognise([payload])
        assert known is not None
        assert known.name == name
        before = json.dumps(payload)
        first, second = (decode(payload, NOW, format=name) for _ in range(2))
        assert json.dumps(payload) == before
        assert first.batch.events.equals(second.batch.events)
        assert first.batch.items.equals(second.batch.items)


@pytest.mark.parametrize("file", sorted(FIXTURES.iterdir()), ids=lambda file: file.stem)
def test_every_event_survives_source_journal_and_replay(tmp_path: Path, file: Path) -> None:
    name = file.stem.removesuffix("_flat")
    expected = [
        event
        for payload in lines(file)
        for event in decode(payload, NOW, format=name).batch.events["id"].to_list()
    ]
    source = open_source(file, now=NOW)
    assert source.name == name
    summary = replay_source(source, tmp_path, title=name, identity=name)
    with SqliteJournal(tmp_path / "journal.db") as journal:
        held = [record.frame for record in journal.read(kind="events")]
    kept = pl.concat(held)
    assert sorted(kept["id"].to_list()) == sorted(set(expected))
    assert summary.events + summary.duplicates == len(expected)
    assert summary.dead_letters == {}


@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
def test_inspect_names_the_format_and_what_it_can_answer(name: str) -> None:
    found = inspect_log(FIXTURES / f"{name}.ndjson", now=NOW)
    assert f'format = "{name}"' in found.mapping
    assert found.answers[0] == f"Format: {PAYLOAD_FORMATS[name].title} (`{name}`)."
    assert any("Funnel by step" in answer for answer in found.answers)


def test_formats_are_told_to_the_command_line() -> None:
    assert set(PAYLOAD_FORMATS) < set(FORMATS)
    with pytest.raises(ConfigError, match="ga4_mp"):
        decode({}, NOW, format="ga5")


# Files


def test_contact_data_is_left_out_and_counted() -> None:
    found = decode(payloads("segment")[0], NOW, format="segment")
    assert found.ignored["ip"] == 1
    log = FIXTURES / "segment.ndjson"
    for batch in open_source(log, now=NOW).batches():
        text = msgspec.json.encode(batch.batch.events.to_dicts()).decode()
        assert "192.0.2.7" not in text
        assert "@b.example" not in text


@pytest.mark.parametrize(
    "shape", ["ndjson", "array", "pretty", "one_line", "gzip", "zstd", "folder"]
)
def test_payloads_are_read_from_files_of_every_shape(tmp_path: Path, shape: str) -> None:
    given = payloads("segment")
    expected = next(open_source(FIXTURES / "segment.ndjson", now=NOW).batches()).batch.events
    text = "".join(json.dumps(one) + "\n" for one in given)
    log = tmp_path / "log.ndjson"
    if shape == "array":
        log.write_text("[\n" + ",\n".join(json.dumps(one) for one in given) + "\n]\n")
    elif shape == "pretty":
        log.write_text("\n".join(json.dumps(one, indent=2) for one in given))
    elif shape == "one_line":
        log.write_text(json.dumps(given))
    elif shape == "gzip":
        log = tmp_path / "log.ndjson.gz"
        log.write_bytes(gzip.compress(text.encode()))
    elif shape == "zstd":
        log = tmp_path / "log.ndjson.zst"
        frame = pl.DataFrame({"line": [json.dumps(one) for one in given]})
        frame.write_csv(
            log, include_header=False, quote_style="never", separator="\x01", compression="zstd",
            check_extension=False,
        )  # fmt: skip
    elif shape == "folder":
        half = len(given) // 2
        for name, part in (("a.ndjson", given[:half]), ("b.ndjson", given[half:])):
            (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in part))
        log = tmp_path
    else:
        log.write_text(text)
    (found,) = open_source(log, now=NOW).batches()
    assert found.batch.events.equals(expected)
    assert found.dead_letters.is_empty()


def test_reading_on_behind_a_position_gives_the_same_batches() -> None:
    log = FIXTURES / "segment.ndjson"
    whole = list(open_source(log, now=NOW).batches(rows=5))
    for place, batch in enumerate(whole[:-1]):
        rest = list(open_source(log, now=NOW).batches(batch.position, rows=5))
        assert [one.position for one in rest] == [one.position for one in whole[place + 1 :]]
        for one, other in zip(rest, whole[place + 1 :], strict=True):
            assert one.batch.events.equals(other.batch.events)
            assert one.batch.items.equals(other.batch.items)
            assert one.findings == other.findings


def test_an_array_that_breaks_gives_what_came_before(tmp_path: Path) -> None:
    given = [payloads("cloudevents")[0] | {"id": str(n)} for n in range(3)]
    text = json.dumps(given, indent=1)
    (tmp_path / "log.json").write_text(text[: text.rindex('"subject"')])
    (found,) = open_source(tmp_path / "log.json", now=NOW).batches()
    assert found.batch.events["id"].to_list() == ["0", "1"]
    assert found.dead_letters["reason"].to_list() == ["bad_json"]


def test_a_file_without_payloads_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "log.ndjson").write_text("")
    with pytest.raises(SourceError, match="Expected records"):
        list(open_source(tmp_path / "log.ndjson", format="segment", now=NOW).batches())
