"""Characters, their classes and UTF-8 in TorchScript."""

import torch
from torch import Tensor, nn

from torch_linguist.export.scripted.unicode_tables import class_ranges, lower_table


class Characters(nn.Module):
    """Splits texts into characters and classifies them.

    Args:
        lowercase: whether the characters are lower-cased.
    """

    def __init__(self, lowercase: bool) -> None:
        super().__init__()
        self.lowercase: bool = lowercase
        # TorchScript cannot type an empty dictionary.
        self.lower: dict[str, str] = lower_table() if lowercase else {"A": "a"}
        starts, classes = class_ranges()
        self.register_buffer("range_starts", torch.tensor(starts))
        self.register_buffer("range_classes", torch.tensor(classes))

    range_starts: Tensor
    range_classes: Tensor

    def forward(self, text: str) -> list[str]:
        """Return the characters of a text, lower-cased if the tokenizer does so."""
        characters = split_characters(text)
        if not self.lowercase:
            return characters
        lowered: list[str] = []
        for character in characters:
            if character in self.lower:
                # The lower case of İ has two characters.
                lowered.extend(split_characters(self.lower[character]))
            else:
                lowered.append(character)
        return lowered

    def classes(self, characters: list[str]) -> list[int]:
        """Return the class of each character."""
        if len(characters) == 0:
            empty: list[int] = []
            return empty
        points = torch.tensor([code_point(character) for character in characters])
        row = torch.searchsorted(self.range_starts, points, right=True) - 1
        classes: list[int] = self.range_classes[row].tolist()
        return classes


def split_characters(text: str) -> list[str]:
    """Return the characters of a text; in TorchScript, each consists of the bytes of one code point."""
    characters: list[str] = []
    for place in range(len(text)):
        byte = text[place]
        if 0x80 <= ord(byte) < 0xC0 and len(characters) > 0:
            characters[-1] = characters[-1] + byte
        else:
            characters.append(byte)
    return characters


def code_point(character: str) -> int:
    """Return the code point of a character that is given as its UTF-8 bytes."""
    point = ord(character[0])
    if point >= 0xF0:
        point = point - 0xF0
    elif point >= 0xE0:
        point = point - 0xE0
    elif point >= 0xC0:
        point = point - 0xC0
    for place in range(1, len(character)):
        point = point * 64 + ord(character[place]) - 0x80
    return point


def utf8_text(values: list[int]) -> str:
    """Return bytes as text, with U+FFFD for each longest prefix of a character that is not completed."""
    pieces: list[str] = []
    place = 0
    while place < len(values):
        length = valid_prefix(values, place)
        if length > 0 and length == utf8_length(values[place]):
            for value in values[place : place + length]:
                pieces.append(chr(value))  # noqa: PERF401  (TorchScript)
        else:
            pieces.append("\ufffd")
        place += max(length, 1)
    return "".join(pieces)


def utf8_length(first: int) -> int:
    """Return the number of bytes of a character by its first byte; 0 if no character starts with it."""
    if first < 0x80:
        return 1
    if 0xC2 <= first < 0xE0:
        return 2
    if 0xE0 <= first < 0xF0:
        return 3
    if 0xF0 <= first < 0xF5:
        return 4
    return 0


def valid_prefix(values: list[int], place: int) -> int:
    """Return how many bytes from a place on form a character or the beginning of one; 0 if none can."""
    first = values[place]
    end = min(place + utf8_length(first), len(values))
    length = 0
    for index in range(place, end):
        low, high = 0x80, 0xC0
        if index == place:
            low, high = first, first + 1
        elif index == place + 1:
            # The second byte excludes overlong forms, surrogates and code points past Unicode.
            if first == 0xE0:
                low = 0xA0
            elif first == 0xED:
                high = 0xA0
            elif first == 0xF0:
                low = 0x90
            elif first == 0xF4:
                high = 0x90
        if not low <= values[index] < high:
            break
        length += 1
    return length
