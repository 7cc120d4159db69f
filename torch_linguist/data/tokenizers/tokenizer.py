"""Text to token ids and back, on top of the `tokenizers` library."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from torch_linguist.data.tokenizers.byte_signs import BYTE_OF_SIGN
from torch_linguist.data.tokenizers.detokenization import spacing_code, word_text, write_words
from torch_linguist.errors import DataError
from torch_linguist.runs.files import write_text

EOS = "<eos>"
UNK = "<unk>"

BYTES = 256

SIZE_LIMIT = 256 * 2**20
"""Largest size of a `tokenizer.json` in bytes; one with a million words has about 30 million."""

PANIC = "PanicException"
"""Name of the exception for panics in the library's Rust code."""

SEPARATORS = frozenset("\x1c\x1d\x1e\x1f")
"""White space in Python that is none in Unicode and in the `tokenizers` library."""

# No word can have this name, because text is split at newlines before it is encoded.
_OUT_OF_VOCABULARY = "\n"

_END = "\0"
"""Mark between texts whose words are looked up together."""


class EncodedLines(NamedTuple):
    """Token ids of several lines.

    Attributes:
        ids: ids of all lines, uint32 [N].
        lengths: number of tokens of each line, its ``<eos>`` included, int64 [lines].
        oov: number of tokens that stand for a word outside the vocabulary.
    """

    ids: NDArray[np.uint32]
    lengths: NDArray[np.int64]
    oov: int


