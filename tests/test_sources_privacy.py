"""What may come in, and what is taken off at the door."""

import json
from pathlib import Path

import polars as pl
import pytest

from recoup.errors import ConfigError, SourceError
from recoup.events import check_batch, concat_batches
from recoup.sources import Guarded, open_source
from recoup.sources.addresses import names_address, names_person
from recoup.sources.privacy import Privacy, Pseudonyms, parse_privacy

SECRET = b"the secret of this test"


def row(number: int, **fields: object) -> dict[str, object]:
    moment = f"2026-01-01T10:{number // 60:02d}:{number % 60:02d}Z"
    return {"ts": moment, "event": "page_view", "visitor": "v1", "id": f"e{number}", **fields}


def write(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "log.ndjson"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def read(path: Path, text: str = "", secret: bytes | None = None) -> tuple[pl.DataFrame, Guarded]:
    source = open_source(path, privacy=parse_privacy(text), secret=secret)
    assert isinstance(source, Guarded)
    parts = list(source.batches())
    return check_batch(concat_batches(part.batch for part in parts)).events, source


def test_addresses_go_by_default(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        row(1, client_ip="203.0.113.9", referer="https://a.example/?m=jo@shop.example&x=1"),
        row(2, page="/account?email=jo%40shop.example", user={"email": "x", "plan": "gold"}),
        row(3, query="2001:db8::8a2e:370:7334", campaign="203.0.113.9"),
        row(4, page="/std::string/12:30:45/v1.2.3", build="web-4.2.0", shipping_note="ship it"),
    )
    events, source = read(path)
    assert events["page"].to_list() == [
        None, "/account?email=(removed)", None, "/std::string/12:30:45/v1.2.3",
    ]  # fmt: skip
    assert events["query"].to_list() == [None] * 4
    assert events["campaign"].to_list() == [None] * 4
    assert [text and json.loads(text) for text in events["extra"].to_list()] == [
        {"referer": "https://a.example/?m=(removed)&x=1"}, {"user.plan": "gold"}, None,
        {"shipping_note": "ship it"},
    ]  # fmt: skip
    assert dict(source.removed) == {"ip": 3, "email": 3}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("from 203.0.113.9:8080 to 203.0.113.10.", "from (removed):8080 to (removed)."),
        ("203.0.113.9,203.0.113.10,203.0.113.11", "(removed),(removed),(removed)"),
        ("ip%3D203.0.113.9", "ip%3D(removed)"),
        ("[2001:db8::1]:443", "[(removed)]:443"),
        ("fe80::1ff:fe23:4567:890a", None),
        ("heirloom-hp.1.0.0.10.7.0.3", "heirloom-hp.1.0.0.10.7.0.3"),
        ("Chrome/57.0.2987.133", "Chrome/57.0.2987.133"),
        ("a@b", "a@b"),
        ("10:20:30 and std::map", "10:20:30 and std::map"),
    ],
)
def test_what_looks_like_an_address(tmp_path: Path, text: str, left: str | None) -> None:
    events, _ = read(write(tmp_path, row(1, query=text, note=text)))
    assert events["query"].to_list() == [left]
    assert json.loads(events["extra"][0])["note"] == (left or "(removed)")


def test_addresses_stay_where_the_shop_wants_them(tmp_path: Path) -> None:
    events, source = read(write(tmp_path, row(1, query="203.0.113.9")), "keep_addresses = true")
    assert events["query"].to_list() == ["203.0.113.9"]
    assert not source.removed


def test_a_visitor_named_by_an_address_gets_another_name(tmp_path: Path) -> None:
    path = write(tmp_path, row(1, visitor="jo@shop.example"), row(2, visitor="jo@shop.example"))
    events, source = read(path)
    assert events["visitor"].n_unique() == 1
    assert "@" not in events["visitor"][0]
    assert source.removed["email_or_ip_as_key"] == 2


def test_visitors_are_known_by_keyed_hashes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        row(1, session="v1-1", userId="v1", tint="red"),
        row(2, visitor="v2", session="v2-1"),
    )
    events, _ = read(path, "hash_visitors = true", SECRET)
    other, _ = read(path, "hash_visitors = true", SECRET + b"!")
    names = Pseudonyms(SECRET)
    assert events["visitor"].to_list() == [names.of("v1"), names.of("v2")]
    assert events["session"].to_list() == [names.of("v1-1"), names.of("v2-1")]
    assert events["extra"].to_list() == ['{"tint":"red"}', None]
    assert not set(events["visitor"]) & set(other["visitor"])


def test_a_secret_must_be_there_and_long(tmp_path: Path) -> None:
    path = write(tmp_path, row(1))
    with pytest.raises(ConfigError, match="RECOUP_SECRET"):
        open_source(path, privacy=Privacy(hash_visitors=True))
    with pytest.raises(ConfigError, match="16 bytes"):
        open_source(path, privacy=Privacy(hash_visitors=True), secret=b"short")


