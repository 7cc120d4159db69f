"""Text that grows token by token, each piece final when it comes."""

from torch_linguist.data import Tokenizer
from torch_linguist.data.tokenizers.detokenization import place_word

LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, and so the byte-level tokens that may hold one together."""


class TextStream:
    """Turns ids into readable text as they come.

    Words are set together as a person writes them; byte-level tokens wait until their bytes make a character.

    Args:
        tokenizer: of the ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._glued, self._quoted = True, False
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """The text that a token adds; what is not yet certain comes with a later one."""
        if token == self._tokenizer.eos_id:
            self._glued, self._quoted = True, False
            return self.finish() + "\n"
        if self._tokenizer.kind == "word":
            piece, self._glued, self._quoted = place_word(self._tokenizer.tokens[token], self._glued, self._quoted)
            return piece
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        # The replacement character stands for bytes that are no whole character (yet).
        if text.endswith("\ufffd") and len(self._pending) < LONGEST_CHARACTER:
            return ""
        self._pending = []
        return text

    def finish(self) -> str:
        """What is still held back."""
        pending, self._pending = self._pending, []
        return self._tokenizer.decode(pending) if pending else ""
