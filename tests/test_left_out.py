"""Nothing of a log is left out unsaid: commands that fold one count what they do not fold."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recoup.cli import main

FULL = Path("/dev/full")
EVENT = '{{"ts":"2026-03-{day:02d}T10:00:00Z","event":"view_item","visitor":"v{n}","id":"e{n}"}}'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two events in order, one days too late, one sent twice, one without a visitor."""
    lines = [EVENT.format(day=9, n=1), EVENT.format(day=10, n=2), EVENT.format(day=2, n=3)]
    broken = lines[0].replace('"v1"', "null")
    path = tmp_path / "log.ndjson"
    path.write_text("\n".join([*lines, lines[1], broken]), encoding="utf-8")
    return path


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["recoup", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_a_training_table_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log: Path,
    tmp_path: Path,
) -> None:
    command = ("features", "backfill", str(log), "--out", str(tmp_path / "rows.parquet"))
    _, out, err = run(monkeypatch, capsys, *command, "--json")
    told = json.loads(out)
    assert told["rows"] == 2
    assert told["duplicates"] == 1
    assert told["dead_letters"] == {"missing_visitor": 1, "too_late": 1}
    for words in ("1 too_late", "1 missing_visitor", 'order = "time"', "Repeats"):
        assert words in err


def test_so_does_a_command_that_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log: Path,
    tmp_path: Path,
) -> None:
    code, _, err = run(
        monkeypatch, capsys, "train", "intent", str(log), "--registry", str(tmp_path / "models")
    )
    assert code == 1
    assert "1 too_late" in err


def joined(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log: Path,
    asked: str,
    *keys: str,
) -> tuple[int, dict[str, object]]:
    table, out = log.parent / "asked.csv", log.parent / "out.parquet"
    table.write_text(asked, encoding="utf-8")
    named = [option for key in keys for option in ("--key", key)]
    command = ("features", "join", str(table), str(log), "--out", str(out), *named, "--json")
    code, told, _ = run(monkeypatch, capsys, *command)
    return code, json.loads(told)


def test_a_table_of_dates_can_be_joined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log: Path
) -> None:
    asked = "who,ts\nv1,2026-03-10\nv2,2026-03-10\nv1,2100-01-01\n"
    code, told = joined(monkeypatch, capsys, log, asked, "visitor=who")
    assert code == 0
    found = pl.read_parquet(log.parent / "out.parquet")["by_visitor_status"].to_list()
    assert found == ["found", "not_yet", "found"]
    assert told["duplicates"] == 1


@pytest.mark.parametrize(
    ("asked", "key", "named"),
    [
        ("who,ts\nv1,2026-03-10\nv2,\n", "visitor=who", "row 2"),
        ("who,ts\nv1,2026-03-10\nv2,soon\n", "visitor=who", "'soon' in row 2"),
        ("who,visitor,ts\nv1,v1,2026-03-10\n", "visitor=whom", "`whom`"),
        ("who,visitor,ts\nv1,v1,2026-03-10\n", "vistor=who", "`vistor`"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_by_its_place(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log: Path,
    asked: str,
    key: str,
    named: str,
) -> None:
    code, told = joined(monkeypatch, capsys, log, asked, key)
    assert code == 1
    assert named in str(told["error"])


needs_full = pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")


@needs_full
def test_a_full_disk_ends_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log: Path
) -> None:
    code, _, err = run(monkeypatch, capsys, "features", "backfill", str(log), "--out", str(FULL))
    assert code == 1
    assert "disk has room" in err
    assert FULL.is_char_device()  # and no file stands in its place


@needs_full
def test_stdout_that_takes_nothing_ends_in_words() -> None:
    """In a process of its own: what stdout is bound to belongs to it."""
    command = "import sys; from recoup.cli import main; sys.argv = sys.argv[:1] + {}; main()"
    asked = command.format(["features", "list", "--json"])
    with FULL.open("w", encoding="utf-8") as full:
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", asked],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "disk has room" in done.stderr
