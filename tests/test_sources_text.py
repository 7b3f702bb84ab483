import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from recoup.errors import SourceError
from recoup.sources.files import find_files, pick_files
from recoup.sources.json_table import parse_value
from recoup.sources.lines import MAX_LINE
from recoup.sources.readers import first_block, read_blocks
from recoup.sources.tables import BLOCK, Block, Dialect


def blocks(path: Path, dialect: Dialect | None = None) -> list[Block]:
    return list(read_blocks(find_files(path)[0], dialect or Dialect()))


def only(path: Path, dialect: Dialect | None = None) -> Block:
    (block,) = blocks(path, dialect)
    return block


def reasons(block: Block) -> list[tuple[str, str]]:
    return list(block.dead_letters.select("path", "reason").iter_rows())


def write(folder: Path, name: str, body: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return path


def test_csv_with_quotes_and_line_breaks(tmp_path: Path) -> None:
    block = only(write(tmp_path, "a.csv", 'a,b\n1,"x, ""y""\nz"\n2,w\n'))
    assert block.frame.rows() == [("1", 'x, "y"\nz'), ("2", "w")]
    assert block.rows.to_list() == [2, 4]


def test_a_quote_that_never_closes_costs_one_row(tmp_path: Path) -> None:
    block = only(write(tmp_path, "a.csv", 'a,b\n1,"x\n2,w\n3,5" pipe\n4,v\n'))
    assert block.frame["a"].to_list() == ["1", "2", "3", "4"]


def test_rows_of_another_width_and_repeated_headers_are_dead_letters(tmp_path: Path) -> None:
    block = only(write(tmp_path, "a.csv", "a,b\n1,2\n1,2,3\n1\na,b\n3,4\n"))
    assert block.frame.rows() == [("1", "2"), ("3", "4")]
    assert reasons(block) == [
        ("a.csv:3", "wrong_column_count"),
        ("a.csv:4", "wrong_column_count"),
        ("a.csv:5", "repeated_header"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found_in_the_header(tmp_path: Path, delimiter: str) -> None:
    block = only(write(tmp_path, "a.csv", f"a{delimiter}b\n1{delimiter}2\n"))
    assert block.frame.rows() == [("1", "2")]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    block = only(write(tmp_path, "a.csv", "1,2\n3,4\n"), Dialect(header=False))
    assert block.frame.columns == ["c1", "c2"]
    assert block.frame.height == 2


def test_columns_of_one_name_are_told_apart(tmp_path: Path) -> None:
    assert only(write(tmp_path, "a.csv", "a,a,\n1,2,3\n")).frame.columns == ["a", "a_2", "c3"]


def test_byte_order_marks_and_utf_16(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        block = only(write(tmp_path, "a.csv", "a,b\n1,\u00e9\n".encode(encoding)))
        assert block.frame.rows() == [("1", "\u00e9")]
        assert block.frame.columns == ["a", "b"]


def test_wrong_encoding_is_a_dead_letter_and_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a,b\n1,\u00e9\n2,x\n".encode("latin-1"))
    assert reasons(only(path)) == [("a.csv:2", "bad_encoding")]
    assert only(path, Dialect(encoding="cp1252")).frame["b"].to_list() == ["\u00e9", "x"]


def test_a_huge_line_is_a_dead_letter_and_costs_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    with path.open("wb") as stream:
        stream.write(b'{"a":1}\n{"a":"')
        for _ in range(100):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n{"a":3}\n')
    assert path.stat().st_size > 20 * MAX_LINE
    block = only(path)
    assert block.frame["a"].to_list() == [1, 3]
    assert block.rows.to_list() == [1, 3]
    assert reasons(block) == [("a.ndjson:2", "line_too_long")]
    assert len(block.dead_letters["raw"][0]) == 2_000


def test_json_lines_that_are_none(tmp_path: Path) -> None:
    lines = ['{"a":1}', "{", "[1]", "3", '{"a":"\\ud800"}', '{"a":NaN}', "[" * 5000, "", "null"]
    block = only(write(tmp_path, "a.ndjson", "\n".join(lines)))
    assert block.rows.to_list() == [1, 6]
    assert [reason for _, reason in reasons(block)] == [
        "bad_json", "not_an_object", "not_an_object", "bad_encoding", "too_deep", "not_an_object",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 500 + "]" * 500, ""),
        ("[" * 501 + "]" * 501, "too_deep"),
        ('{"a":' * 501 + "1" + "}" * 501, "too_deep"),
        ('["' + "[" * 9_000 + '\\"{"]', ""),
        ("[" + "[]," * 9_000 + "[]]", ""),
    ],
)
def test_nesting_has_one_limit_for_every_interpreter(text: str, reason: str) -> None:
    assert parse_value(text)[1] == reason


def test_nested_objects_get_dotted_names_and_mixed_types_become_text(tmp_path: Path) -> None:
    rows = [
        {"a": {"b": 1, "c": {"d": "x"}}, "m": 1},
        {"a": 7, "m": "t", "l": [1, {"k": 2}]},
        {"m": 2.5},
    ]
    block = only(write(tmp_path, "a.ndjson", "\n".join(map(json.dumps, rows))))
    assert block.frame.to_dict(as_series=False) == {
        "a.b": [1, None, None],
        "a.c.d": ["x", None, None],
        "a": [None, 7, None],
        "m": ["1", "t", "2.5"],
        "l": [None, '[1,{"k":2}]', None],
    }


def test_integers_of_any_size_keep_their_digits(tmp_path: Path) -> None:
    block = only(write(tmp_path, "a.ndjson", f'{{"a":{2**64 - 1}}}\n{{"a":1}}\n'))
    assert block.frame["a"].to_list() == [str(2**64 - 1), "1"]
    mixed = only(write(tmp_path, "b.ndjson", f'{{"a":{2**62 + 1}}}\n{{"a":1.5}}\n'))
    assert mixed.frame["a"].to_list() == [str(2**62 + 1), "1.5"]


def test_too_many_fields_are_said(tmp_path: Path) -> None:
    block = only(write(tmp_path, "a.ndjson", json.dumps({f"k{n}": n for n in range(600)})))
    assert block.frame.width == 512
    assert reasons(block) == [("a.ndjson:1-1", "too_many_fields")]


def test_packed_files_read_like_plain_ones(tmp_path: Path) -> None:
    rows = pl.DataFrame({"a": list(range(3 * BLOCK)), "b": "x"})
    rows.write_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    rows.lazy().sink_csv(tmp_path / "c.csv.zst", compression="zstd")
    plain, gzipped, zstd = (
        [block.frame for block in read_blocks(file, Dialect())] for file in find_files(tmp_path)
    )
    assert [frame.height for frame in plain] == [BLOCK] * 3
    assert pl.concat(plain).equals(pl.concat(gzipped))
    assert pl.concat(plain).equals(pl.concat(zstd))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_files_that_end_too_soon(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.csv{suffix}"
    rows = pl.DataFrame({"a": [str(hash(str(n))) for n in range(100_000)]})
    if suffix == ".gz":
        whole.write_bytes(gzip.compress(rows.write_csv().encode()))
    else:
        rows.lazy().sink_csv(whole, compression="zstd")
    cut = write(tmp_path, f"cut.csv{suffix}", whole.read_bytes()[: whole.stat().st_size // 2])
    found = blocks(cut)
    got = pl.concat([block.frame for block in found if block.frame.height])
    assert 1000 < got.height < 100_000
    assert got["a"].to_list() == rows["a"].head(got.height).to_list()
    assert [reason for block in found for _, reason in reasons(block)] == ["truncated"]


def test_a_gzip_whose_bytes_are_broken(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"a\n" + b"1\n" * 5000))
    packed[-6] ^= 0xFF
    found = blocks(write(tmp_path, "a.csv.gz", bytes(packed)))
    assert [reason for block in found for _, reason in reasons(block)] == ["corrupt"]


def test_the_kind_is_told_by_content_where_the_name_does_not(tmp_path: Path) -> None:
    assert find_files(write(tmp_path, "log", '{"a":1}\n'))[0].kind == "ndjson"
    assert find_files(write(tmp_path, "table", "a,b\n1,2\n"))[0].kind == "csv"
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x.bin")
    assert find_files(tmp_path / "x.bin")[0].kind == "parquet"


def test_directories_are_read_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", ".hidden.csv", "notes.md"):
        write(tmp_path, name, "a\n1\n")
    labels = [file.label for file in find_files(tmp_path)]
    assert labels == ["a.csv.gz", "b.csv"]
    assert [file.label for file in pick_files(find_files(tmp_path), ["b*"])] == ["b.csv"]
    with pytest.raises(SourceError, match=r"c\.csv"):
        pick_files(find_files(tmp_path), ["c.csv"])


@pytest.mark.parametrize("name", ["a.csv", "a.ndjson", "a.csv.gz"])
def test_empty_files_say_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="empty"):
        first_block(find_files(write(tmp_path, name, b"")), Dialect())


def test_what_is_no_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing at"):
        find_files(tmp_path / "absent.csv")
    with pytest.raises(SourceError, match="Expected files of events"):
        find_files(tmp_path)
    with pytest.raises(SourceError, match="Parquet"):
        blocks(write(tmp_path, "a.parquet", b"PAR1 and no more"))
