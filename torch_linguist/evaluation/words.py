"""Tokens as text: which of them make up a word, and what kind of word it is.

Shape legend: N tokens, V vocabulary.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from torch_linguist.data import Tokenizer

CLASSES = ("function", "content", "capitalized", "number", "punctuation", "<unk>", "<eos>")
"""Kinds of words, in the order in which they are shown."""

_CLOSED_CLASSES = """
a an the this that these those each every either neither some any no all both half many much few several such
another other
i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us our
ours ourselves they them their theirs themselves who whom whose which what one oneself there
of in to for with on at by from into upon about against among between through during before after above
below under over without within along across behind beyond toward towards until since per via as than off up
down out near around despite throughout
and or but nor so yet if because although though while whereas unless whether when where why how not n't 's
're 've 'll 'd 'm 't
am is are was were be been being do does did done doing have has had having will would shall should can could
may might must ought cannot
"""

FUNCTION_WORDS = frozenset(_CLOSED_CLASSES.split())
"""The closed classes of English; of another language's words all are content words."""


@dataclass(frozen=True, eq=False)
class Words:
    """The words that a row of tokens makes up.

    Attributes:
        of_token: number of the word that each token belongs to, int64 [N], ascending without gaps.
        texts: the words without blanks around them.
        classes: one of `CLASSES` for each.
    """

    of_token: NDArray[np.int64]
    texts: list[str]
    classes: list[str]

    def token_classes(self) -> NDArray[np.int64]:
        """Index into `CLASSES` of each token's word, [N]."""
        numbers = {name: number for number, name in enumerate(CLASSES)}
        found: NDArray[np.int64] = np.array([numbers[name] for name in self.classes], np.int64)[self.of_token]
        return found


def token_pieces(tokenizer: Tokenizer) -> list[bytes]:
    """What each token stands for in a text, in UTF-8; a word tokenizer's tokens bring the blank before them."""
    if tokenizer.kind == "word":
        return [f" {token}".encode("utf-8", "replace") for token in tokenizer.tokens]
    if tokenizer.kind == "char":
        return [token.encode("utf-8", "replace") for token in tokenizer.tokens]
    table = _byte_of_sign()
    return [
        bytes(table[sign] for sign in token) if all(sign in table for sign in token) else token.encode()
        for token in tokenizer.tokens
    ]


def piece_texts(tokenizer: Tokenizer) -> list[str]:
    """The tokens for a reader; bytes that are no character of their own become a replacement sign."""
    return [piece.decode("utf-8", "replace") for piece in token_pieces(tokenizer)]


def _byte_of_sign() -> dict[str, int]:
    """Which byte each sign of a byte-level token stands for (Radford et al. 2019): printable ones for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(code): code for code in printable}
    rest = [code for code in range(256) if code not in set(printable)]
    return table | {chr(256 + number): code for number, code in enumerate(rest)}


def find_words(ids: ArrayLike, tokenizer: Tokenizer) -> Words:
    """Puts tokens together to words.

    A word begins at a blank, at a special token, and where letters and other signs meet.

    Args:
        ids: token ids [N].
        tokenizer: the one they come from.
    """
    row = np.asarray(ids).astype(np.int64)
    pieces = token_pieces(tokenizer)
    special = np.zeros(tokenizer.vocab_size, bool)
    special[[tokenizer.eos_id, tokenizer.unk_id]] = True
    begins = _word_begins(row, pieces, special) if tokenizer.kind != "word" else np.ones(len(row), bool)
    of_token = np.cumsum(begins) - 1
    ends = np.append(np.flatnonzero(begins), len(row)).tolist()
    known: dict[tuple[int, ...], tuple[str, str]] = {}
    texts, classes = [], []
    listed = row.tolist()
    for begin, end in itertools.pairwise(ends):
        key = tuple(listed[begin:end])
        if key not in known:
            text = b"".join(pieces[token] for token in key).decode("utf-8", "replace").strip()
            known[key] = (text, tokenizer.tokens[key[0]] if special[key[0]] else word_class(text))
        texts.append(known[key][0])
        classes.append(known[key][1])
    return Words(of_token.astype(np.int64), texts, classes)


def _word_begins(row: NDArray[np.int64], pieces: Sequence[bytes], special: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a word begins among subword tokens, bool [N]."""
    blank = np.array([piece[:1].isspace() for piece in pieces])
    empty = np.array([not piece.strip() for piece in pieces])
    first = np.array([_is_letter(piece.strip()[:1]) for piece in pieces])
    last = np.array([_is_letter(piece.strip()[-1:]) for piece in pieces])
    begins = blank[row] | special[row]
    turns = (first[row[1:]] != last[row[:-1]]) & ~empty[row[:-1]] & ~empty[row[1:]]
    begins[1:] |= special[row[:-1]] | turns
    begins[:1] = True
    return np.asarray(begins)


def _is_letter(piece: bytes) -> bool:
    """Whether a byte is part of a word: a letter, a digit, or of a character outside ASCII."""
    return piece.isalnum() or piece >= b"\x80"


def word_class(text: str) -> str:
    """The kind of a word, one of `CLASSES` but the special ones.

    Args:
        text: without blanks around it.
    """
    if any(sign.isdigit() for sign in text):
        return "number"
    if not any(sign.isalpha() for sign in text):
        return "punctuation"
    if text.lower() in FUNCTION_WORDS:
        return "function"
    return "capitalized" if text[0].isupper() else "content"
