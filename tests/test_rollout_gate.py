"""The gate before a rollout: it reckons for itself, and says all that speaks against a proposal."""

import copy
import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.causal.rollout_gate import (
    FORMAT,
    Checked,
    Demands,
    check_proposal,
    fingerprint,
    sealed,
)
from recoup.cli import main
from recoup.errors import ConfigError, SchemaError

NOW = dt.datetime(2026, 3, 10, tzinfo=dt.UTC)
GAIN = {"value": 0.5, "low": 0.2, "high": 0.8, "se": 0.15}
GOOD: dict[str, Any] = {
    "format": FORMAT,
    "made_from": {
        "source": "shop",
        "from": "2026-03-01T00:00:00Z",
        "until": "2026-03-08T00:00:00Z",
        "visitors": 4_000,
        "horizon_s": 86_400.0,
        "policies": ["a1"],
    },
    "level": 0.95,
    "rule": [{"decision": 1, "remedy": "payment_retry", "intent": "likely", "act": True}],
    "lower_bound": 0.2,
    "gate": {"passes": True, "reasons": ["the lower bound is above 0"]},
    "intent_split": 0.1,
    "value": {"value": 3.5, "low": 3.0, "high": 4.0, "se": 0.2},
    "present_value": {"value": 3.0, "low": 2.8, "high": 3.2, "se": 0.1},
    "gain": GAIN,
    "diagnostics": {
        "visitors": 2_000,
        "effective_sample_size": 300.0,
        "tried": 91,
        "refused": None,
        "holdout_agrees": True,
    },
}


def changed(**parts: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Give a good proposal with parts changed: ``made_from__until`` names a part's part."""
    told = copy.deepcopy(GOOD)
    for name, value in parts.items():
        outer, _, inner = name.partition("__")
        if inner:
            told[outer][inner] = value
        else:
            told[outer] = value
    return told


def check(told: dict[str, Any], **demands: Any) -> Checked:  # noqa: ANN401
    return check_proposal(msgspec.json.encode(sealed(told)), now=NOW, demands=Demands(**demands))


def test_a_sound_proposal_passes() -> None:
    found = check(GOOD, least_gain=0.1, policy="a1")
    assert found.passes
    assert found.lower_bound == 0.2
    assert found.age_s == 2 * 86_400
    assert found.reasons == ["the lower bound of the gain is 0.20 a visitor"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"rule": None, "gate": {"passes": False, "reasons": ["too few"]}}, "nothing: too few"),
        ({"rule": []}, "proposes nothing"),
        ({"lower_bound": 0.3}, "not that of its gain"),
        ({"lower_bound": None}, "what it gains"),
        ({"gain": None}, "what it gains"),
        ({"gain": GAIN | {"low": -0.1}, "lower_bound": -0.1}, "-0.10 a visitor, not above"),
        ({"gain": GAIN | {"low": 0.9}, "lower_bound": 0.9}, "no estimate"),
        ({"level": 0.5}, "confidence 0.5"),
        ({"diagnostics": None}, "how far the log could answer"),
        ({"diagnostics__refused": "one visitor"}, "cannot answer: one visitor"),
        ({"diagnostics__effective_sample_size": 29.0}, "is 29, under 30"),
        ({"diagnostics__holdout_agrees": False}, "disagree"),
        ({"made_from__until": "2026-02-01T00:00:00Z"}, "ended 37 days ago"),
        ({"made_from__until": "2026-03-11T00:00:00Z"}, "after the moment of the check"),
        ({"made_from__until": "2026-03-08T00:00:00"}, "without a zone"),
        ({"made_from__until": None}, "when its log ends"),
        ({"gate": {"passes": False, "reasons": ["in doubt"]}}, "did not let it pass: in doubt"),
    ],
)
def test_what_speaks_against_it_is_told(parts: dict[str, Any], said: str) -> None:
    found = check(changed(**parts))
    assert not found.passes
    assert any(said in reason for reason in found.reasons), found.reasons


