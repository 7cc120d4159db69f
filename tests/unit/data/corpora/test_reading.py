"""Text is read as it is, and what is no text is named."""

import json
from pathlib import Path

import pytest

from torch_linguist.data.corpora.reading import read_lines
from torch_linguist.data.corpora.splitting import Condition
from torch_linguist.data.corpora.tables import read_documents
from torch_linguist.errors import DataError


@pytest.mark.parametrize(
    "content",
    [
        "é\nb\n".encode("utf-16"),
        "\ufeffé\nb\n".encode(),
        "é\nb\n".encode("utf-32"),
        "é\r\nb\r\n".encode(),
        "é\rb\r".encode(),
    ],
)
def test_marks_and_line_ends(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert list(read_lines(tmp_path / "a.txt")) == ["é", "b"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"BZh91AY", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        ("plain text\n".encode("utf-16-le"), "data.encoding=utf-16-le"),
        (b"a\0\0\0b\n\0\0", "binary"),
    ],
)
def test_what_is_no_text_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=named) as caught:
        list(read_lines(tmp_path / "a.txt"))
    assert "latin-1" not in str(caught.value)


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tn\nsay "hi"\t1\n"open\t2\nlast\t3\n')
    assert [row.text for row in read_documents(tmp_path / "a.tsv", "text")] == ['say "hi"', '"open', "last"]


def test_an_open_quotation_mark_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,n\na,1\n"b,2\nc,3\n')
    with pytest.raises(DataError, match="row that begins on line 3 opens a quotation mark"):
        list(read_documents(tmp_path / "a.csv", "text"))


def test_rows_of_json(tmp_path: Path) -> None:
    rows = [{"text": "a\r\nb"}, {"text": None}, {"other": 1}, {"text": "x", "n": int("9" * 400)}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(read_documents(tmp_path / "a.jsonl", "text"))
    assert [row.text for row in found] == ["a\nb", "", "", "x"]
    assert found[3].metadata["n"] == "9" * 400


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"text": "\\ud800"}', "row 1: holds half a surrogate"), ("[" * 100_000, "line 1 is nested too deeply")],
)
def test_bad_json_is_named_by_row(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        list(read_documents(tmp_path / "a.jsonl", "text"))


def test_truth_values_in_conditions() -> None:
    assert Condition("flag=true").holds({"flag": True})
    assert not Condition("flag=true").holds({"flag": False})
