import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_linguist.data.encoding as encoding
from torch_linguist.data import (
    BPETokenizerTrainer,
    Document,
    InMemoryCorpus,
    SotuCorpus,
    Tokenizer,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.errors import DataError

DOCUMENT_TEXTS = st.lists(st.text("ab ,\n\r\x85é", max_size=30), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    corpus = InMemoryCorpus({"train": ["ab ab, é\n"], "valid": ["a"], "test": ["b"]})
    return BPETokenizerTrainer(vocab_size=260).train(corpus)


@settings(max_examples=60, deadline=None)
@given(texts=DOCUMENT_TEXTS, chunk=st.integers(1, 4), blank_lines=st.sampled_from(["keep", "drop"]))
def test_offsets_and_counts_agree_with_the_text(texts: list[str], chunk: int, blank_lines: str, bpe: Tokenizer) -> None:
    documents = [Document(f"x{text}", {"number": number}) for number, text in enumerate(texts)]
    corpus = InMemoryCorpus({"train": documents, "valid": ["a"], "test": ["b"]}, blank_lines=blank_lines)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "CHUNK_PIECES", chunk)
        patch.setattr("os.fsync", lambda _: None)  # Slow, and of no matter here.
        stream = prepare(corpus, None, Path(folder), tokenizer=bpe).train
        lines = [
            [line for line in document.text.removesuffix("\n").split("\n") if blank_lines == "keep" or line.strip()]
            for document in documents
        ]
        assert stream.num_documents == len(documents)
        assert [row["number"] for row in stream.metadata] == list(range(len(documents)))
        for number, own_lines in enumerate(lines):
            begin, end = stream.document_offsets[number : number + 2]
            assert bpe.decode(stream.ids[begin:end].tolist()) == "\n".join([*own_lines, ""])
        flat = [line for own_lines in lines for line in own_lines]
        assert stream.num_lines == len(flat)
        for number, line in enumerate(flat):
            begin, end = stream.line_offsets[number : number + 2]
            assert bpe.decode(stream.ids[begin:end].tolist()) == f"{line}\n"
        whole = "\n".join([*flat, ""])
        assert stream.words == len(whole.split())
        assert stream.bytes == len(whole.encode())


def test_empty_documents_leave_no_trace(bpe: Tokenizer, tmp_path: Path) -> None:
    documents = [Document("", {"n": 0}), Document("a\n", {"n": 1}), Document("", {"n": 2}), Document("b", {"n": 3})]
    corpus = InMemoryCorpus({"train": documents, "valid": ["a"], "test": ["b"]})
    stream = prepare(corpus, None, tmp_path, tokenizer=bpe).train
    assert [row["n"] for row in stream.metadata] == [1, 3]
    assert stream.num_documents == 2


@pytest.mark.parametrize(("words", "dtype"), [(65_534, "uint16"), (65_535, "uint32")])
def test_ids_take_the_smallest_type(words: int, dtype: str, tmp_path: Path) -> None:
    text = " ".join(f"w{number}" for number in range(words))
    corpus = InMemoryCorpus({"train": [text], "valid": ["w1 new"], "test": ["w2"]}, tokenized=True)
    tokenized = prepare(corpus, WordTokenizerTrainer(min_frequency=1), tmp_path)
    assert tokenized.tokenizer.vocab_size == words + 2
    assert tokenized.train.ids.dtype == dtype
    assert sorted(tokenized.train.ids.tolist()) == [0, *range(2, words + 2)]


def test_words_outside_the_vocabulary_are_counted(tmp_path: Path) -> None:
    corpus = InMemoryCorpus(
        {"train": ["a a b b c <unk>"], "valid": ["a <unk> new newer"], "test": ["a"]}, tokenized=True
    )
    tokenized = prepare(corpus, WordTokenizerTrainer(min_frequency=2), tmp_path)
    assert tokenized.train.oov == 1
    assert tokenized.valid.oov == 2
    assert tokenized.valid.oov_rate == pytest.approx(2 / 5)
    assert tokenized.test.oov_rate == 0
    assert tokenized.token_counts().tolist() == [1, 2, 2, 2]


def test_a_run_scores_another_corpus_with_its_own_tokenizer(tmp_path: Path) -> None:
    own = WordTokenizerTrainer(min_frequency=1).train(
        InMemoryCorpus({"train": ["a b c"], "valid": ["a"], "test": ["a"]})
    )
    other = InMemoryCorpus({"train": ["b d"], "valid": ["d d"], "test": ["c"]})
    tokenized = prepare(other, None, tmp_path, tokenizer=own)
    assert tokenized.tokenizer.tokens == own.tokens
    assert tokenized.valid.ids.tolist() == [own.unk_id, own.unk_id, own.eos_id]
    assert tokenized.fingerprint != prepare(other, WordTokenizerTrainer(min_frequency=1), tmp_path).fingerprint


def test_all_splits_as_one_stream(bpe: Tokenizer, tmp_path: Path) -> None:
    texts = {"train": ["ab a", "b\nba"], "valid": ["a"], "test": ["é", "", "b a b"]}
    corpus = prepare(InMemoryCorpus(texts), None, tmp_path / "parts", tokenizer=bpe)
    whole = corpus.stream("all")
    texts_in_order = [text for part in texts.values() for text in part]
    joined = InMemoryCorpus({"train": texts_in_order, "valid": ["a"], "test": ["a"]})
    expected = prepare(joined, None, tmp_path / "joined", tokenizer=bpe).train
    assert corpus.stream("valid") is corpus.valid
    for name in ("ids", "line_offsets", "document_offsets"):
        assert getattr(whole, name).tolist() == getattr(expected, name).tolist()
    assert (whole.words, whole.bytes, whole.oov) == (expected.words, expected.bytes, expected.oov)


def test_something_must_make_the_tokens(tmp_path: Path) -> None:
    corpus = InMemoryCorpus({"train": ["a"], "valid": ["a"], "test": ["a"]})
    with pytest.raises(DataError, match="needs a tokenizer_trainer or a tokenizer"):
        prepare(corpus, None, tmp_path)


def test_sotu_as_word_tokens(tmp_path: Path) -> None:
    tokenized = prepare(SotuCorpus(max_documents=30), WordTokenizerTrainer(), tmp_path)
    for stream in tokenized.streams.values():
        assert (np.diff(stream.line_offsets) > 1).all()  # No line is empty.
        assert stream.oov_rate < 0.08
        assert len(stream.metadata) == stream.num_documents
    begin, end = tokenized.train.document_offsets[:2]
    original = next(SotuCorpus(max_documents=30).documents("train")).text
    decoded = tokenized.tokenizer.decode(tokenized.train.ids[begin:end].tolist())
    known = [word for word in decoded.split() if "<unk>" not in word]
    assert decoded.startswith("Fellow-Citizens of the Senate and House of Representatives:\n")
    # The blanks before punctuation are undone: almost every word stands in the original as it is.
    assert sum(word in set(original.split()) for word in known) / len(known) > 0.97
