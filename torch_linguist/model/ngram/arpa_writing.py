"""Writing ARPA files, the text format of n-gram toolkits, plain or gzipped.

Shape legend: M[k] n-grams of order k, C n-grams of a chunk.
"""

import gzip
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np
import torch

from torch_linguist.errors import ConfigError, DataError
from torch_linguist.model.base import LanguageModel
from torch_linguist.model.ngram.columns import ordered_map, slices
from torch_linguist.model.ngram.counts import IntArray
from torch_linguist.model.ngram.model import NGramModel
from torch_linguist.model.ngram.smoothing import FloatArray
from torch_linguist.runs.files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0
"""Log10-probability that ARPA files contain for a word that is never predicted."""

_LN10 = math.log(10)
_DECIMALS = 8
_SEPARATORS = re.compile(r"[\s\0]")
_CHUNK = 1 << 17


def write_arpa(
    model: LanguageModel, tokens: Sequence[str], path: Path, check: Callable[[Path], None] | None = None
) -> None:
    """Write a model as an ARPA file, chunk by chunk.

    KenLM requires the words ``<s>``, ``</s>`` and ``<unk>``; those missing from the vocabulary are added with a
    log10-probability of -99. Streams have no sentences: score them in KenLM with ``bos=False, eos=False``.

    Args:
        model: an n-gram model of any smoothing but stupid backoff, whose scores are not probabilities.
        tokens: the word of each id.
        path: path of the file, compressed if it ends in ``.gz``.
        check: called with the complete file under a temporary name; if it raises, an earlier file stays.

    Raises:
        ConfigError: the model is not an n-gram model, is stupid backoff, or the number of words does not match.
        DataError: a word is empty, contains white space or occurs twice.

    Example:
        >>> write_arpa(model, corpus.tokenizer.tokens, Path("model.arpa"))
        >>> "ngram 1=" in Path("model.arpa").read_text()
        True
    """
    import pyarrow as pa  # slow to import, and needed for files only

    if not isinstance(model, NGramModel):
        raise ConfigError(f"ARPA files hold n-grams, not a {type(model).__name__}; choose another format")
    if model.unseen_backoff != 0.0:
        raise ConfigError("smoothing=stupid_backoff cannot be written as ARPA: its scores are not probabilities")
    if len(tokens) != model.vocab_size:
        raise ConfigError(f"{len(tokens)} words do not fit a model of {model.vocab_size}")
    _check_words(tokens)
    added = [word for word in (UNKNOWN, BEGIN, END) if word not in set(tokens)]
    sizes = model.ngram_counts()
    words = pa.array(tokens, pa.string())
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = [sizes[0] + len(added), *sizes[1:]]
    with whole_file(path) as temporary:
        with _opened(temporary, packed=path.suffix == ".gz") as file:
            header = [f"ngram {k}={size}\n" for k, size in enumerate(counts, start=1)]
            file.write(f"\\data\\\n{''.join(header)}\n\\1-grams:\n".encode())
            for word in added:
                file.write(f"{NEVER:.0f}\t{word}{'' if len(sizes) == 1 else f'{chr(9)}0'}\n".encode())
            for k, size in enumerate(sizes, start=1):
                if k > 1:
                    file.write(f"\n\\{k}-grams:\n".encode())

                def lines(rows: slice, k: int = k) -> "pa.Buffer":
                    return _lines(model, k, rows, words)

                for text in ordered_map(lines, slices(size, _CHUNK)):
                    file.write(text)
            file.write(b"\n\\end\\\n")
        if check is not None:
            check(temporary)


def _check_words(tokens: Sequence[str]) -> None:
    for index, word in enumerate(tokens):
        if not word or _SEPARATORS.search(word):
            raise DataError(f"token {index} ({word!r}) is empty or contains white space, which ARPA files cannot hold")
    if len(set(tokens)) < len(tokens):
        raise DataError("a word occurs twice in the vocabulary, which ARPA files cannot hold")


@contextmanager
def _opened(path: Path, *, packed: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if not packed:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0, filename="") as file:
            yield cast("IO[bytes]", file)


def _lines(model: NGramModel, k: int, rows: slice, words: "pa.Array") -> "pa.Buffer":
    """Return the lines of a range of n-grams of order k."""
    import pyarrow as pa
    import pyarrow.compute as pc

    place = torch.arange(rows.start, rows.stop)
    log_prob = (model.unigrams[place] if k == 1 else model.levels[k - 2].log_probs(place)).double().numpy()
    ids = spelled(model, k, rows)
    ngrams = pc.binary_join_element_wise(*(words.take(pa.array(ids[:, column])) for column in range(k)), " ")
    # Rounding must not produce a probability above 1.
    columns = [_numbers(np.minimum(log_prob, 0.0)), ngrams]
    if k < model.order:
        columns.append(_numbers(model.levels[k - 1].log_backoffs(place).double().numpy()))
    text = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, "\t"), "", "\n")
    return text.buffers()[2].slice(0, pc.sum(pc.binary_length(text)).as_py())


def _numbers(values: FloatArray) -> "pa.Array":
    """Return natural logarithms as text to base 10."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.cast(pa.array(np.round(values / _LN10, _DECIMALS)), pa.string())


def spelled(model: NGramModel, k: int, rows: slice) -> IntArray:
    """Return the words of a range of n-grams of order k, [C, k]."""
    if k == 1:
        return np.arange(rows.start, rows.stop)[:, None]
    prefix, word = model.levels[k - 2].spelled(rows)
    if not len(prefix):
        return np.empty((0, k), np.int64)
    first = int(prefix[0])
    contexts = spelled(model, k - 1, slice(first, int(prefix[-1]) + 1))
    return np.concatenate([contexts[prefix - first], word[:, None]], axis=1)
