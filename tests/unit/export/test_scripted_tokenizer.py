"""The tokenizer inside an exported file, against the library's own: every text gives the same ids, and back."""

import functools
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import BPETokenizerTrainer, InMemoryCorpus, Tokenizer, WordTokenizerTrainer
from torch_linguist.data.tokenizers.byte_signs import BYTE_SIGNS
from torch_linguist.data.tokenizers.character import ByteTokenizerTrainer, CharTokenizerTrainer
from torch_linguist.data.tokenizers.subword import UnigramTokenizerTrainer
from torch_linguist.export.scripted import ScriptedTokenizer
from torch_linguist.export.torchscript import quiet_torchscript

TEXT = (
    "The U.S. senator's \"well-known\" 1,000.50 plan -- cost $3.5 ... don't <unk> naïve “café” — 5’s über_x\n"
    "We'll see: 12,5 of 3.14; it's (so) [far]!? Ελλάδα 中文 e\u0301\u00a0x\t tab   blanks  \n"
) * 3
TRAINERS: dict[str, Callable[[], Any]] = {
    "whitespace": lambda: WordTokenizerTrainer(min_frequency=1, split="whitespace"),
    "punctuation": lambda: WordTokenizerTrainer(min_frequency=1, split="punctuation"),
    "lowercase": lambda: WordTokenizerTrainer(min_frequency=1, split="punctuation", lowercase=True),
    "lowercase_bpe": lambda: BPETokenizerTrainer(vocab_size=320, lowercase=True),
    "lowercase_char": lambda: CharTokenizerTrainer(lowercase=True),
    "bpe": lambda: BPETokenizerTrainer(vocab_size=320),
    "char": CharTokenizerTrainer,
    "byte": ByteTokenizerTrainer,
    "unigram": lambda: UnigramTokenizerTrainer(vocab_size=300),
    "digits": lambda: WordTokenizerTrainer(min_frequency=1, transforms=["digits"]),
}


class Module(torch.nn.Module):
    """Both directions, as TorchScript sees them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.text = ScriptedTokenizer(tokenizer)

    def forward(self, text: str) -> list[int]:
        return self.text.encode(text)

    @torch.jit.export
    def decode(self, ids: list[int], prompt: list[int]) -> str:
        return self.text.decode(ids, prompt)


@functools.cache
def pair(kind: str) -> tuple[Tokenizer, Any]:
    """A tokenizer, and the same one in TorchScript."""
    tokenizer = TRAINERS[kind]().train(InMemoryCorpus({"train": [TEXT], "valid": ["x"], "test": ["x"]}))
    with quiet_torchscript():
        return tokenizer, torch.jit.script(Module(tokenizer).eval())


def known(text: str) -> bool:
    """Whether Python's Unicode knows every character; a newer library may class the others otherwise."""
    return all(unicodedata.category(character) != "Cn" for character in text)


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=25),
    st.text(st.sampled_from("ab1Z.,-'’ \n\t_\u00a0é$—\"U<unk>sİΣǅK\u0345ß"), max_size=25),
    st.lists(
        st.sampled_from([*TEXT.split(), "<unk>", "<eos>", "<UNK>", "İ", "ΑΣ", " ", "  ", "\n", "'s", "\u2028"]),
        max_size=12,
    ).map("".join),
)


@pytest.mark.parametrize("kind", [kind for kind in TRAINERS if kind not in ("unigram", "digits")])
@settings(deadline=None, max_examples=120)
@given(text=TEXTS)
def test_ids_are_those_of_the_library(kind: str, text: str) -> None:
    tokenizer, scripted = pair(kind)
    if known(text):
        assert scripted(text) == tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["whitespace", "punctuation", "bpe", "char", "byte", "unigram"])
def test_the_training_text_goes_in_and_any_ids_come_out(kind: str) -> None:
    tokenizer, scripted = pair(kind)
    if kind != "unigram":
        assert scripted(TEXT) == tokenizer.encode(TEXT)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        ids = torch.randint(tokenizer.vocab_size, (15,), generator=generator).tolist()
        prompt, rest = ids[:6], ids[6:]
        whole = scripted.decode(ids, [])
        if not tokenizer.is_byte_level:
            assert whole == tokenizer.decode(ids)
            assert scripted.decode(prompt, []) + scripted.decode(rest, prompt) == whole
        else:
            assert whole == tokenizer.decode(ids)
    ids = tokenizer.encode(TEXT)
    assert scripted.decode(ids, []) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["unigram", "digits"])
def test_a_tokenizer_that_cannot_encode_says_so(kind: str) -> None:
    with pytest.raises(torch.jit.Error, match="pass ids to generate_ids"):
        pair(kind)[1]("text")


@settings(deadline=None, max_examples=300)
@given(
    values=st.lists(st.one_of(st.integers(0, 255), st.sampled_from([0xE4, 0xB8, 0xED, 0xA0, 0xF0, 0x90, 0xF4, 0xC0])))
)
def test_any_bytes_become_the_text_of_the_library(values: list[int]) -> None:
    tokenizer, scripted = pair("byte")
    ids = [tokenizer.tokens.index(BYTE_SIGNS[value]) for value in values if value != 10]
    text = scripted.decode(ids, [])
    assert text == tokenizer.decode(ids)
    assert text == bytes(value for value in values if value != 10).decode(errors="replace")
