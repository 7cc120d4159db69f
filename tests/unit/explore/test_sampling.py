"""Reading a split in bounded memory, and what is found twice."""

import numpy as np
import pytest

from torch_linguist.data import Document, InMemoryCorpus
from torch_linguist.errors import DataError
from torch_linguist.explore.duplicates import duplicate_counts, find_duplicates, line_digests
from torch_linguist.explore.sampling import beginning, read_split


def corpus_of(texts: list[str]) -> InMemoryCorpus:
    return InMemoryCorpus({"train": texts, "valid": ["v"], "test": []}, name="made")


def test_what_fits_is_taken_whole() -> None:
    sample = read_split(corpus_of(["one\n", "two\n"]), "train", 100)
    assert [document.text for document in sample.documents] == ["one\n", "two\n"]
    assert sample.is_whole
    assert sample.characters == 8


def test_a_sample_holds_its_budget_and_favors_no_place_and_no_length() -> None:
    texts = [f"{number:04d}" * (1 + number % 3) for number in range(2000)]
    taken = np.zeros(2000)
    for seed in range(20):
        sample = read_split(corpus_of(texts), "train", 1600, seed=seed)
        assert sum(len(document.text) for document in sample.documents) <= 1600
        assert not sample.is_whole
        assert sample.scanned == 2000
        assert np.all(np.diff(sample.positions) > 0)
        taken[sample.positions] += 1
    # Some 200 of 2,000 documents each time; 4,000 draws in all, of which each half and each length has its share.
    assert taken[:1000].sum() / taken.sum() == pytest.approx(0.5, abs=0.04)
    for length in range(3):
        assert taken[length::3].sum() / taken.sum() == pytest.approx(1 / 3, abs=0.04)
    again = [read_split(corpus_of(texts), "train", 1600, seed=5).positions.tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_one_document_larger_than_the_budget_is_cut() -> None:
    sample = read_split(corpus_of(["word " * 1000]), "train", 103)
    assert sample.documents[0].text == "word " * 20
    assert sample.cut == 1
    assert not sample.is_whole
    assert beginning("x" * 50, 10) == "x" * 10


def test_reading_stops_at_the_limit() -> None:
    sample = read_split(corpus_of(["12345"] * 100), "train", 1000, scan_characters=50)
    assert (sample.scanned, sample.complete, sample.is_whole) == (10, False, False)


def test_a_split_without_documents_is_refused() -> None:
    with pytest.raises(DataError, match="made: the split test has no document"):
        read_split(corpus_of(["x"]), "test", 10)


def test_duplicates_are_counted_both_ways() -> None:
    documents = {
        "train": [Document("a b c d e\n"), Document("a b c d e\n"), Document("x\n"), Document("")],
        "valid": [Document("a b c d e\n"), Document("y\n"), Document("")],
    }
    digests = {
        split: read_split(InMemoryCorpus({"train": own, "valid": own, "test": own}), "train", 1000).digests
        for split, own in documents.items()
    }
    frame = duplicate_counts(digests).set_index(["in", "also in"])
    assert frame["duplicates"].to_dict() == {
        ("train", "train"): 1,
        ("valid", "valid"): 0,
        ("valid", "train"): 2,
        ("train", "valid"): 3,
    }
    assert len(line_digests(documents["train"])) == 2
    found = find_duplicates(documents, {"train": [0, 1, 2, 3], "valid": [0, 1, 2]})
    assert list(zip(found["split"], found["position"], strict=True)) == [("train", 0), ("train", 1), ("valid", 0)]
