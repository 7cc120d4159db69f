"""Reading ARPA files, the text format of n-gram toolkits, plain or gzipped.

Shape legend: M[k] n-grams of order k, C of them in a chunk.
"""

import csv
import gzip
import io
import itertools
import math
import re
import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torch_linguist.errors import DataError
from torch_linguist.model.ngram.arpa_writing import BEGIN, END, NEVER, UNKNOWN
from torch_linguist.model.ngram.columns import Column, Store, slices
from torch_linguist.model.ngram.counts import IntArray, word_bits
from torch_linguist.model.ngram.estimation import BackoffLevel, BackoffModel
from torch_linguist.model.ngram.model import MAX_ORDER, NGramModel
from torch_linguist.model.ngram.smoothing import FloatArray
from torch_linguist.model.ngram.sorting import KeySearch, sort_columns
from torch_linguist.model.ngram.workspace import workspace

_LN10 = math.log(10)
_CHUNK = 1 << 17
_GZIP = b"\x1f\x8b"
# How this package marks the end of a line.
_EOS = "<eos>"

Section = Iterator[tuple[FloatArray, IntArray, FloatArray]]


def read_arpa(
    path: Path,
    tokens: Sequence[str] | None = None,
    *,
    memory_limit_mib: int | None = None,
    quantize_bits: int | None = None,
) -> tuple[NGramModel, list[str]]:
    """Read an ARPA file of this package, KenLM or another toolkit, plain or gzipped.

    Files of this package have a word ``<eos>`` that ends a line and starts the next one. In other files ``<s>`` and
    ``</s>`` have this role, and both become ``<eos>``: lines read as one stream have the probabilities that KenLM
    assigns to them as sentences, because nothing continues a ``</s>``.

    Args:
        path: path of the file.
        tokens: words of the new model, as in a tokenizer. N-grams with other words are left out, and a word that the
            file lacks has the probability of ``<unk>``. None takes ``<eos>``, ``<unk>`` and the words of the file.
        memory_limit_mib: working memory in MiB; the n-grams are sorted in temporary files. None works in memory.
        quantize_bits: see `NGramModel`.

    Returns:
        The model, and the word of each id.

    Raises:
        DataError: the file is truncated, its header does not match what follows, or a line is malformed.

    Example:
        >>> write_arpa(model, corpus.tokenizer.tokens, Path("model.arpa"))
        >>> read, tokens = read_arpa(Path("model.arpa"), corpus.tokenizer.tokens)
        >>> abs(score(read, corpus.test).loss - score(model, corpus.test).loss) < 1e-4
        True
    """
    store: AbstractContextManager[Store] = nullcontext(Store())
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(_GZIP)) == _GZIP
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            if memory_limit_mib is not None:
                space = 4 * path.stat().st_size * (5 if packed else 1)
                store = workspace(secrets.token_hex(12), memory_limit_mib, space)
            with store as columns:
                return _read(_Reader(path, file), tokens, columns, memory_limit_mib, quantize_bits)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such ARPA file") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed file is truncated or damaged; write it again") from error


def _read(
    reader: "_Reader", tokens: Sequence[str] | None, store: Store, limit: int | None, quantize_bits: int | None
) -> tuple[NGramModel, list[str]]:
    path, sizes = reader.path, reader.header()
    log_prob, log_backoff, words = reader.unigrams(sizes[0], highest=len(sizes) == 1)
    file_words = {word: index for index, word in enumerate(words)}
    if len(file_words) < len(words):
        raise DataError(f"{path}: a word occurs twice among the 1-grams")
    vocabulary = list(tokens) if tokens is not None else _vocabulary(words)
    own = _renumbering(path, words, vocabulary)
    unknown = log_prob[file_words[UNKNOWN]] if UNKNOWN in file_words else NEVER
    unigrams, backoff = np.full(len(vocabulary), unknown), np.zeros(len(vocabulary))
    if BEGIN in file_words:
        begin, end = file_words[BEGIN], file_words.get(END, -1)
        log_prob[begin] = NEVER
        if own[begin] == own[end]:  # One word: </s> has its probability, <s> its backoff weight.
            log_prob[begin], log_backoff[end] = log_prob[end], log_backoff[begin]
    known = own >= 0
    unigrams[own[known]], backoff[own[known]] = log_prob[known], log_backoff[known]
    levels, last = _Levels(path, own, len(vocabulary), backoff * _LN10, store), len(sizes)
    for k, size in enumerate(sizes[1:], start=2):
        levels.add(k, reader.section(k, size, words, highest=k == last))
    reader.end()
    model = NGramModel(len(vocabulary), last, memory_limit_mib=limit, quantize_bits=quantize_bits)
    model.assign(BackoffModel(len(vocabulary), levels.bits, unigrams * _LN10, tuple(levels.levels)), store)
    return model, vocabulary


