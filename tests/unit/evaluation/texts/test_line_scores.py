"""Lines scored in batches: against logits read by hand, one line at a time, and the score of the whole stream."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_linguist.data import Corpus, TokenizedCorpus
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import stream_nll
from torch_linguist.evaluation.texts import score_lines, score_tokens, score_words
from torch_linguist.evaluation.texts.batched_reading import first_places
from torch_linguist.evaluation.texts.line_scores import encode_texts, score_blocks
from torch_linguist.model import LanguageModel, NGramModel

ModelBuilder = Callable[..., LanguageModel]
LETTERS = st.characters(blacklist_characters="\n", blacklist_categories=["Cs"])
FAMILIES = ("lstm", "gru", "rnn", "transformer", "ngram")
LINES = [
    "the king sees the river .",
    "",
    "my sister paints two ships again and again . the judge forgets .",
    "a qx z !",
]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> LanguageModel:
    size = tiny_corpus.tokenizer.vocab_size
    if request.param != "ngram":
        return build_model(request.param, size)
    ngram = NGramModel(size, order=3)
    ngram.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
    return ngram


@torch.no_grad()
def by_hand(model: LanguageModel, ids: list[int], eos_id: int) -> list[float]:
    """The nll of each token, from the logits after all tokens before it."""
    found: list[float] = []
    for place, target in enumerate(ids):
        logits, _ = model(torch.tensor([[eos_id, *ids[:place]]]), model.initial_state(1))
        found.append(-float(torch.log_softmax(logits[0, -1].double(), 0)[target]))
    return found


def test_a_line_is_the_product_of_its_conditional_probabilities(
    model: LanguageModel, tiny_corpus: TokenizedCorpus
) -> None:
    tokenizer = tiny_corpus.tokenizer
    short = ["the king sees .", "", "a"]  # Within a window, where a Transformer sees the whole line.
    (block,) = score_blocks(model, tokenizer, short)
    rows = [[*tokenizer.encode(line), tokenizer.eos_id] for line in short]
    assert block.lines.ids.tolist() == list(itertools.chain(*rows))
    expected = [by_hand(model, ids, tokenizer.eos_id) for ids in rows]
    np.testing.assert_allclose(block.nll, list(itertools.chain(*expected)), atol=3e-6)


@pytest.mark.parametrize("closed", [True, False])
def test_a_batch_scores_each_line_as_if_it_were_alone(
    model: LanguageModel, tiny_corpus: TokenizedCorpus, closed: bool
) -> None:
    tokenizer = tiny_corpus.tokenizer
    (together,) = score_blocks(model, tokenizer, LINES * 5, closed=closed)
    alone = [block for line in LINES * 5 for block in score_blocks(model, tokenizer, [line], closed=closed)]
    np.testing.assert_allclose(together.nll, np.concatenate([block.nll for block in alone]), atol=1e-6)
    np.testing.assert_allclose(together.log_probabilities(), [-block.nll.sum() for block in alone], atol=1e-6)


def test_bf16_changes_the_last_digits_only(model: LanguageModel, tiny_corpus: TokenizedCorpus) -> None:
    (exact,) = score_blocks(model, tiny_corpus.tokenizer, LINES)
    (rough,) = score_blocks(model, tiny_corpus.tokenizer, LINES, precision="bf16")
    np.testing.assert_allclose(rough.nll, exact.nll, atol=0.05)
    assert (rough.nll == exact.nll).all() == model.is_counted


@given(st.lists(st.text("ab", max_size=4), min_size=1, max_size=9), st.integers(1, 4))
def test_tokens_share_the_first_place_with_the_same_beginning(rows: list[str], longest: int) -> None:
    rows = [row for row in rows if row] or ["a"]
    ids = np.array([ord(letter) for letter in "".join(rows)], np.int64)
    lengths = np.array([len(row) for row in rows])
    begins = np.cumsum(lengths) - lengths
    seen: dict[str, int] = {}
    expected = []
    for row, begin in zip(rows, begins.tolist(), strict=True):
        for place in range(len(row)):
            own = begin + place
            expected.append(seen.setdefault(row[: place + 1], own) if len(row) <= longest else own)
    assert first_places(ids, begins, lengths, longest).tolist() == expected


def test_a_running_text_has_the_score_of_its_stream(
    model: LanguageModel, tiny_corpus: TokenizedCorpus, source_corpus: Corpus
) -> None:
    lines = [
        line for document in source_corpus.documents("valid") for line in document.text.removesuffix("\n").split("\n")
    ]
    found = list(score_lines(model, tiny_corpus.tokenizer, lines, running=True))
    expected = np.concatenate(list(stream_nll(model, tiny_corpus.valid)))
    assert sum(score.tokens for score in found) == len(expected)
    assert -sum(score.log_probability for score in found) == pytest.approx(expected.sum(), rel=1e-6)


def test_counts_and_derived_figures(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    tokenizer = tiny_corpus.tokenizer
    model = build_model("lstm", tokenizer.vocab_size)
    (closed,) = score_lines(model, tokenizer, ["the qx  é"])
    (fragment,) = score_lines(model, tokenizer, ["the qx  é"], closed=False)
    assert (closed.tokens, closed.words, closed.unknown, closed.bytes) == (4, 3, 2, len("the qx  é\n".encode()))
    assert (fragment.tokens, fragment.bytes) == (3, closed.bytes - 1)
    assert closed.perplexity == pytest.approx(math.exp(-closed.log_probability / 4))
    assert closed.bits_per_byte == pytest.approx(-closed.log_probability / math.log(2) / closed.bytes)
    (empty,) = score_lines(model, tokenizer, [""], closed=False)
    assert (empty.tokens, empty.log_probability) == (0, 0)
    assert math.isnan(empty.perplexity)


def test_input_is_not_read_ahead_without_bound(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "the king ."

    scores = score_lines(build_model("rnn", tiny_corpus.tokenizer.vocab_size), tiny_corpus.tokenizer, endless())
    next(scores)
    assert taken <= 4096


def test_bad_calls_are_refused(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    with pytest.raises(LinguistError, match="newline"):
        list(score_lines(model, tiny_corpus.tokenizer, ["a\nb"]))
    with pytest.raises(LinguistError, match="running text"):
        list(score_lines(model, tiny_corpus.tokenizer, ["a"], closed=False, running=True))
    with pytest.raises(LinguistError, match="alternatives=-1"):
        list(score_tokens(model, tiny_corpus.tokenizer, ["a"], alternatives=-1))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=40), max_size=6)
)
def test_rows_are_the_tokens_of_each_line(tiny_corpus: TokenizedCorpus, lines: list[str]) -> None:
    tokenizer = tiny_corpus.tokenizer
    if not lines:
        return
    texts = encode_texts(tokenizer, lines, closed=True)
    rows = np.split(texts.ids, np.cumsum(texts.lengths)[:-1])
    assert [row.tolist() for row in rows] == [[*tokenizer.encode(line), tokenizer.eos_id] for line in lines]
    assert texts.words.tolist() == [len(line.split()) for line in lines]


def test_token_scores_agree_with_the_nll_and_with_the_distribution(
    model: LanguageModel, tiny_corpus: TokenizedCorpus
) -> None:
    tokenizer = tiny_corpus.tokenizer
    (block,) = score_blocks(model, tokenizer, LINES)
    tokens = itertools.chain(*score_tokens(model, tokenizer, LINES, alternatives=3))
    np.testing.assert_allclose([token.surprisal for token in tokens], block.nll, atol=2e-6)
    (first, *_), *_ = score_tokens(model, tokenizer, ["the king"], alternatives=tokenizer.vocab_size)
    logits, _ = model(torch.tensor([[tokenizer.eos_id]]), model.initial_state(1))
    probabilities = torch.softmax(logits[0, 0].double(), 0)
    own = probabilities[tokenizer.encode("the")[0]]
    assert first.rank == int((probabilities >= own).sum())
    assert first.entropy == pytest.approx(-float((probabilities * probabilities.log()).sum().detach()), abs=1e-5)
    assert [share for _, share in first.alternatives] == pytest.approx(
        probabilities.sort(descending=True).values.tolist(), abs=1e-6
    )


def test_offsets_lead_back_into_the_line(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    tokenizer = tiny_corpus.tokenizer
    line = "  the king   sees qx ."
    (tokens,) = score_tokens(build_model("lstm", tokenizer.vocab_size), tokenizer, [line])
    assert [line[token.start : token.end] for token in tokens] == ["the", "king", "sees", "qx", ".", ""]
    assert (tokens[-1].token, tokens[-1].start) == ("<eos>", len(line))


def test_words_add_up_their_tokens(build_model: ModelBuilder, source_corpus: Corpus, tmp_path: Path) -> None:
    from torch_linguist.data import BPETokenizerTrainer, prepare

    corpus = prepare(source_corpus, BPETokenizerTrainer(vocab_size=300), tmp_path)
    model = build_model("lstm", corpus.tokenizer.vocab_size)
    line = "the unforgettable king's qxz paints ."
    (words,) = score_words(model, corpus.tokenizer, [line])
    (tokens,) = score_tokens(model, corpus.tokenizer, [line])
    assert [word.word for word in words] == [*line.split(), "<eos>"]
    assert sum(word.tokens for word in words) == len(tokens)
    assert max(word.tokens for word in words) > 1
    assert sum(word.surprisal for word in words) == pytest.approx(sum(token.surprisal for token in tokens))
    assert [line[word.start : word.end] for word in words[:-1]] == line.split()
