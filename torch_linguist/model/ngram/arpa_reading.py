"""ARPA files, the text form that n-gram toolkits exchange, plain or gzipped.

Shape legend: M[k] n-grams of order k, C of them in a chunk.
"""

import csv
import gzip
import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from torch_linguist.errors import ConfigError, DataError
from torch_linguist.model.ngram.counts import IntArray, word_bits
from torch_linguist.model.ngram.model import MAX_ORDER, NGramModel
from torch_linguist.model.ngram.smoothing import BackoffLevel, BackoffModel, FloatArray, spell_out
from torch_linguist.runs.files import whole_file

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
# What ARPA files write for a word that is never predicted.
_NEVER = -99.0
_LN10 = math.log(10)
_SEPARATORS = re.compile(r"[\s\0]")
_CHUNK = 1 << 18


def write_arpa(model: NGramModel, tokens: Sequence[str], path: Path) -> None:
    """Writes a model as an ARPA file.

    KenLM wants ``<s>``, ``</s>`` and ``<unk>`` among the words: those that the vocabulary lacks are added with a
    log-probability of -99. The stream has no sentences, so score it there with ``bos=False, eos=False``.

    Args:
        model: any but stupid backoff, whose scores the format cannot hold.
        tokens: the word of each id.
        path: ends in ``.gz`` for a compressed file.

    Raises:
        ConfigError: the model is stupid backoff, or the words do not fit it.
        DataError: a word is empty, holds white space or occurs twice.
    """
    if model.unseen_backoff != 0.0:
        raise ConfigError("smoothing=stupid_backoff cannot be written as ARPA: its scores are not probabilities")
    if len(tokens) != model.vocab_size:
        raise ConfigError(f"{len(tokens)} words do not fit a model of {model.vocab_size}")
    _check_words(tokens)
    estimated = model.backoff_model()
    added = [word for word in (UNKNOWN, BEGIN, END) if word not in set(tokens)]
    sizes = estimated.sizes()
    sizes[0] += len(added)
    words = np.array(tokens, dtype=object)
    with _replacing(path) as file:
        header = [f"ngram {k}={size}\n" for k, size in enumerate(sizes, start=1)]
        file.write(f"\\data\\\n{''.join(header)}\n\\1-grams:\n".encode())
        for word in added:
            file.write(f"{_NEVER:.0f}\t{word}{'' if len(sizes) == 1 else f'{chr(9)}0'}\n".encode())
        backoffs = [*(level.log_backoff for level in estimated.levels), None]
        ngrams: IntArray = np.arange(len(tokens))[:, None]
        _write_section(file, words, ngrams, estimated.unigrams, backoffs[0])
        for k, level in enumerate(estimated.levels, start=2):
            file.write(f"\n\\{k}-grams:\n".encode())
            ngrams = spell_out(ngrams, level.keys, estimated.word_bits)
            _write_section(file, words, ngrams, level.log_prob, backoffs[k - 1])
        file.write(b"\n\\end\\\n")


