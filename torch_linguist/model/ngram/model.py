"""N-gram language model, fitted by counting.

Shape legend: B batch, T time, V vocabulary, R rows of words, W words in a row, P = B * T, M[k] n-grams of order k.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from torch_linguist.errors import ConfigError
from torch_linguist.model.base import LanguageModel
from torch_linguist.model.ngram.backoff_check import check_backoffs
from torch_linguist.model.ngram.columns import Column, Store
from torch_linguist.model.ngram.counts import NGramCounts, WordArray, check_stream, count_ngrams, word_bits
from torch_linguist.model.ngram.disk_counts import count_on_disk
from torch_linguist.model.ngram.estimation import BackoffLevel, BackoffModel, estimate, smallest_counts
from torch_linguist.model.ngram.pruning import prune_entropy
from torch_linguist.model.ngram.quantized import QuantizedLevel, quantize
from torch_linguist.model.ngram.smoothing import SMOOTHINGS, smoothing_method
from torch_linguist.model.ngram.sorting import KeySearch
from torch_linguist.model.ngram.tables import ExactLevel, Level, check_log_probs, check_sums, require, word_scores
from torch_linguist.model.ngram.workspace import (
    MEBIBYTE,
    MINIMUM_MIB,
    counting_bytes,
    fingerprint,
    stretch_tokens,
    temporary_bytes,
    workspace,
)

MAX_ORDER = 8


class NGramModel(LanguageModel):
    """N-gram model with the interface of the neural models, fitted by counting instead of by gradients.

    Before `fit_counts`, the model is the uniform distribution. Its state is the last order - 1 words: one int64 tensor
    [order - 1, B], with -1 for missing words. A -1 among the tokens is a missing word as well. `forward` returns
    log-probabilities, which are normalized exactly (float64) or up to the quantization error (float32). Those of stupid
    backoff are not normalized.

    Args:
        vocab_size: V.
        order: number of words in the longest n-gram, 1 to 8.
        smoothing: ``kneser_ney`` (interpolated modified Kneser-Ney), ``witten_bell``, ``add_k`` or ``stupid_backoff``.
        min_count: minimum count of an n-gram: one number for all orders from 2 up, or a list that starts with order 1
            and whose last number applies to all higher orders. Words are always kept.
        min_word_count: minimum count of each word of an n-gram of order 2 or higher.
        add_k: number that ``add_k`` adds to every count.
        backoff_factor: factor of ``stupid_backoff`` for each dropped word of context.
        entropy_threshold: relative increase in perplexity below which an n-gram is pruned (Stolcke 1998); 0 keeps all.
        memory_limit_mib: working memory in MiB. Streams that need more are counted and estimated in temporary files,
            with the same result, and the fitted tables are memory-mapped. None works in memory.
        quantize_bits: 8 stores log-probabilities and backoff weights as 8-bit codes in a compact trie; None stores
            exact values.

    Raises:
        ConfigError: a value is out of range.

    Example:
        >>> bigram = NGramModel(corpus.tokenizer.vocab_size, order=2)
        >>> bigram.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id)
    """

    is_counted = True
    accepts_gaps = True
    unigrams: Tensor
    if TYPE_CHECKING:  # TorchScript reads annotations and knows none for a list of modules.
        levels: list[Level]

    def __init__(
        self,
        vocab_size: int,
        order: int = 5,
        smoothing: str = "kneser_ney",
        min_count: int | Sequence[int] = 1,
        min_word_count: int = 1,
        add_k: float = 0.01,
        backoff_factor: float = 0.4,
        entropy_threshold: float = 0.0,
        memory_limit_mib: int | None = None,
        quantize_bits: int | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size, self.order, self.smoothing, self.min_word_count = vocab_size, order, smoothing, min_word_count
        self.add_k, self.backoff_factor, self.entropy_threshold = add_k, backoff_factor, entropy_threshold
        self.memory_limit_mib, self.quantize_bits = memory_limit_mib, quantize_bits
        self._check_arguments()
        self.min_count = smallest_counts(min_count, order)
        self.history_length = order - 1
        # The scores of stupid backoff are not probabilities.
        self.is_normalized = smoothing != "stupid_backoff"
        self.word_bits = word_bits(vocab_size)
        self.unseen_backoff = math.log(backoff_factor) if smoothing == "stupid_backoff" else 0.0
        dtype = torch.float64 if quantize_bits is None else torch.float32
        self.register_buffer("unigrams", torch.full((vocab_size,), -math.log(vocab_size), dtype=dtype))
        level = ExactLevel if quantize_bits is None else QuantizedLevel
        contexts = [vocab_size, *[0] * order]
        levels = nn.ModuleList(level(self.word_bits, contexts[place]) for place in range(order - 1))
        self.levels = cast("list[Level]", levels)
        self.register_load_state_dict_post_hook(_check_tables)  # type: ignore[no-untyped-call]

    def _check_arguments(self) -> None:
        limit = self.memory_limit_mib
        ranges = {
            "vocab_size": (self.vocab_size >= 1, "at least 1"),
            "order": (1 <= self.order <= MAX_ORDER, f"from 1 to {MAX_ORDER}"),
            "smoothing": (self.smoothing in SMOOTHINGS, f"one of {', '.join(SMOOTHINGS)}"),
            "min_word_count": (self.min_word_count >= 1, "at least 1"),
            "add_k": (0 < self.add_k < math.inf, "greater than 0"),
            "backoff_factor": (0 < self.backoff_factor <= 1, "greater than 0 and at most 1"),
            "entropy_threshold": (0 <= self.entropy_threshold < math.inf, "a finite number of at least 0"),
            "memory_limit_mib": (limit is None or limit >= MINIMUM_MIB, f"at least {MINIMUM_MIB}, or null"),
            "quantize_bits": (self.quantize_bits in (None, 8), "8, or null"),
        }
        for name, (fits, wanted) in ranges.items():
            if not fits:
                raise ConfigError(f"{name}={getattr(self, name)} must be {wanted}")
        if self.entropy_threshold and self.smoothing == "stupid_backoff":
            raise ConfigError(f"entropy_threshold={self.entropy_threshold} needs probabilities, unlike stupid_backoff")

    def fit_counts(self, ids: WordArray, eos_id: int, save: Callable[[], None] | None = None) -> None:
        """Count the n-grams of a stream and estimate the model.

        Args:
            ids: token ids [N], with <eos> at every newline; possibly memory-mapped.
            eos_id: id of <eos>, the context of the first token.
            save: called with the model fitted, before temporary files are deleted. A process that is killed earlier is
                continued by the next one.

        Raises:
            DataError: the stream is empty or does not fit the vocabulary, or temporary files cannot be written.
        """
        limit = self.memory_limit_mib
        if limit is None or counting_bytes(len(ids), self.order) <= limit * MEBIBYTE:
            self._estimate(count_ngrams(ids, self.vocab_size, self.order, eos_id), Store())
            if save is not None:
                save()
            return
        check_stream(ids, self.vocab_size, eos_id)
        identity = fingerprint(ids, sorted(self.arguments.items()), eos_id)
        with workspace(identity, limit, temporary_bytes(len(ids), self.order)) as store:
            counts = count_on_disk(ids, self.vocab_size, self.order, eos_id, store, stretch_tokens(limit))
            self._estimate(counts, store)
            if save is not None:
                save()

    def _estimate(self, counts: NGramCounts, store: Store) -> None:
        method = smoothing_method(
            self.smoothing, counts, self.min_count, store, add_k=self.add_k, backoff_factor=self.backoff_factor
        )
        model = estimate(counts, method, self.min_count, self.min_word_count, store)
        if self.entropy_threshold:
            model = prune_entropy(model, self.entropy_threshold, store)
        self.assign(model, store)

    def assign(self, model: BackoffModel, store: Store | None = None) -> None:
        """Use the tables of an estimated model of the same vocabulary and order.

        Args:
            model: estimated model. Columns in files are memory-mapped.
            store: store for the columns of quantized tables; None keeps them in memory.
        """
        if model.vocab_size != self.vocab_size or len(model.levels) != self.order - 1:
            raise ConfigError(
                f"vocab_size={self.vocab_size} and order={self.order} do not fit a model of {model.vocab_size} types "
                f"and order {len(model.levels) + 1}"
            )
        self.unigrams = torch.from_numpy(model.unigrams).to(self.unigrams.dtype)
        self.unseen_backoff = model.unseen_backoff
        for k, level in enumerate(self.levels, start=2):
            if isinstance(level, ExactLevel):
                level.assign(model.levels[k - 2])
            elif isinstance(level, QuantizedLevel):
                level.assign(quantize(model, k, store or Store()))

    def backoff_model(self) -> BackoffModel:
        """Return the estimated model as float64 arrays in memory."""
        levels: list[BackoffLevel] = []
        for level in self.levels:
            prefix, word = level.spelled(slice(None))
            suffix: Column | None = word
            if levels:
                below = levels[-1]
                suffix = (
                    None
                    if below.suffix is None
                    else KeySearch(below.keys, 1 << 62)(
                        (np.asarray(below.suffix, np.int64)[prefix] << self.word_bits) | word
                    )
                )
                # Files of other toolkits may lack suffixes of n-grams.
                if suffix is not None and (suffix < 0).any():
                    suffix = None
            contexts = torch.arange(len(levels[-1].keys) if levels else self.vocab_size)
            values = level.log_probs(torch.arange(level.size())), level.log_backoffs(contexts)
            log_prob, log_backoff = (value.cpu().double().numpy() for value in values)
            levels.append(BackoffLevel((prefix << self.word_bits) | word, suffix, log_prob, log_backoff))
        unigrams = self.unigrams.cpu().double().numpy()
        return BackoffModel(self.vocab_size, self.word_bits, unigrams, tuple(levels), self.unseen_backoff)

    def ngram_counts(self) -> list[int]:
        """Return the number of distinct n-grams, order 1 first.

        KenLM reports more for the same stream: <s>, </s> and <unk> among the unigrams, and at each other order the
        n-gram that begins with <s> and the one that ends in </s>.
        """
        return [self.unigrams.numel(), *(level.size() for level in self.levels)]

    def num_parameters(self) -> int:
        """Return the number of n-grams of all orders that have a probability of their own."""
        return sum(self.ngram_counts())

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Return the state before any word: one tensor [order - 1, B] of -1."""
        return [torch.full((self.order - 1, batch_size), -1, dtype=torch.int64, device=self.unigrams.device)]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return log-probabilities of every word after each token [B, T, V], and the last order - 1 words."""
        history = torch.cat([state[0].t(), tokens], dim=1)
        logits = self._distributions(history)
        return logits.view(tokens.size(0), tokens.size(1), self.vocab_size), self._last_words(history)

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the negative log-likelihood of the targets in nats [B, T], and the last order - 1 words.

        If the targets are the tokens shifted by one, each n-gram of the sequence is looked up once. Otherwise each
        target is looked up with its own context.
        """
        batch_size, time = tokens.size(0), tokens.size(1)
        history = torch.cat([state[0].t(), tokens], dim=1)
        new_state = self._last_words(history)
        if torch.equal(tokens[:, 1:], targets[:, :-1]):
            scores = self._scores(torch.cat([history, targets[:, -1:]], dim=1))
            return -scores[:, self.order :], new_state
        windows = history.unfold(1, self.order, 1).reshape(batch_size * time, self.order)
        scores = self._scores(torch.cat([windows, targets.reshape(batch_size * time, 1)], dim=1))
        return -scores[:, -1].view(batch_size, time), new_state

    def _last_words(self, history: Tensor) -> list[Tensor]:
        """Return the state after a history [B, W] of at least order - 1 words."""
        return [history[:, history.size(1) - self.order + 1 :].t().contiguous()]

    def _scores(self, words: Tensor) -> Tensor:
        """Return the log-probability of each word [R, W] after those before it in its row, meaningless for a -1."""
        if not torch.jit.is_scripting() and words.device.type == "cpu":  # type: ignore[attr-defined]
            unigrams, levels = self.unigrams.numpy(), list(self.levels)
            return torch.from_numpy(word_scores(words.numpy(), unigrams, levels, self.word_bits, self.unseen_backoff))
        # No n-gram holds a -1, so none continues into the next row.
        flat = torch.cat([words, words.new_full((words.size(0), 1), -1)], dim=1).view(-1)
        scores = self.unigrams[flat.clamp(min=0)]
        # Where the n-grams of one order that were found begin, and their index.
        begin = torch.nonzero(flat >= 0).view(-1)
        index = flat[begin]
        for k, level in enumerate(self.levels):
            end = begin + (k + 1)
            place, found = level.search(index, flat[end])
            if self.unseen_backoff != 0.0:
                missing = self._enough_words(words, k + 1)
                missing[end] = False
                scores = torch.where(missing, scores + self.unseen_backoff, scores)
            backed_off = scores[end] + level.log_backoffs(index)
            scores[end] = torch.where(found, level.log_probs(place), backed_off)
            kept = torch.nonzero(found).view(-1)
            begin, index = begin[kept], place[kept]
        return scores.view(words.size(0), words.size(1) + 1)[:, :-1]

    def _enough_words(self, words: Tensor, length: int) -> Tensor:
        """Return whether at least `length` words lie between each place of [R, W + 1], flat, and the -1 before it."""
        places = torch.arange(words.size(1), device=words.device).expand_as(words)
        gaps = torch.cummax(torch.where(words < 0, places, torch.full_like(places, -1)), dim=1)[0]
        seen = places - gaps
        return torch.cat([torch.zeros_like(seen[:, :1]), seen], dim=1).view(-1) >= length

    def _contexts(self, history: Tensor) -> list[Tensor]:
        """Return the index of the k-gram that ends at each token, k = 1 up to order - 1.

        Args:
            history: the words of the state, then the tokens, [B, order - 1 + T].

        Returns:
            One tensor [P] per k, P = B * T, -1 where the k-gram is not in the model.
        """
        first = self.order - 1
        contexts = [history[:, first:].reshape(-1)]
        ended = history
        for k, level in enumerate(self.levels):
            # The last level holds no contexts.
            if k < self.order - 2:
                place, found = level.search(ended[:, :-1].reshape(-1), history[:, 1:].reshape(-1))
                index = torch.where(found, place, torch.full_like(place, -1)).view(history.size(0), -1)
                ended = torch.cat([torch.full_like(history[:, :1], -1), index], dim=1)
                contexts.append(ended[:, first:].reshape(-1))
        return contexts

    def _distributions(self, history: Tensor) -> Tensor:
        """Return log-probabilities of all words after each token of a history [B, order - 1 + T]: [P, V], P = B * T."""
        if self.order == 1:
            return self.unigrams.expand(history.numel(), self.vocab_size).clone()
        contexts = self._contexts(history)
        # dropped[k]: log weight of dropping all contexts of more than k words.
        dropped = [torch.zeros_like(self.unigrams[:1]).expand(contexts[0].size(0))]
        backoffs: list[Tensor] = []
        for k, level in enumerate(self.levels):
            backoff = level.log_backoffs(contexts[k])
            if self.unseen_backoff != 0.0:
                known = torch.cumsum((history >= 0).to(torch.int64), dim=1)[:, self.order - 1 :].reshape(-1)
                backoff = torch.where((contexts[k] < 0) & (known > k), backoff + self.unseen_backoff, backoff)
            backoffs.append(backoff)
        for k in range(len(backoffs) - 1, -1, -1):
            dropped.insert(0, dropped[0] + backoffs[k])
        logits = self.unigrams.unsqueeze(0) + dropped[0].unsqueeze(1)
        flat = logits.view(-1)
        for k, level in enumerate(self.levels):
            # Most of the longer contexts were never seen, and a step of generation has a single one.
            if bool((contexts[k] >= 0).any()):
                ends = level.ranges(contexts[k])
                lengths = ends[1] - ends[0]
                row = torch.repeat_interleave(lengths)
                before = torch.cumsum(lengths, dim=0) - lengths
                place = torch.arange(row.size(0), device=row.device) + (ends[0] - before)[row]
                flat[row * self.vocab_size + level.words(place)] = level.log_probs(place) + dropped[k + 1][row]
        return logits


def _check_tables(model: nn.Module, _: Any) -> None:
    """Check tables that were loaded from a file, which may be untrusted.

    Raises:
        DataError: the tables are not those of an n-gram model with these arguments.
    """
    assert isinstance(model, NGramModel)
    require(model.unigrams.shape == (model.vocab_size,), "their shapes do not match")
    log_prob = model.unigrams.double().numpy()
    check_log_probs(log_prob)
    if model.is_normalized:
        check_sums(np.exp(log_prob).sum(keepdims=True), 1e-3)
    contexts = model.vocab_size
    for level in model.levels:
        level.check(contexts, model.vocab_size, normalized=model.is_normalized)
        contexts = level.size()
    if model.is_normalized:
        check_backoffs(model.unigrams, list(model.levels))
