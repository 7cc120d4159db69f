"""Notes on corpora that scores say little about."""

import pytest

from torch_linguist.data import CharTokenizerTrainer, InMemoryCorpus, TokenizerTrainer, WordTokenizerTrainer, prepare
from torch_linguist.data.suitability import corpus_notes

LARGE = "the king sees a small house . a queen finds the river .\n" * 200
CHINESE = "".join(f"天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往{chr(0x4E00 + index)}秋收冬藏。\n" for index in range(400))


def notes(train: str, held_out: str, trainer: TokenizerTrainer) -> list[str]:
    corpus = InMemoryCorpus({"train": [train], "valid": [held_out], "test": [LARGE]})
    return corpus_notes(prepare(corpus, trainer))


def test_a_corpus_of_a_usual_size_has_no_note() -> None:
    assert notes(LARGE, LARGE, WordTokenizerTrainer()) == []


@pytest.mark.parametrize("held_out", ["the\n", "\n", "the king .\n" * 30])
def test_a_split_too_small_to_judge_by_is_named_with_its_size(held_out: str) -> None:
    (note,) = notes(LARGE, held_out, WordTokenizerTrainer())
    tokens = len(held_out.split()) + held_out.count("\n")
    assert f"valid has {tokens:,}" in note
    assert "test" not in note


def test_words_are_advised_against_where_spaces_do_not_separate_them() -> None:
    (note,) = notes(CHINESE, CHINESE * 3, WordTokenizerTrainer(min_frequency=1))
    assert "the average word has 26 characters" in note or "occur once" in note
    assert "tokenizer=bpe or tokenizer=char" in note
    assert notes(CHINESE, CHINESE * 3, CharTokenizerTrainer()) == []


def test_words_are_advised_against_where_most_are_unknown() -> None:
    other = "ein könig sieht ein kleines haus\n" * 200
    (note,) = notes(LARGE, other, WordTokenizerTrainer())
    assert "86% of valid are words that are unknown or occur once" in note
