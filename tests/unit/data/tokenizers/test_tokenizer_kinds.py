import unicodedata
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import (
    BPETokenizerTrainer,
    ByteTokenizerTrainer,
    CharTokenizerTrainer,
    InMemoryCorpus,
    Tokenizer,
    TokenizerTrainer,
    UnigramTokenizerTrainer,
    WordTokenizerTrainer,
)
from torch_linguist.data.corpora.corpus import cut_line
from torch_linguist.errors import DataError

PROSE = "The cat, the dog and the naïve <unk> sat on the mat.\nIt's 1999: 日本 — again & again!\n" * 10

TRAINERS: dict[str, TokenizerTrainer] = {
    "unigram": UnigramTokenizerTrainer(vocab_size=320),
    "char": CharTokenizerTrainer(),
    "byte": ByteTokenizerTrainer(),
    "bpe": BPETokenizerTrainer(vocab_size=320),
}


def corpus(train: str) -> InMemoryCorpus:
    return InMemoryCorpus({"train": [train], "valid": ["x"], "test": ["x"]})


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    return {kind: trainer.train(corpus(PROSE)) for kind, trainer in TRAINERS.items()}


def surfaces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.tokens[token] for token in tokenizer.encode(text)]


@pytest.mark.parametrize("kind", TRAINERS)
def test_the_training_text_comes_back_and_so_after_saving(
    kind: str, made: dict[str, Tokenizer], tmp_path: Path
) -> None:
    tokenizer = made[kind]
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.kind == loaded.kind == kind
    assert (tokenizer.eos_id, tokenizer.unk_id) == (0, 1)
    assert loaded.tokens == tokenizer.tokens
    assert loaded.encode(PROSE) == tokenizer.encode(PROSE)
    assert loaded.decode(loaded.encode(PROSE)) == PROSE
    encoded = loaded.encode_lines(PROSE.split("\n")[:-1])
    assert encoded.ids.tolist() == loaded.encode(PROSE)
    assert encoded.oov == 0


@pytest.mark.parametrize("kind", ["unigram", "byte"])
@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_every_text_comes_back(kind: str, made: dict[str, Tokenizer], text: str) -> None:
    assert made[kind].decode(made[kind].encode(text)) == text


@pytest.mark.parametrize("kind", TRAINERS)
def test_unk_is_one_token_and_only_a_newline_is_eos(kind: str, made: dict[str, Tokenizer]) -> None:
    ids = made[kind].encode("<unk><eos>\n")
    assert ids[0] == 1
    assert ids[-1] == 0
    assert 0 not in ids[1:-1]


def test_characters_are_those_of_train_by_frequency() -> None:
    text = "banana bandana\n"
    tokenizer = CharTokenizerTrainer().train(corpus(text))
    counts = Counter(text.replace("\n", ""))
    assert tokenizer.tokens == ["<eos>", "<unk>", *sorted(counts, key=lambda letter: (-counts[letter], letter))]
    encoded = tokenizer.encode_lines(["ban X<unk>y", ""])
    assert [tokenizer.tokens[token] for token in encoded.ids] == [*"ban ", "<unk>", "<unk>", "<unk>", "<eos>", "<eos>"]
    assert encoded.oov == 2
    assert CharTokenizerTrainer(min_frequency=3).train(corpus(text)).tokens == ["<eos>", "<unk>", "a", "n"]


def test_bytes_are_those_of_utf8(made: dict[str, Tokenizer]) -> None:
    assert made["byte"].vocab_size == 258
    for text in ("abc", "naïve 日本 🙂", "\x00\x7f \t"):
        assert len(made["byte"].encode(text)) == len(text.encode())
    assert len(set(made["byte"].encode("".join(map(chr, range(1, 10))) + "~"))) == 10


def test_unigram_learns_frequent_pieces_and_is_reproducible() -> None:
    stems, ends = ("walk", "talk", "jump", "look", "paint", "wait", "point"), ("", "s", "ed", "ing", "er", "ers")
    text = "".join(f"{stem}{end} {end}{stem}\n" for stem in stems for end in ends) * 20
    first, second = (UnigramTokenizerTrainer(vocab_size=300).train(corpus(text)) for _ in range(2))
    assert first.vocab_size <= 300
    assert len(first.encode("walking talkers")) < len("walking talkers") / 2
    assert first.tokens == second.tokens


