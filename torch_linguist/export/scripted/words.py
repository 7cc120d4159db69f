"""Splits lines into words in TorchScript, by white space or by `WORD_PATTERN` of the word tokenizer."""

from typing import Final

from torch import nn

from torch_linguist.export.scripted.unicode_tables import LETTER, MARK, NUMBER, SPACE, UNDERSCORE


class WordSplitter(nn.Module):
    """Splits a line of characters into words.

    Args:
        by_pattern: whether punctuation is split off, as in `WORD_PATTERN`; otherwise white space alone separates words.
    """

    LETTER: Final[int] = LETTER
    MARK: Final[int] = MARK
    NUMBER: Final[int] = NUMBER
    SPACE: Final[int] = SPACE
    UNDERSCORE: Final[int] = UNDERSCORE

    def __init__(self, by_pattern: bool) -> None:
        super().__init__()
        self.by_pattern: bool = by_pattern

    def forward(self, characters: list[str], classes: list[int]) -> list[str]:
        """Return the words of a line, given its characters and their classes."""
        words: list[str] = []
        begin = 0
        while begin < len(characters):
            if classes[begin] == self.SPACE:
                begin += 1
                continue
            end = begin + 1
            if self.by_pattern:
                end = self.pattern_end(characters, classes, begin)
            else:
                while end < len(characters) and classes[end] != self.SPACE:
                    end += 1
            words.append("".join(characters[begin:end]))
            begin = end
        return words

    def pattern_end(self, characters: list[str], classes: list[int], begin: int) -> int:
        """Return the end of the word at a place, by the alternatives of `WORD_PATTERN` in their order."""
        special = "".join(characters[begin : begin + 5])
        if special == "<unk>" or special == "<eos>":
            return begin + 5
        end = begin
        while end + 1 < len(characters) and classes[end] == self.LETTER and characters[end + 1] == ".":
            end += 2
        if end - begin >= 4:
            return end
        if self.in_word(classes[begin]):
            return self.word_end(characters, classes, begin)
        end = begin + 1
        if characters[begin] == "-" or characters[begin] == ".":
            while end < len(characters) and characters[end] == characters[begin]:
                end += 1
        return end

    def in_word(self, kind: int) -> bool:
        """Return whether a class occurs inside words: letters, marks, numbers, the underscore."""
        return kind == self.LETTER or kind == self.MARK or kind == self.NUMBER or kind == self.UNDERSCORE

    def word_end(self, characters: list[str], classes: list[int], begin: int) -> int:
        """Return the end of a word with its inner apostrophes and hyphens, and the points and commas of numbers."""
        end = begin
        inside = True
        while inside:
            while end < len(characters) and self.in_word(classes[end]):
                end += 1
            inside = False
            if end + 1 < len(characters) and self.in_word(classes[end + 1]):
                joint = characters[end]
                inside = joint == "'" or joint == "’" or joint == "-"
                if joint == "." or joint == ",":
                    inside = classes[end - 1] == self.NUMBER and classes[end + 1] == self.NUMBER
                if inside:
                    end += 1
        return end
