"""Estimation of backoff models from counts, level by level and part by part, in memory or on disk.

Shape legend: V vocabulary, M[k] n-grams of order k, R n-grams of a part.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torch_linguist.errors import ConfigError
from torch_linguist.model.ngram.columns import Column, FileColumn, Lookup, Part, Sink, Store, parts
from torch_linguist.model.ngram.counts import CountLevel, NGramCounts
from torch_linguist.model.ngram.smoothing import Estimates, FloatArray, Method
from torch_linguist.model.ngram.workspace import Progress

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BackoffLevel:
    """One order k >= 2 of an estimated model.

    Attributes:
        keys: ``(prefix << word_bits) | word``, ascending, int64 [M[k]].
        suffix: index of the last k - 1 words in the level below, int32 [M[k]]; None if unknown.
        log_prob: natural log-probability of the last word after the first ones, float64 [M[k]].
        log_backoff: log backoff weight of each context of k - 1 words, float64 [M[k - 1]] ([V] for k = 2).
    """

    keys: Column
    suffix: Column | None
    log_prob: Column
    log_backoff: Column


@dataclass(frozen=True, slots=True)
class BackoffModel:
    """A model in backoff form.

    Attributes:
        vocab_size: V.
        word_bits: bits of a word in a key.
        unigrams: natural log-probability of each word after no context, float64 [V].
        levels: orders 2 up to the highest.
        unseen_backoff: log weight of a context that does not occur; 0 except for stupid backoff.
    """

    vocab_size: int
    word_bits: int
    unigrams: FloatArray
    levels: tuple[BackoffLevel, ...]
    unseen_backoff: float = 0.0

    def sizes(self) -> list[int]:
        """Return the number of n-grams of each order."""
        return [len(self.unigrams), *(len(level.keys) for level in self.levels)]

    def parts(self, k: int, rows: int) -> Iterator[Part]:
        """Split level k into parts of about `rows` n-grams."""
        return parts(self.levels[k - 2].keys, self.word_bits, self.sizes()[k - 2], rows)


def estimate(
    counts: NGramCounts, method: Method, min_count: Sequence[int], min_word_count: int, store: Store
) -> BackoffModel:
    """Estimate a model.

    Args:
        counts: counts of the training stream. Count files are deleted as soon as they have been used.
        method: smoothing method for these counts.
        min_count: minimum count of the n-grams of each order, order 1 first; must not decrease.
        min_word_count: minimum count of each word of an n-gram of order 2 or higher.
        store: store for the columns; finished steps are not repeated.
    """
    log_prob, below = _unigrams(method, store)
    rare = counts.unigrams < min_word_count if min_word_count > 1 else None
    levels: list[BackoffLevel] = []
    for k, least in enumerate(min_count[1:], start=2):
        level, below = _LevelEstimation(k, counts, method, least, rare, store).run(below)
        levels.append(level)
    return BackoffModel(counts.vocab_size, counts.word_bits, log_prob, tuple(levels), method.unseen_backoff)


@dataclass(frozen=True, slots=True)
class _Below:
    """Results for the level below that estimating a level requires.

    Attributes:
        size: number of n-grams, pruned ones included.
        prob: probability of each n-gram; empty if the method does not use it.
        kept: whether each n-gram is kept; None if all are.
        place: index of each n-gram among the kept ones; None if all are kept.
    """

    size: int
    prob: Column
    kept: Column | None = None
    place: Column | None = None


def _unigrams(method: Method, store: Store) -> tuple[FloatArray, _Below]:
    if store.facts("unigrams") is None:
        estimates = method.unigrams()
        log_prob, prob = store.sink("log_prob1", np.float64), store.sink("prob1", np.float64)
        log_prob.append(estimates.log_prob)
        if estimates.prob is not None:
            prob.append(estimates.prob)
        columns = log_prob.finish(), prob.finish()
        store.finish("unigrams")
    else:
        columns = store.column("log_prob1", np.float64), store.column("prob1", np.float64)
    return np.asarray(columns[0][:]), _Below(len(columns[0]), columns[1])


class _LevelEstimation:
    """Estimation of one level.

    Args:
        k: order.
        counts: counts of all orders.
        method: smoothing method.
        least: minimum count of an n-gram.
        rare: mask of the words whose n-grams are pruned [V]; None for no pruning by word.
        store: store for the columns.
    """

    # Names and types of the columns: those of the finished level, then those that only the level above uses.
    RESULTS = (("log_prob", np.float64), ("log_backoff", np.float64))
    PRUNED = (("kept-keys", np.int64), ("kept-suffix", np.int32))
    ABOVE = (("prob", np.float64), ("kept", np.bool_), ("place", np.int32))

    def __init__(
        self, k: int, counts: NGramCounts, method: Method, least: int, rare: BoolArray | None, store: Store
    ) -> None:
        self.k, self.bits, self.method, self.least, self.rare, self.store = (
            k, counts.word_bits, method, least, rare, store,
        )  # fmt: skip
        self.level: CountLevel = counts.levels[k - 2]
        self.is_last = k == len(counts.levels) + 1
        self.is_pruned = least > 1 or rare is not None

    def run(self, below: _Below) -> tuple[BackoffLevel, _Below]:
        """Return the finished level and the results that the level above requires."""
        step = f"level {self.k}"
        names = (*self.RESULTS, *self.PRUNED, *self.ABOVE)
        if self.store.facts(step) is None:
            sinks = {name: self.store.sink(f"{name}{self.k}", dtype) for name, dtype in names}
            self._fill(sinks, below)
            columns = {name: sink.finish() for name, sink in sinks.items()}
            self.store.finish(step)
        else:
            columns = {name: self.store.column(f"{name}{self.k}", dtype) for name, dtype in names}
        delete(self.level.counts, below.prob, below.kept)
        keys, suffix = self.level.keys, self.level.suffix
        size = len(keys)
        kept = place = None
        if self.is_pruned:
            delete(keys, suffix, below.place)
            keys, suffix, kept, place = (columns[name] for name in ("kept-keys", "kept-suffix", "kept", "place"))
            size = len(kept)
        level = BackoffLevel(keys, suffix, columns["log_prob"], columns["log_backoff"])
        return level, _Below(size, columns["prob"], kept, place)

    def _fill(self, sinks: dict[str, Sink], below: _Below) -> None:
        estimator = self.method.level(self.k, below.prob)
        places = Lookup(below.place, self.store.block) if below.place is not None else None
        progress, size = Progress(f"estimating order {self.k}", len(self.level.keys)), 0

        def compute(part: Part) -> tuple[Part, BoolArray | None, Estimates]:
            dropped = self._dropped(part, below)
            return part, dropped, estimator(part, dropped)

        cut = parts(self.level.keys, self.bits, below.size, self.store.rows)
        for part, dropped, estimates in self.store.map(compute, cut):
            if estimates.prob is not None and not self.is_last:
                sinks["prob"].append(estimates.prob)
            log_prob, log_backoff = estimates.log_prob, estimates.log_backoff
            if dropped is not None:
                kept = ~dropped
                log_prob = log_prob[kept]
                prefix = part.prefix + part.contexts.start
                suffix = self.level.suffix[part.rows][kept]
                if below.kept is not None and below.place is not None and places is not None:
                    log_backoff = log_backoff[below.kept[part.contexts]]
                    prefix, suffix = below.place[part.contexts].astype(np.int64)[part.prefix], places(suffix)
                sinks["kept-keys"].append((prefix[kept] << self.bits) | part.word[kept])
                sinks["kept-suffix"].append(suffix)
                if not self.is_last:
                    sinks["kept"].append(kept)
                    sinks["place"].append(np.cumsum(kept, dtype=np.int32) + np.int32(size - 1))
                size += len(log_prob)
            sinks["log_prob"].append(log_prob)
            sinks["log_backoff"].append(log_backoff)
            progress.advance(len(part.prefix))

    def _dropped(self, part: Part, below: _Below) -> BoolArray | None:
        """Return a mask of the n-grams of a part to prune; None if pruning is off."""
        if not self.is_pruned:
            return None
        dropped: BoolArray = self.level.counts[part.rows] < self.least
        if self.rare is not None:
            dropped |= self.rare[part.word]
            # A kept n-gram keeps its context.
            if below.kept is None:
                dropped |= self.rare[part.prefix + part.contexts.start]
            else:
                dropped |= ~below.kept[part.contexts][part.prefix]
        return dropped


def delete(*columns: Column | None) -> None:
    """Delete the files of columns."""
    for column in columns:
        if isinstance(column, FileColumn):
            column.delete()


def smallest_counts(min_count: int | Sequence[int], order: int) -> list[int]:
    """Return the minimum count of each order, order 1 first.

    Raises:
        ConfigError: a number is below 1, the numbers decrease, there are more than `order`, or the first is not 1.
    """
    # One number does not apply to words; a list includes them.
    least = [1, min_count] if isinstance(min_count, int) else list(min_count)
    if not least or len(least) > max(order, 2) or least[0] != 1:
        raise ConfigError(
            f"min_count={min_count} must be one number, or a list of at most order={order} numbers that begins with 1 "
            "(words are always kept: use tokenizer.min_frequency)"
        )
    least = (least + [least[-1]] * order)[:order]
    if any(high < low for low, high in itertools.pairwise(least)) or least[0] < 1:
        raise ConfigError(f"min_count={min_count} must hold numbers of at least 1 that never decrease with the order")
    return least
