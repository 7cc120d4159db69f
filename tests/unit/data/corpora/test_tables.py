import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torch_linguist.data import Corpus, HubCorpus, InMemoryCorpus, SotuCorpus, TextCorpus, WordTokenizerTrainer, prepare
from torch_linguist.data.corpora.splitting import Splitter
from torch_linguist.errors import DataError

ROWS = [
    {"text": f"text {number}, with\nlines", "year": 1800 + number, "party": "AB"[number % 2]} for number in range(40)
]


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


def write_gzip(path: Path) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in ROWS))


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=7)


def write_arrow(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path], None]] = {
    "rows.jsonl": write_jsonl,
    "rows.jsonl.gz": write_gzip,
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
    "rows.arrow": write_arrow,
}


def rows_of(corpus: Corpus) -> dict[str, list[dict[str, object]]]:
    splits = corpus.splits()
    return {split: [{"text": row.text, **row.metadata} for row in corpus.documents(split)] for split in splits}


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_is_in_one_split_with_its_metadata(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    splits = rows_of(TextCorpus(str(tmp_path / name), valid_fraction=0.1, test_fraction=0.2))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 28, "valid": 4, "test": 8}
    together = [row for rows in splits.values() for row in rows]
    assert sorted(together, key=str) == sorted(ROWS, key=str)


def test_gzipped_text_is_text(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("".join(f"line {number}\n" for number in range(40)))
    corpus = TextCorpus(str(tmp_path / "a.txt.gz"))
    text = "".join(document.text for split in corpus.splits() for document in corpus.documents(split))
    assert text == "".join(f"line {number}\n" for number in range(40))


def test_ready_splits_and_their_duplicates(tmp_path: Path) -> None:
    for split, texts in (("train", "abcd"), ("validation", "ax"), ("test", "by")):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    kept = rows_of(TextCorpus(str(tmp_path)))
    assert [row["text"] for row in kept["train"]] == [*"abcd"]
    dropped = rows_of(TextCorpus(str(tmp_path), drop_duplicates=True))
    assert [row["text"] for row in dropped["train"]] == [*"cd"]
    assert [row["text"] for row in dropped["valid"] + dropped["test"]] == [*"axby"]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet", "rows.arrow"])
def test_broken_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=name) as caught:
        rows_of(TextCorpus(str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"body": "x", "n": 1}\n', "data.text_column=text: .*row 1 has no such column; there are body, n"),
        ("a.jsonl", '{"text": 3}\n', "holds int there and no text"),
        ("a.jsonl", '{"text": "x"}\n{\n', "line 2 is not JSON"),
        ("a.csv", "text,n\nx,1,2\n", "line 2 has 3 fields, the first line names 2"),
        ("a.jsonl", '{"text": "x"}\n', "1 of 1 documents; each of train, valid and test takes at least one"),
    ],
)
def test_bad_tables(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        rows_of(TextCorpus(str(tmp_path / name)))


class TestSplits:
    def test_a_condition_decides_and_the_rest_tests(self) -> None:
        splits = rows_of(SotuCorpus(train_where="year<1900"))
        assert all(int(str(row["year"])) < 1900 for split in ("train", "valid") for row in splits[split])
        assert all(int(str(row["year"])) >= 1900 for row in splits["test"])
        assert sum(map(len, splits.values())) == 249

    def test_strata_are_spread_alike(self) -> None:
        splits = rows_of(SotuCorpus(stratify="type"))
        shares = [sum(row["type"] == "speech" for row in rows) / len(rows) for rows in splits.values()]
        assert max(shares) - min(shares) < 0.08

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train_where": "year"}, "data.train_where=year: no condition"),
            ({"train_where": "town=x"}, "there is no column town; there are document, year"),
            ({"train_where": "party<3"}, "not a number"),
            ({"train_where": "year<1"}, "is met by 0 of 249 documents"),
            ({"stratify": "town"}, "data.stratify=town: there is no column town"),
        ],
    )
    def test_bad_conditions(self, options: dict[str, str], message: str) -> None:
        with pytest.raises(DataError, match=message):
            rows_of(SotuCorpus(**options))  # type: ignore[arg-type]

    def test_copies_are_dropped_before_the_split(self) -> None:
        documents = list(InMemoryCorpus({"train": [*"abcabcabd"], "valid": [], "test": []}).documents("train"))
        assigned = Splitter(0.2, 0.2, 0, drop_duplicates=True).assign(documents, "x")
        kept = [document.text for document, split in zip(documents, assigned, strict=True) if split != "dropped"]
        assert kept == [*"abcd"]

    def test_duplicates_across_splits_are_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        corpus = InMemoryCorpus({"train": ["a", "b"], "valid": ["a", "c"], "test": ["c", "b", "d"]})
        assert prepare(corpus, WordTokenizerTrainer(min_frequency=1), tmp_path).duplicates == {"valid": 1, "test": 2}
        assert "2 of 3 documents of test stand word for word in train or valid" in caplog.text


class TestHub:
    @pytest.fixture(autouse=True)
    def _own_hub_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")

    @pytest.mark.parametrize("streaming", [False, True])
    @pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.jsonl.gz"])
    def test_files_of_the_hubs_shape(self, name: str, streaming: bool, tmp_path: Path) -> None:
        folder = tmp_path / "hub"
        for split in ("train", "test"):
            (folder / split).mkdir(parents=True)
            WRITERS[f"rows{name[1:]}"](folder / split / name)
        files = {"train": f"train/*{name[1:]}", "test": f"test/*{name[1:]}"}
        corpus = HubCorpus(
            "owner/x", "x", str(folder), files=files, valid="test[30:]", test="test[:10]", streaming=streaming
        )
        splits = rows_of(corpus)
        assert [splits["train"], splits["valid"], splits["test"]] == [ROWS, ROWS[30:], ROWS[:10]]

    def test_shared_rows_and_bad_parts_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"data.valid and data.test: share rows of the split test"):
            HubCorpus("owner/x", "x", valid="test[5:]", test="test[:10]")
        with pytest.raises(DataError, match=r"data.valid=test\[a\]: must be SPLIT"):
            HubCorpus("owner/x", "x", valid="test[a]")

    def test_counts_that_differ_are_reported(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_parquet(tmp_path / "train.parquet")
        files = {"train": "train.parquet"}
        parts = {"train": "train[20:]", "valid": "train[:10]", "test": "train[10:20]"}
        corpus = HubCorpus("o/x", "x", str(tmp_path), files=files, expected={"train": {"lines": 41}}, **parts)  # type: ignore[arg-type]
        prepare(corpus, WordTokenizerTrainer(min_frequency=1), tmp_path / "cache")
        assert "the split train has 40 lines, the published corpus 41" in caplog.text
        corpus.own_copy = False
        with pytest.raises(DataError, match=r"has 40 lines, the published corpus 41; check data.revision"):
            prepare(corpus, WordTokenizerTrainer(min_frequency=1), tmp_path / "other")
