"""Hesitation on the real log, forward in time, beside a table by state and a Weibull regression."""

import datetime as dt
from pathlib import Path

import msgspec
import pytest

from recoup.runners.hesitation import evaluate_hesitation_on, train_hesitation_on
from recoup.sources import open_source

pytestmark = pytest.mark.slow

SPLIT = dt.datetime(2016, 9, 19, 7, tzinfo=dt.UTC)


def test_hesitation_beats_its_peers_on_the_last_week(data_dir: Path, tmp_path: Path) -> None:
    source = open_source(data_dir / "google_merch_store")
    train_hesitation_on(source, tmp_path, until=SPLIT)
    told = evaluate_hesitation_on(source, tmp_path, start=SPLIT)
    print(told)  # noqa: T201
    assert told["rows"] == 79_469
    assert told["censored"] == 16_824
    assert msgspec.convert(told["pit_error"], float) < 0.03
    peers = msgspec.convert(msgspec.to_builtins(told["baselines"]), dict[str, dict[str, object]])
    assert len(peers) == 2
    for peer in peers.values():
        gain = msgspec.convert(peer["gain"], dict[str, float])
        assert gain["low"] > 0.1
