"""Texts from files to rows: what is kept, what is refused, and what a table holds."""

import contextlib
import gzip
import io
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import ConfigError, DataError, LinguistError
from torch_linguist.evaluation.texts import score_lines
from torch_linguist.evaluation.texts.filtering import check_filter, filter_texts, threshold_of_share
from torch_linguist.evaluation.texts.records import Record, RecordReader
from torch_linguist.evaluation.texts.rows import Reading, Scorer, line_rows, token_rows
from torch_linguist.evaluation.texts.writing import ROW_GROUP, line_writer, row_writer
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]


def read(path: Path, **options: object) -> list[tuple[str, dict[str, object]]]:
    return [(record.text, dict(record.columns)) for record in RecordReader([str(path)], **options)]  # type: ignore[arg-type]


def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path) -> None:
    texts, years = ["a b", 'c, "d"', ""], [1, 2, 3]
    (tmp_path / "a.txt").write_bytes(b'a b\r\nc, "d"\n\n')
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write('a b\nc, "d"\n\n')
    rows = [{"text": text, "year": year} for text, year in zip(texts, years, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.csv").write_text('text,year\na b,1\n"c, ""d""",2\n"",3\n')
    (tmp_path / "a.tsv").write_text('text\tyear\na b\t1\nc, "d"\t2\n\t3\n')
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert [text for text, _ in read(path)] == texts, path
        if path.suffix not in (".txt", ".gz"):
            assert [str(columns["year"]) for _, columns in read(path)] == ["1", "2", "3"]


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    bad = tmp_path / "a.txt"
    bad.write_bytes(b"one\n\xff\xfe\nthree\n")
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        read(bad)
    assert [text for text, _ in read(bad, errors="replace")] == ["one", "\ufffd\ufffd", "three"]
    reader = RecordReader([str(bad)], errors="skip", skip_empty=True)
    assert [record.text for record in reader] == ["one", "three"]
    assert reader.skipped == 1
    (tmp_path / "b.txt").write_bytes("one\ntwo\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"b\.txt: line 1 holds zero bytes, as UTF-16"):
        read(tmp_path / "b.txt")
    broken = tmp_path / "a.jsonl"
    broken.write_text('{"text": "a"}\n{"text": \n[1]\n{"text": "b"}\n')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read(broken)
    assert [text for text, _ in read(broken, errors="skip")] == ["a", "b"]
    with pytest.raises(DataError, match="no such column; it has text"):
        read(broken, column="body", errors="skip")
    lacking = tmp_path / "b.jsonl"
    lacking.write_text('{"body": "a"}\n{"text": "b"}\n{"text": 3}\n')
    with pytest.raises(DataError, match="line 1 has no such column; it has body"):
        read(lacking)
    assert [text for text, _ in read(lacking, errors="skip")] == ["b"]
    open_quote = tmp_path / "a.csv"
    open_quote.write_text('text\n"a\nb\n')
    with pytest.raises(DataError, match="no CSV"):
        read(open_quote)


def test_empty_lines_are_scored_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n\n \nb\n")
    assert [text for text, _ in read(path)] == ["a", "", " ", "b"]
    reader = RecordReader([str(path)], skip_empty=True)
    assert [record.text for record in reader] == ["a", "b"]
    assert reader.empty == 2


def test_several_models_stand_side_by_side_with_their_mixture(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus
) -> None:
    tokenizer = tiny_corpus.tokenizer
    models = {family: build_model(family, tokenizer.vocab_size) for family in ("lstm", "gru")}
    scorers = [Scorer(family, model, tokenizer) for family, model in models.items()]
    records = [Record("the king", {"year": 1}), Record("a queen .", {"year": 2})]
    (block,) = line_rows(scorers, records, Reading(log_base="10"), weights=[0.25, 0.75])
    rows = list(block.rows())
    assert block.perplexities == [row["perplexity_mixture"] for row in rows]
    assert [(row["line"], row["year"]) for row in rows] == [(1, 1), (2, 2)]
    for family, model in models.items():
        expected = [s.log_probability / math.log(10) for s in score_lines(model, tokenizer, ["the king", "a queen ."])]
        assert [row[f"log_probability_{family}"] for row in rows] == pytest.approx(expected)
    for row in rows:
        both = [row["perplexity_lstm"], row["perplexity_gru"]]
        # Concave: the mixture's logarithm lies above the weighted mean of the logarithms.
        assert row["log_probability_mixture"] >= np.dot(
            [0.25, 0.75], [row["log_probability_lstm"], row["log_probability_gru"]]
        )
        assert row["perplexity_mixture"] < max(both)


def test_each_document_starts_from_the_initial_state(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    tokenizer = tiny_corpus.tokenizer
    scorers = [Scorer("lstm", build_model("lstm", tokenizer.vocab_size), tokenizer)]
    records = [Record(text, {"d": d}) for text, d in [("the king .", 1), ("a queen", 1), ("the king .", 2)]]
    blocks = line_rows(scorers, records, Reading(document_column="d"))
    by_document = [value for block in blocks for value in block.columns["log_probability"]]
    (block,) = line_rows(scorers, records, Reading())
    alone = block.columns["log_probability"]
    assert by_document[0] == pytest.approx(by_document[2]) == pytest.approx(alone[0])
    assert by_document[1] != pytest.approx(alone[1], abs=1e-4)
    with pytest.raises(ConfigError, match="no such column; there are d"):
        list(line_rows(scorers, records, Reading(document_column="e")))


def test_tokens_and_words_are_rows(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    tokenizer = tiny_corpus.tokenizer
    scorers = [Scorer("lstm", build_model("lstm", tokenizer.vocab_size), tokenizer)]
    rows = list(token_rows(scorers, [Record("the king"), Record("a")], Reading(), alternatives=2))
    assert [(row["line"], row["token"]) for row in rows] == [
        (1, "the"),
        (1, "king"),
        (1, "<eos>"),
        (2, "a"),
        (2, "<eos>"),
    ]
    assert all(len(row["alternatives"]) == 2 for row in rows)
    words = list(token_rows(scorers, [Record("the king")], Reading(), words=True))
    assert [row["surprisal"] for row in words] == pytest.approx([row["surprisal"] for row in rows[:3]])


def test_a_share_keeps_the_lowest_perplexities() -> None:
    values = [5.0, 1.0, math.nan, 3.0, 2.0]
    for share, kept in ((0.2, 1), (0.4, 2), (0.5, 3), (1.0, 4)):
        assert sum(value <= threshold_of_share(values, share) for value in values) == kept
    for below, wanted in ((0.0, None), (None, 0.0), (None, 1.5), (1.0, 0.5)):
        with pytest.raises(ConfigError):
            check_filter(below, wanted)


def test_scores_do_not_give_way_to_columns_of_the_same_name(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus
) -> None:
    scorers = [Scorer("lstm", build_model("lstm", tiny_corpus.tokenizer.vocab_size), tiny_corpus.tokenizer)]
    records = [Record("the king", {"tokens": "many", "year": 1})]
    (block,) = line_rows(scorers, records, Reading())
    (row,) = block.rows()
    assert (row["tokens"], row["tokens_input"], row["year"]) == (3, "many", 1)
    (first, *_) = token_rows(scorers, [Record("the king", {"token": "x"})], Reading())
    assert (first["token"], first["token_input"]) == ("the", "x")


def test_a_cell_with_tabs_or_newlines_stays_one_cell(tmp_path: Path) -> None:
    with row_writer("tsv", tmp_path / "out.tsv", io.StringIO()) as writer:
        writer.write({"a\tb": "c\nd", "e": "f\tg", "h": None})
    assert (tmp_path / "out.tsv").read_text() == "a b\te\th\nc d\tf g\t\n"
    with row_writer("tsv", tmp_path / "out.tsv", io.StringIO()) as writer:
        writer.write_columns({"a\tb": ["c\nd", "%s"], "e": [0.1 + 0.2, math.nan]})
    assert (tmp_path / "out.tsv").read_text() == "a b\te\nc d\t0.3\n%s\tnan\n"


def unbuffered(path: Path) -> io.TextIOWrapper:
    """Open a file as `python -u` opens the standard output."""
    return io.TextIOWrapper(io.FileIO(path, "w"), encoding="utf-8", write_through=True)


@pytest.mark.parametrize("redirected", [False, True])
def test_a_full_disk_leaves_whole_lines(redirected: bool, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "out.tsv"

    def fill() -> None:
        output = stack.enter_context(unbuffered(path)) if redirected else io.StringIO()
        with row_writer("tsv", None if redirected else path, output) as writer:
            for number in range(100_000):
                writer.write({"line": number, "text": "some words"})

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, limits[1]))
    try:
        with contextlib.ExitStack() as stack, pytest.raises(LinguistError) as caught:
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    header, *lines = path.read_text().splitlines(keepends=True)
    assert header == "line\ttext\n"
    assert lines == [f"{number}\tsome words\n" for number in range(len(lines))]
    assert len(lines) > 1000
    assert f"after {len(lines):,} rows" in str(caught.value)


def test_a_full_disk_leaves_whole_lines_of_a_filter(tmp_path: Path) -> None:
    texts = [(f"text {number}", 1.0) for number in range(100_000)]
    with pytest.raises(LinguistError, match="after 0 rows"), line_writer(Path("/dev/full"), io.StringIO()) as output:
        filter_texts(texts, output.write_line, below=2)
    with line_writer(tmp_path / "kept.txt", io.StringIO()) as output:
        assert filter_texts(texts, output.write_line, share=0.5).kept == len(texts)
    assert (tmp_path / "kept.txt").read_text() == "".join(f"{text}\n" for text, _ in texts)


def test_a_full_disk_leaves_no_half_parquet_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        path, full = tmp_path / "out.parquet", pytest.raises(LinguistError, match="after 0 rows")
        with full, row_writer("parquet", path, io.StringIO()) as writer:
            for number in range(20_000):
                writer.write({"line": number, "loss": math.sin(number)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not path.exists()
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(LinguistError), row_writer("parquet", tmp_path / "link", io.StringIO()) as writer:
        writer.write({"line": 1})
    assert (tmp_path / "link").is_symlink()
    assert Path("/dev/full").exists()


def test_cells_stay_below_the_names_of_the_first_row(tmp_path: Path) -> None:
    for form, mark in (("tsv", "\t"), ("csv", ",")):
        path = tmp_path / f"out.{form}"
        with row_writer(form, path, io.StringIO()) as writer:
            writer.write({"a": 1, "b": 2})
            writer.write({"b": 3})
            writer.write_columns({"b": [4], "a": [5]})
            with pytest.raises(ConfigError, match="row 4 has the column c"):
                writer.write({"a": 1, "c": 2})
        assert path.read_text().splitlines() == [f"a{mark}b", f"1{mark}2", f"{mark}3", f"5{mark}4"]


def test_no_column_of_a_parquet_file_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with row_writer("parquet", path, io.StringIO()) as writer:
        writer.write({"a": 1})
        writer.write({"a": 2, "b": "x"})
    assert pq.read_table(path).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]
    for late, message in (
        ({"a": 1, "c": 2}, f"row {ROW_GROUP + 1} has the column c"),
        ({"a": "x"}, f"rows {ROW_GROUP + 1:,} to {ROW_GROUP + 1:,} have other types"),
    ):
        complaint = pytest.raises(ConfigError, match=message)
        with complaint, row_writer("parquet", path, io.StringIO()) as writer:
            writer.write_columns({"a": range(ROW_GROUP)})
            writer.write(late)
        assert pq.read_table(path).column("a").to_pylist() == list(range(ROW_GROUP))
    missing = pytest.raises(FileNotFoundError)  # Of an input, not of the output.
    with missing, row_writer("parquet", path, io.StringIO()) as writer:
        writer.write_columns({"a": range(ROW_GROUP)})
        raise FileNotFoundError(2, "No such file", "lines.txt")
    assert pq.read_table(path).num_rows == ROW_GROUP
    complaint = pytest.raises(ConfigError, match="have other types")
    with complaint, row_writer("parquet", path, io.StringIO()) as writer:
        writer.write({"a": 1})
        writer.write({"a": "x"})


def test_rows_are_written_in_every_form(tmp_path: Path) -> None:
    rows = [{"line": 1, "text": 'a\t"b"', "loss": 0.5}, {"line": 2, "text": "c", "loss": math.inf}]
    for form in ("tsv", "csv", "jsonl", "parquet"):
        with row_writer(form, tmp_path / f"out.{form}", io.StringIO()) as writer:
            writer.write(rows[0])
            writer.write_columns({name: [value] for name, value in rows[1].items()})
    assert (tmp_path / "out.tsv").read_text().splitlines() == ["line\ttext\tloss", '1\ta "b"\t0.5', "2\tc\tinf"]
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        rows[0],
        {**rows[1], "loss": None},
    ]
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows
    assert [text for text, _ in read(tmp_path / "out.csv")] == [row["text"] for row in rows]
    with pytest.raises(ConfigError, match="needs a file"), row_writer("parquet", None, io.StringIO()):
        pass
    with pytest.raises(ConfigError, match="--format=xml"), row_writer("xml", None, io.StringIO()):
        pass
