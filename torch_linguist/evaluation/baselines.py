"""Baselines on the same tokens: the unigram distribution and a modified Kneser-Ney n-gram.

Shape legend: V vocabulary, N tokens of a split.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data import TokenizedCorpus, TokenStream
from torch_linguist.evaluation.scoring import Score, stream_nll
from torch_linguist.model import NGramModel
from torch_linguist.runs.files import whole_file

LOG = logging.getLogger("torch_linguist.evaluation")

FORMAT = 2
"""Raised whenever the n-gram model's probabilities change, so that cached ones are computed again."""

Floats = NDArray[np.float64]


def unigram_score(token_counts: np.ndarray, stream: TokenStream) -> Score:
    """Score a stream by the unigram distribution, smoothed by one extra count per token (Laplace).

    Args:
        token_counts: occurrences of each token in the training split, integer [V].
        stream: one split.

    Example:
        >>> unigram_score(corpus.token_counts(), corpus.test).loss > score(model, corpus.test).loss
        True
    """
    smoothed = token_counts.astype(np.float64) + 1
    log_probabilities = np.log(smoothed / smoothed.sum())
    occurrences = np.bincount(stream.ids, minlength=len(token_counts))
    return Score.of(float(-(occurrences * log_probabilities).sum()), stream)


def ngram_baseline(corpus: TokenizedCorpus, order: int = 5) -> dict[str, Score]:
    """Return the score of an n-gram model of the training split on valid and test; see `ngram_nll`.

    Example:
        >>> sorted(ngram_baseline(corpus, order=2))
        ['test', 'valid']
    """
    found = ngram_nll(corpus, order)
    return {split: Score.of(float(nll.sum()), corpus.streams[split]) for split, nll in found.items()}


def ngram_nll(corpus: TokenizedCorpus, order: int = 5, splits: Sequence[str] = ("valid", "test")) -> dict[str, Floats]:
    """Return the nll of every token of each split under an n-gram model of the training split.

    The result is cached beside the tokens of the corpus.

    Returns:
        nll in nats [N] by split.
    """
    path = corpus.folder / f"baseline-{order}gram-{FORMAT}.npz"
    found = _read(path, corpus, splits)
    if found is None:
        model = NGramModel(corpus.tokenizer.vocab_size, order)
        model.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id)
        found = {split: np.concatenate(list(stream_nll(model, corpus.streams[split]))) for split in splits}
        _write(path, found)
    return found


def _read(path: Path, corpus: TokenizedCorpus, splits: Sequence[str]) -> dict[str, Floats] | None:
    """The cached nll of each split; None where the file is missing or does not fit the corpus."""
    try:
        with np.load(path, allow_pickle=False) as content:
            found = {split: np.asarray(content[split], np.float64) for split in splits}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    fits = all(nll.shape == (len(corpus.streams[split]),) and np.isfinite(nll).all() for split, nll in found.items())
    return found if fits else None


def _write(path: Path, found: dict[str, Floats]) -> None:
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **found)
    except OSError as error:
        LOG.warning("the scores of the n-gram baseline are not cached: %s", error)