class Tokenizer:
    """Converts text to token ids and back.

    Attributes:
        vocab_size: number of token types V, ``<eos>`` and ``<unk>`` included.
        eos_id: id of ``<eos>``, which ends a line.
        unk_id: id of ``<unk>``, which stands for a word outside the vocabulary.
        tokens: tokens in the order of their ids.
        kind: `word`, `bpe`, `unigram`, `char` or `byte`, for display; code should use the properties below instead.
        joins_words: whether each token is a whole word; the blanks between words belong to no token.
        is_byte_level: whether tokens are sequences of bytes, so that any text is decoded exactly and none is unknown.
        transformed: whether the text is changed before tokenization.

    Example:
        >>> ids = corpus.tokenizer.encode("the dog sat")
        >>> corpus.tokenizer.decode(ids)
        'the dog sat'
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Wrap a tokenizer of the library whose vocabulary contains ``<eos>`` and ``<unk>``.

        Raises:
            DataError: the vocabulary lacks one of the two, or its ids have gaps.
        """
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = len(vocabulary)
        self.tokens: list[str] = _in_order(vocabulary)
        for special in (EOS, UNK):
            if special not in vocabulary:
                raise DataError(f"tokenizer: the vocabulary has no {special}; train the tokenizer anew")
        self.eos_id = int(vocabulary[EOS])
        self.unk_id = int(vocabulary[UNK])
        self.kind = _kind(backend, self.vocab_size)
        self.joins_words = self.kind == "word"
        self.is_byte_level = self.kind not in ("word", "char")
        self.transformed = backend.normalizer is not None
        self._backend = backend
        self._json: str | None = None
        self._marking: tokenizers.Tokenizer | None = None

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text. Each newline becomes ``<eos>``; no ``<eos>`` is appended."""
        encodings = self._backend.encode_batch_fast(text.split("\n"), add_special_tokens=False)
        ids: list[int] = []
        for position, encoding in enumerate(encodings):
            if position:
                ids.append(self.eos_id)
            ids.extend(encoding.ids)
        return ids

    def encode_lines(self, lines: Sequence[str]) -> EncodedLines:
        """Return the token ids of lines without newlines, each with a final ``<eos>``; runs on all cores.

        A literal ``<unk>`` in the text does not count as an out-of-vocabulary token.
        """
        return self.encode_pieces(lines, [True] * len(lines))

    def encode_pieces(self, pieces: Sequence[str], closed: Sequence[bool]) -> EncodedLines:
        """Return the token ids of lines and of pieces of very long lines; runs on all cores.

        Args:
            pieces: texts without newlines.
            closed: whether each piece ends its line and gets an ``<eos>``.
        """
        found = self._looked_up(pieces, closed)
        if found is None:
            encodings = self._marking_backend().encode_batch_fast(pieces, add_special_tokens=False)
            rows = [encoding.ids for encoding in encodings]
            for row, ends_line in zip(rows, closed, strict=True):
                if ends_line:
                    row.append(self.eos_id)
            lengths = np.fromiter(map(len, rows), np.int64, len(rows))
            found = np.fromiter(chain.from_iterable(rows), np.uint32, int(lengths.sum())), lengths
        ids, lengths = found
        unknown = ids == self.vocab_size
        oov = int(np.count_nonzero(unknown))
        if oov:
            ids[unknown] = self.unk_id
        return EncodedLines(ids, lengths, oov)

    def _looked_up(
        self, pieces: Sequence[str], closed: Sequence[bool]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]] | None:
        """Return the ids of words between white space, V for those outside the vocabulary, and the number of each text.

        Returns None where only the library finds the tokens. For whole words a dictionary is several times as fast,
        and all texts together take half the time of one after the other.
        """
        text = f" {_END} ".join([*pieces, ""]) if self._is_dictionary else ""
        if not self.splits_at_blanks(text) or text.count(_END) != len(pieces):
            return None
        words = text.split()
        ids = np.fromiter(map(self._ids_by_word.__getitem__, words), np.uint32, len(words))
        ends = np.flatnonzero(ids == self.vocab_size + 1)
        lengths = np.diff(ends, prepend=-1)
        ids[ends] = self.eos_id
        is_open = ~np.asarray(closed, bool)
        return np.delete(ids, ends[is_open]) if is_open.any() else ids, lengths - is_open

    def splits_at_blanks(self, text: str) -> bool:
        """Return whether the tokens of a text are the words of `text.split()`."""
        return self._is_dictionary and not any(sign in text for sign in SEPARATORS)

    @cached_property
    def _is_dictionary(self) -> bool:
        special = self._backend.get_added_tokens_decoder()
        return not (self.transformed or special) and self.word_boundaries == "white space"

    @cached_property
    def _ids_by_word(self) -> "_WordIds":
        known = _WordIds(zip(self.tokens, range(self.vocab_size), strict=True))
        known.missing, known[_END] = self.vocab_size, self.vocab_size + 1
        return known

    def offsets(self, line: str) -> list[tuple[int, int]]:
        """Return the position of each token in a line.

        Args:
            line: text without a newline.

        Returns:
            The first character of each token and one past its last; a subword token may include the blank before it.
        """
        spans: list[tuple[int, int]] = self._backend.encode(line, add_special_tokens=False).offsets
        return spans

    def decode(self, ids: Sequence[int], *, detokenize: bool = True) -> str:
        """Return readable text of token ids.

        Args:
            ids: token ids; ``<eos>`` becomes a newline.
            detokenize: whether to omit the blanks around punctuation between word tokens; False puts a blank between
                any two words. Byte-level tokens always return the original text.
        """
        lines: list[list[int]] = [[]]
        for token_id in ids:
            if token_id == self.eos_id:
                lines.append([])
            else:
                lines[-1].append(int(token_id))
        if self.joins_words and detokenize:
            return "\n".join(write_words(self.word_texts, self.spacing, line) for line in lines)
        return "\n".join(self._backend.decode_batch(lines, skip_special_tokens=False))

    @property
    def word_boundaries(self) -> str | None:
        """Boundaries of a word tokenizer, `white space` or `white space and punctuation`; None for other tokenizers."""
        if not self.joins_words:
            return None
        whole = isinstance(self._backend.pre_tokenizer, pre_tokenizers.WhitespaceSplit)
        return "white space" if whole else "white space and punctuation"

    @cached_property
    def word_texts(self) -> list[str]:
        """Written form of each word token."""
        return [word_text(token) for token in self.tokens]

    @cached_property
    def spacing(self) -> list[int]:
        """Spacing code of each word token, for `detokenization.place_word`."""
        return [spacing_code(token) for token in self.tokens]

    @cached_property
    def pieces(self) -> list[bytes]:
        """UTF-8 bytes that each token adds to a text; word tokens include the blank before them."""
        if not self.is_byte_level:
            blank = " " if self.joins_words else ""
            return [f"{blank}{token}".encode("utf-8", "replace") for token in self.tokens]
        return [
            bytes(BYTE_OF_SIGN[sign] for sign in token) if BYTE_OF_SIGN.keys() >= set(token) else token.encode()
            for token in self.tokens
        ]

    def surface(self, token: int) -> str:
        """Return a token as a reader sees it: its text, or its name for ``<eos>`` and ``<unk>``."""
        if self.joins_words or token in (self.eos_id, self.unk_id):
            return self.tokens[token]
        return self.decode([token])

    def shown_prompt(self, prompt: str) -> str:
        """Return the displayed form of a prompt: without final blanks if word tokens add their own."""
        return prompt.rstrip(" ") if self.joins_words else prompt

    def to_json(self) -> str:
        """Return the tokenizer in the format of the `tokenizers` library."""
        if self._json is None:
            self._json = str(self._backend.to_str())
        return self._json

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Return a tokenizer from the result of `to_json`.

        Raises:
            DataError: the text does not describe a tokenizer.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except BaseException as error:  # The library raises plain Exception, and its panics are not an Exception.
            if not isinstance(error, Exception) and type(error).__name__ != PANIC:
                raise
            raise DataError(
                f"tokenizer: not a tokenizer file ({_first_line(error)}); train the tokenizer anew"
            ) from error
        return cls(backend)

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`, whole or not at all."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read what `save` wrote.

        Raises:
            DataError: the file does not exist or does not describe a tokenizer.
        """
        try:
            if (size := Path(path).stat().st_size) > SIZE_LIMIT:
                raise DataError(f"{path}: has {size:,} bytes, more than a tokenizer.json may have ({SIZE_LIMIT:,})")
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}: cannot be read ({_first_line(error)}); give the path of a tokenizer.json"
            ) from error
        return cls.from_json(text)

    def _marking_backend(self) -> tokenizers.Tokenizer:
        """Return the same tokenizer with id V for out-of-vocabulary words, distinct from a literal ``<unk>``."""
        if self.is_byte_level:
            return self._backend
        if self._marking is None:
            description: dict[str, Any] = json.loads(self.to_json())
            description["model"]["vocab"][_OUT_OF_VOCABULARY] = self.vocab_size
            description["model"]["unk_token"] = _OUT_OF_VOCABULARY
            self._marking = tokenizers.Tokenizer.from_str(json.dumps(description))
        return self._marking


class _WordIds(dict[str, int]):
    """Ids of words; `missing` for any other word."""

    missing: int

    def __missing__(self, word: str) -> int:
        return self.missing


def _kind(backend: tokenizers.Tokenizer, vocab_size: int) -> str:
    if isinstance(backend.model, models.WordLevel):
        return "word"
    if isinstance(backend.model, models.Unigram):
        return "unigram"
    if isinstance(backend.decoder, decoders.Fuse):
        return "char"
    return "byte" if vocab_size == BYTES + 2 else "bpe"


def _in_order(vocabulary: Mapping[str, int]) -> list[str]:
    """Return the tokens ordered by id; raise a DataError if an id is missing."""
    tokens: list[str | None] = [None] * len(vocabulary)
    for token, index in vocabulary.items():
        if index < len(tokens):
            tokens[index] = token
    ordered = [token for token in tokens if token is not None]
    if len(ordered) < len(tokens):
        raise DataError("tokenizer: the ids of the vocabulary have gaps; train the tokenizer anew")
    return ordered


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
