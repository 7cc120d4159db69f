"""Entropy pruning: an n-gram that hardly changes what the model predicts is left to the backoff.

Shape legend: V vocabulary, M[k] n-grams of order k, R rows of words.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from torch_linguist.errors import ConfigError
from torch_linguist.model.ngram.counts import IntArray
from torch_linguist.model.ngram.smoothing import BackoffLevel, BackoffModel, FloatArray, compact, spell_out

_ROWS = 1 << 18
_TINY = 1e-300
_ROUNDING = 1e-13


def prune_entropy(model: BackoffModel, threshold: float) -> BackoffModel:
    """Removes the n-grams whose removal raises the model's own perplexity by less than a share.

    The relative entropy of Stolcke 1998, "Entropy-based pruning of backoff language models", equation 5: each n-gram is
    judged alone, from the highest order down. Unlike there, not only the context of a kept n-gram stays but also its
    end, the n-gram without the first word, as KenLM wants it. The backoff weights are made anew, so that the
    distributions stay whole.

    Args:
        model: any but stupid backoff.
        threshold: largest relative rise of the perplexity for an n-gram to be removed; 1e-8 is mild, 1e-6 strong.

    Returns:
        The smaller model.

    Raises:
        ConfigError: the threshold is negative or not finite, or the model's scores are not probabilities.
    """
    if not 0 <= threshold < float("inf"):
        raise ConfigError(f"entropy_threshold={threshold} must be a number of at least 0")
    if model.unseen_backoff != 0.0:
        raise ConfigError("smoothing=stupid_backoff has no entropy to prune by: its scores are not probabilities")
    ngrams, history = _spelled(model), _history(model)
    keep: list[npt.NDArray[np.bool_]] = []
    for k in range(len(model.levels) + 1, 1, -1):
        level = model.levels[k - 2]
        wanted = _rise(level, model.word_bits, history[k - 2], _lower(model, ngrams[k - 2])) >= threshold
        if keep:
            above, spelled = model.levels[k - 1].keys[keep[0]], ngrams[k - 1][keep[0]]
            wanted[above >> model.word_bits] = True
            ends = _index(model, spelled[:, 1:])
            wanted[ends[ends >= 0]] = True
        keep.insert(0, wanted)
    return _renormalized(compact(model, keep))


def _spelled(estimated: BackoffModel) -> list[IntArray]:
    """The words of the n-grams, [M[k], k], order 2 first."""
    ngrams: list[IntArray] = [np.arange(estimated.vocab_size)[:, None]]
    for level in estimated.levels:
        ngrams.append(spell_out(ngrams[-1], level.keys, estimated.word_bits))
    return ngrams[1:]


def _history(estimated: BackoffModel) -> list[FloatArray]:
    """Log-probability of the words of each context, by the model's own estimates: [V], [M[2]], ..."""
    history = [estimated.unigrams]
    for level in estimated.levels[:-1]:
        history.append(history[-1][level.keys >> estimated.word_bits] + level.log_prob)
    return history


def _lower(model: BackoffModel, ngrams: IntArray) -> FloatArray:
    """Log-probability of each n-gram's last word after all but its first, [M[k]], by the levels below."""
    parts = [np.empty(0)]
    for begin in range(0, len(ngrams), _ROWS):
        words = ngrams[begin : begin + _ROWS, 1:]
        last = words.shape[1] - 1
        scores = model.unigrams[words[:, last]]
        for length in range(1, last + 1):
            context = _index(model, words[:, last - length : last])
            seen = context >= 0
            scores[seen] += model.levels[length - 1].log_backoff[context[seen]]
            place = _find(model.levels[length - 1].keys, context, words[:, last], model.word_bits)
            found = place >= 0
            scores[found] = model.levels[length - 1].log_prob[place[found]]
        parts.append(scores)
    return np.concatenate(parts)


def _index(model: BackoffModel, words: IntArray) -> IntArray:
    """Index of the n-gram in each row of words [R, k] among those of order k, -1 where there is none."""
    index = words[:, 0]
    for place in range(1, words.shape[1]):
        index = _find(model.levels[place - 1].keys, index, words[:, place], model.word_bits)
    return index


def _find(keys: IntArray, prefix: IntArray, word: IntArray, bits: int) -> IntArray:
    """Index of each n-gram [R], -1 where there is none or its prefix is -1."""
    if not len(keys):
        return np.full(len(prefix), -1)
    query = (prefix << bits) | word
    # Several times as fast as NumPy's.
    place = torch.searchsorted(torch.from_numpy(keys), torch.from_numpy(query)).numpy()
    np.minimum(place, len(keys) - 1, out=place)
    return np.where(keys[place] == query, place, -1)


def _rise(level: BackoffLevel, bits: int, history: FloatArray, lower: FloatArray) -> FloatArray:
    """Relative rise of the perplexity when an n-gram alone is removed, [M[k]].

    Args:
        level: the level.
        bits: bits of a word.
        history: log-probability of the contexts [M[k - 1]].
        lower: log-probability of the n-grams' last words after the shorter context [M[k]].
    """
    prefix, own = level.keys >> bits, np.exp(level.log_prob)
    left: FloatArray = np.maximum(1 - np.bincount(prefix, np.exp(lower), minlength=len(history)), _TINY)
    # What the context leaves to unseen words: 1 minus its own probabilities, without the cancellation.
    backed_off = (np.exp(level.log_backoff) * left)[prefix]
    weight = np.log(backed_off + own) - np.log(left[prefix] + np.exp(lower))
    change = own * (lower + weight - level.log_prob) + backed_off * (weight - level.log_backoff[prefix])
    rise: FloatArray = np.expm1(-np.exp(history[prefix]) * change)
    return rise


def _renormalized(model: BackoffModel) -> BackoffModel:
    """The model with backoff weights made anew from the probabilities that are left, shorter contexts first."""
    bits, ngrams = model.word_bits, _spelled(model)
    for place, level in enumerate(model.levels):
        prefix, contexts = level.keys >> bits, len(level.log_backoff)
        seen = np.bincount(prefix, np.exp(level.log_prob), minlength=contexts)
        lower = np.bincount(prefix, np.exp(_lower(model, ngrams[place])), minlength=contexts)
        # Of a context that every word follows nothing is left but rounding, and its weight is never used.
        open_ended = (1 - seen > _ROUNDING) & (1 - lower > _ROUNDING)
        ratio = np.divide(1 - seen, 1 - lower, out=np.ones(contexts), where=open_ended)
        done = BackoffLevel(level.keys, level.log_prob, np.where(open_ended, np.log(ratio), level.log_backoff))
        # The next order's contexts back off to this one's.
        model = replace(model, levels=(*model.levels[:place], done, *model.levels[place + 1 :]))
    return model