def read_arpa(path: Path, tokens: Sequence[str] | None = None) -> tuple[NGramModel, list[str]]:
    """Reads an ARPA file, of ours, KenLM's or another toolkit's.

    Args:
        path: ends in ``.gz`` if it is compressed.
        tokens: the vocabulary to read it into, as a tokenizer has it: n-grams with other words (``<s>`` and ``</s>``
            among them) are left out, and a word that the file lacks gets its ``<unk>``. By default the file's own
            words in their order; ``<s>`` is never predicted.

    Returns:
        The model, and the word of each id.

    Raises:
        DataError: the file is cut off, its header does not fit what follows, or a line is malformed.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            reader = _Reader(path, file)
            sizes = reader.header()
            log_prob, log_backoff, words = reader.unigrams(sizes[0], highest=len(sizes) == 1)
            file_words = {word: index for index, word in enumerate(words)}
            if len(file_words) < len(words):
                raise DataError(f"{path}: a word occurs twice among the 1-grams")
            sections = [
                reader.section(k, size, words, highest=k == len(sizes)) for k, size in enumerate(sizes[1:], start=2)
            ]
            reader.end()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such ARPA file") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed file is cut off or damaged; write it again") from error
    if BEGIN in file_words:
        log_prob[file_words[BEGIN]] = _NEVER
    vocabulary = list(tokens) if tokens is not None else words
    own = _renumbering(path, words, vocabulary)
    unknown = log_prob[file_words[UNKNOWN]] if UNKNOWN in file_words else _NEVER
    unigrams, backoff = np.full(len(vocabulary), unknown), np.zeros(len(vocabulary))
    known = own >= 0
    unigrams[own[known]], backoff[own[known]] = log_prob[known], log_backoff[known]
    model = NGramModel(len(vocabulary), len(sizes))
    levels = _link(path, sections, own, len(vocabulary), backoff)
    model.assign(BackoffModel(len(vocabulary), word_bits(len(vocabulary)), unigrams * _LN10, levels))
    return model, vocabulary


def _check_words(tokens: Sequence[str]) -> None:
    for index, word in enumerate(tokens):
        if not word or _SEPARATORS.search(word):
            raise DataError(f"token {index} ({word!r}) is empty or holds white space, which ARPA files cannot: no file")
    if len(set(tokens)) < len(tokens):
        raise DataError("a word occurs twice in the vocabulary, which an ARPA file cannot hold")


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, compressed if its name ends in `.gz`, that replaces `path` at the end of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0, filename="") as packed:
                yield packed  # type: ignore[misc]
        else:
            yield raw


def _write_section(
    file: IO[bytes], words: npt.NDArray[Any], ngrams: IntArray, log_prob: FloatArray, log_backoff: FloatArray | None
) -> None:
    for begin in range(0, len(ngrams), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        spelled = map(" ".join, words[ngrams[part]].tolist())
        # Rounding must not lift a certain word above probability one.
        shown = np.minimum(log_prob[part] / _LN10, 0.0).tolist()
        if log_backoff is None:
            lines = [f"{score:.9g}\t{ngram}\n" for score, ngram in zip(shown, spelled, strict=True)]
        else:
            weights = (log_backoff[part] / _LN10).tolist()
            rows = zip(shown, spelled, weights, strict=True)
            lines = [f"{score:.9g}\t{ngram}\t{weight:.9g}\n" for score, ngram, weight in rows]
        file.write("".join(lines).encode())


class _Reader:
    """Goes through an ARPA file from the top, and knows the line it is at."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.lines, self.line_number = path, iter(file), 0

    def fail(self, problem: str) -> DataError:
        return DataError(f"{self.path}, line {self.line_number}: {problem}")

    def next_line(self, expected: str) -> str:
        """The next line that is not blank."""
        for line in self.lines:
            self.line_number += 1
            text = line.decode("utf-8", errors="replace").strip()
            if text:
                return str(text)
        raise self.fail(f"the file ends where {expected} should be; it was cut off, write it again")

    def header(self) -> list[int]:
        """The number of n-grams of each order; leaves off after the title of the 1-grams."""
        while (line := self.next_line("\\data\\")) != "\\data\\":
            # Other toolkits put remarks before the header; a file of another kind never gets to one.
            if self.line_number > 1000:
                raise self.fail("no \\data\\ in the first 1,000 lines; this is no ARPA file")
        sizes: list[int] = []
        while match := re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", line := self.next_line("an n-gram count")):
            if int(match[1]) != len(sizes) + 1:
                raise self.fail(f"the count of order {len(sizes) + 1} should be here, not {line!r}")
            sizes.append(int(match[2]))
        if line != "\\1-grams:" or not sizes:
            raise self.fail(f"\\1-grams: should be here, not {line[:60]!r}")
        if len(sizes) > MAX_ORDER:
            raise self.fail(f"order {len(sizes)} is above {MAX_ORDER}, the highest that can be read")
        if sizes[0] == 0:
            raise self.fail("the header counts no 1-grams")
        return sizes

    def unigrams(self, size: int, *, highest: bool) -> tuple[FloatArray, FloatArray, list[str]]:
        """Log10-probabilities, log10 backoffs and words of the 1-grams."""
        frames = list(self._chunks(1, size, None, highest=highest))
        words = [str(word) for _, words, _ in frames for word in words[:, 0]]
        return np.concatenate([p for p, _, _ in frames]), np.concatenate([b for _, _, b in frames]), words

    def section(self, k: int, size: int, words: list[str], *, highest: bool) -> tuple[FloatArray, IntArray, FloatArray]:
        """Log10-probabilities, ids of the words [M[k], k] and log10 backoffs of one order."""
        line = self.next_line(f"\\{k}-grams:")
        if line != f"\\{k}-grams:":
            raise self.fail(
                f"\\{k}-grams: should be here, not {line[:60]!r}; the header counts less {k - 1}-grams than there are"
            )
        probabilities, ids, backoffs = [np.empty(0)], [np.empty((0, k), dtype=np.int64)], [np.empty(0)]
        for log_prob, numbers, log_backoff in self._chunks(k, size, words, highest=highest):
            probabilities.append(log_prob)
            ids.append(numbers)
            backoffs.append(log_backoff)
        return np.concatenate(probabilities), np.concatenate(ids), np.concatenate(backoffs)

    def end(self) -> None:
        """Checks that the file is whole."""
        line = self.next_line("\\end\\")
        if line != "\\end\\":
            raise self.fail(
                f"\\end\\ should be here, not {line[:60]!r}; the header counts less n-grams of the highest order"
            )

    def _chunks(
        self, k: int, size: int, words: list[str] | None, *, highest: bool
    ) -> Iterator[tuple[FloatArray, npt.NDArray[Any], FloatArray]]:
        """The next `size` lines in chunks: log10-probabilities [C], words or their ids [C, k], log10 backoffs [C]."""
        import pandas as pd  # slow to import, and only files need it

        names = ["log_prob", *(f"word{place}" for place in range(k)), *([] if highest else ["log_backoff"])]
        # With the categories said beforehand, "nan" and "1e5" stay words, and the codes are the ids.
        kind = "str" if words is None else pd.CategoricalDtype(words)
        types: dict[str, Any] = dict.fromkeys(names[1 : k + 1], kind)
        for begin in range(0, size, _CHUNK):
            lines = list(itertools.islice(self.lines, min(_CHUNK, size - begin)))
            if len(lines) < min(_CHUNK, size - begin):
                self._diagnose(lines, k, size, begin, words, highest=highest)
            try:
                with warnings.catch_warnings():
                    # An unknown word becomes a missing value, with a warning now and an error in a later pandas.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    frame = pd.read_csv(
                        io.BytesIO(b"".join(lines)),
                        sep=r"\s+",
                        header=None,
                        names=names,
                        dtype={"log_prob": "float64", **types},
                        index_col=False,
                        quoting=csv.QUOTE_NONE,
                        keep_default_na=False,
                        na_values={"log_backoff": [""]},
                        skip_blank_lines=False,
                        encoding="utf-8",
                    )
                log_prob = frame["log_prob"].to_numpy(dtype=np.float64)
                log_backoff = np.zeros(len(frame)) if highest else frame["log_backoff"].fillna(0.0).to_numpy(np.float64)
            except ValueError:
                self._diagnose(lines, k, size, begin, words, highest=highest)
                raise
            columns = [frame[name] for name in names[1 : k + 1]]
            whole = np.isfinite(log_prob).all() and np.isfinite(log_backoff).all() and (log_prob <= 0).all()
            if not whole or len(frame) != len(lines) or any(column.isna().any() for column in columns):
                self._diagnose(lines, k, size, begin, words, highest=highest)
            cells = [column.to_numpy() if words is None else column.cat.codes.to_numpy() for column in columns]
            self.line_number += len(lines)
            yield log_prob, np.stack(cells, axis=1), log_backoff

    def _diagnose(
        self, lines: list[bytes], k: int, size: int, found: int, words: list[str] | None, *, highest: bool
    ) -> None:
        """Raises the error of the first line that is no n-gram, or of the section that ends early."""
        known = set(words or ())
        for line in lines:
            self.line_number += 1
            fields = line.split()
            if not fields or (len(fields) == 1 and fields[0].startswith(b"\\")):
                raise self.fail(f"the header counts {size:,} {k}-grams, the file has {found:,}")
            if len(fields) not in ((k + 1,) if highest else (k + 1, k + 2)):
                raise self.fail(f"a {k}-gram has a log-probability, {k} words and at most one backoff, not {line!r}")
            try:
                spelled = line.decode("utf-8").split()[1 : k + 1]
                score, weight = float(fields[0]), float(fields[k + 1]) if len(fields) > k + 1 else 0.0
            except ValueError as error:
                raise self.fail(f"{line!r} is malformed: {error}") from error
            if not (score <= 0 and math.isfinite(score) and math.isfinite(weight)):
                raise self.fail(f"log-probability {score} and backoff {weight} must be finite, the first not above 0")
            if words is not None and (strange := [word for word in spelled if word not in known]):
                raise self.fail(f"the word {strange[0]!r} is not among the 1-grams")
            found += 1
        raise self.fail(f"the file ends after {found:,} of {size:,} {k}-grams; it was cut off, write it again")


