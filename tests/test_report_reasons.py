"""Why shoppers leave, as the report tells it: sums by signal and slice, words, no raw strings."""

import json
from pathlib import Path

import polars as pl
import pytest

from recoup.friction.reasons import REASON_SCHEMA
from recoup.report import Journeys, Reasons, render_html, summarise, tell_reasons, to_json
from recoup.report.reasons import SLICE_LIMIT
from recoup.report.reasons_story import NOTHING, figure, rows, sentences
from recoup.runners.explaining import write_reasons
from recoup.stores import MemoryJournal

Told = tuple[str, bool, int, float, float, str, str]


def frame_of(*lines: Told) -> pl.DataFrame:
    names = ("signal", "shown", "session", "lost", "unspoilt", "page", "device")
    frame = pl.DataFrame(lines, schema=list(names), orient="row")
    return frame.select(
        (pl.col(name) if name in names else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in REASON_SCHEMA.items()
    )


SHOP = frame_of(
    ("K5", True, 1, 0.5, 0.8, "/pay", "mobile"),
    ("K5", True, 2, 0.3, 0.6, "/pay", "desktop"),
    ("D8", True, 2, 0.1, 0.2, "<b>/slow</b>", "desktop"),
    ("D8", False, 3, 0.0, 0.2, "/pay", "desktop"),
    ("L3", True, 4, 0.0, 0.4, "/p/lamp", "mobile"),
)


def test_losses_are_summed_by_signal_and_slice() -> None:
    told = tell_reasons(SHOP, "m")
    assert (told.model, told.sessions) == ("m", 3)
    assert told.lost == pytest.approx(0.9)
    assert [each.signal for each in told.signals] == ["K5", "D8", "L3"]
    first = told.signals[0]
    assert (first.showings, first.sessions) == (2, 2)
    assert (first.lost, first.unspoilt) == pytest.approx((0.8, 1.4))
    by_place = {(part.attribute, part.value): part.lost for part in first.slices}
    assert by_place == pytest.approx(
        {("page", "/pay"): 0.8, ("device", "mobile"): 0.5, ("device", "desktop"): 0.3}
    )
    many = frame_of(*(("D8", True, k, 0.01 * k, 0.5, f"/{k}", "mobile") for k in range(1, 40)))
    pages = [part for part in tell_reasons(many, "m").signals[0].slices if part.attribute == "page"]
    assert len(pages) == SLICE_LIMIT
    assert pages[0].value == "/39"


def test_sessions_found_later_to_be_no_shoppers_are_taken_out(tmp_path: Path) -> None:
    journal = MemoryJournal()
    with journal.transaction() as transaction:
        transaction.append("reasons", SHOP)
        transaction.append("strangers", pl.DataFrame({"session": [2]}))
    told = write_reasons(journal, tmp_path / "reasons.parquet", "m")
    assert set(pl.read_parquet(tmp_path / "reasons.parquet")["session"]) == {1, 3, 4}
    assert told == tell_reasons(SHOP.filter(pl.col("session") != 2), "m")


def test_it_is_told_in_words() -> None:
    told = tell_reasons(SHOP, "m")
    said = " ".join(sentences(told))
    assert "3 visits met something" in said
    assert "Payment declined (0.8), Slow page (0.1)" in said
    assert "without a loss that the model could tell: Broken picture" in said
    table = rows(told)
    assert [row.name for row in table] == ["Payment declined", "Slow page"]
    assert table[0].leave == "57 %"
    assert table[0].where == ""  # two visits say nothing of where
    assert "Payment declined" in figure(told)
    nothing = Reasons(model="m")
    assert sentences(nothing) == [NOTHING]
    assert figure(nothing) == ""
    harmless = tell_reasons(SHOP.filter(pl.col("signal") == "L3"), "m")
    assert "no purchase lost" in sentences(harmless)[0]


def test_a_place_is_named_where_enough_visits_met_a_signal() -> None:
    devices = ["mobile"] * 13 + ["desktop"] * 7
    lines = [("K5", True, n, 0.5, 0.8, "/pay", device) for n, device in enumerate(devices)]
    (row,) = rows(tell_reasons(frame_of(*lines), "m"))
    assert row.where == "page /pay (100 %), device mobile (65 %)"


def test_how_shoppers_wavered_is_told_apart_from_what_they_met() -> None:
    wavering = frame_of(
        ("D9", True, 7, 4.0, 9.0, "/cart", "mobile"),
        ("D9", True, 8, 8.0, 9.0, "/cart", "mobile"),
        ("D9:comparison_loop", True, 9, 0.2, 0.5, "/p/lamp", "mobile"),
        ("D7:dead_click", True, 9, 0.0, 0.5, "/p/lamp", "mobile"),
    )
    told = tell_reasons(pl.concat([SHOP, wavering]), "m")
    plain = tell_reasons(SHOP, "m")
    assert (told.lost, told.sessions, told.signals) == (plain.lost, plain.sessions, plain.signals)
    assert [each.signal for each in told.wavering] == ["D9", "D9:comparison_loop", "D7:dead_click"]
    assert told.wavering[0].slices[0].value == "/cart"
    *before, said = sentences(told)
    assert before == sentences(plain)
    named = said.partition(" put purchases in doubt as well: ")[2].partition(". ")[0]
    assert named == "went to and fro between products (0.2, visits: 1)"
    assert "no cause" in said


def test_the_page_has_the_section_only_with_a_trained_model() -> None:
    def page(told: Reasons | None) -> str:
        summary = summarise(source="shop", events=5, journeys=Journeys(), reasons=told)
        assert (json.loads(to_json(summary))["reasons"] is None) == (told is None)
        return render_html(summary)

    lines = [("D8", True, n, 0.1, 0.2, "<b>/slow</b>", "desktop") for n in range(20)]
    with_model = page(tell_reasons(frame_of(*lines), "m"))
    assert "Why shoppers leave" in with_model
    assert "not proof of cause" in with_model
    assert "<b>/slow</b>" not in with_model
    assert "&lt;b&gt;/slow" in with_model
    assert "Why shoppers leave" not in page(None)
