"""A tokenizer as a TorchScript module: text to token ids and back.

It covers what the package's own tokenizers do: words by white space or by pattern, byte-level BPE, characters, bytes,
all with or without lower-casing. Other normalizers and the search of a unigram model are not available; such a model
decodes but does not encode.
"""

import json
from typing import Any

from torch import nn

from torch_linguist.data import Tokenizer
from torch_linguist.data.tokenizers.byte_signs import BYTE_OF_SIGN, BYTE_SIGNS
from torch_linguist.data.tokenizers.detokenization import LINE_START, place_word
from torch_linguist.export.scripted.byte_pairs import BytePairs
from torch_linguist.export.scripted.characters import Characters, split_characters, utf8_text
from torch_linguist.export.scripted.words import WordSplitter


class ScriptedTokenizer(nn.Module):
    """A scriptable copy of a tokenizer.

    Args:
        tokenizer: any tokenizer.

    Attributes:
        encodes: whether text can be encoded; any tokenizer can decode.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        description = json.loads(tokenizer.to_json())
        model, splitter = description["model"], _type(description["pre_tokenizer"])
        self.eos_id: int = tokenizer.eos_id
        self.unk_id: int = tokenizer.unk_id
        self.in_words: bool = tokenizer.joins_words
        self.in_characters: bool = not (tokenizer.joins_words or tokenizer.is_byte_level)
        # A vocabulary of single bytes is cut byte by byte.
        self.in_pieces: bool = splitter == "ByteLevel" and bool(description["pre_tokenizer"]["use_regex"])
        normalizer = _type(description["normalizer"])
        known_splitter = splitter in ("WhitespaceSplit", "Split") if self.in_words else model["type"] == "BPE"
        self.encodes: bool = normalizer in ("", "Lowercase") and known_splitter
        self.characters = Characters(lowercase=normalizer == "Lowercase")
        self.word_splitter = WordSplitter(by_pattern=splitter == "Split")
        self.tokens: list[str] = list(tokenizer.tokens)
        self.ids: dict[str, int] = {token: index for index, token in enumerate(tokenizer.tokens)}
        self.word_texts: list[str] = tokenizer.word_texts
        self.spacing: list[int] = tokenizer.spacing
        self.line_start: int = LINE_START
        self.byte_of: dict[str, int] = dict(BYTE_OF_SIGN)
        self.byte_pairs = BytePairs(_merge_ranks(model), list(BYTE_SIGNS))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text; each newline becomes <eos>."""
        if not self.encodes:
            raise ValueError("the tokenizer of this model cannot encode text here; pass ids to generate_ids")
        ids: list[int] = []
        for place, line in enumerate(text.split("\n")):
            if place > 0:
                ids.append(self.eos_id)
            if self.in_words:
                characters = self.characters(line)
                words = self.word_splitter(characters, self.characters.classes(characters))
                ids.extend(self.looked_up(words))
            else:
                # A literal <unk> is a token of its own.
                for index, part in enumerate(line.split("<unk>")):
                    if index > 0:
                        ids.append(self.unk_id)
                    ids.extend(self.subword_ids(part))
        return ids

    def subword_ids(self, text: str) -> list[int]:
        """Return the ids of a text in characters, bytes or byte pairs."""
        characters = self.characters(text)
        if self.in_characters:
            return self.looked_up(characters)
        pieces = ["".join(characters)]
        if self.in_pieces:
            pieces = self.byte_pairs.pieces(characters, self.characters.classes(characters))
        ids: list[int] = []
        for piece in pieces:
            ids.extend(self.looked_up(self.byte_pairs(piece)))
        return ids

    def looked_up(self, tokens: list[str]) -> list[int]:
        """Return the id of each token."""
        return [self.ids.get(token, self.unk_id) for token in tokens]

    def decode(self, ids: list[int], prompt: list[int]) -> str:
        """Return the readable text that ids add to a prompt of ids."""
        if self.in_words:
            return self.decode_words(ids, prompt)
        if self.in_characters:
            return "".join(["\n" if token == self.eos_id else self.tokens[token] for token in ids])
        values: list[int] = []
        for token in ids:
            if token == self.eos_id:
                values.append(10)
            else:
                for character in split_characters(self.tokens[token]):
                    values.append(self.byte_of[character])  # noqa: PERF401  (TorchScript)
        return utf8_text(values)

    def decode_words(self, ids: list[int], prompt: list[int]) -> str:
        """Return words joined as in written text; the prompt decides whether a blank comes first."""
        state = self.line_start
        pieces: list[str] = []
        for place, token in enumerate(prompt + ids):
            if token == self.eos_id:
                state = self.line_start
                piece = "\n"
            else:
                blank, state = place_word(self.spacing[token], state)
                piece = " " + self.word_texts[token] if blank else self.word_texts[token]
            if place >= len(prompt):
                pieces.append(piece)
        return "".join(pieces)


def _type(component: Any) -> str:
    """Return the type of a component of `tokenizer.json`, with a sequence of one taken as its only member."""
    if component is None:
        return ""
    members = component.get("normalizers") or component.get("pretokenizers") or [component]
    return str(members[0]["type"]) if len(members) == 1 else str(component["type"])


def _merge_ranks(model: dict[str, Any]) -> dict[str, int]:
    """Return the merges of a BPE model in the order they were learned."""
    merges = model.get("merges") or []
    pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return {pair: rank for rank, pair in enumerate(pairs)}
