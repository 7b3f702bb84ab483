"""The command line: what it says of itself, and how it ends."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import recoup
from recoup.cli import app, main

DOCS = Path(__file__).parent.parent / "docs" / "cli.md"
ROOT = typer.main.get_command(app)


def commands(group: Any, path: str = "recoup") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    if not hasattr(group, "commands"):
        yield path, group
        return
    for name, command in group.commands.items():
        yield from commands(command, f"{path} {name}")


EVERY = dict(commands(ROOT))


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["recoup", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("path", EVERY)
def test_every_command_teaches_and_is_documented(path: str) -> None:
    command, docs = EVERY[path], DOCS.read_text(encoding="utf-8")
    assert path in docs
    assert command.help
    assert "Exit codes" in (command.epilog or "")
    assert any("--json" in each.opts for each in command.params)
    for option in (p for p in command.params if p.param_type_name == "option"):
        assert option.help, f"{path} {option.opts}"
        assert option.opts[0] in docs, f"{path} {option.opts[0]} is not in docs/cli.md"


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "--version")
    assert (code, out.strip()) == (0, f"recoup {recoup.__version__}")


def test_a_users_mistake_ends_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = str(tmp_path / "absent.csv")
    code, out, err = run(monkeypatch, capsys, "replay", missing, "--out", str(tmp_path / "out"))
    assert (code, out) == (1, "")
    assert "absent.csv" in err
    assert "Hint" in err
    assert "Traceback" not in err


def test_a_mistake_under_json_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = str(tmp_path / "absent.csv")
    code, out, _ = run(monkeypatch, capsys, "inspect", missing, "--json")
    told = json.loads(out)
    assert code == 1
    assert set(told) == {"error", "hint", "kind"}


@pytest.mark.parametrize("text", ["yesterday", "2016-13-01", ""])
def test_a_bad_moment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("ts,event,visitor\n2026-01-01T00:00:00Z,page_view,v\n", encoding="utf-8")
    arguments = ("train", "intent", str(log), "--registry", str(tmp_path), "--until", text)
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 1
    assert "--until" in err


def test_wrong_usage_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, capsys, "replay")[0] == 2


@pytest.mark.parametrize("command", ["replay", "simulate", "demo"])
def test_an_output_that_cannot_be_made_ends_in_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    log, taken = tmp_path / "log.csv", tmp_path / "taken"
    log.write_text("ts,event,visitor\n2026-01-01T00:00:00Z,page_view,v\n", encoding="utf-8")
    taken.write_text("a file", encoding="utf-8")
    read = (str(log),) if command == "replay" else ()
    code, out, _ = run(monkeypatch, capsys, command, *read, "--out", str(taken), "--json")
    told = json.loads(out)
    assert code == 1
    assert str(taken) in told["error"]
    assert "path" in told["hint"]
    assert taken.read_text(encoding="utf-8") == "a file"


def test_too_little_memory_ends_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short() -> None:
        raise MemoryError("no 3 GB for the state of features")

    monkeypatch.setattr(sys.modules["recoup.cli.app"], "app", short)
    code, out, _ = run(monkeypatch, capsys, "train", "intent", "--json")
    told = json.loads(out)
    assert code == 1
    assert "no 3 GB" in told["error"]
    assert "--most-rows" in told["hint"]
