"""Slices: each token in one group, groups that add up to the score, words and their kinds."""

import numpy as np
import pytest
from conftest import ModelBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import (
    BPETokenizerTrainer,
    ByteTokenizerTrainer,
    CharTokenizerTrainer,
    InMemoryCorpus,
    TokenizedCorpus,
    TokenizerTrainer,
    TokenStream,
    UnigramTokenizerTrainer,
    WordTokenizerTrainer,
)
from torch_linguist.evaluation import score, stream_nll
from torch_linguist.evaluation.slices import (
    Grouping,
    banded,
    by_document,
    crossed,
    sentence_lengths,
    slice_table,
    tenths,
    token_groupings,
)
from torch_linguist.evaluation.uncertainty import Parts, parts_of
from torch_linguist.evaluation.words import CLASSES, find_words

TEXT = "The 12 kings don't sing, said Mary — in 1999.\n\nOf (course) naïve cafés <unk> rejoice!\n"


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_every_grouping_adds_up_to_the_score(
    tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, family: str
) -> None:
    model = build_model(family, tiny_corpus.tokenizer.vocab_size)
    stream = tiny_corpus.test
    nll = np.concatenate(list(stream_nll(model, stream)))
    words = find_words(stream.ids, tiny_corpus.tokenizer)
    groupings = token_groupings(stream, tiny_corpus.tokenizer, tiny_corpus.token_counts(), words)
    groupings.append(crossed(groupings[1], groupings[3]))
    table = slice_table(nll, groupings, parts_of(stream))
    expected = score(model, stream)
    for name, own in table.groupby("slice"):
        assert own["tokens"].sum() == expected.tokens, name
        assert np.average(own["loss"], weights=own["tokens"]) == pytest.approx(expected.loss, rel=1e-9)
        assert own["share_of_loss"].sum() == pytest.approx(1)
    unknown = table[(table["slice"] == "word class") & (table["value"] == "<unk>")]
    assert int(unknown["tokens"].iloc[0]) == stream.oov == 1


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    generator = np.random.default_rng(3)
    lengths = generator.integers(5, 40, 30)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values, codes = generator.exponential(size=offsets[-1]), generator.integers(0, 2, offsets[-1])
    row = slice_table(values, [Grouping("g", ("a", "b"), codes)], Parts("documents", offsets)).iloc[0]
    drawn = []
    for _ in range(3000):
        chosen = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in generator.integers(0, 30, 30)])
        drawn.append(values[chosen][codes[chosen] == 0].mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.02)
    few = slice_table(values, [Grouping("g", ("a", "b"), (np.arange(len(values)) >= offsets[4]) * 1)],
                      Parts("documents", offsets)).iloc[0]  # fmt: skip
    assert np.isnan(few["low"])
    assert few["parts"] == 4


@given(values=st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
@settings(deadline=None, max_examples=50)
def test_bands_hold_what_they_say(values: list[int]) -> None:
    grouping = banded("n", values, (0, 1, 10, 100))
    for value, code in zip(values, grouping.codes, strict=True):
        label = grouping.labels[code].replace(",", "")
        low, _, high = label.removeprefix("from ").partition("–")
        assert int(low) <= value
        assert label.startswith("from") or value <= int(high or low)


def test_lines_documents_and_tenths() -> None:
    lines, documents = np.array([0, 10, 20, 100]), np.array([0, 20, 100])
    stream = TokenStream("test", np.zeros(100, np.uint16), 0, 1, 1, 0, lines, documents)
    assert tenths(stream).codes[[0, 10, 20]].tolist() == [2, 7, 5]
    grouping = by_document("party", ("x", "y"), [1, 0], stream)
    assert np.bincount(grouping.codes).tolist() == [80, 20]


TRAINERS: list[TokenizerTrainer] = [
    WordTokenizerTrainer(min_frequency=1),
    BPETokenizerTrainer(vocab_size=300),
    UnigramTokenizerTrainer(vocab_size=300),
    CharTokenizerTrainer(),
    ByteTokenizerTrainer(),
]


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: type(trainer).__name__)
def test_words_and_their_classes_do_not_depend_on_the_tokenizer(trainer: TokenizerTrainer) -> None:
    tokenizer = trainer.train(InMemoryCorpus({"train": [TEXT * 3], "valid": [TEXT], "test": [TEXT]}, tokenized=False))
    ids = np.array(tokenizer.encode(TEXT))
    words = find_words(ids, tokenizer)
    assert len(words.of_token) == len(ids)
    found = dict(zip(words.texts, words.classes, strict=True))
    expected = {
        "The": "function", "12": "number", "kings": "content", "Mary": "capitalized", "in": "function",
        "1999": "number", "Of": "function", "course": "content", "naïve": "content", "cafés": "content",
        "rejoice": "content", "!": "punctuation", "<unk>": "<unk>", "<eos>": "<eos>",
    }  # fmt: skip
    # The word tokenizer has no <eos> in its text; the others close words at blanks and marks alike.
    assert {word: found.get(word) for word in expected} == expected
    assert set(words.classes) <= set(CLASSES)
    if tokenizer.is_byte_level:
        pieces = tokenizer.pieces
        text = b"".join(b"\n" if token == tokenizer.eos_id else pieces[token] for token in ids)
        assert text.decode() == TEXT


def test_sentence_lengths() -> None:
    tokenizer = WordTokenizerTrainer(min_frequency=1).train(
        InMemoryCorpus({"train": ["a b . c d e ? f\n"], "valid": ["a\n"], "test": ["a\n"]}, tokenized=True)
    )
    words = find_words(tokenizer.encode("a b . c d e ? f\n"), tokenizer)
    assert sentence_lengths(words).tolist() == [3] * 3 + [4] * 4 + [2] * 2