def test_demands_may_be_higher() -> None:
    assert "not above 0.2" in check(GOOD, least_gain=0.2).reasons[0]
    assert "under 0.99" in check(GOOD, level=0.99).reasons[0]
    assert "b2 is live" in check(GOOD, policy="b2").reasons[0]
    assert "days ago" in check(GOOD, most_age=dt.timedelta(days=1)).reasons[0]
    several = check(changed(level=0.5, diagnostics__holdout_agrees=False), policy="b2")
    assert len(several.reasons) == 3
    for level in (0.0, 1.0):
        with pytest.raises(ConfigError, match="level"):
            Demands(level=level)


def leaves(told: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """List the places of all numbers, texts and truths."""
    if isinstance(told, dict):
        return [leaf for name, each in told.items() for leaf in leaves(each, (*path, name))]
    if isinstance(told, list):
        return [leaf for place, each in enumerate(told) for leaf in leaves(each, (*path, place))]
    return [path]


@given(place=st.sampled_from(leaves(GOOD)))
def test_a_slip_anywhere_is_noticed(place: tuple[Any, ...]) -> None:
    told = sealed(GOOD)
    at: Any = told
    for step in place[:-1]:
        at = at[step]
    old = at[place[-1]]
    at[place[-1]] = not old if isinstance(old, bool) else f"{old}x" if isinstance(old, str) else 7.0
    try:
        found = check_proposal(json.dumps(told).encode(), now=NOW)
    except SchemaError:
        return
    assert not found.passes
    assert "the fingerprint differs" in found.reasons[0]


def test_spaces_and_order_are_no_slip() -> None:
    told = sealed(GOOD)
    turned = json.dumps(dict(reversed(told.items())), indent=7).encode()
    assert check_proposal(turned, now=NOW).passes
    assert fingerprint(told) == told["fingerprint"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        json.dumps(GOOD | {"format": "recoup.proposal/2"}).encode(),
        json.dumps(GOOD).encode(),  # without a fingerprint
        json.dumps(sealed(GOOD) | {"level": "sure"}).encode(),
    ],
)
def test_what_is_no_proposal_is_refused(raw: bytes) -> None:
    with pytest.raises(SchemaError, match="Expected a proposal") as refused:
        check_proposal(raw, now=NOW)
    assert "recoup learn report" in str(refused.value.hint)


def test_a_moment_has_a_zone() -> None:
    with pytest.raises(ConfigError, match="with a zone"):
        check_proposal(b"{}", now=dt.datetime(2026, 3, 10))  # noqa: DTZ001 - what is refused


def ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["recoup", "learn", "check", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().out


def test_the_command_ends_with_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "proposal.json"
    path.write_bytes(msgspec.json.encode(sealed(GOOD)))
    file, when = str(path), "2026-03-10"
    code, out = ask(monkeypatch, capsys, file, "--at", when, "--json")
    assert (code, json.loads(out)["passes"]) == (0, True)
    assert ask(monkeypatch, capsys, file, "--at", when) == (
        0, "Passes.\n  the lower bound of the gain is 0.20 a visitor\n",
    )  # fmt: skip
    code, out = ask(monkeypatch, capsys, file, "--json")  # by the clock: long ago, or to come
    assert (code, json.loads(out)["passes"]) == (3, False)
    code, out = ask(monkeypatch, capsys, file, "--at", when, "--least-gain", "1")
    assert code == 3
    assert out.startswith("Does not pass.\n  the lower bound of the gain is 0.20")
    code, out = ask(monkeypatch, capsys, file, "--max-age", "soon", "--json")
    assert (code, "--max-age" in json.loads(out)["error"]) == (1, True)
    code, out = ask(monkeypatch, capsys, str(tmp_path / "absent.json"), "--json")
    assert (code, json.loads(out)["kind"]) == (1, "SourceError")