@pytest.mark.parametrize(
    ("transforms", "text", "expected"),
    [
        (["nfc"], "e\u0301", "\u00e9"),
        (["nfd"], "\u00e9", "e\u0301"),
        (["nfkc"], "\ufb01n\u00b2", "fin2"),
        (["nfkd"], "\ufb01\u00e9", "fie\u0301"),
        (["lowercase"], "ABC \u00c9", "abc \u00e9"),
        (["strip_accents"], "na\u00efve \u00e9t\u00e9", "naive ete"),
        (["digits"], "in 1999, \u0663", "in 0000, 0"),
        (["punctuation"], "Hello, (world)!! it's", "Hello , ( world ) ! ! it ' s"),
        (["punctuation"], "a<b <unkx> <unk>", "a < b < unkx > <unk>"),
        (["whitespace"], "a\t\u00a0 b  c", "a b c"),
        (["lowercase", "punctuation", "digits"], "Room 12.", "room 00 ."),
    ],
)
def test_transforms(transforms: list[str], text: str, expected: str) -> None:
    tokenizer = ByteTokenizerTrainer(transforms=transforms).train(corpus("x"))
    assert tokenizer.decode(tokenizer.encode(text)) == expected
    assert tokenizer.decode(tokenizer.encode(expected)) == expected


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30))
def test_unicode_forms_agree_with_the_standard_library(text: str) -> None:
    known = "".join(letter for letter in text if unicodedata.category(letter) != "Cn")
    forms: tuple[tuple[str, Literal["NFC", "NFKD"]], ...] = (("nfc", "NFC"), ("nfkd", "NFKD"))
    for form, standard in forms:
        tokenizer = ByteTokenizerTrainer(transforms=[form]).train(corpus("x"))
        assert tokenizer.decode(tokenizer.encode(known)) == unicodedata.normalize(standard, known)


def test_set_off_punctuation_leaves_unk_whole() -> None:
    trainer = WordTokenizerTrainer(min_frequency=1, split="whitespace", transforms=["punctuation"])
    assert surfaces(trainer.train(corpus("a b , .")), "<unk>, a<unk>.b") == ["<unk>", ",", "a", "<unk>", ".", "b"]


def test_transforms_work_in_the_vocabulary_and_in_the_fingerprint() -> None:
    trainer = WordTokenizerTrainer(min_frequency=1, split="whitespace", transforms=["lowercase", "digits"])
    assert sorted(trainer.train(corpus("The the 1 2 <unk>")).tokens) == ["0", "<eos>", "<unk>", "the"]
    assert trainer.fingerprint() != WordTokenizerTrainer(min_frequency=1, split="whitespace").fingerprint()
    char = CharTokenizerTrainer(transforms=["digits"], lowercase=True).train(corpus("Ab 12<unk>"))
    assert sorted(char.tokens) == [" ", "0", "<eos>", "<unk>", "a", "b"]
    assert char.encode_lines(["B9 a"]).oov == 0
    with pytest.raises(DataError, match=r"tokenizer.transforms=upper: no such transform; choose from nfc, nfd"):
        ByteTokenizerTrainer(transforms=["upper"])


@pytest.mark.parametrize("trainer", [CharTokenizerTrainer(min_frequency=9), UnigramTokenizerTrainer()])
def test_nothing_to_learn_from(trainer: TokenizerTrainer) -> None:
    with pytest.raises(DataError, match="memory: the training split has no"):
        trainer.train(corpus("\n\n"))


@settings(max_examples=300, deadline=None)
@given(line=st.text("ab  \u00a0c.", max_size=60), limit=st.integers(3, 20))
def test_long_lines_are_cut_without_loss(line: str, limit: int) -> None:
    pieces = cut_line(line, limit)
    assert "".join(pieces) == line
    assert all(len(piece) <= limit for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.text("ab'9.,é", min_size=1, max_size=8), min_size=1, max_size=30))
def test_cutting_changes_no_token(made: dict[str, Tokenizer], words: list[str]) -> None:
    line = " ".join(words)
    pieces = cut_line(line, 12)
    word = WordTokenizerTrainer(min_frequency=1, split="punctuation").train(corpus(line + " x"))
    for tokenizer in (*made.values(), word):
        whole = tokenizer.encode_lines([line]).ids.tolist()
        closed = [False] * (len(pieces) - 1) + [True]
        assert tokenizer.encode_pieces(pieces, closed).ids.tolist() == whole
