"""Byte-level BPE in TorchScript: the pieces of GPT-2's pattern, and byte pairs merged inside each."""

from typing import Final

from torch import nn

from torch_linguist.export.scripted.unicode_tables import LETTER, NUMBER, OTHER, SPACE


class BytePairs(nn.Module):
    """Splits texts into byte-level tokens.

    Args:
        ranks: rank of each merge, keyed by its two parts with a blank between them.
        byte_token: token of each of the 256 bytes.
    """

    LETTER: Final[int] = LETTER
    NUMBER: Final[int] = NUMBER
    OTHER: Final[int] = OTHER
    SPACE: Final[int] = SPACE

    def __init__(self, ranks: dict[str, int], byte_token: list[str]) -> None:
        super().__init__()
        # TorchScript cannot type an empty dictionary; no merge has an empty part.
        self.ranks: dict[str, int] = ranks or {"": 0}
        self.byte_token: list[str] = byte_token

    def forward(self, piece: str) -> list[str]:
        """Return the tokens of a piece: byte pairs merged in the order they were learned (Sennrich et al. 2016)."""
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
        return parts

    def pieces(self, characters: list[str], classes: list[int]) -> list[str]:
        """Split a text as GPT-2 does: contractions, and runs of letters, of numbers or of others with the blank before.

        Args:
            characters: characters of the text.
            classes: their classes.
        """
        pieces: list[str] = []
        begin = 0
        while begin < len(characters):
            end = self.contraction_end(characters, begin)
            if end == begin:
                end = self.run_end(characters, classes, begin)
            pieces.append("".join(characters[begin:end]))
            begin = end
        return pieces

    def contraction_end(self, characters: list[str], begin: int) -> int:
        """Return the end of a 's, 't, 're, 've, 'm, 'll or 'd at a place; the place itself if there is none."""
        for ending in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]:
            if "".join(characters[begin : begin + len(ending)]) == ending:
                return begin + len(ending)
        return begin

    def run_end(self, characters: list[str], classes: list[int], begin: int) -> int:
        """Return the end of a run of one kind, with one plain blank before it, or of a run of white space."""
        start = begin
        if characters[begin] == " " and begin + 1 < len(characters) and classes[begin + 1] != self.SPACE:
            start = begin + 1
        end = start
        kind = self.kind(classes[start])
        while end < len(characters) and self.kind(classes[end]) == kind:
            end += 1
        # The last of several blanks before a word belongs to the word.
        if kind == self.SPACE and end < len(characters) and end - begin > 1:
            end -= 1
        return end

    def kind(self, character_class: int) -> int:
        """Return the class for letters, numbers and white space, and OTHER for the rest."""
        if character_class == self.LETTER or character_class == self.NUMBER or character_class == self.SPACE:
            return character_class
        return self.OTHER
