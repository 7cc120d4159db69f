"""Text to token ids and back inside TorchScript, where there is no tokenizer library and no regular expression.

It cuts text as the tokenizer of a run does: words by white space or by the pattern of `data.word`, byte-level BPE as in
GPT-2, characters, bytes. Strings are bytes in TorchScript, so characters are put together from UTF-8 first, and their
classes are looked up in ranges of code points (those of Python's `unicodedata`). What a tokenizer does beyond that (a
unigram model's search, normalization other than lower-casing) is not there: such a model takes and gives ids.

Shape legend: V vocabulary, C characters.
"""

import functools
import itertools
import json
import sys
import unicodedata
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.data import Tokenizer
from torch_linguist.data.tokenizers.detokenization import place_word

OTHER, LETTER, MARK, NUMBER, SPACE, UNDERSCORE = 0, 1, 2, 3, 4, 5

BLANKS = frozenset(
    [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
)
"""Code points of white space in Unicode; Python's `isspace` has four more."""


class ScriptedText(nn.Module):
    """A tokenizer of the supported kinds as a scriptable module.

    Args:
        tokenizer: of any kind; `text_in` says whether text can go in, it comes out with every kind.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        description = json.loads(tokenizer.to_json())
        self.kind: str = tokenizer.kind
        self.eos_id: int = tokenizer.eos_id
        self.unk_id: int = tokenizer.unk_id
        self.split: str = _split_of(description)
        self.lowercase: bool = _normalizers(description) == ["Lowercase"]
        plain = not _normalizers(description) or self.lowercase
        self.text_in: bool = plain and (self.split != "" or tokenizer.kind in ("bpe", "char", "byte"))
        self.tokens: list[str] = list(tokenizer.tokens)
        self.ids: dict[str, int] = {token: index for index, token in enumerate(tokenizer.tokens)}
        alphabet = byte_alphabet()
        self.byte_token: list[str] = [alphabet[value] for value in range(256)]
        self.byte_of: dict[str, int] = {character: value for value, character in enumerate(self.byte_token)}
        self.ranks: dict[str, int] = _merge_ranks(description)
        starts, classes = class_ranges()
        self.register_buffer("range_starts", torch.tensor(starts))
        self.register_buffer("range_classes", torch.tensor(classes))
        self.lower: dict[str, str] = _lower_table() if self.lowercase else {"A": "a"}

    range_starts: Tensor
    range_classes: Tensor

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; each newline becomes <eos>."""
        if not self.text_in:
            raise ValueError("this model's tokenizer cannot be run here: give ids to generate_ids")
        ids: list[int] = []
        for place, line in enumerate(text.split("\n")):
            if place > 0:
                ids.append(self.eos_id)
            ids.extend(self.encode_line(line))
        return ids

    def encode_line(self, line: str) -> list[int]:
        """Token ids of a line."""
        if self.kind == "word":
            return self.word_ids(line)
        ids: list[int] = []
        # A literal <unk> is a token of its own.
        for place, part in enumerate(line.split("<unk>")):
            if place > 0:
                ids.append(self.unk_id)
            if part == "":
                continue
            characters = self.lowered(self.characters(part))
            if self.kind == "char":
                for character in characters:
                    ids.append(self.ids.get(character, self.unk_id))  # noqa: PERF401  (TorchScript)
            elif self.kind == "byte":
                ids.extend(self.byte_ids("".join(characters)))
            else:
                for piece in self.gpt2_pieces(characters):
                    ids.extend(self.merged(piece))
        return ids

    def characters(self, text: str) -> list[str]:
        """A text's characters, each the bytes of one code point."""
        found: list[str] = []
        for place in range(len(text)):
            byte = text[place]
            if 0x80 <= ord(byte) < 0xC0 and len(found) > 0:
                found[-1] = found[-1] + byte
            else:
                found.append(byte)
        return found

    def lowered(self, characters: list[str]) -> list[str]:
        """The characters in lower case, where the tokenizer asks for it."""
        if not self.lowercase:
            return characters
        return [self.lower.get(character, character) for character in characters]

    def classes(self, characters: list[str]) -> list[int]:
        """The class of each character."""
        if len(characters) == 0:
            empty: list[int] = []
            return empty
        points: list[int] = []
        for character in characters:
            first = ord(character[0])
            value = first
            if first >= 0xF0:
                value = first - 0xF0
            elif first >= 0xE0:
                value = first - 0xE0
            elif first >= 0xC0:
                value = first - 0xC0
            for place in range(1, len(character)):
                value = value * 64 + ord(character[place]) - 0x80
            points.append(value)
        row = torch.searchsorted(self.range_starts, torch.tensor(points), right=True) - 1
        looked_up: list[int] = self.range_classes[row].tolist()
        return looked_up

    def word_ids(self, line: str) -> list[int]:
        """Words of a line as ids."""
        ids: list[int] = []
        characters = self.lowered(self.characters(line))
        kinds = self.classes(characters)
        begin = 0
        while begin < len(characters):
            if kinds[begin] == 4:
                begin += 1
                continue
            end = begin + 1
            if self.split == "whitespace":
                while end < len(characters) and kinds[end] != 4:
                    end += 1
            else:
                end = self.word_end(characters, kinds, begin)
            ids.append(self.ids.get("".join(characters[begin:end]), self.unk_id))
            begin = end
        return ids

    def word_end(self, characters: list[str], kinds: list[int], begin: int) -> int:
        """Where the word that begins at a place ends, by the alternatives of `WORD_PATTERN` in their order."""
        special = "".join(characters[begin : begin + 5])
        if special == "<unk>" or special == "<eos>":
            return begin + 5
        end = begin
        while end + 1 < len(characters) and kinds[end] == 1 and characters[end + 1] == ".":
            end += 2
        if end - begin >= 4:
            return end
        if self.in_word(kinds[begin]):
            return self.run_of_words(characters, kinds, begin)
        if characters[begin] == "-" or characters[begin] == ".":
            end = begin
            while end < len(characters) and characters[end] == characters[begin]:
                end += 1
            return end
        return begin + 1

    def in_word(self, kind: int) -> bool:
        """Whether a class belongs inside a word: letters, marks, numbers, the underscore."""
        return kind == 1 or kind == 2 or kind == 3 or kind == 5

    def run_of_words(self, characters: list[str], kinds: list[int], begin: int) -> int:
        """The end of a word with its inner apostrophes, hyphens, and the points and commas of numbers."""
        end = begin
        inside = True
        while inside:
            while end < len(characters) and self.in_word(kinds[end]):
                end += 1
            inside = False
            if end + 1 < len(characters) and self.in_word(kinds[end + 1]):
                joint = characters[end]
                inside = joint == "'" or joint == "’" or joint == "-"
                if joint == "." or joint == ",":
                    inside = kinds[end - 1] == 3 and kinds[end + 1] == 3
                if inside:
                    end += 1
        return end

    def gpt2_pieces(self, characters: list[str]) -> list[str]:
        """Cuts a text as GPT-2 does: contractions, and runs of letters, numbers or others with the blank before."""
        kinds = self.classes(characters)
        pieces: list[str] = []
        begin = 0
        while begin < len(characters):
            end = self.contraction_end(characters, begin)
            if end == begin:
                end = self.piece_end(characters, kinds, begin)
            pieces.append("".join(characters[begin:end]))
            begin = end
        return pieces

    def contraction_end(self, characters: list[str], begin: int) -> int:
        """The end of 's, 't, 're, 've, 'm, 'll or 'd where one begins here; else the place itself."""
        for ending in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]:
            if "".join(characters[begin : begin + len(ending)]) == ending:
                return begin + len(ending)
        return begin

    def piece_end(self, characters: list[str], kinds: list[int], begin: int) -> int:
        """The end of a run of one sort, one plain blank before it included, or of a run of white space."""
        start = begin
        if characters[begin] == " " and begin + 1 < len(characters) and kinds[begin + 1] != 4:
            start = begin + 1
        end = start
        sort = self.sort(kinds[start])
        while end < len(characters) and self.sort(kinds[end]) == sort:
            end += 1
        # The last of several blanks before a word belongs to the word.
        if sort == 4 and end < len(characters) and end - begin > 1:
            end -= 1
        return end

    def sort(self, kind: int) -> int:
        """Letters, numbers, white space, or everything else."""
        return kind if kind == 1 or kind == 3 or kind == 4 else 0

    def byte_ids(self, text: str) -> list[int]:
        """A token a byte."""
        ids: list[int] = []
        for place in range(len(text)):
            ids.append(self.ids[self.byte_token[ord(text[place])]])  # noqa: PERF401  (TorchScript)
        return ids

    def merged(self, piece: str) -> list[int]:
        """Byte pairs merged in the order they were learned (Sennrich et al. 2016)."""
        parts: list[str] = []
        for place in range(len(piece)):
            parts.append(self.byte_token[ord(piece[place])])  # noqa: PERF401  (TorchScript)
        while len(parts) > 1:
            best, where = -1, -1
            for place in range(len(parts) - 1):
                rank = self.ranks.get(parts[place] + " " + parts[place + 1], -1)
                if rank >= 0 and (best < 0 or rank < best):
                    best, where = rank, place
            if where < 0:
                break
            parts = parts[:where] + [parts[where] + parts[where + 1]] + parts[where + 2 :]  # noqa: RUF005  (TorchScript)
        ids: list[int] = []
        for part in parts:
            ids.append(self.ids.get(part, self.unk_id))  # noqa: PERF401  (TorchScript)
        return ids

    def decode(self, ids: list[int], prompt: list[int]) -> str:
        """The readable text that ids add to a prompt."""
        if self.kind == "word":
            return self.decode_words(ids, prompt)
        if self.kind == "char":
            pieces: list[str] = []
            for token in ids:
                pieces.append("\n" if token == self.eos_id else self.tokens[token])  # noqa: PERF401  (TorchScript)
            return "".join(pieces)
        values: list[int] = []
        for token in ids:
            if token == self.eos_id:
                values.append(10)
            elif token == self.unk_id:
                # The literal <unk>.
                values.extend([60, 117, 110, 107, 62])
            else:
                for character in self.characters(self.tokens[token]):
                    values.append(self.byte_of[character])  # noqa: PERF401  (TorchScript)
        return self.valid_text(values)

    def decode_words(self, ids: list[int], prompt: list[int]) -> str:
        """Words set together; the prompt says whether a blank comes first."""
        glued, quoted = True, False
        pieces: list[str] = []
        for place, token in enumerate(prompt + ids):
            if token == self.eos_id:
                glued, quoted = True, False
                piece = "\n"
            else:
                piece, glued, quoted = place_word(self.tokens[token], glued, quoted)
            if place >= len(prompt):
                pieces.append(piece)
        return "".join(pieces)

    def valid_text(self, values: list[int]) -> str:
        """Bytes as text, with the replacement character for those that are none."""
        pieces: list[str] = []
        place = 0
        while place < len(values):
            first = values[place]
            length = 0
            if first < 0x80:
                length = 1
            elif 0xC2 <= first < 0xE0:
                length = 2
            elif 0xE0 <= first < 0xF0:
                length = 3
            elif 0xF0 <= first < 0xF5:
                length = 4
            whole = length > 0 and place + length <= len(values)
            if whole:
                for value in values[place + 1 : place + length]:
                    whole = whole and 0x80 <= value < 0xC0
            if whole and length > 2:
                # Overlong forms, surrogates and what lies past Unicode are no characters.
                second = values[place + 1]
                whole = not (
                    (first == 0xE0 and second < 0xA0)
                    or (first == 0xED and second >= 0xA0)
                    or (first == 0xF0 and second < 0x90)
                    or (first == 0xF4 and second >= 0x90)
                )
            if whole:
                for value in values[place : place + length]:
                    pieces.append(chr(value))  # noqa: PERF401  (TorchScript)
                place += length
            else:
                pieces.append("\ufffd")
                place += 1
        return "".join(pieces)


