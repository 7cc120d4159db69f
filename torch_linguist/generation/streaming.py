"""Text that grows token by token; each piece is final when it is returned."""

from torch_linguist.data import Tokenizer
from torch_linguist.data.tokenizers.detokenization import LINE_START, place_word

LONGEST_CHARACTER = 4
"""Largest number of bytes of a UTF-8 character, and so of byte-level tokens that form one."""


class TextStream:
    """Converts ids to readable text one at a time.

    Words are joined as in written text. Byte-level tokens are held back until their bytes form a character.

    Args:
        tokenizer: tokenizer of the ids.

    Example:
        >>> stream = TextStream(corpus.tokenizer)
        >>> pieces = [stream.push(token) for token in corpus.tokenizer.encode("the cat sat")]
        >>> ("".join(pieces) + stream.finish()).strip()
        'the cat sat'
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._spacing = LINE_START
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """Return the text that a token adds; text that is not final yet comes with a later token."""
        if token == self._tokenizer.eos_id:
            self._spacing = LINE_START
            return self.finish() + "\n"
        if self._tokenizer.joins_words:
            blank, self._spacing = place_word(self._tokenizer.spacing[token], self._spacing)
            return " " * blank + self._tokenizer.word_texts[token]
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        # The replacement character marks bytes that are no complete character (yet).
        if text.endswith("\ufffd") and len(self._pending) < LONGEST_CHARACTER:
            return ""
        self._pending = []
        return text

    def finish(self) -> str:
        """Return the text that is still held back."""
        pending, self._pending = self._pending, []
        return self._tokenizer.decode(pending) if pending else ""
