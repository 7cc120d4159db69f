"""Minimal pairs and n-best lists: against counting by hand, a brute-force search and a second edit distance."""

import functools
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_linguist.data import InMemoryCorpus, TokenizedCorpus, WordTokenizerTrainer, prepare
from torch_linguist.errors import DataError
from torch_linguist.evaluation.texts.minimal_pairs import (
    decided,
    pair_accuracy,
    separated_words,
    sign_test,
    wilson_interval,
)
from torch_linguist.evaluation.texts.nbest import (
    Hypothesis,
    formatted,
    read_keyed,
    read_nbest,
    reranked,
    scored_hypotheses,
    tune,
    word_errors,
)
from torch_linguist.evaluation.texts.pair_evaluation import evaluate_pairs, read_pairs
from torch_linguist.evaluation.texts.records import RecordReader
from torch_linguist.evaluation.texts.rows import Scorer
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]


def test_ties_count_as_half() -> None:
    found = pair_accuracy("g", [-1.0, -2.0, -3.0, -4.0], [-2.0, -1.0, -3.0, -5.0], [False, True, True, False])
    assert (found.accuracy, found.ties, found.unknown, found.pairs) == (2.5 / 4, 1, 2, 4)
    assert [decided(-1, -1 - 1e-9), decided(-1, -2), decided(-2, -1)] == [0.5, 1.0, 0.0]


def test_the_interval_solves_wilsons_equation() -> None:
    share, low, high = wilson_interval(70, 100)
    assert share == 0.7
    for end in (low, high):
        assert abs(0.7 - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / 100))


def test_the_sign_test_is_the_binomial_tail() -> None:
    first, second = [1.0] * 9 + [0.0] * 2 + [1.0] * 5, [0.0] * 9 + [1.0] * 2 + [1.0] * 5
    assert sign_test(first, second) == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    assert sign_test([1.0], [1.0]) == 1.0
    assert 0 <= sign_test([1.0] * 30_000, [0.0] * 30_000) < 1e-300


