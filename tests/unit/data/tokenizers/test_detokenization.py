"""Word tokens come back as the text was written, in any script, in the package and in TorchScript alike."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import InMemoryCorpus, Tokenizer, WordTokenizerTrainer
from torch_linguist.data.tokenizers.detokenization import LINE_START, place_word, spacing_code
from torch_linguist.generation.streaming import TextStream

WRITTEN = [
    "Well, he said (twice): don't! 5,000 tons... or $5; #3",
    '"This" and "that"',
    "“Hi” he said; ‘a’ too",
    "„Hallo“, sagte er; ‚ja‘ auch",
    "«Bonjour» dit-il",
    "»Hallo« sagte er",
    "¿Qué? ¡Sí!",
    "नमस्ते। दुनिया",
    "مرحبا، كيف حالك؟",
    "你好，世界。他说“好”。（一）",
    "すごい「本」です。",
    "สวัสดี ok",
    "👩\u200d👩 and 👍🏽 and ❤\ufe0f yes",
    "🇩🇪 or 🇫🇷",
    "می\u200cخواهم",
    "5 € and €",
]


def tokenizer_of(text: str) -> Tokenizer:
    corpus = InMemoryCorpus({"train": [text], "valid": [text], "test": [text]})
    return WordTokenizerTrainer(min_frequency=1, split="punctuation").train(corpus)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_text_comes_back_as_it_was_written(text: str) -> None:
    tokenizer = tokenizer_of(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    stream = TextStream(tokenizer)
    assert "".join(stream.push(token) for token in ids) + stream.finish() == text


def test_joints_of_wikitext() -> None:
    tokenizer = tokenizer_of("a")
    corpus = InMemoryCorpus({"train": ["5 @,@ 000 @-@ ton @.@ 5"], "valid": [], "test": []}, tokenized=True)
    tokenizer = WordTokenizerTrainer(min_frequency=1).train(corpus)
    assert tokenizer.decode(tokenizer.encode("5 @,@ 000 @-@ ton @.@ 5")) == "5,000-ton.5"


@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.text(st.characters(exclude_categories=["Cs", "Z"]), min_size=1, max_size=4), max_size=12))
def test_torchscript_spaces_as_python_does(words: list[str]) -> None:
    scripted = torch.jit.script(place_word)
    state = other = LINE_START
    for word in words:
        blank, state = place_word(spacing_code(word), state)
        assert scripted(spacing_code(word), other) == (blank, state)
        other = state