class _Reader:
    """Sequential reader of an ARPA file; errors name the line."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.lines, self.line_number = path, iter(file), 0

    def fail(self, problem: str) -> DataError:
        return DataError(f"{self.path}, line {self.line_number}: {problem}")

    def next_line(self, expected: str) -> str:
        """Return the next line that is not blank."""
        for line in self.lines:
            self.line_number += 1
            text = line.decode("utf-8", errors="replace").strip()
            if text:
                return str(text)
        raise self.fail(f"the file ends where {expected} is expected; it is truncated, write it again")

    def header(self) -> list[int]:
        """Read the file up to the title of the 1-grams; return the number of n-grams of each order."""
        while (line := self.next_line("\\data\\")) != "\\data\\":
            # Other toolkits write comments before the header.
            if self.line_number > 1000:
                raise self.fail("no \\data\\ in the first 1,000 lines; this is not an ARPA file")
        sizes: list[int] = []
        while match := re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", line := self.next_line("an n-gram count")):
            if int(match[1]) != len(sizes) + 1:
                raise self.fail(f"the count of order {len(sizes) + 1} is expected here, not {line!r}")
            sizes.append(int(match[2]))
        if line != "\\1-grams:" or not sizes:
            raise self.fail(f"\\1-grams: is expected here, not {line[:60]!r}")
        if len(sizes) > MAX_ORDER:
            raise self.fail(f"order {len(sizes)} is above {MAX_ORDER}, the highest that can be read")
        if sizes[0] == 0:
            raise self.fail("the header counts no 1-grams")
        return sizes

    def unigrams(self, size: int, *, highest: bool) -> tuple[FloatArray, FloatArray, list[str]]:
        """Return log10-probabilities, log10 backoff weights and words of the 1-grams."""
        frames = list(self._chunks(1, size, None, highest=highest))
        words = [str(word) for _, words, _ in frames for word in words[:, 0]]
        return np.concatenate([p for p, _, _ in frames]), np.concatenate([b for _, _, b in frames]), words

    def section(self, k: int, size: int, words: list[str], *, highest: bool) -> Section:
        """Yield log10-probabilities, ids of the words [C, k] and log10 backoff weights of one order."""
        line = self.next_line(f"\\{k}-grams:")
        if line != f"\\{k}-grams:":
            raise self.fail(
                f"\\{k}-grams: is expected here, not {line[:60]!r}; the header counts fewer {k - 1}-grams than follow"
            )
        yield from self._chunks(k, size, words, highest=highest)

    def end(self) -> None:
        """Check that the file is complete."""
        line = self.next_line("\\end\\")
        if line != "\\end\\":
            raise self.fail(
                f"\\end\\ is expected here, not {line[:60]!r}; the header counts fewer n-grams of the highest order"
            )

    def _chunks(
        self, k: int, size: int, words: list[str] | None, *, highest: bool
    ) -> Iterator[tuple[FloatArray, npt.NDArray[Any], FloatArray]]:
        """Yield the next lines: log10-probabilities [C], words or their ids [C, k], log10 backoff weights [C]."""
        import pandas as pd  # slow to import, and needed for files only

        names = ["log_prob", *(f"word{place}" for place in range(k)), *([] if highest else ["log_backoff"])]
        # With the categories given, "nan" and "1e5" stay words, and the codes are the ids.
        kind = "str" if words is None else pd.CategoricalDtype(words)
        types: dict[str, Any] = dict.fromkeys(names[1 : k + 1], kind)
        for begin in range(0, size, _CHUNK):
            lines = list(itertools.islice(self.lines, min(_CHUNK, size - begin)))
            if len(lines) < min(_CHUNK, size - begin):
                self._diagnose(lines, k, size, begin, words, highest=highest)
            try:
                with warnings.catch_warnings():
                    # An unknown word becomes a missing value, with a warning (an error in later pandas).
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
        """Raise a DataError for the first line that is not an n-gram, or for a section that ends early."""
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
        raise self.fail(f"the file ends after {found:,} of {size:,} {k}-grams; it is truncated, write it again")


def _vocabulary(words: list[str]) -> list[str]:
    """Return the words of a file as a tokenizer has them: without <s> and </s>, with <eos> and <unk>."""
    kept = [word for word in words if word not in (BEGIN, END)]
    return [word for word in (_EOS, UNKNOWN) if word not in set(kept)] + kept


def _renumbering(path: Path, words: list[str], vocabulary: list[str]) -> IntArray:
    """Return the id of each word of the file, -1 for those that the vocabulary lacks."""
    wanted = {word: index for index, word in enumerate(vocabulary)}
    known = set(words)
    if _EOS in wanted and _EOS not in known:
        wanted = {BEGIN: wanted[_EOS], END: wanted[_EOS]} | wanted
        known.add(_EOS)
    own = np.array([wanted.get(word, -1) for word in words], dtype=np.int64)
    lacking = set(vocabulary) - known - {UNKNOWN}
    if lacking and UNKNOWN not in known:
        some = ", ".join(sorted(lacking)[:3])
        raise DataError(f"{path} lacks {len(lacking)} words of the vocabulary ({some}, ...) and has no {UNKNOWN}")
    return own


class _Levels:
    """N-grams of a file as sorted levels.

    Args:
        path: path of the file, for error messages.
        own: id of each word of the file, -1 for words outside the vocabulary.
        vocab_size: V.
        log_backoff: log backoff weight of each word [V].
        store: store for the columns.
    """

    def __init__(self, path: Path, own: IntArray, vocab_size: int, log_backoff: FloatArray, store: Store) -> None:
        self.path, self.own, self.store, self.bits = path, own, store, word_bits(vocab_size)
        self.levels: list[BackoffLevel] = []
        self._log_backoff: Column = log_backoff
        self._searches: list[KeySearch] = []

    def add(self, k: int, section: Section) -> None:
        """Add the n-grams of the next order, k.

        Raises:
            DataError: the first words of an n-gram are missing, or it occurs twice.
        """
        sinks = [self.store.sink(f"read-{place}-{k}", dtype) for place, dtype in enumerate(("i8", "f8", "f8"))]
        end, ascends = -1, True
        for log_prob, file_ids, log_backoff in section:
            ids = self.own[file_ids]
            kept = (ids >= 0).all(axis=1)
            keys = self._keys(k, ids[kept])
            ascends = ascends and (not len(keys) or (int(keys[0]) > end and bool((keys[1:] > keys[:-1]).all())))
            end = int(keys[-1]) if len(keys) else end
            for sink, values in zip(sinks, (keys, log_prob[kept] * _LN10, log_backoff[kept] * _LN10), strict=True):
                sink.append(values)
        columns = [sink.finish() for sink in sinks]
        if not ascends:
            columns = sort_columns(columns[0], columns[1:], self.store, f"sorted{k}")
            self._refuse_repeated(k, columns[0])
        self.levels.append(BackoffLevel(columns[0], None, columns[1], self._log_backoff))
        self._log_backoff = columns[2]
        self._searches.append(KeySearch(columns[0], max(1, self.store.block // MAX_ORDER)))

    def _keys(self, k: int, ids: IntArray) -> IntArray:
        prefix = ids[:, 0]
        for place, search in enumerate(self._searches, start=1):
            prefix = search((prefix << self.bits) | ids[:, place])
            if (prefix < 0).any():
                raise DataError(f"{self.path}: the first {k - 1} words of a {k}-gram are not among the {k - 1}-grams")
        keys: IntArray = (prefix << self.bits) | ids[:, k - 1]
        return keys

    def _refuse_repeated(self, k: int, keys: Column) -> None:
        end = -1
        for rows in slices(len(keys), self.store.rows):
            part = keys[rows]
            if int(part[0]) == end or (part[1:] == part[:-1]).any():
                raise DataError(f"{self.path}: a {k}-gram occurs twice")
            end = int(part[-1])