def test_pairs_are_read_scored_and_grouped(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    rows = [
        {"sentence_good": "the king sees .", "sentence_bad": "king the sees .", "UID": "order"},
        {"sentence_good": "a qx", "sentence_bad": "a qz", "UID": "unknown"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_pairs([str(tmp_path)]).pairs
    assert [(pair.good, pair.bad, pair.group) for pair in pairs] == [tuple(row.values()) for row in rows]
    models = [build_model(family, tiny_corpus.tokenizer.vocab_size) for family in ("lstm", "gru")]
    scorers = [Scorer(str(number), model, tiny_corpus.tokenizer) for number, model in enumerate(models)]
    report = evaluate_pairs(scorers, pairs)
    for accuracies in report.accuracies.values():
        assert [one.group for one in accuracies] == ["order", "unknown", "all"]
        assert (accuracies[1].accuracy, accuracies[1].ties, accuracies[1].unknown) == (0.5, 1, 1)
        assert accuracies[2].pairs == 2
    assert set(report.p_values) == {("0", "1")}


@pytest.mark.parametrize("content", ['{"sentence_good": "a"}\n', '{"good": "a", "bad": ""}\n', "{}\n", ""])
def test_pairs_with_one_side_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="pairs"):
        read_pairs([str(path)])


def test_pairs_with_one_side_are_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"good": "a", "bad": "b"}\n{"good": "a"}\n{broken\n{"good": "c", "bad": "d"}\n')
    read = read_pairs([str(path)], errors="skip")
    assert [pair.good for pair in read.pairs] == ["a", "c"]
    assert read.skipped == 2
    with pytest.raises(DataError, match="pair 2 has one side only"):
        read_pairs([str(path)])


@pytest.mark.parametrize(
    ("words", "expected"),
    [("ca n't wo n't", "He ca n't go , John 's dog ."), ("can 't won 't", "He can 't go , John 's dog .")],
)
def test_sentences_are_separated_as_the_vocabulary_has_them(tmp_path: Path, words: str, expected: str) -> None:
    corpus = InMemoryCorpus({"train": [words] * 3, "valid": [words], "test": [words]}, tokenized=True)
    tokenizer = prepare(corpus, WordTokenizerTrainer(min_frequency=1, split="whitespace"), tmp_path).tokenizer
    assert separated_words(["He can't go, John's dog."], tokenizer) == [expected]


def distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Edit distance by its recursive definition."""

    @functools.cache
    def of(a: int, b: int) -> int:
        if not a or not b:
            return a + b
        return min(of(a - 1, b) + 1, of(a, b - 1) + 1, of(a - 1, b - 1) + (first[a - 1] != second[b - 1]))

    return of(len(first), len(second))


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_word_errors_are_the_edit_distance(first: list[str], second: list[str]) -> None:
    assert word_errors(first, second) == distance(first, second)


@pytest.fixture
def reader(tmp_path: Path) -> Callable[..., RecordReader]:
    """Write lines to a file and return its reader."""

    def write(*lines: str, errors: str = "strict") -> RecordReader:
        (tmp_path / "lists").write_text("".join(f"{line}\n" for line in lines))
        return RecordReader([str(tmp_path / "lists")], errors=errors)

    return write


def test_the_three_forms_of_a_list_are_read_and_written(reader: Callable[..., RecordReader]) -> None:
    moses = list(read_nbest(reader("0 ||| the king ||| F= 1 ||| -2.5")))
    assert (moses[0].text, moses[0].score, moses[0].fields) == ("the king", -2.5, "F= 1")
    assert formatted(moses[0]) == "0 ||| the king ||| F= 1 LM= 0.000000 ||| -2.500000"
    (short,) = read_nbest(reader("0 ||| the king ||| -2.5"))
    assert formatted(short) == "0 ||| the king ||| LM= 0.000000 ||| -2.500000"
    (row,) = read_nbest(reader('{"id": 7, "text": "a b", "score": 1, "speaker": "x"}'))
    assert json.loads(formatted(row)) == {"id": 7, "text": "a b", "score": 1, "speaker": "x", "lm": 0}
    (kaldi,) = read_nbest(reader("utt-1 a b"), {"utt-1": 3.0})
    assert (kaldi.list_id, kaldi.text, kaldi.score, formatted(kaldi)) == ("utt", "a b", 3.0, "utt-1 a b")


@pytest.mark.parametrize(
    ("line", "message"),
    [("utt-1 a", "no score"), ("0 ||| a", "no score"), ('{"id": 1, "text": "a"}', "score"), ("0 ||| a ||| x", "float")],
)
def test_a_hypothesis_without_a_score_is_named(reader: Callable[..., RecordReader], line: str, message: str) -> None:
    with pytest.raises(DataError, match=f"lists, line 2: .*{message}.*; --errors skip"):
        list(read_nbest(reader("0 ||| the king ||| -2.5", line)))
    lenient = reader(line, "0 ||| the king ||| -2.5", errors="skip")
    assert [hypothesis.text for hypothesis in read_nbest(lenient)] == ["the king"]
    assert lenient.skipped == 1


def test_tuning_finds_the_fewest_errors_of_all_combinations() -> None:
    hypotheses = [
        Hypothesis("u", "a b c", -3.0, lm_score=-4.0),
        Hypothesis("u", "a c", -1.0, lm_score=-9.0),
        Hypothesis("v", "d", -1.0, lm_score=-2.0),
        Hypothesis("v", "d e", -1.5, lm_score=-2.5),
    ]
    references = {"u": "a b c", "v": "d e"}
    found = tune(hypotheses, references)
    assert (found.errors, found.words) == (0, 5)
    best: dict[str, str] = {}
    for one in reranked(hypotheses, found.weight, found.length_penalty):
        best.setdefault(one.list_id, one.text)
    assert best == references
    untuned = tune(hypotheses, references, weights=[0.0], length_penalties=[0.0])
    assert untuned.errors == distance(["a", "c"], ["a", "b", "c"]) + distance(["d"], ["d", "e"])
    with pytest.raises(DataError, match="v has none"):
        tune(hypotheses, {"u": "a"})
    with pytest.raises(DataError, match="no words"):
        tune(hypotheses, {"u": "", "v": ""})


def test_hypotheses_get_their_log_probability(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    from torch_linguist.evaluation.texts import score_lines

    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    texts = ["the king", "a queen sees"]
    read = (Hypothesis(str(number), text, 0.0) for number, text in zip(itertools.count(), texts, strict=False))
    found = scored_hypotheses(read, model, tiny_corpus.tokenizer)
    expected = [score.log_probability for score in score_lines(model, tiny_corpus.tokenizer, texts)]
    assert [one.lm_score for one in found] == pytest.approx(expected)


def test_a_key_that_stands_twice_is_named() -> None:
    with pytest.raises(DataError, match="line 2: a occurs twice"):
        read_keyed(["a b", "a c"], "references")
