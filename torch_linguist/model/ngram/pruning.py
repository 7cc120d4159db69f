"""Entropy pruning: removes n-grams that hardly change the predictions of a model.

Shape legend: V vocabulary, M[k] n-grams of order k, R n-grams of a part, C contexts of a part.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from torch_linguist.errors import ConfigError
from torch_linguist.model.ngram.columns import Array, Column, Lookup, Part, Store, slices
from torch_linguist.model.ngram.estimation import BackoffLevel, BackoffModel, delete
from torch_linguist.model.ngram.smoothing import FloatArray

_TINY = 1e-300
_ROUNDING = 1e-13


def prune_entropy(model: BackoffModel, threshold: float, store: Store | None = None) -> BackoffModel:
    """Remove the n-grams whose removal raises the model's own perplexity by less than a threshold.

    The criterion is the relative entropy of Stolcke 1998, "Entropy-based pruning of backoff language models", equation
    5. Each n-gram is judged by itself, from the highest order down. Unlike in the paper, a kept n-gram keeps both its
    context and its suffix (the n-gram without the first word), as KenLM requires. The backoff weights are recomputed,
    so that the distributions stay normalized.

    Args:
        model: model of any smoothing method but stupid backoff.
        threshold: relative increase in perplexity below which an n-gram is removed; 1e-8 is mild, 1e-6 strong.
        store: store for the columns; None keeps them in memory.

    Returns:
        The smaller model.

    Raises:
        ConfigError: the threshold is negative or not finite, the model is stupid backoff, or it lacks the suffix of an
            n-gram.
    """
    if not 0 <= threshold < float("inf"):
        raise ConfigError(f"entropy_threshold={threshold} must be a finite number of at least 0")
    if model.unseen_backoff != 0.0:
        raise ConfigError("smoothing=stupid_backoff has no entropy to prune by: its scores are not probabilities")
    if any(level.suffix is None for level in model.levels):
        raise ConfigError("entropy_threshold needs a model that holds the suffix of every n-gram")
    store = store or Store()
    kept = _kept(model, threshold, store)
    return _renormalized(compact(model, kept, store), store)


def _kept(model: BackoffModel, threshold: float, store: Store) -> list[Column]:
    """Return whether each n-gram is kept, order 2 first."""
    history: list[Column] = [model.unigrams]
    for k, level in enumerate(model.levels[:-1], start=2):
        history.append(_context_log_prob(model, k, level, history[-1], store))
    kept: list[Column] = []
    for k in range(len(model.levels) + 1, 1, -1):
        level, above = model.levels[k - 2], model.levels[k - 1] if kept else None
        needed = _needed(model, k, above, kept[0], store) if above is not None else None
        sink, lower = store.sink(f"entropy-kept{k}", np.bool_), _lower(model, k, store)

        def judge(part: Part, level: BackoffLevel = level, lower: Lookup = lower, k: int = k) -> tuple[Part, Array]:
            rise = _rise(part, level, history[k - 2][part.contexts], lower(suffixes(level, part.rows)))
            return part, rise >= threshold

        for part, wanted in store.map(judge, model.parts(k, store.rows)):
            sink.append(wanted if needed is None else wanted | needed[part.rows])
        kept.insert(0, sink.finish())
        delete(history[k - 2], needed)
    return kept


def _context_log_prob(model: BackoffModel, k: int, level: BackoffLevel, below: Column, store: Store) -> Column:
    """Return the log-probability of the words of each n-gram of order k under the model itself [M[k]]."""
    sink = store.sink(f"history{k}", np.float64)
    for part in model.parts(k, store.rows):
        sink.append(below[part.contexts][part.prefix] + level.log_prob[part.rows])
    return sink.finish()


def _needed(model: BackoffModel, k: int, above: BackoffLevel, kept: Column, store: Store) -> Column:
    """Return a mask of the n-grams of order k that are contexts or suffixes of kept n-grams of order k + 1 [M[k]]."""
    size, sink = len(model.levels[k - 2].keys), store.sink(f"needed{k}", np.bool_)
    for begin in range(0, size, store.block):
        marks = np.zeros(min(store.block, size - begin), np.bool_)
        for rows in slices(len(above.keys), store.rows):
            own = kept[rows]
            for places in (above.keys[rows][own] >> model.word_bits, suffixes(above, rows)[own]):
                marks[places[(places >= begin) & (places < begin + len(marks))] - begin] = True
        sink.append(marks)
    return sink.finish()


def suffixes(level: BackoffLevel, rows: slice) -> Array:
    """Return the suffixes of a range of n-grams."""
    assert level.suffix is not None
    return level.suffix[rows]


def _lower(model: BackoffModel, k: int, store: Store) -> Lookup:
    """Return a lookup of log-probabilities by suffix, in the level below order k."""
    return Lookup(model.unigrams if k == 2 else model.levels[k - 3].log_prob, store.block)


def _rise(part: Part, level: BackoffLevel, history: FloatArray, lower: FloatArray) -> FloatArray:
    """Return the relative increase in perplexity if each n-gram alone were removed [R].

    Args:
        part: n-grams.
        level: level of the n-grams.
        history: log-probability of the contexts [C].
        lower: log-probability of the last word of each n-gram after the shorter context [R].
    """
    log_prob, log_backoff = level.log_prob[part.rows], level.log_backoff[part.contexts]
    prefix, own = part.prefix, np.exp(log_prob)
    left: FloatArray = np.maximum(1 - np.bincount(prefix, np.exp(lower), minlength=part.width), _TINY)
    # Mass that the context leaves to unseen words: 1 minus its own probabilities, without the cancellation.
    backed_off = (np.exp(log_backoff) * left)[prefix]
    weight = np.log(backed_off + own) - np.log(left[prefix] + np.exp(lower))
    change = own * (lower + weight - log_prob) + backed_off * (weight - log_backoff[prefix])
    rise: FloatArray = np.expm1(-np.exp(history[prefix]) * change)
    return rise


def compact(model: BackoffModel, kept: Sequence[Column], store: Store) -> BackoffModel:
    """Return the model without the n-grams outside the masks `kept`, order 2 first.

    The masks must include the contexts and suffixes of kept n-grams.
    """
    levels: list[BackoffLevel] = []
    places: Column | None = None
    for k, (level, own) in enumerate(zip(model.levels, kept, strict=True), start=2):
        sinks = {
            name: store.sink(f"pruned-{name}{k}", dtype)
            for name, dtype in (
                ("keys", np.int64), ("suffix", np.int32), ("log_prob", np.float64), ("log_backoff", np.float64),
                ("places", np.int32),
            )
        }  # fmt: skip
        lookup, size = Lookup(places, store.block) if places is not None else None, 0
        for part in model.parts(k, store.rows):
            marks = own[part.rows]
            prefix, suffix = part.prefix[marks] + part.contexts.start, suffixes(level, part.rows)[marks]
            log_backoff = level.log_backoff[part.contexts]
            if places is not None and lookup is not None:
                prefix, suffix = places[part.contexts].astype(np.int64)[part.prefix[marks]], lookup(suffix)
                log_backoff = log_backoff[kept[k - 3][part.contexts]]
            sinks["keys"].append((prefix << model.word_bits) | part.word[marks])
            sinks["suffix"].append(suffix)
            sinks["log_prob"].append(level.log_prob[part.rows][marks])
            sinks["log_backoff"].append(log_backoff)
            sinks["places"].append(np.cumsum(marks, dtype=np.int32) + np.int32(size - 1))
            size += int(marks.sum())
        delete(places)
        *columns, places = (sink.finish() for sink in sinks.values())
        levels.append(BackoffLevel(*columns))
    return replace(model, levels=tuple(levels))


def _renormalized(model: BackoffModel, store: Store) -> BackoffModel:
    """Return the model with backoff weights recomputed from the remaining probabilities."""
    levels: list[BackoffLevel] = []
    for k, level in enumerate(model.levels, start=2):
        sink, lower = store.sink(f"new-backoff{k}", np.float64), _lower(model, k, store)

        def weigh(part: Part, level: BackoffLevel = level, lower: Lookup = lower) -> FloatArray:
            seen = np.bincount(part.prefix, np.exp(level.log_prob[part.rows]), minlength=part.width)
            below = np.bincount(part.prefix, np.exp(lower(suffixes(level, part.rows))), minlength=part.width)
            # If every word follows a context, only rounding errors are left, and its weight is never used.
            open_ended = (1 - seen > _ROUNDING) & (1 - below > _ROUNDING)
            ratio = np.divide(1 - seen, 1 - below, out=np.ones(part.width), where=open_ended)
            return np.where(open_ended, np.log(ratio), level.log_backoff[part.contexts])

        for log_backoff in store.map(weigh, model.parts(k, store.rows)):
            sink.append(log_backoff)
        delete(level.log_backoff)
        levels.append(replace(level, log_backoff=sink.finish()))
    return replace(model, levels=tuple(levels))