def _renumbering(path: Path, words: list[str], vocabulary: list[str]) -> IntArray:
    """The id of each of the file's words in the vocabulary, -1 for those it lacks."""
    if vocabulary is words:
        return np.arange(len(words))
    wanted = {word: index for index, word in enumerate(vocabulary)}
    own = np.array([wanted.get(word, -1) for word in words], dtype=np.int64)
    lacking = set(vocabulary) - set(words)
    if lacking and UNKNOWN not in words:
        some = ", ".join(sorted(lacking)[:3])
        raise DataError(f"{path} lacks {len(lacking)} words of the vocabulary ({some}, ...) and has no {UNKNOWN}")
    return own


def _link(
    path: Path,
    sections: list[tuple[FloatArray, IntArray, FloatArray]],
    own: IntArray,
    vocab_size: int,
    log_backoff: FloatArray,
) -> tuple[BackoffLevel, ...]:
    """Sorts the n-grams into levels, each under its context.

    Args:
        path: named in errors.
        sections: log10-probabilities, the file's word ids and log10 backoffs, order 2 first.
        own: id of each of the file's words, -1 for those to leave out.
        vocab_size: V.
        log_backoff: log10 backoff of each word [V].
    """
    bits, levels = word_bits(vocab_size), []
    lower: list[IntArray] = []
    for k, (log_prob, file_ids, next_backoff) in enumerate(sections, start=2):
        ids = own[file_ids]
        kept = (ids >= 0).all(axis=1)
        ids = ids[kept]
        prefix = ids[:, 0]
        for place, keys in enumerate(lower, start=1):
            query = (prefix << bits) | ids[:, place]
            prefix = np.searchsorted(keys, query)
            if len(query) and (len(keys) == 0 or (keys[np.minimum(prefix, len(keys) - 1)] != query).any()):
                raise DataError(f"{path}: a {k}-gram's first {k - 1} words are not among the {k - 1}-grams")
        keys = (prefix << bits) | ids[:, k - 1]
        rank = np.argsort(keys)
        keys = keys[rank]
        if (keys[1:] == keys[:-1]).any():
            raise DataError(f"{path}: a {k}-gram occurs twice")
        levels.append(BackoffLevel(keys, log_prob[kept][rank] * _LN10, log_backoff * _LN10))
        log_backoff = next_backoff[kept][rank]
        lower.append(keys)
    return tuple(levels)