def byte_alphabet() -> list[str]:
    """The visible character that byte-level tokens write for each of the 256 bytes (as in GPT-2)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    beyond = itertools.count(0x100)
    return [chr(value) if value in visible else chr(next(beyond)) for value in range(256)]


@functools.cache
def class_ranges() -> tuple[list[int], list[int]]:
    """Ranges of code points by class: where each begins, ascending from 0, and its class."""
    starts: list[int] = []
    classes: list[int] = []
    for point in range(sys.maxunicode + 1):
        found = _class_of(point)
        if not classes or classes[-1] != found:
            starts.append(point)
            classes.append(found)
    return starts, classes


def _class_of(point: int) -> int:
    if point in BLANKS:
        return SPACE
    if point == ord("_"):
        return UNDERSCORE
    return {"L": LETTER, "M": MARK, "N": NUMBER}.get(unicodedata.category(chr(point))[0], OTHER)


def _lower_table() -> dict[str, str]:
    return {chr(point): chr(point).lower() for point in range(sys.maxunicode + 1) if chr(point).lower() != chr(point)}


def _normalizers(description: dict[str, Any]) -> list[str]:
    normalizer = description.get("normalizer")
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [one["type"] for one in normalizer["normalizers"]]
    return [normalizer["type"]]


def _split_of(description: dict[str, Any]) -> str:
    """How words are cut: `whitespace`, `punctuation`, or nothing for tokenizers of other kinds."""
    kind = (description.get("pre_tokenizer") or {}).get("type")
    if description["model"]["type"] != "WordLevel":
        return ""
    return {"WhitespaceSplit": "whitespace", "Split": "punctuation"}.get(str(kind), "")


def _merge_ranks(description: dict[str, Any]) -> dict[str, int]:
    """The merges of a BPE in the order they were learned; one that never occurs where there are none."""
    merges = description["model"].get("merges") or []
    pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return {pair: rank for rank, pair in enumerate(pairs)} or {"": 0}
