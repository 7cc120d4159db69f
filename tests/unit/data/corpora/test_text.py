from pathlib import Path

import pytest

import torch_linguist.data.corpora.reading as reading
from torch_linguist.data import InMemoryCorpus, TextCorpus, WordTokenizerTrainer, prepare
from torch_linguist.data.corpora.corpus import split_lines
from torch_linguist.errors import DataError


def texts(corpus: TextCorpus) -> dict[str, str]:
    return {split: "".join(document.text for document in corpus.documents(split)) for split in corpus.splits()}


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_one_file_is_split_by_lines_in_their_order(tmp_path: Path) -> None:
    lines = [f"line {number}\n" for number in range(100)]
    path = write(tmp_path / "book.txt", "".join(lines))
    splits = texts(TextCorpus(path, valid_fraction=0.1, test_fraction=0.05))
    assert splits == {"train": "".join(lines[:85]), "valid": "".join(lines[85:95]), "test": "".join(lines[95:])}


def test_two_files_are_laid_end_to_end(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "3\n4\n5")
    write(tmp_path / "a.txt", "0\n1\n2\n")
    corpus = TextCorpus(str(tmp_path), valid_fraction=0.2, test_fraction=0.2)
    assert texts(corpus) == {"train": "0\n1\n2\n3\n", "valid": "4\n", "test": "5\n"}
    assert [document.metadata["file"] for document in corpus.documents("train")] == ["a.txt", "b.txt"]


def test_several_files_are_split_by_file(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"part{number % 2}" / f"{number:02}.txt", f"text {number}\n")
    write(tmp_path / "notes.md", "not a .txt file\n")
    corpus = TextCorpus(str(tmp_path), valid_fraction=0.1, test_fraction=0.1)
    documents = {split: list(corpus.documents(split)) for split in corpus.splits()}
    assert {split: len(entries) for split, entries in documents.items()} == {"train": 16, "valid": 2, "test": 2}
    files = [document.metadata["file"] for entries in documents.values() for document in entries]
    assert len(set(files)) == 20
    assert "part1/03.txt" in files
    other = TextCorpus(str(tmp_path), valid_fraction=0.1, test_fraction=0.1, seed=1)
    assert texts(other) != texts(corpus)


def test_a_pattern_chooses_files(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.md", "d.txt"):
        write(tmp_path / name, f"{name}\n")
    corpus = TextCorpus(str(tmp_path / "*.md"))
    assert sorted("".join(texts(corpus).values()).split()) == ["a.md", "b.md", "c.md"]


@pytest.mark.parametrize("names", ["{}.txt", "{}.tokens", "wiki.{}.tokens"])
def test_ready_splits_are_taken(names: str, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path / names.format(split), f"of {split}\n")
    write(tmp_path / "other.txt", "not taken\n")
    assert texts(TextCorpus(str(tmp_path))) == {split: f"of {split}\n" for split in ("train", "valid", "test")}


def test_long_files_become_several_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DOCUMENT_CHARACTERS", 50)
    lines = [f"line {number}\n" for number in range(40)]
    corpus = TextCorpus(write(tmp_path / "book.txt", "".join(lines)))
    documents = list(corpus.documents("train"))
    assert [document.metadata["part"] for document in documents] == list(range(len(documents)))
    assert len(documents) > 4
    assert max(len(document.text) for document in documents) < 70
    assert "".join(texts(corpus).values()) == "".join(lines)


def test_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "book.txt", b"\xef\xbb\xbfone\r\ntwo \xc2\x85 \xe2\x80\xa8 still two\r\n\r\nfour\r\nlast")
    assert texts(TextCorpus(path)) == {
        "train": "one\ntwo \x85 \u2028 still two\n\n",
        "valid": "four\n",
        "test": "last\n",
    }


def test_split_lines() -> None:
    assert split_lines("a\n\n \nb\n") == ["a", "", " ", "b"]
    assert split_lines("a\n\n \nb\n", "drop") == ["a", "b"]
    assert split_lines("") == []
    assert split_lines("\n") == [""]
    assert split_lines("a\x0bb\x1cc\u2028d\re") == ["a\x0bb\x1cc\u2028d\re"]


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        path = write(tmp_path / f"{encoding}.txt", "é\nü\nß\n".encode(encoding))
        assert "".join(texts(TextCorpus(path, encoding=encoding)).values()) == "é\nü\nß\n"
    with pytest.raises(DataError, match=r"data.encoding=klingon: no such encoding"):
        TextCorpus(path, encoding="klingon")


@pytest.mark.parametrize("line", [1, 2, 3000, 5000])
def test_text_that_is_not_utf8_is_named_by_line(line: int, tmp_path: Path) -> None:
    lines = [f"line é {number} ".encode() * 3 for number in range(1, 5001)]
    lines[line - 1] = "naïve".encode("latin-1")
    path = write(tmp_path / "book.txt", b"\n".join(lines))
    with pytest.raises(DataError, match=rf"book.txt: line {line} is not text in utf-8; .*data.encoding=latin-1"):
        texts(TextCorpus(path))


def test_a_file_cut_inside_a_letter_is_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "book.txt", "a\nb\ncafé".encode()[:-1])
    with pytest.raises(DataError, match="line 3 is not text"):
        texts(TextCorpus(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"data.path=.*book.txt: no such file or folder"),
        ("", r"data.path=.*book.txt: the file is empty"),
        ("one two three", r"is one line of text; break it into lines first"),
        ("one\ntwo\n", r"has 2 lines; give it at least 3"),
    ],
)
def test_bad_files(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        write(tmp_path / "book.txt", content)
    with pytest.raises(DataError, match=message) as caught:
        texts(TextCorpus(str(tmp_path / "book.txt")))
    assert "\n" not in str(caught.value)


def test_bad_folders_and_settings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder has no .txt file; name a file"):
        TextCorpus(str(tmp_path))
    path = write(tmp_path / "book.txt", "a\nb\nc\n")
    with pytest.raises(DataError, match=r"data.blank_lines=remove: must be keep or drop"):
        TextCorpus(path, blank_lines="remove")
    with pytest.raises(DataError, match=r"data.valid_fraction=0: must be greater than 0"):
        TextCorpus(path, valid_fraction=0)


def test_a_split_of_blanks_is_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "book.txt", "a a\nb b\n\n\n")
    with pytest.raises(DataError, match="the split valid is empty"):
        prepare(TextCorpus(path, blank_lines="drop"), WordTokenizerTrainer(), tmp_path / "cache")
    assert list((tmp_path / "cache").glob("text-*")) == list((tmp_path / "cache").glob("*.lock"))


def test_the_fingerprint_follows_content_names_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "book.txt", "a\nb\nc\n")
    before = TextCorpus(path).fingerprint()
    assert TextCorpus(write(tmp_path / "copy" / "book.txt", "a\nb\nc\n")).fingerprint() == before
    assert TextCorpus(path, valid_fraction=0.2).fingerprint() != before
    assert TextCorpus(write(tmp_path / "book.txt", "a\nb\nd\n")).fingerprint() != before
    # Large files are known by their place and time of change.
    monkeypatch.setattr(reading, "CONTENT_HASH_LIMIT", 3)
    large = TextCorpus(path).fingerprint()
    assert TextCorpus(path).fingerprint() == large
    assert TextCorpus(str(tmp_path / "copy" / "book.txt")).fingerprint() != large


def test_a_memory_corpus_needs_all_splits() -> None:
    with pytest.raises(DataError, match="split test: is missing"):
        InMemoryCorpus({"train": ["a"], "valid": ["b"]})
