"""Findings of an exploration, against a corpus whose answers are known."""

import pytest

from torch_linguist.data import Document, InMemoryCorpus, WordTokenizerTrainer
from torch_linguist.explore.findings import findings
from torch_linguist.explore.measure import measure
from torch_linguist.explore.settings import ExploreSettings


def documents(party: str, texts: list[str]) -> list[Document]:
    return [Document(text, {"party": party}) for text in texts]


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    train = documents("Whig", [f"the king sees a w{number}" for number in range(8)]) + documents(
        "Tory", ["the end"] * 2
    )
    corpus = InMemoryCorpus(
        {"train": train, "valid": documents("Tory", ["the end", "never seen words"]), "test": train[:2]}, "made"
    )
    measured = measure(corpus, WordTokenizerTrainer(), ExploreSettings(), 1, lambda line: None)
    return findings(measured)


def test_the_largest_shift_between_splits_is_found(found: dict[str, list[str]]) -> None:
    assert found["splits"] == ["valid is 100% Tory by party, train 20%."] or found["splits"] == [
        "valid is 0% Whig by party, train 80%."
    ]


def test_copies_are_counted(found: dict[str, list[str]]) -> None:
    assert found["duplicates"] == ["Copies of documents in train: 1 in valid, 2 in test."]


def test_sizes_and_unknown_words(found: dict[str, list[str]]) -> None:
    # <eos> ends each line: 8 documents of 6 tokens and 2 of 3. Words seen once in train are unknown.
    assert found["overview"] == [
        "Tokens: 54 in train, 7 in valid, 12 in test. Outside the vocabulary: 42.9% of valid, 16.7% of test."
    ]
    assert found["lengths"] == ["Half of the documents have at most 6 tokens; the longest has 6."]


def test_frequent_words(found: dict[str, list[str]]) -> None:
    assert "make up 100% of train" in found["frequency"][0]
