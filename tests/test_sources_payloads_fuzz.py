"""Whatever a payload holds, decoding gives events, dead letters or nothing, and never breaks."""

import copy
import datetime as dt
import json
import random
from pathlib import Path
from typing import Any

import pytest

from recoup.events import check_batch, micros_of
from recoup.sources import open_source
from recoup.sources.payloads import PAYLOAD_FORMATS, decode, recognise
from recoup.sources.payloads.draft import Draft

FIXTURES = Path(__file__).parent / "fixtures" / "payloads"
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 3.5, 10**30, -(2**63), 1e308, float("nan"), float("inf"), "", " ",
    "NaN", "1e999", "(not set)", "12,5", "$1,234.50", "1_0", "\ud800", "\x00", "x" * 5_000, "[",
    "2026-01-01", "0001-01-01T00:00:00", "9999-12-31T23:59:59+14:00", "-", "+", ".", "-9" * 40,
    [], {}, [[]], [None], [1], ["a"], [{}], {"": ""}, {"key": 1}, {"value": {}}, {"schema": 3},
    {"schema": "iglu:", "data": 4}, {"a.b": {"c[0]": 1}}, "http://[", "data:,", "eyJhIjoxfQ",
    '{"schema": "iglu:a/b/jsonschema/1-0-0", "data": {"schema": "x", "data": []}}', '{"a": NaN}',
)  # fmt: skip


def payloads(name: str) -> list[Any]:
    texts = [file.read_text(encoding="utf-8") for file in sorted(FIXTURES.glob(f"{name}*"))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def deep(levels: int) -> Any:  # noqa: ANN401
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def places(value: Any) -> list[Any]:  # noqa: ANN401
    """Give every object and list inside a value."""
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            found.append(one)
            waiting += one.values() if isinstance(one, dict) else one
    return found


def mutate(payload: Any, draw: random.Random) -> Any:  # noqa: ANN401
    """Spoil a payload in one to six places."""
    spoilt = json.loads(json.dumps(payload))
    for _ in range(draw.randint(1, 6)):
        node = draw.choice(places(spoilt) or [[]])
        if not node:
            continue
        at = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
        act = draw.randrange(6)
        if act == 0:
            del node[at]
        elif act == 1:
            node[at] = [node[at]] * draw.randint(1, 3)
        elif act == 2:
            node[at] = deep(draw.choice((3, 15, 120)))
        elif act == 3 and isinstance(node, dict):
            node[draw.choice(("", "items", "a.b", "x" * 50, "params", str(at).upper()))] = node[at]
        else:
            node[at] = copy.deepcopy(draw.choice(ODD))
    return draw.choice(ODD) if draw.random() < 0.02 else spoilt


def fuzz(name: str, count: int, seed: int) -> None:
    rules, given = PAYLOAD_FORMATS[name], payloads(name)
    draft = Draft(micros_of(NOW), rules.ignored)
    draft.received = draft.now
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")  # noqa: S311
        payload = mutate(draw.choice(given), draw)
        before = (len(draft.events), len(draft.dead))
        try:
            recognise([payload])
            rules.decode(draft, payload)
        except Exception as error:
            error.add_note(f"{name}, seed {seed}, payload {number}: {payload!r:.2000}")
            raise
        assert (len(draft.events), len(draft.dead)) != before, f"{name} {seed}/{number} vanished"
    batch = check_batch(draft.batch())
    assert len(batch) > count / 10
    for text in batch.events["extra"].drop_nulls().to_list():
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
def test_spoilt_payloads_become_events_or_dead_letters(name: str) -> None:
    fuzz(name, 400, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
def test_ten_thousand_spoilt_payloads_break_nothing(name: str) -> None:
    fuzz(name, 10_000, seed=2)


@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
@pytest.mark.parametrize("payload", ODD, ids=lambda value: repr(value)[:20])
def test_any_json_value_is_answered(name: str, payload: object) -> None:
    found = decode([payload], NOW, format=name)
    assert len(check_batch(found.batch)) + found.dead_letters.height > 0


@pytest.mark.parametrize("name", PAYLOAD_FORMATS)
def test_spoilt_files_are_read_to_their_end(tmp_path: Path, name: str) -> None:
    draw = random.Random(name)  # noqa: S311
    spoilt = [mutate(one, draw) for one in payloads(name) * 4]
    text = "".join(json.dumps(one) + "\n" for one in spoilt)
    cut = draw.randrange(len(text))
    for number, content in enumerate((text, text[:cut], text[cut:], f"[{text}", f"{text}]")):
        log = tmp_path / f"log{number}.ndjson"
        log.write_text(content)
        for batch in open_source(log, format=name, now=NOW).batches(rows=16):
            check_batch(batch.batch)
            assert batch.dead_letters["path"].null_count() == 0
