"""Words in token streams: which tokens form a word, and the class of each word.

Shape legend: N tokens, V vocabulary.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from torch_linguist.data import Tokenizer

CLASSES = ("function", "content", "capitalized", "number", "punctuation", "<unk>", "<eos>")
"""Classes of words, in display order."""

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
"""The closed classes of English. In other languages, all words count as content words."""


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a token stream.

    Attributes:
        of_token: index of the word that each token belongs to, ascending without gaps, int64 [N].
        texts: texts of the words, stripped of whitespace.
        classes: class of each word, one of `CLASSES`.
    """

    of_token: NDArray[np.int64]
    texts: list[str]
    classes: list[str]

    def token_classes(self) -> NDArray[np.int64]:
        """Return the index into `CLASSES` of the word of each token [N]."""
        numbers = {name: number for number, name in enumerate(CLASSES)}
        found: NDArray[np.int64] = np.array([numbers[name] for name in self.classes], np.int64)[self.of_token]
        return found


def piece_texts(tokenizer: Tokenizer) -> list[str]:
    """Return the text of each token for display; bytes that are not valid UTF-8 become replacement characters."""
    return [piece.decode("utf-8", "replace") for piece in tokenizer.pieces]


def find_words(ids: ArrayLike, tokenizer: Tokenizer) -> Words:
    """Group tokens into words.

    A word begins after whitespace, at a special token, and where letters and other characters meet.

    Args:
        ids: token ids [N].
        tokenizer: tokenizer of the ids.
    """
    row = np.asarray(ids).astype(np.int64)
    pieces = tokenizer.pieces
    special = np.zeros(tokenizer.vocab_size, bool)
    special[[tokenizer.eos_id, tokenizer.unk_id]] = True
    begins = _word_begins(row, pieces, special) if not tokenizer.joins_words else np.ones(len(row), bool)
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
    """Return which subword tokens begin a word, bool [N]."""
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
    """Return whether a byte is a letter, a digit, or part of a character outside ASCII."""
    return piece.isalnum() or piece >= b"\x80"


def word_class(text: str) -> str:
    """Return the class of a word, one of `CLASSES` without the special tokens."""
    if any(sign.isdigit() for sign in text):
        return "number"
    if not any(sign.isalpha() for sign in text):
        return "punctuation"
    if text.lower() in FUNCTION_WORDS:
        return "function"
    return "capitalized" if text[0].isupper() else "content"
