from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import BPETokenizerTrainer, InMemoryCorpus, Tokenizer, WordTokenizerTrainer
from torch_linguist.errors import DataError

PROSE = (
    "Mr. Speaker, it's the well-known law-maker's day: 1,000.5 dollars (or 50%) - isn't it?\n"
    "\n"
    "The U.S. spends $5 more; the people don't. The end of the year is the end.\n"
)


def corpus(train: str, tokenized: bool | None = None) -> InMemoryCorpus:
    return InMemoryCorpus({"train": [train], "valid": ["unseen words"], "test": ["x"]}, tokenized=tokenized)


def word(train: str, tokenized: bool | None = None, **options: object) -> Tokenizer:
    settings_ = {"min_frequency": 1, **options}
    return WordTokenizerTrainer(**settings_).train(corpus(train, tokenized))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return BPETokenizerTrainer(vocab_size=400).train(corpus(PROSE * 20))


def surfaces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.tokens[token] for token in tokenizer.encode(text)]


class TestWord:
    def test_ids_descend_in_frequency_with_ties_in_alphabetical_order(self) -> None:
        text = "b a b c c b\nz y y"
        assert word(text).tokens == ["<eos>", "<unk>", "b", "c", "y", "a", "z"]

    def test_the_vocabulary_comes_from_train_alone(self) -> None:
        tokenizer = word("seen words\n")
        assert surfaces(tokenizer, "seen unseen words") == ["seen", "<unk>", "words"]

    def test_newlines_become_eos_and_none_is_added(self) -> None:
        assert surfaces(word("a b\n"), "a\n\nb\n") == ["a", "<eos>", "<eos>", "b", "<eos>"]
        assert word("a b\n").encode("") == []

    def test_min_frequency_and_max_size_cut_the_rare_words(self) -> None:
        text = "a a a b b c"
        assert word(text, min_frequency=2).tokens == ["<eos>", "<unk>", "a", "b"]
        assert word(text, max_size=3).tokens == ["<eos>", "<unk>", "a"]
        assert surfaces(word(text, max_size=3), "a b c") == ["a", "<unk>", "<unk>"]

    def test_min_frequency_adapts_to_whether_the_text_holds_unknown_words(self) -> None:
        assert word("a a b <unk>", min_frequency=None).tokens == ["<eos>", "<unk>", "a", "b"]
        assert word("a a b <unks>", min_frequency=None).tokens == ["<eos>", "<unk>", "a"]

    def test_literal_specials_are_the_specials(self) -> None:
        tokenizer = word("a <unk> <eos> b", split="punctuation")
        assert sorted(tokenizer.tokens) == ["<eos>", "<unk>", "a", "b"]
        assert tokenizer.encode("<unk><eos>") == [tokenizer.unk_id, tokenizer.eos_id]

    def test_a_literal_unk_is_not_out_of_vocabulary(self) -> None:
        encoded = word("a <unk> b\n").encode_lines(["a <unk> new", "<unk>", "newer"])
        assert encoded.oov == 2
        assert encoded.lengths.tolist() == [4, 2, 2]
        assert encoded.ids.tolist() == [2, 1, 1, 0, 1, 0, 1, 0]

    def test_lowercase(self) -> None:
        tokenizer = word("The the THE Cat", lowercase=True)
        assert tokenizer.tokens == ["<eos>", "<unk>", "the", "cat"]
        assert surfaces(tokenizer, "tHE CAT") == ["the", "cat"]

    def test_punctuation_is_split_and_words_stay_whole(self) -> None:
        expected = (
            "Mr . Speaker , it's the well-known law-maker's day : 1,000.5 dollars ( or 50 % ) - isn't it ? <eos> <eos> "
            "The U.S. spends $ 5 more ; the people don't . The end of the year is the end . <eos>"
        )
        assert surfaces(word(PROSE), PROSE) == expected.split()

    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("wait...what--no", ["wait", "...", "what", "--", "no"]),
            ("l’été naïve", ["l’été", "naïve"]),
            ("3.5.1, 7,", ["3.5.1", ",", "7", ","]),
            ("'tis 'twas-'", ["'", "tis", "'", "twas", "-", "'"]),
            ("a\u2014b \u00bd \u20ac5", ["a", "\u2014", "b", "\u00bd", "\u20ac", "5"]),
            ("e\u0301te\u0301", ["e\u0301te\u0301"]),
            ("日本 語", ["日本", "語"]),
        ],
    )
    def test_hard_cases_of_punctuation(self, text: str, tokens: list[str]) -> None:
        assert surfaces(word(text, split="punctuation"), text) == tokens

    @pytest.mark.parametrize(
        ("text", "tokenized", "expected"),
        [
            (PROSE, None, "punctuation"),
            ("the cat , and the dog . it 's @-@ !\n", None, "whitespace"),
            ("no marks at all in this text\n", None, "punctuation"),
            ("mr. <unk> is chairman of <unk> n.v. and did n't pay\n", None, "whitespace"),
            ("the fog comes —\non little cat feet\n", None, "punctuation"),
            ("天地玄黄，宇宙洪荒。\n日月盈昃，辰宿列张。\n", None, "punctuation"),
            ("天地 玄黄 ， 宇宙 洪荒 。\n", None, "whitespace"),
            ("มาเลย ไปกัน\n", None, "punctuation"),
            ("यह घर है।\n", None, "punctuation"),
            ("Ça va ? Oui, merci. Et toi ?\n", None, "punctuation"),
            ("the cat , and the dog . they don't.x\n", False, "punctuation"),
            ("it's, well\n", True, "whitespace"),
        ],
    )
    def test_split_auto_looks_at_the_corpus(self, text: str, tokenized: bool | None, expected: str) -> None:
        assert word(text, tokenized).tokens == word(text, split=expected).tokens

    def test_white_space_agrees_with_python(self) -> None:
        text = "a\u00a0b\tc\u2003d \u3000e\r\n f"
        assert surfaces(word(text, tokenized=True), text.replace("\n", " ")) == text.split()

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.text("ab c\n'.,<unk>", max_size=20), min_size=1, max_size=5))
    def test_frequencies_agree_with_a_plain_count(self, lines: list[str]) -> None:
        text = "\n".join([*lines, "word"])
        counts = Counter(text.split())
        tokens = word(text, split="whitespace").tokens[2:]
        frequencies = [counts[token] for token in tokens]
        assert frequencies == sorted(frequencies, reverse=True)
        assert set(tokens) == set(counts) - {"<unk>", "<eos>"}

    def test_decoding_undoes_the_blanks(self) -> None:
        tokenizer = word(PROSE)
        assert tokenizer.decode(tokenizer.encode(PROSE)) == PROSE
        plain = tokenizer.decode(tokenizer.encode("The end."), detokenize=False)
        assert plain == "The end ."

    def test_decoding_dashes_and_dots(self) -> None:
        text = "well--yes\u2014or no... perhaps (at 5%) and/or $6\n"
        tokenizer = word(text, split="punctuation")
        assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_decoding_wikitext(self) -> None:
        text = 'the " old " 2 @.@ 5 @-@ inch gun ( 1 @,@ 000 ) , it \'s " no " .'
        tokenizer = word(text, tokenized=True)
        assert tokenizer.decode(tokenizer.encode(text)) == 'the "old" 2.5-inch gun (1,000), it\'s "no".'

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"min_frequency": 0}, "tokenizer.min_frequency=0: must be at least 1"),
            ({"max_size": 2}, "tokenizer.max_size=2: must be at least 3"),
            ({"split": "words"}, "tokenizer.split=words: must be auto, whitespace or punctuation"),
        ],
    )
    def test_options_out_of_range(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(DataError, match=message):
            WordTokenizerTrainer(**options)  # type: ignore[arg-type]

    def test_one_word_is_a_vocabulary_and_no_word_is_none(self) -> None:
        assert word("same same same").vocab_size == 3
        with pytest.raises(DataError, match="memory: the training split has no word"):
            word(" \n\n ")
        with pytest.raises(DataError, match="no word that occurs 9 times or more"):
            word("a b c", min_frequency=9)


class TestBPE:
    @settings(max_examples=200, deadline=None)
    @given(text=st.text())
    def test_every_text_comes_back(self, bpe: Tokenizer, text: str) -> None:
        assert bpe.decode(bpe.encode(text)) == text

    @pytest.mark.parametrize("text", ["an <unk> here", "<eos>", "a\r\nb\x85c\u2028d", "<unk><unk>\n<eos> \n", "🙂 é"])
    def test_special_texts_come_back(self, bpe: Tokenizer, text: str) -> None:
        assert bpe.decode(bpe.encode(text)) == text
        assert Tokenizer.from_json(bpe.to_json()).encode(text) == bpe.encode(text)

    def test_unk_is_one_token_and_only_a_newline_is_eos(self, bpe: Tokenizer) -> None:
        ids = bpe.encode("<unk><eos>\n")
        assert ids[0] == bpe.unk_id
        assert ids[-1] == bpe.eos_id
        assert bpe.eos_id not in ids[1:-1]

    def test_nothing_is_out_of_vocabulary(self, bpe: Tokenizer) -> None:
        assert bpe.encode_lines(["日本 <unk>", ""]).oov == 0

    def test_the_letters_of_unk_are_not_learned(self) -> None:
        text = "<unk> zebra <unk> zebra <unk> zebra <unk>\n" * 50
        tokens = BPETokenizerTrainer(vocab_size=300).train(corpus(text)).tokens
        assert "Ġzebra" in tokens
        assert not any("unk" in token for token in tokens if token != "<unk>")

    def test_training_is_reproducible(self) -> None:
        first, second = (BPETokenizerTrainer(vocab_size=350).train(corpus(PROSE * 3)) for _ in range(2))
        assert first.to_json() == second.to_json()

    def test_size(self, bpe: Tokenizer) -> None:
        assert 258 < bpe.vocab_size <= 400
        assert bpe.tokens[bpe.eos_id] == "<eos>"
        with pytest.raises(DataError, match=r"tokenizer.vocab_size=257: must be at least 258"):
            BPETokenizerTrainer(vocab_size=257)


def test_encoding_many_lines_equals_encoding_each(bpe: Tokenizer) -> None:
    lines = PROSE.split("\n")
    for tokenizer in (bpe, word(PROSE)):
        encoded = tokenizer.encode_lines(lines)
        assert encoded.ids.tolist() == tokenizer.encode("\n".join([*lines, ""]))
        assert encoded.lengths.tolist() == [len(tokenizer.encode(line)) + 1 for line in lines]


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_saved_and_loaded(kind: str, bpe: Tokenizer, tmp_path: Path) -> None:
    tokenizer = bpe if kind == "bpe" else word(PROSE, lowercase=True)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.tokens == tokenizer.tokens
    assert loaded.kind == kind
    assert loaded.encode(PROSE) == tokenizer.encode(PROSE)
    assert loaded.decode(loaded.encode(PROSE)) == tokenizer.decode(tokenizer.encode(PROSE))
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab<unk>eos \t\r\x1c\x1f\x85\xa0\u200b\u3000"), max_size=12), max_size=4))
def test_words_between_white_space_are_those_of_the_library(lines: list[str]) -> None:
    tokenizer = word("a b ab <unk> b\n", tokenized=True)
    encoded = tokenizer.encode_lines(lines)
    expected = [[*tokenizer.encode(line), tokenizer.eos_id] for line in lines]
    assert encoded.ids.tolist() == [token for row in expected for token in row]
    assert encoded.lengths.tolist() == [len(row) for row in expected]


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the path of a tokenizer"):
        Tokenizer.load(tmp_path / "absent.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"model": ')
    with pytest.raises(DataError, match="train the tokenizer anew") as caught:
        Tokenizer.load(broken)
    assert "\n" not in str(caught.value)
