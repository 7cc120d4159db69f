"""Counts of words and n-grams, against counting with dictionaries."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import Document, InMemoryCorpus, WordTokenizerTrainer
from torch_linguist.explore.counting import (
    EncodedDocuments,
    coverage,
    encode_documents,
    frequency_spectrum,
    has_letter,
    oov_by_frequency,
    top_ngrams,
)

TEXTS = ["a b a b\na b c\n\n", "", "b b b\n", "c a"]


def encoded_texts(texts: list[str]) -> tuple[list[str], EncodedDocuments]:
    documents = [Document(text) for text in texts]
    corpus = InMemoryCorpus({"train": documents, "valid": [], "test": []}, tokenized=True)
    tokenizer = WordTokenizerTrainer(min_frequency=1).train(corpus)
    return tokenizer.tokens, encode_documents(documents, tokenizer, "keep")


def test_documents_know_their_lines_and_tokens() -> None:
    _, encoded = encoded_texts(TEXTS)
    assert encoded.document_lines.tolist() == [3, 0, 1, 1]
    assert encoded.line_lengths.tolist() == [5, 4, 1, 4, 3]
    assert encoded.document_tokens.tolist() == [10, 0, 4, 3]
    assert len(encoded.words) == 12


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=8), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_ngrams_are_those_that_a_dictionary_counts(lines: list[list[str]], order: int) -> None:
    lines = [["a"], *lines]
    tokens, encoded = encoded_texts(["\n".join(" ".join(line) for line in lines) + "\n"])
    expected = Counter(
        " ".join(line[start : start + order]) for line in lines for start in range(len(line) - order + 1)
    )
    found = top_ngrams(encoded, tokens, order, 1000)
    assert dict(zip(found["ngram"], found["count"], strict=True)) == expected
    ranked = sorted(expected.items(), key=lambda pair: (-pair[1], pair[0]))
    assert found["ngram"].tolist() == [ngram for ngram, _ in ranked]
    assert top_ngrams(encoded, tokens, order, 3)["ngram"].tolist() == [n for n, _ in ranked[:3]]


def test_what_counts_as_a_word() -> None:
    assert has_letter("naïve")
    assert has_letter("1st")
    assert not any(map(has_letter, ["<unk>", "1990", "@-@", ",", "="]))


def test_spectrum_of_frequencies() -> None:
    frame = frequency_spectrum(np.array([0, 1, 1, 2, 5, 7]), rows=3)
    assert frame["types"].tolist() == [2, 1, 0, 2]
    assert frame["share_of_tokens"].tolist() == pytest.approx([2 / 16, 2 / 16, 0, 12 / 16])
    assert frame["occurrences"].iloc[-1] == "more than 3"


def test_coverage_takes_the_words_of_train_in_their_order() -> None:
    frame = coverage({"train": np.array([6, 0, 3, 1]), "valid": np.array([1, 5, 3, 1])}).set_index("vocabulary")
    assert list(frame.loc[1]) == pytest.approx([0.6, 0.1])
    assert list(frame.loc[3]) == pytest.approx([1.0, 0.5])


def test_rates_of_unknown_words() -> None:
    counts = {"train": np.array([0, 2, 3, 1]), "valid": np.array([0, 1, 2, 3])}
    frame = oov_by_frequency(counts, {"train": 4, "valid": 2}, unk_id=1, highest=4).set_index("min_frequency")
    expected = pd.DataFrame(
        {"vocabulary": [4, 3, 3, 2], "train": [0, 0.1, 0.1, 0.4], "valid": [0, 3 / 8, 3 / 8, 5 / 8]},
        index=pd.Index([1, 2, 3, 4], name="min_frequency"),
    )
    pd.testing.assert_frame_equal(frame, expected)
