import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.data import TokenizedCorpus, WikiTextCorpus, WordTokenizerTrainer, prepare
from torch_linguist.errors import DataError

SHARED = Path(__file__).resolve().parents[4] / "shared/data/wikitext-2"
SPLITS = ("train", "valid", "test")

needs_wikitext = pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs WikiText-2 in {SHARED}")


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")


LINES = [
    " ",
    " = First = ",
    " ",
    " Text of the first , with <unk> . ",
    " ",
    " = = A section = = ",
    " ",
    " = No heading = ",
    " More text . ",
    " ",
    " = Second \x85 \u2028 one = ",
    " ",
    " Text . ",
]


@pytest.fixture(scope="module")
def wikitext(tmp_path_factory: pytest.TempPathFactory) -> TokenizedCorpus:
    return prepare(WikiTextCorpus(str(SHARED)), WordTokenizerTrainer(), tmp_path_factory.mktemp("cache"))


def write_hub_folder(folder: Path, lines: dict[str, list[str]]) -> Path:
    """A data set in the hub's layout: parquet files whose rows are lines with their newlines, empty lines empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    config = folder / "wikitext-2-v1"
    config.mkdir(parents=True)
    for split, own_lines in lines.items():
        rows = ["" if not line.strip() else f"{line}\n" for line in own_lines]
        pq.write_table(pa.table({"text": rows}), config / f"{split}-00000-of-00001.parquet")
    splits = "".join(f"  - split: {split}\n    path: wikitext-2-v1/{split}-*\n" for split in lines)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: wikitext-2-v1\n  data_files:\n{splits}---\n")
    return folder


@needs_wikitext
class TestWikiText2:
    def test_counts_are_those_of_the_release(self, wikitext: TokenizedCorpus) -> None:
        assert [len(wikitext.streams[split]) for split in SPLITS] == [2_088_628, 217_646, 245_569]
        assert [wikitext.streams[split].num_lines for split in SPLITS] == [36_718, 3_760, 4_358]
        assert [wikitext.streams[split].num_documents for split in SPLITS] == [600, 60, 60]
        assert [wikitext.streams[split].oov for split in SPLITS] == [0, 0, 0]
        assert wikitext.tokenizer.vocab_size == 33_278
        assert wikitext.valid.words == 213_886
        assert wikitext.num_lines == 36_718 + 3_760 + 4_358
        for split in SPLITS:
            assert wikitext.streams[split].bytes == (SHARED / f"{split}.txt").stat().st_size

    def test_ids_spell_the_file(self, wikitext: TokenizedCorpus) -> None:
        text = (SHARED / "valid.txt").read_bytes().decode()
        expected = [word for line in text.split("\n")[:-1] for word in [*line.split(), "<eos>"]]
        assert [wikitext.tokenizer.tokens[token] for token in wikitext.valid.ids] == expected

    def test_counts_of_the_tokens_agree_with_a_plain_count(self, wikitext: TokenizedCorpus) -> None:
        text = (SHARED / "train.txt").read_bytes().decode()
        expected = Counter(text.split())
        expected["<eos>"] = text.count("\n")
        counts = wikitext.token_counts()
        assert dict(zip(wikitext.tokenizer.tokens, counts.tolist(), strict=True)) == expected
        assert (counts[2:-1] >= counts[3:]).all()

    def test_offsets_lie_behind_an_eos(self, wikitext: TokenizedCorpus) -> None:
        valid = wikitext.valid
        for offsets in (valid.line_offsets, valid.document_offsets):
            assert (valid.ids[offsets[1:] - 1] == valid.eos_id).all()
            assert offsets[0] == 0
            assert offsets[-1] == len(valid)
        title = valid.metadata[1]["article"]
        begin, end = valid.document_offsets[1:3]
        assert f" = {title} = " in " ".join(wikitext.tokenizer.tokens[token] for token in valid.ids[begin:end])

    def test_the_hub_gives_the_same_documents(self, tmp_path: Path) -> None:
        local = WikiTextCorpus(str(SHARED))
        lines = {
            hub_split: (SHARED / f"{split}.txt").read_bytes().decode().split("\n")[:-1]
            for split, hub_split in (("valid", "validation"), ("test", "test"))
        }
        hub = WikiTextCorpus(hub_id=str(write_hub_folder(tmp_path / "wikitext", lines)))
        for split in ("valid", "test"):
            assert list(hub.documents(split)) == list(local.documents(split))


def test_articles_begin_at_headings_of_the_first_level(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f"wiki.{split}.tokens").write_text("\n".join([*LINES, ""]), newline="")
    documents = list(WikiTextCorpus(str(tmp_path)).documents("train"))
    assert [document.metadata["article"] for document in documents] == ["First", "Second \x85 \u2028 one"]
    assert "".join(document.text for document in documents) == "\n".join([*LINES, ""])
    assert documents[1].text.startswith(" \n = Second")


def test_hub_rows_become_lines(tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "wikitext", {"train": LINES, "validation": LINES[:4], "test": LINES[9:]})
    corpus = WikiTextCorpus(hub_id=str(folder))
    assert "".join(document.text for document in corpus.documents("train")) == "\n".join([*LINES, ""])
    assert "".join(document.text for document in corpus.documents("valid")) == "\n".join([*LINES[:4], ""])


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f"{split}.txt").write_text(f" {split} \n")
    before = WikiTextCorpus(str(tmp_path)).fingerprint()
    assert WikiTextCorpus(str(tmp_path)).fingerprint() == before
    (tmp_path / "test.txt").write_text(" Test \n")
    assert WikiTextCorpus(str(tmp_path)).fingerprint() != before


def test_folders_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.path=.*absent: no such folder"):
        WikiTextCorpus(str(tmp_path / "absent"))
    (tmp_path / "train.txt").write_text("x\n")
    with pytest.raises(DataError, match=r"must hold train.txt, valid.txt and test.txt"):
        WikiTextCorpus(str(tmp_path))


def test_without_network_the_hub_fails_soon_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # Nothing listens there.
    corpus = WikiTextCorpus(hub_id="nobody/no-such-corpus")
    assert len(corpus.fingerprint()) == 64  # Needs no network.
    with pytest.raises(DataError, match="hub cannot be reached") as caught:
        next(corpus.documents("train"))
    assert "data.path=FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_local_folder_is_read_again(tmp_path: Path) -> None:
    lines = {"train": LINES, "validation": LINES, "test": LINES}
    first = WikiTextCorpus(hub_id=str(write_hub_folder(tmp_path / "a" / "wikitext", lines)))
    assert list(first.documents("train"))
    lines["train"] = LINES[9:]
    second = WikiTextCorpus(hub_id=str(write_hub_folder(tmp_path / "b" / "wikitext", lines)))
    assert [document.metadata["article"] for document in second.documents("train")] == ["Second \x85 \u2028 one"]
    assert first.fingerprint() != second.fingerprint()


@pytest.mark.parametrize("change", [{"hub_config": "wikitext-3-v1"}, {"column": "line"}])
def test_hub_folders_of_another_shape(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "wikitext", {"train": LINES, "validation": LINES, "test": LINES})
    if "column" in change:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = folder / "wikitext-2-v1" / "train-00000-of-00001.parquet"
        pq.write_table(pa.table({change.pop("column"): LINES}), file)
    corpus = WikiTextCorpus(hub_id=str(folder), **change)
    with pytest.raises(DataError, match=r"data\.hub_id=") as caught:
        list(corpus.documents("train"))
    assert not re.search(r"\n", str(caught.value))
