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
"""Size in bytes of the largest `tokenizer.json` that is read; a million words take about 30 million."""

PANIC = "PanicException"
"""Name of the exception that the library's Rust code raises on unforeseen input."""

# No word can have this name: text is cut at newlines before it is encoded.
_OUT_OF_VOCABULARY = "\n"


class EncodedLines(NamedTuple):
    """Token ids of several lines.

    Attributes:
        ids: ids of all lines, uint32 [N].
        lengths: tokens of each line, int64 [lines]; the ``<eos>`` that closes a line counts.
        oov: number of tokens that stand for a word outside the vocabulary.
    """

    ids: NDArray[np.uint32]
    lengths: NDArray[np.int64]
    oov: int


class Tokenizer:
    """Converts text to token ids and back.

    Attributes:
        vocab_size: number of token types V, ``<eos>`` and ``<unk>`` included.
        eos_id: id of ``<eos>``, which closes a line.
        unk_id: id of ``<unk>``, which stands for a word outside the vocabulary.
        tokens: the tokens in the order of their ids.
        kind: `word`, `bpe`, `unigram`, `char` or `byte`, for display; ask the properties for what a kind can do.
        joins_words: whether each token is a whole word, with blanks between words that are no part of any token.
        is_byte_level: whether tokens are sequences of bytes, so that any text comes back exactly and none is unknown.
        transformed: whether the text is changed before it is cut into tokens.

    Example:
        >>> ids = corpus.tokenizer.encode("the dog sat")
        >>> corpus.tokenizer.decode(ids)
        'the dog sat'
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Wrap a tokenizer of the library whose vocabulary holds ``<eos>`` and ``<unk>``.

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
        """Return the token ids of a text. Each newline becomes ``<eos>``; none is added at the end."""
        encodings = self._backend.encode_batch_fast(text.split("\n"), add_special_tokens=False)
        ids: list[int] = []
        for position, encoding in enumerate(encodings):
            if position:
                ids.append(self.eos_id)
            ids.extend(encoding.ids)
        return ids

    def encode_lines(self, lines: Sequence[str]) -> EncodedLines:
        """Return the token ids of lines without newlines, each closed by ``<eos>``; runs on all cores.

        A literal ``<unk>`` in the text is a word like any other, not an out-of-vocabulary token.
        """
        return self.encode_pieces(lines, [True] * len(lines))

    def encode_pieces(self, pieces: Sequence[str], closed: Sequence[bool]) -> EncodedLines:
        """Return the token ids of lines and of pieces of very long lines; runs on all cores.

        Args:
            pieces: texts without newlines.
            closed: whether each piece ends its line and gets an ``<eos>``.
        """
        encodings = self._marking_backend().encode_batch_fast(pieces, add_special_tokens=False)
        rows: list[list[int]] = [encoding.ids for encoding in encodings]
        for row, ends_line in zip(rows, closed, strict=True):
            if ends_line:
                row.append(self.eos_id)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.fromiter(chain.from_iterable(rows), np.uint32, int(lengths.sum()))
        unknown = ids == self.vocab_size
        oov = int(np.count_nonzero(unknown))
        if oov:
            ids[unknown] = self.unk_id
        return EncodedLines(ids, lengths, oov)

    def offsets(self, line: str) -> list[tuple[int, int]]:
        """Return where each token of a line stands in it.

        Args:
            line: text without a newline.

        Returns:
            For each token its first character and one past its last; a subword token may include the blank before it.
        """
        spans: list[tuple[int, int]] = self._backend.encode(line, add_special_tokens=False).offsets
        return spans

    def decode(self, ids: Sequence[int], *, detokenize: bool = True) -> str:
        """Return readable text of token ids.

        Args:
            ids: token ids; ``<eos>`` becomes a newline.
            detokenize: for word tokens, omit the blanks before punctuation and the like; False puts a blank between
                any two words. Byte-level tokens always give back the original text.
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
        """Return where a tokenizer of words cuts: `white space`, or `white space and punctuation`; else None."""
        if not self.joins_words:
            return None
        whole = isinstance(self._backend.pre_tokenizer, pre_tokenizers.WhitespaceSplit)
        return "white space" if whole else "white space and punctuation"

    @cached_property
    def word_texts(self) -> list[str]:
        """What is written for each word token."""
        return [word_text(token) for token in self.tokens]

    @cached_property
    def spacing(self) -> list[int]:
        """How each word token joins its neighbors: codes for `detokenization.place_word`."""
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
        """Return a prompt as it is shown before its continuation: word tokens bring the blank after it themselves."""
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
            DataError: the text is no tokenizer.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except BaseException as error:  # The library raises nothing more exact, and its panics are no Exception.
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
            DataError: there is no such file, or it is no tokenizer.
        """
        try:
            if (size := Path(path).stat().st_size) > SIZE_LIMIT:
                raise DataError(f"{path}: has {size:,} bytes, more than any tokenizer.json that is of use; not read")
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}: cannot be read ({_first_line(error)}); give the path of a tokenizer.json"
            ) from error
        return cls.from_json(text)

    def _marking_backend(self) -> tokenizers.Tokenizer:
        """The same tokenizer with id V for out-of-vocabulary words, which tells them from a literal ``<unk>``."""
        if self.is_byte_level:
            return self._backend
        if self._marking is None:
            description: dict[str, Any] = json.loads(self.to_json())
            description["model"]["vocab"][_OUT_OF_VOCABULARY] = self.vocab_size
            description["model"]["unk_token"] = _OUT_OF_VOCABULARY
            self._marking = tokenizers.Tokenizer.from_str(json.dumps(description))
        return self._marking


def _kind(backend: tokenizers.Tokenizer, vocab_size: int) -> str:
    if isinstance(backend.model, models.WordLevel):
        return "word"
    if isinstance(backend.model, models.Unigram):
        return "unigram"
    if isinstance(backend.decoder, decoders.Fuse):
        return "char"
    return "byte" if vocab_size == BYTES + 2 else "bpe"


def _in_order(vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens by their ids; a DataError if an id is missing."""
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