def test_only_what_is_allowed_comes_in(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        row(1, device="mobile", country="SE", tint="red", size="L", session="s",
            items=[{"item": "a", "price": 5, "brand": "b"}]),
    )  # fmt: skip
    events, source = read(path, 'allow = ["device", "extra.tint", "items.item"]')
    got = {name: value for name, value in events.row(0, named=True).items() if value is not None}
    assert got.keys() == {"ts", "source", "id", "seq", "event", "visitor", "device", "extra"}
    assert got["extra"] == '{"tint":"red"}'
    assert source.removed["not_allowed"] == 5
    lines = next(source.batches()).batch.items
    assert lines.select("item", "price", "brand").rows() == [("a", None, None)]


@pytest.mark.parametrize("column", ["extra.consent", "market"])
def test_who_says_no_is_not_known(tmp_path: Path, column: str) -> None:
    field = column.removeprefix("extra.")
    rows = [
        row(n, session="s", city="Lund", **{field: "Denied" if n < 3 else "granted"})
        for n in range(5)
    ]
    path = write(tmp_path, *rows)
    text = f'[consent]\ncolumn = "{column}"\n'
    events, source = read(path, text)
    assert (events.height, source.removed["consent_denied"]) == (2, 3)
    events, source = read(path, text + 'then = "anonymous"', SECRET)
    assert (events.height, source.removed["consent_denied"]) == (5, 3)
    assert events["visitor"].n_unique() == 4
    assert events["session"].to_list() == [None] * 3 + ["s"] * 2
    assert events["city"].to_list() == [None] * 3 + ["Lund"] * 2
    assert not set(events["id"]) & {"e0", "e1", "e2"}


def test_bad_rows_do_not_carry_addresses_out(tmp_path: Path) -> None:
    path = write(
        tmp_path, row(1), {**row(2), "ts": "soon", "email": "x", "query": "jo@shop.example"}
    )
    for text, raw in (("", "(removed)"), ("hash_visitors = true", "")):
        source = open_source(path, privacy=parse_privacy(text), secret=SECRET)
        dead = next(source.batches()).dead_letters
        assert "jo@" not in dead["raw"][0]
        assert raw in dead["raw"][0]
        assert '"email"' not in dead["raw"][0]


@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
@pytest.mark.parametrize("depth", [400, 900, 100_000])
def test_a_row_nested_without_end_is_a_bad_row(
    tmp_path: Path, brackets: tuple[str, str], depth: int
) -> None:
    log = tmp_path / "a.ndjson"
    inner = brackets[0] * depth + '"jane@shop.example"' + brackets[1] * depth
    good = json.dumps({"event": "page_view", "ts": "2026-01-01T10:00:00Z", "visitor": "v"})
    log.write_text(f'{good[:-1]}, "more": {inner}}}\n{good}\n')
    batches = list(open_source(log).batches())
    kept = sum(len(batch.batch) for batch in batches)
    bad = pl.concat([batch.dead_letters for batch in batches])
    assert kept + bad.height == 2
    assert kept == 1 + (depth < 500)
    assert "jane" not in str(bad.rows())
    assert "jane" not in str([batch.batch.events.rows() for batch in batches])


def test_reading_on_goes_on_counting(tmp_path: Path) -> None:
    path = write(tmp_path, *(row(n, query=f"a{n}@shop.example") for n in range(50)))
    whole = open_source(path)
    parts = list(whole.batches(rows=20))
    again = open_source(path)
    assert isinstance(again, Guarded)
    rest = list(again.batches(parts[0].position, rows=20))
    assert [part.position for part in rest] == [part.position for part in parts[1:]]
    assert again.removed["email"] == 50
    with pytest.raises(SourceError, match="position"):
        next(again.batches("5:0:0|nonsense"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "colour"),
        ('allow = ["mood"]', "mood"),
        ('[consent]\ncolumn = "items"', "items"),
        ('[consent]\ncolumn = "extra.c"\nthen = "sell"', "sell"),
        ("=", "TOML"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_privacy(text)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ip", "ip"), ("clientIp", "ip"), ("context.ip_address", "ip"), ("X-Forwarded-For", "ip"),
        ("email", "email"), ("userEmail", "email"), ("e-mail", "email"), ("email_sha256", "email"),
        ("zip", None), ("shipping", None), ("description", None), ("mailbox_color", None),
    ],
)  # fmt: skip
def test_names_of_addresses(name: str, kind: str | None) -> None:
    assert names_address(name) == kind


def test_names_of_persons() -> None:
    personal = ("userId", "user_pseudo_id", "device-id", "customerNumber", "gclid", "firstName")
    assert {names_person(name) for name in personal} == {"personal"}
    assert {names_person(name) for name in ("item_id", "device", "page_name")} == {None}


@pytest.mark.slow
def test_the_real_log_loses_nothing(data_dir: Path) -> None:
    source = open_source(data_dir / "google_merch_store")
    for _ in source.batches():
        pass
    assert isinstance(source, Guarded)
    assert sum(source.removed.values()) <= 5, source.removed
